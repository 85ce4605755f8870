"""Where and how the files of a run are written, checked before anything is done."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..arguments import checked
from ..errors import Option, ReshardError
from ..formats import (
    FILE_FORMATS,
    FOLDER_FORMATS,
    FolderFormat,
    folder_format_named,
    with_secret_key,
)
from ..sizes import BUFFER_BYTES, size_of
from .progress import Progress
from .shard_reader import SMALLEST_BUFFER

__all__ = ["FORMATS", "FileOptions", "Output", "OutputOptions", "WriteOptions"]

FORMATS = (*(one.name for one in FILE_FORMATS), *(one.name for one in FOLDER_FORMATS))


class FileOptions(TypedDict, total=False):
    """How each file is written, see `SliceWriter`."""

    chunk_bytes: int
    crc_check: bool
    enc_key: bytes | None
    enc_mode: str
    sync: bool


class OutputOptions(FileOptions, total=False):
    """The options of a conversion's `check`: those of `Output`, and of its files."""

    prefix: str
    format: str | None
    partition: Mapping[str, str] | None
    buffer: int | str
    memory_limit: int | str | None
    overwrite: bool
    resume: bool
    digests: bool
    like: str | os.PathLike[str] | None
    max_shard_size: int | str | None


class WriteOptions(OutputOptions, total=False):
    """All options of `Conversion.write` but `on`."""

    route: str
    verify_source: bool
    progress: Callable[[Progress], None] | None
    cancelled: Callable[[], bool] | None


@checked
@dataclass(frozen=True)
class Output:
    """Where and how the files of a run are written.

    Parameters
    ----------
    folder
        The folder to create. It appears once everything in it is complete.
    prefix
        Files are `rank_N/<prefix>N.<format>`.
    format
        "ckpt", "safetensors", or "huggingface" (one rank; `model*.safetensors` with an index).
    partition
        Tensor -> file name, for "huggingface"; by default all in `model.safetensors`.
    like
        A Hugging Face folder, for "huggingface": its division into files is used, and the small files that
        a model needs beside its weights (`config.json`, the tokenizer's) are copied along; the configuration then
        says the dtype that the weights have now.
    max_shard_size
        For "huggingface": the most bytes of tensors in a file, such as "5GB"; a tensor that is larger has its own.
        None: all in one file.
    buffer
        Buffer size per worker, in bytes or as "64 MiB".
    memory_limit
        Memory limit per worker; the buffer is reduced to stay within it. None: no limit.
    overwrite
        Replace `folder` if it exists; the two are exchanged atomically.
    resume
        Resume an interrupted run of the same work.
    digests
        Compute a digest of every shard; without digests nothing can be verified or resumed.
    file_options
        `chunk_bytes`, `crc_check`, `enc_key`, `enc_mode`, `sync` of `SliceWriter`.

    Raises
    ------
    ReshardError
        If an option is invalid.
    CheckpointFileError, CheckpointError
        If `like` is not a Hugging Face folder, or has files that may not be copied.
    """

    folder: str | os.PathLike[str]
    prefix: str = "checkpoint_"
    format: str = "ckpt"
    partition: Mapping[str, str] | None = None
    buffer: int | str = BUFFER_BYTES
    memory_limit: int | str | None = None
    overwrite: bool = False
    resume: bool = True
    digests: bool = True
    file_options: Mapping[str, Any] = field(default_factory=dict)
    like: str | os.PathLike[str] | None = None
    max_shard_size: int | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "file_options", with_secret_key(self.file_options))
        if self.format not in FORMATS:
            given = Option("format", self.format)
            raise ReshardError(f"{given} is not one of {', '.join(FORMATS)}", given)
        if (Path(self.prefix).name != self.prefix and self.prefix) or "\0" in self.prefix:
            given = Option("prefix", self.prefix)
            raise ReshardError(
                f"{given} is the start of a file name; it may not name a folder, nor have a NUL", given
            )
        buffer = size_of(self.buffer, "buffer")
        if self.memory_limit is not None:
            limit = size_of(self.memory_limit, "memory_limit")
            if limit < SMALLEST_BUFFER:
                given, least = (
                    Option("memory_limit", self.memory_limit),
                    Option("memory_limit", SMALLEST_BUFFER),
                )
                raise ReshardError(
                    f"{given}: files are written through a buffer of at least {SMALLEST_BUFFER} bytes; use {least}",
                    given,
                    least,
                )
            buffer = min(buffer, limit)
        object.__setattr__(self, "buffer_bytes", buffer)
        if self.partition is not None and self.whole is None:
            raise _lone(Option("partition"))
        if self.max_shard_size is not None:
            self._divide(self.max_shard_size)
        if self.like is not None:
            self._take_over(self.like)

    @property
    def whole(self) -> FolderFormat | None:
        """The format of the folder, where it is one whole checkpoint; None where each rank has a file."""
        return folder_format_named(self.format)

    def _divide(self, size: int | str) -> None:
        if self.whole is None:
            raise _lone(Option("max_shard_size", size))
        if self.like is not None or self.partition is not None:
            raise _rivals("like" if self.like is not None else "partition", "max_shard_size")
        object.__setattr__(self, "shard_bytes", size_of(size, "max_shard_size"))

    def _take_over(self, like: str | os.PathLike[str]) -> None:
        if self.whole is None:
            raise _lone(Option("like", os.fspath(like)))
        if self.partition is not None:
            raise _rivals("like", "partition")
        files = self.whole.like(like)
        object.__setattr__(self, "partition", files.partition)
        object.__setattr__(self, "index_name", files.index_name)
        object.__setattr__(self, "copied", tuple(self.whole.companions(like)))

    @property
    def recorded(self) -> dict[str, Any]:
        """What of the options the bytes of the output depend on, for the record of a run that may be resumed.

        The key is left out, since nothing secret may be on the disk: an encrypted file is never resumed.
        """
        files = {key: value for key, value in self.file_options.items() if key not in ("sync", "enc_key")}
        return {
            "format": self.format,
            "prefix": self.prefix,
            "partition": dict(self.partition or {}),
            "shard_bytes": self.shard_bytes,
            "copied": [path.name for path in self.copied],
            "options": files,
            "encrypted": self.file_options.get("enc_key") is not None,
        }

    def renamed(self, names: Mapping[str, str]) -> "Output":
        """The same, with a partition that is given by other names than those of the output.

        Parameters
        ----------
        names
            Tensor of the output -> its name in `partition`.
        """
        out = copy(self)
        if self.partition is not None:
            known = {new: self.partition[name] for new, name in names.items() if name in self.partition}
            object.__setattr__(out, "partition", known)
        return out

    buffer_bytes: int = field(init=False, default=BUFFER_BYTES)
    """The buffer, in bytes."""
    shard_bytes: int | None = field(init=False, default=None)
    """The most bytes of tensors in a file; None for one file."""
    copied: tuple[Path, ...] = field(init=False, default=())
    """The files that are copied along."""
    index_name: str = field(init=False, default="")
    """How the index is called; "" writes one by the usual name where there are several files."""


def _lone(option: Option) -> ReshardError:
    """The error that an option is given which only a folder that is one whole checkpoint has."""
    whole = [Option("format", one.name) for one in FOLDER_FORMATS]
    return ReshardError(
        f"{option} is for {' or '.join(map(str, whole))}; give both, or neither", option, *whole
    )


def _rivals(*names: str) -> ReshardError:
    """The error that two options are given which say the same."""
    one, other = map(Option, names)
    return ReshardError(f"{one} and {other} both say which tensor goes into which file; give one", one, other)
