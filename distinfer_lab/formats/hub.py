"""Hugging Face folders: one whole checkpoint in several safetensors files, and an index of them.

::

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
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, CheckpointFileError, Option, Remark, listed
from ..json_kinds import kind_of_json
from ..text import shown
from ..untrusted import parse_json, read_fields, read_file
from .file_format import LikeFiles, Members

__all__ = [
    "COMPANIONS",
    "INDEX",
    "HuggingFace",
    "companions",
    "config_with_dtype",
    "hub_files",
    "hub_notes",
    "index_json",
    "index_of",
    "partition_like",
    "read_companion",
    "read_index",
    "sibling_config",
]

INDEX = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"
"""Of the indices of other libraries: diffusers' is called diffusion_pytorch_model.safetensors.index.json."""
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
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What `save_pretrained` of models, tokenizers and processors writes beside the weights, and runs no code."""


def index_of(path: str | os.PathLike[str]) -> Path | None:
    """The index of a Hugging Face folder, whatever its name begins with; None if there is none.

    Raises
    ------
    CheckpointError
        If there are several, and none has the usual name.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder if folder.name.endswith(INDEX_SUFFIX) and folder.is_file() else None
    if (folder / INDEX).is_file():
        return folder / INDEX
    found = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(found) > 1 and not (folder / SINGLE).is_file():
        names = listed(index.name for index in found)
        raise CheckpointError(
            f"{folder}: there are several indices, {names}; give one of them as the path", file=folder
        )
    return found[0] if len(found) == 1 and found[0].is_file() else None


def hub_files(path: str | os.PathLike[str]) -> list[str] | None:
    """The files of a Hugging Face folder (or of its index), in order; None if it is none.

    Raises
    ------
    CheckpointError
        If the index is damaged, or names a file outside the folder.
    """
    found = HuggingFace().members(path)
    return None if found is None else list(found.files)


class HuggingFace:
    """A `FolderFormat`: one whole checkpoint in safetensors files."""

    name = "huggingface"
    title = "Hugging Face"
    signs = f"{SINGLE} or {INDEX}"
    file_format = "safetensors"
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    index_name = INDEX

    def members(self, path: str | os.PathLike[str]) -> Members | None:
        """See `FolderFormat`."""
        index = index_of(path)
        if index is not None:
            listed_in = read_index(index)
            names = dict.fromkeys(sorted(listed_in.values()))
            return Members(tuple(os.fspath(index.parent / name) for name in names), listed_in, index.name)
        single = Path(path) / SINGLE
        return Members((os.fspath(single),)) if single.is_file() else None

    def notes(self, folder: Path) -> list[str]:
        """Which safetensors files of the folder are not a part of it."""
        return hub_notes(folder)

    def file_names(self, count: int) -> list[str]:
        """See `FolderFormat`."""
        if count == 1:
            return [SINGLE]
        return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]

    def like(self, path: str | os.PathLike[str]) -> LikeFiles:
        """See `FolderFormat`."""
        return partition_like(path)

    def companions(self, path: str | os.PathLike[str]) -> list[Path]:
        """See `FolderFormat`."""
        return companions(path)

    def companion(self, path: Path, dtypes: Iterable[str]) -> bytes:
        """See `FolderFormat`; `config.json` says the dtype of the weights."""
        data = read_companion(path)
        return config_with_dtype(data, dtypes) if path.name == "config.json" else data

    def index(self, listed_in: Mapping[str, str], nbytes: int, elements: int) -> bytes:
        """See `FolderFormat`."""
        return index_json(listed_in, nbytes, elements)


def hub_notes(folder: Path) -> list[str]:
    """Which safetensors files of a Hugging Face folder are not a part of it."""
    used = {Path(file).name for file in hub_files(folder) or ()}
    unused = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in used)
    if not unused:
        return []
    index = index_of(folder)
    why = f"{SINGLE} is used" if index is None else f"{index.name} does not name them"
    choose = Option("file", unused[0])
    return [Remark(f"{folder}: not opened, since {why}: {listed(unused)}; {choose} chooses", choose)]


def partition_like(folder: str | os.PathLike[str]) -> LikeFiles:
    """How a Hugging Face folder (or an index) is divided into files.

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
            f"{path}: it is not a Hugging Face folder; give one with {SINGLE} or {INDEX} in it", file=path
        )
    index = index_of(path)
    return LikeFiles(None, "") if index is None else LikeFiles(read_index(index), index.name)


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


def sibling_config(path: str | os.PathLike[str]) -> dict[str, Any] | None:
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
            f"{path}: it is a link that leaves the folder; put the file itself in its place", file=path
        )
    try:
        found = path.stat()
    except OSError as err:
        raise CheckpointFileError(f"{path}: {err.strerror}; it was to be copied along", file=path) from err
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(
            f"{path}: it is no regular file, so it cannot be copied; remove or rename it", file=path
        )
    if found.st_size > LARGEST_COMPANION:
        raise CheckpointError(
            f"{path}: {found.st_size} bytes, and at most {LARGEST_COMPANION} are copied; remove or rename it",
            file=path,
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
        raise CheckpointFileError(f"{path}: {err.strerror}; it was to be copied along", file=path) from err


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
    found: Any = None
    try:
        found = parse_json(read_file(index, LARGEST_INDEX))
        names = read_fields(
            read_fields(found, "its content", "weight_map")["weight_map"], "its field weight_map"
        )
    except OSError as err:
        raise CheckpointFileError(f"{index}: {err.strerror}; check the path", file=index) from err
    except ValueError as err:
        known = kind_of_json(found, "index") or f"{err!s:.200}; copy or download it again"
        raise CheckpointError(
            f"{index}: not a valid index of safetensors files: {known}", of=known, file=index
        ) from err
    if not names:
        raise CheckpointError(f"{index}: it names no tensors; copy or download it again", file=index)
    for name in names.values():
        if not isinstance(name, str):
            raise CheckpointError(f"{index}: it names the file {shown(name)}; a name is a text", file=index)
        if name in ("", ".", "..") or not OUTSIDE.isdisjoint(name):
            raise CheckpointError(
                f"{index}: it names the file {shown(name)}, which leaves the folder", file=index
            )
    return names


def index_json(weight_map: Mapping[str, str], total_bytes: int, total_elements: int) -> bytes:
    """The content of an index, as `save_pretrained` writes it."""
    found = {
        "metadata": {"total_parameters": total_elements, "total_size": total_bytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()
