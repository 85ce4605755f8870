"""Hugging Face folders: one whole checkpoint in several safetensors files, and an index of them.

    model.safetensors.index.json   {"metadata": {...}, "weight_map": {tensor: file name}}
    model-00001-of-00010.safetensors ...
or  model.safetensors
    config.json tokenizer.json ...  what else a program needs to use the model: its companions

References
----------
`save_pretrained` of https://github.com/huggingface/transformers writes them.
"""

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import CheckpointError, CheckpointFileError, listed
from ..layout import Box
from ..text import printable, shown
from ..untrusted import parse_json, read_file
from .entry import Entry
from .slice_file import WINDOW_BYTES, SliceFile, open_slice

__all__ = [
    "COMPANIONS",
    "INDEX",
    "FileSet",
    "companions",
    "config_beside",
    "config_with_dtype",
    "hub_files",
    "index_json",
    "open_files",
    "partition_like",
    "read_companion",
    "read_index",
]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LARGEST_INDEX = 1 << 30
OUTSIDE = frozenset("/\\\0")
"""Characters by which a file's name could leave the folder."""
LARGEST_COMPANION = 64 << 20

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What `save_pretrained` of models, tokenizers and processors writes beside the weights, and runs no code."""

Array = NDArray[Any]


def hub_files(path: str | os.PathLike[str]) -> list[str] | None:
    """The files of a Hugging Face folder (or of its index), in order; None if it is none.

    Raises
    ------
    CheckpointError
        If the index is damaged, or names a file outside the folder.
    """
    index = Path(path)
    if index.is_dir():
        if (index / SINGLE).is_file() and not (index / INDEX).exists():
            return [os.fspath(index / SINGLE)]
        index = index / INDEX
    if not index.name.endswith(".safetensors.index.json") or not index.is_file():
        return None
    return [os.fspath(index.parent / name) for name in dict.fromkeys(sorted(read_index(index).values()))]


def partition_like(folder: str | os.PathLike[str]) -> dict[str, str] | None:
    """Tensor -> file name, as a Hugging Face folder (or an index) has it; None: all are in one file.

    Raises
    ------
    CheckpointFileError
        If the folder is none.
    CheckpointError
        If its index is damaged.
    """
    path = Path(folder)
    if hub_files(path) is None:
        raise CheckpointFileError(
            f"{path}: it is no Hugging Face folder; give one with {SINGLE} or {INDEX} in it"
        )
    index = path / INDEX if path.is_dir() else path
    return read_index(index) if index.is_file() else None


def companions(folder: str | os.PathLike[str]) -> list[Path]:
    """The small files beside a model, by `COMPANIONS`, that are there: regular files of the folder.

    Raises
    ------
    CheckpointFileError
        If one cannot be looked at.
    CheckpointError
        If one is no regular file, leads out of the folder, or is too large to be what its name says.
    """
    home = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    found = [home / name for name in COMPANIONS if os.path.lexists(home / name)]
    for path in found:
        _check_companion(home, path)
    return found


def config_beside(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The `config.json` of a folder, or of the folder of a file; None if there is none that can be read."""
    home = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        fields = parse_json(read_file(home / "config.json", LARGEST_COMPANION), finite=False)
    except (OSError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None


def _check_companion(home: Path, path: Path) -> None:
    inside = Path(os.path.realpath(home))
    # A snapshot in Hugging Face's cache links to the blobs of the same model.
    blobs = inside.parent.with_name("blobs") if inside.parent.name == "snapshots" else inside
    if Path(os.path.realpath(path)).parent not in (inside, blobs):
        raise CheckpointError(
            f"{path}: it is a link that leaves the folder; put the file itself in its place"
        )
    try:
        found = path.stat()
    except OSError as err:
        raise CheckpointFileError(f"{path}: {err.strerror}; it was to be copied along") from err
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: it is no regular file, so it cannot be copied; remove or rename it")
    if found.st_size > LARGEST_COMPANION:
        raise CheckpointError(
            f"{path}: {found.st_size} bytes, and at most {LARGEST_COMPANION} are copied; remove or rename it"
        )


def read_companion(path: Path) -> bytes:
    """The content of a file that `companions` named.

    Raises
    ------
    CheckpointFileError
        If it cannot be read.
    CheckpointError
        If it is not, or no more, what may be copied.
    """
    _check_companion(path.parent, path)
    try:
        return read_file(path, LARGEST_COMPANION)
    except OSError as err:
        raise CheckpointFileError(f"{path}: {err.strerror}; it was to be copied along") from err


def config_with_dtype(config: bytes, dtypes: Iterable[str]) -> bytes:
    r"""The `config.json` of weights with these dtypes: what it says of them at its top is made true.

    `from_pretrained(dtype="auto")` makes the model with the field `dtype` (`torch_dtype` before transformers 5),
    which the configurations of parts (`text_config`) have, too. Where the weights have several floating dtypes,
    or the configuration says none, it stays byte for byte.

    >>> config_with_dtype(b'{"torch_dtype": "float32"}', ["bfloat16", "int64"])
    b'{\n  "torch_dtype": "bfloat16"\n}\n'
    """
    floats = {name for name in dtypes if "float" in name}
    try:
        fields = parse_json(config, finite=False)
    except ValueError:
        return config
    # Of a quantised model it is the dtype of what is computed, which no tensor need have.
    if len(floats) != 1 or not isinstance(fields, dict) or "quantization_config" in fields:
        return config
    changed = _with_dtype(fields, *floats)
    return config if changed == fields else f"{json.dumps(changed, indent=2, ensure_ascii=False)}\n".encode()


def _with_dtype(fields: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The fields, and those of the configurations of parts, with another dtype where they say one."""
    out = dict(fields)
    for key, value in fields.items():
        if key in ("dtype", "torch_dtype") and isinstance(value, str):
            out[key] = dtype
        elif key.endswith("_config") and isinstance(value, dict):
            out[key] = _with_dtype(value, dtype)
    return out


def read_index(index: Path) -> dict[str, str]:
    """Tensor -> file name, of an index.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If it cannot be read or is damaged, or a name leaves the folder.
    """
    try:
        found = parse_json(read_file(index, LARGEST_INDEX))
        names = dict(found["weight_map"].items())
    except OSError as err:
        raise CheckpointFileError(f"{index}: {err.strerror}; check the path") from err
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(
            f"{index}: not a valid index of safetensors files ({type(err).__name__}: {err!s:.200})"
        ) from err
    for name in names.values():
        if not isinstance(name, str):
            raise CheckpointError(f"{index}: it names the file {shown(name)}; a name is a text")
        if name in ("", ".", "..") or not OUTSIDE.isdisjoint(name):
            raise CheckpointError(f"{index}: it names the file {shown(name)}, which leaves the folder")
    return names


def index_json(weight_map: Mapping[str, str], total_bytes: int, total_elements: int) -> bytes:
    """The content of an index, as `save_pretrained` writes it."""
    found = {
        "metadata": {"total_parameters": total_elements, "total_size": total_bytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()


class FileSet(Displayed):
    """Several files that together hold one rank's slices; used like a `SliceFile`.

    Raises
    ------
    CheckpointError
        If two files have an entry of one name.
    """

    format = "safetensors"

    def __init__(self, path: str, files: Mapping[str, SliceFile]) -> None:
        self.path, self._files = path, dict(files)
        self._of: dict[str, SliceFile] = {}
        entries: dict[str, Entry] = {}
        for file in self._files.values():
            for name, entry in file.entries.items():
                if name in entries:
                    raise CheckpointError(f"{file.path}: {name} is also in {self._of[name].path}; remove one")
                self._of[name], entries[name] = file, entry
        self.entries: Mapping[str, Entry] = MappingProxyType(entries)

    @property
    def files(self) -> list[SliceFile]:
        """The files, in order."""
        return list(self._files.values())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def nbytes_read(self) -> int:
        """Bytes of content read so far."""
        return sum(file.nbytes_read for file in self.files)

    def __enter__(self) -> "FileSet":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = f"{counted(len(self.files), 'file')}, {counted(len(self.entries), 'entry')}"
        return f"FileSet({printable(self.path)}, {counts})"

    def _holder(self, name: str) -> SliceFile:
        if name not in self._of:
            raise CheckpointError(f"{self.path} has no entry {name!r}; it has {listed(self.entries)}")
        return self._of[name]

    def entry(self, name: str) -> Entry:
        """See `SliceFile.entry`."""
        return self._holder(name).entry(name)

    def text(self, name: str) -> str:
        """See `SliceFile.text`."""
        return self._holder(name).text(name)

    def read(self, name: str, box: Box | None = None) -> Array:
        """See `SliceFile.read`."""
        return self._holder(name).read(name, box)

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int = WINDOW_BYTES) -> int:
        """See `SliceFile.read_into`."""
        return self._holder(name).read_into(name, box, out, buffer_bytes)

    def fill(self, name: str, start: int, target: memoryview) -> None:
        """See `SliceFile.fill`."""
        self._holder(name).fill(name, start, target)

    def scatter(self, name: str, start: int, targets: Sequence[memoryview], nbytes: int) -> None:
        """See `SliceFile.scatter`."""
        self._holder(name).scatter(name, start, targets, nbytes)

    def check_unchanged(self) -> None:
        """See `SliceFile.check_unchanged`."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()


def open_files(path: str | os.PathLike[str], **options: Any) -> SliceFile | FileSet:
    """Open what holds one rank's slices: a file, or a Hugging Face folder or its index.

    Parameters
    ----------
    options
        Of `open_slice`.

    Raises
    ------
    CheckpointFileError, CheckpointError, EncryptionError
        As `open_slice`; and if the index and the files disagree.
    """
    paths = hub_files(path)
    if paths is None:
        return open_slice(path, **options)
    with ExitStack() as stack:
        files = {Path(p).name: stack.enter_context(open_slice(p, **options)) for p in paths}
        out = FileSet(os.fspath(path), files)
        index = Path(path) / INDEX if Path(path).is_dir() else Path(path)
        if index.is_file():
            _check_index(index, files)
        stack.pop_all()
        return out


def _check_index(index: Path, files: Mapping[str, SliceFile]) -> None:
    for tensor, name in read_index(index).items():
        if tensor not in files[name].entries:
            raise CheckpointError(f"{index}: {tensor} should be in {name}, but that file has no such tensor")
