"""The manifest beside an output: what lies where, and the digest of every shard.

    out/distinfer.json
    {"format": "distinfer-manifest", "version": 1, "program": "distinfer_lab 0.1.0",
     "source": [{"path": ..., "size": ..., "mtime_ns": ...}],           what it was made from
     "strategy": {"ranks": ..., "layouts": [...], "tensors": {...}},    see layout/dialects/plain.py
     "plain": ["step"],                                                 what no strategy named; all hold it whole
     "texts": {"note": "..."},
     "files": [{"rank": 0, "path": "rank_0/checkpoint_0.ckpt", "size": ...,
                "tensors": {"w": {"dtype": "float32", "shape": [...],
                                  "pieces": [[offset, length], ...], "xxh3_128": "..."}}}],
     "beside": [{"path": "config.json", "size": ..., "xxh3_128": "..."}]}   small files without shards

`shape` is the shard's; `pieces` are the runs of the file that make up its bytes. A tensor that no
layout can say (states that stayed as they were) is in `files` only. Without `plain` and `beside` there are none.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import CheckpointError, CheckpointFileError
from ..layout import Strategy
from ..layout.dialects.plain import strategy_from_json, strategy_to_json
from ..text import shown
from ..untrusted import parse_json, read_file, read_int, read_shape

__all__ = ["MANIFEST", "Manifest", "ManifestBeside", "ManifestFile", "ManifestTensor", "read_manifest"]

MANIFEST = "distinfer.json"
LARGEST_BYTES = 4 << 30


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

    def to_json(self) -> bytes:
        """The content of the manifest file."""
        found = {
            "format": "distinfer-manifest",
            "version": 1,
            "program": self.program,
            "source": [dict(item) for item in self.source],
            "strategy": strategy_to_json(self.strategy),
            "plain": list(self.plain),
            "texts": dict(self.texts),
            "files": [
                {
                    "rank": file.rank,
                    "path": file.path,
                    "size": file.size,
                    "tensors": {
                        name: {
                            "dtype": item.dtype,
                            "shape": item.shape,
                            "pieces": item.pieces,
                            "xxh3_128": item.digest,
                        }
                        for name, item in file.tensors.items()
                    },
                }
                for file in self.files
            ],
            "beside": [{"path": b.path, "size": b.size, "xxh3_128": b.digest} for b in self.beside],
        }
        return json.dumps(found, indent=1).encode() + b"\n"


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises
    ------
    CheckpointFileError
        If it cannot be read.
    CheckpointError
        If it is damaged, of a later version, or names a file outside the folder.
    """
    path = Path(folder) / MANIFEST
    try:
        data = read_file(path, LARGEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise CheckpointFileError(f"{path}: {err.strerror}; check the folder") from err
    try:
        return _manifest(parse_json(data))
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(
            f"{path}: the manifest is damaged ({type(err).__name__}: {err!s:.200})"
        ) from err


def _manifest(found: Any) -> Manifest:
    if found["format"] != "distinfer-manifest" or found["version"] != 1:
        raise ValueError(
            f"format {shown(found['format'])} version {shown(found['version'])}; version 1 is known"
        )
    strategy = strategy_from_json(found["strategy"])
    return Manifest(
        tuple(_file(item, strategy.ranks) for item in _list(found["files"])),
        strategy,
        {name: _text(text) for name, text in found["texts"].items()},
        tuple(dict(item) for item in _list(found["source"])),
        _text(found["program"]),
        tuple(_beside(item) for item in _list(found.get("beside", []))),
        tuple(map(_text, _list(found.get("plain", [])))),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{shown(value)} should be a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} should be a text")
    return value


def _inner_path(item: Any) -> str:
    """The path that an entry names, which must stay in the folder."""
    name = _text(item["path"])
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or not inner.parts or "\\" in name or "\0" in name:
        raise ValueError(f"it names the file {shown(name)}, which leaves the folder")
    return name


def _beside(item: Any) -> ManifestBeside:
    return ManifestBeside(_inner_path(item), read_int(item["size"], "size"), _text(item["xxh3_128"]))


def _file(item: Any, ranks: int) -> ManifestFile:
    size = read_int(item["size"], "size")
    return ManifestFile(
        read_int(item["rank"], "rank", 0, ranks - 1),
        _inner_path(item),
        size,
        {name: _tensor(name, tensor, size) for name, tensor in item["tensors"].items()},
    )


def _tensor(name: str, item: Any, size: int) -> ManifestTensor:
    """A shard, whose bytes lie within a file of `size` bytes."""
    pieces = []
    for piece in _list(item["pieces"]):
        offset, length = _list(piece)
        start = read_int(offset, f"{name:.80}: a piece's offset", 0, size)
        pieces.append((start, read_int(length, f"{name:.80}: a piece's length", 0, size - start)))
    return ManifestTensor(
        _text(item["dtype"]),
        read_shape(item["shape"], f"{name:.80}: its shape"),
        tuple(pieces),
        None if item["xxh3_128"] is None else _text(item["xxh3_128"]),
    )
