"""The protocols of a checkpoint format: `FileFormat` for one rank's file, `FolderFormat` for a folder of files.

To add a format, implement one of them in a module of its own and register it by one line in `file_formats`.
Decryption, file descriptors, reads of boxes, digests and resumed runs are shared by all formats.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from .entry import Entry, TensorSpec

__all__ = ["FileFormat", "FileIndex", "FileLayout", "FolderFormat", "LikeFiles", "Members", "ReadAt"]

ReadAt = Callable[[int, int], bytes]
"""read_at(offset, count) returns up to `count` bytes."""


class FileIndex(NamedTuple):
    """What is in a file."""

    entries: Mapping[str, Entry]
    texts: Mapping[str, str]
    """Texts that are stored in the header, without an entry of their own."""
    cut: str = ""
    """Error message if the file is truncated before the end of its last tensor; "" if it is complete."""


class FileLayout(NamedTuple):
    """The layout of a new file."""

    frame: list[tuple[int, bytes]]
    """Offset and bytes of everything other than tensor content (headers, texts), in order."""
    entries: Mapping[str, Entry]
    size: int
    """Size in bytes, without the checksum."""


class FileFormat(Protocol):
    """A file format for the slices of one rank.

    Attributes
    ----------
    name : str
        The value of `format=`; also the file extension, without the dot.
    title : str
        The name in messages: "a <title> file".
    head : bytes
        A regular expression for the first bytes, by which files with another extension are recognised.
    has_checksum : bool
        Whether files may be encrypted and may end in a checksum, as MindSpore's do.
    """

    name: str
    title: str
    head: bytes
    has_checksum: bool

    def index(self, path: str, read_at: ReadAt, size: int) -> FileIndex:
        """Index a file of `size` bytes. Every number from the file must be checked before it sizes an allocation.

        Raises
        ------
        CheckpointError
            If the file is damaged or has another format.
        """
        ...

    def problem(self, spec: TensorSpec) -> str:
        """Return why a file cannot hold an entry, as a clause for an error message; "" if it can."""
        ...

    def lay_out(
        self, specs: Sequence[TensorSpec], chunk_bytes: int, metadata: Mapping[str, str] | None
    ) -> FileLayout:
        """Lay out a new file with these entries.

        Parameters
        ----------
        chunk_bytes
            The maximum content of one message, for formats that consist of messages.
        metadata
            File-level metadata, for formats that store it.

        Raises
        ------
        CheckpointError
            If the format has no name for a dtype.
        """
        ...


class Members(NamedTuple):
    """The files of a folder that together hold one rank's slices."""

    files: tuple[str, ...]
    """Their paths, in order; some may be missing."""
    listed_in: Mapping[str, str] | None = None
    """Tensor -> file name, from the index."""
    index_name: str = ""
    """"" if there is no index."""


class LikeFiles(NamedTuple):
    """How the tensors of an existing folder are divided into files, for a new folder with the same division."""

    partition: dict[str, str] | None
    """Tensor -> file name; None for a single file."""
    index_name: str
    """"" if there is no index."""


class FolderFormat(Protocol):
    """A folder format: the files of a folder are one unsharded checkpoint, as in a Hugging Face model folder.

    Attributes
    ----------
    name : str
        The value of `format=`.
    title : str
        The name in messages: "a <title> folder".
    signs : str
        The file names by which a folder is recognised, for messages.
    file_format : str
        The name of the `FileFormat` of the files.
    metadata : Mapping[str, str]
        File-level metadata of each file.
    index_name : str
        The default file name of the index.
    """

    name: str
    title: str
    signs: str
    file_format: str
    metadata: Mapping[str, str]
    index_name: str

    def members(self, path: str | os.PathLike[str]) -> Members | None:
        """Return the files of a folder, or of the index file in it; None if the path does not have this format.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If the path has this format but its index is damaged.
        """
        ...

    def notes(self, folder: Path) -> list[str]:
        """Return a note for each part of the folder that is not used."""
        ...

    def file_names(self, count: int) -> list[str]:
        """Return the names of the files of a new folder with `count` files, in order."""
        ...

    def like(self, path: str | os.PathLike[str]) -> LikeFiles:
        """Return how a folder is divided into files, to divide a new one alike.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If the folder does not have this format, or is damaged.
        """
        ...

    def companions(self, path: str | os.PathLike[str]) -> list[Path]:
        """Return the small files that are copied to a new folder, such as the configuration and the tokenizer.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If one of them may not be copied.
        """
        ...

    def companion(self, path: Path, dtypes: Iterable[str]) -> bytes:
        """Return what to write for a companion file, given the dtypes of the new tensors.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If the file cannot be read, or may no longer be copied.
        """
        ...

    def index(self, listed_in: Mapping[str, str], nbytes: int, elements: int) -> bytes:
        """Return the content of an index file.

        Parameters
        ----------
        listed_in
            Tensor -> file name.
        nbytes, elements
            Totals over all tensors.
        """
        ...
