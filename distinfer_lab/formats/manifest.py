"""The manifest of an output: what is where, and digests of every byte.

::

    out/distinfer.json
    {"format": "distinfer-manifest", "version": 2, "program": "distinfer_lab 0.1.0",
     "source": [{"path": ..., "size": ..., "mtime_ns": ...}],           what it was made from
     "strategy": {"ranks": ..., "layouts": [...], "tensors": {...}},    see layout/dialects/plain.py
     "plain": ["step"],                                                 what no strategy named; all hold it whole
     "texts": {"note": "..."},
     "files": [{"rank": 0, "path": "rank_0/checkpoint_0.ckpt", "size": ..., "frame": "...", "cipher": null,
                "tensors": {"w": {"dtype": "float32", "shape": [...],
                                  "pieces": [[offset, length], ...], "xxh3_128": "..."}}}],
     "beside": [{"path": "config.json", "size": ..., "xxh3_128": "..."}],   small files without shards
     "xxh3_128": "..."}                                                     of the manifest, up to this digest

`shape` is the shard's; `pieces` are the runs of the file that make up its bytes. `frame` is the digest of
all other bytes of the file (headers, texts, a checksum), in order. An encrypted file also has `cipher`, the
digest of all its bytes as they are on the disk: the other digests, and the pieces, are of its plain bytes.
A tensor that no layout can say (states that stayed as they were) is in `files` only.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import xxhash

from ..errors import CheckpointError, CheckpointFileError, Option
from ..layout import Strategy
from ..layout.dialects.plain import strategy_from_json, strategy_to_json
from ..text import shown
from ..untrusted import parse_json, read_fields, read_file, read_int, read_shape

__all__ = [
    "MANIFEST",
    "Manifest",
    "ManifestBeside",
    "ManifestFile",
    "ManifestTensor",
    "read_manifest",
    "sealed",
]

MANIFEST = "distinfer.json"
VERSION = 2
LARGEST_BYTES = 4 << 30
DIGEST_DIGITS = 32
BLOCK_LINES = 4096
SEAL = b'"\n}\n'
"""What follows the manifest's own digest."""
STRATEGY = Option("strategy")
WAY_OUT = (
    "write the output again from its source; or remove this file, and open the others with the strategy that they "
    f"were written for ({STRATEGY})"
)


class ManifestTensor(NamedTuple):
    """One shard."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]
    """Offset and length of the runs in the file that make it up."""
    digest: str | None
    """xxh3-128 of its bytes, in hex; None if none was taken."""

    @property
    def nbytes(self) -> int:
        """Bytes of the shard."""
        return sum(length for _, length in self.pieces)


class ManifestFile(NamedTuple):
    """One file."""

    rank: int
    path: str
    """Relative to the folder, with forward slashes."""
    size: int
    tensors: Mapping[str, ManifestTensor]
    frame: str | None
    """xxh3-128 of all bytes of the (plain) file outside the tensors, in hex; None if none was taken."""
    cipher: str | None = None
    """xxh3-128 of all bytes of an encrypted file, in hex."""


class ManifestBeside(NamedTuple):
    """A small file without shards: an index, or one that was copied along."""

    path: str
    """Relative to the folder, with forward slashes."""
    size: int
    digest: str
    """xxh3-128 of its bytes, in hex."""


@dataclass(frozen=True)
class Manifest:
    """What an output folder holds (see above)."""

    files: tuple[ManifestFile, ...]
    strategy: Strategy
    texts: Mapping[str, str]
    source: tuple[Mapping[str, Any], ...] = ()
    program: str = ""
    beside: tuple[ManifestBeside, ...] = ()
    plain: tuple[str, ...] = ()
    """Tensors that are no parameters and no states: no strategy named them."""

    @property
    def named(self) -> tuple[ManifestFile | ManifestBeside, ...]:
        """All files that it names."""
        return (*self.files, *self.beside)

    def to_json(self) -> Iterator[bytes]:
        """The content of the manifest file, block by block, with its own digest at the end."""
        lines = chain(self._lines(), [' "xxh3_128": "'])
        digest = xxhash.xxh3_128()
        while block := "".join(islice(lines, BLOCK_LINES)).encode():
            digest.update(block)
            yield block
        yield digest.hexdigest().encode() + SEAL

    def _lines(self) -> Iterator[str]:
        head = {
            "format": "distinfer-manifest",
            "version": VERSION,
            "program": self.program,
            "source": [dict(item) for item in self.source],
            "strategy": strategy_to_json(self.strategy),
            "plain": list(self.plain),
            "texts": dict(self.texts),
            "beside": [{"path": b.path, "size": b.size, "xxh3_128": b.digest} for b in self.beside],
        }
        yield "{\n"
        for name, value in head.items():
            yield f' "{name}": {json.dumps(value)},\n'
        yield ' "files": ['
        for number, file in enumerate(self.files):
            yield ",\n  " if number else "\n  "
            yield from _file_lines(file)
        yield "\n ],\n"


def _file_lines(file: ManifestFile) -> Iterator[str]:
    """A file as JSON, a line for each tensor."""
    head = {name: getattr(file, name) for name in ("rank", "path", "size", "frame", "cipher")}
    yield json.dumps(head).removesuffix("}") + ', "tensors": {'
    kinds: dict[tuple[str, tuple[int, ...]], str] = {}
    quoted = json.JSONEncoder().encode
    between = "\n"
    for name, (dtype, shape, pieces, digest) in file.tensors.items():
        kind = kinds.get((dtype, shape))
        if kind is None:
            kind = json.dumps({"dtype": dtype, "shape": shape}).removesuffix("}")
            kinds[dtype, shape] = kind
        runs = ", ".join([f"[{offset}, {length}]" for offset, length in pieces])
        found = "null" if digest is None else f'"{digest}"'
        yield f'{between}   {quoted(name)}: {kind}, "pieces": [{runs}], "xxh3_128": {found}}}'
        between = ",\n"
    yield "}}"


def sealed(content: Mapping[str, Any]) -> bytes:
    r"""The content of a manifest file, with its own digest at the end.

    Examples
    --------
    >>> sealed({"version": 2})
    b'{\n "version": 2,\n "xxh3_128": "cf0a56a6f942ce829bed8d2ea74609c8"\n}\n'
    """
    data = json.dumps({**content, "xxh3_128": ""}, indent=1).encode() + b"\n"
    return seal(data.removesuffix(SEAL))


def seal(data: bytes) -> bytes:
    """The content of a manifest file, from what comes before its own digest."""
    return data + xxhash.xxh3_128(data).hexdigest().encode() + SEAL


def _is_sealed(data: bytes) -> bool:
    """Whether a manifest has the digest that it was written with."""
    return data == seal(data[: -len(SEAL) - DIGEST_DIGITS])


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises
    ------
    CheckpointFileError
        If it cannot be read.
    CheckpointError
        If it is damaged, of another version, or names a file outside the folder.
    """
    path = Path(folder) / MANIFEST
    try:
        data = read_file(path, LARGEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise CheckpointFileError(f"{path}: {err.strerror}; check the folder", file=path) from err
    try:
        found = parse_json(data)
        _check_version(path, found)
        if not _is_sealed(data):
            raise ValueError("its own digest differs, so it was changed since it was written")
        return _manifest(found)
    except ValueError as err:
        if isinstance(err, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: the manifest is damaged: {err!s:.200}; {WAY_OUT}", STRATEGY, of=err, file=path
        ) from err


def _check_version(path: Path, content: Any) -> None:
    found = read_fields(content, "its content", "format", "version")
    if found["format"] != "distinfer-manifest":
        raise ValueError(f"format {shown(found['format'])}, not 'distinfer-manifest'")
    if found["version"] == VERSION:
        return
    if found["version"] == 1:
        raise CheckpointError(
            f"{path}: the manifest is of version 1, whose digests leave out headers and texts; {WAY_OUT}",
            STRATEGY,
            file=path,
        )
    raise ValueError(f"version {shown(found['version'])}; version {VERSION} is supported")


def _manifest(content: Any) -> Manifest:
    found = read_fields(
        content, "its content", "strategy", "files", "plain", "texts", "source", "program", "beside"
    )
    strategy = strategy_from_json(found["strategy"])
    return Manifest(
        tuple(_file(item, strategy.ranks) for item in _list(found["files"])),
        strategy,
        {name: _text(text) for name, text in read_fields(found["texts"], "texts").items()},
        tuple(read_fields(item, "a source") for item in _list(found["source"])),
        _text(found["program"]),
        tuple(_beside(item) for item in _list(found["beside"])),
        tuple(map(_text, _list(found["plain"]))),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} should be a list")  # noqa: TRY004 - of a file
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} should be a text")  # noqa: TRY004 - of a file
    return value


def _inner_path(item: Any) -> str:
    """The path that an entry names, which must stay in the folder."""
    name = _text(item["path"])
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or not inner.parts or "\\" in name or "\0" in name:
        raise ValueError(f"it names the file {shown(name)}, which leaves the folder")
    return name


def _beside(found: Any) -> ManifestBeside:
    item = read_fields(found, "a file", "path", "size", "xxh3_128")
    return ManifestBeside(_inner_path(item), read_int(item["size"], "size"), _text(item["xxh3_128"]))


def _file(found: Any, ranks: int) -> ManifestFile:
    item = read_fields(found, "a file", "rank", "path", "size", "tensors", "frame", "cipher")
    size = read_int(item["size"], "size")
    return ManifestFile(
        read_int(item["rank"], "rank", 0, ranks - 1),
        _inner_path(item),
        size,
        {
            name: _tensor(name, tensor, size)
            for name, tensor in read_fields(item["tensors"], "tensors").items()
        },
        _digest_or_none(item["frame"]),
        _digest_or_none(item["cipher"]),
    )


def _digest_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _tensor(name: str, found: Any, size: int) -> ManifestTensor:
    """A shard, whose bytes lie within a file of `size` bytes."""
    item = read_fields(found, f"{name:.80}", "dtype", "shape", "pieces", "xxh3_128")
    pieces = []
    for piece in _list(item["pieces"]):
        offset, length = _list(piece)
        start = read_int(offset, f"{name:.80}: a piece's offset", 0, size)
        pieces.append((start, read_int(length, f"{name:.80}: a piece's length", 0, size - start)))
    return ManifestTensor(
        _text(item["dtype"]),
        read_shape(item["shape"], f"{name:.80}: its shape"),
        tuple(pieces),
        _digest_or_none(item["xxh3_128"]),
    )
