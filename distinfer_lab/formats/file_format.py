"""What a format has to know: how to index a file, what it can hold, how to lay out a new one; or what is in a folder.

A format is a class with the members of `FileFormat` or `FolderFormat` in a module of its own, and one line in
`file_formats`. Everything else (decryption, descriptors, reads of boxes, digests, resumed runs) is the same for all.
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
    """Texts that are no entries with content of their own, as in a header."""
    cut: str = ""
    """That the file ends before its last tensor does, as a sentence; "" if it does not."""


class FileLayout(NamedTuple):
    """How a new file is laid out."""

    frame: list[tuple[int, bytes]]
    """Offset and bytes of everything that is no tensor's content: headers and texts, in order."""
    entries: Mapping[str, Entry]
    size: int
    """In bytes, without a checksum."""


class FileFormat(Protocol):
    """A format of one rank's files.

    Attributes
    ----------
    name : str
        As users say it in `format=`; files of this format end in `.<name>`.
    title : str
        As texts say it: "a <title> file".
    head : bytes
        A pattern of the first bytes of a file, by which one under another name is recognised.
    has_checksum : bool
        Whether a checksum may stand at the end of a file, and a file may be encrypted, as MindSpore does.
    """

    name: str
    title: str
    head: bytes
    has_checksum: bool

    def index(self, path: str, read_at: ReadAt, size: int) -> FileIndex:
        """Index a file of `size` bytes; every number in it is checked before it sizes anything.

        Raises
        ------
        CheckpointError
            If it is damaged, or of another format.
        """
        ...

    def problem(self, spec: TensorSpec) -> str:
        """Why a file cannot hold an entry, as a clause; "" if it can."""
        ...

    def lay_out(
        self, specs: Sequence[TensorSpec], chunk_bytes: int, metadata: Mapping[str, str] | None
    ) -> FileLayout:
        """Lay out a new file that holds these entries.

        Parameters
        ----------
        chunk_bytes
            The most content of one message, where a format has messages.
        metadata
            What the file says of itself, where a format has a place for it.

        Raises
        ------
        CheckpointError
            If the format has no name for a dtype.
        """
        ...


class Members(NamedTuple):
    """The files of a folder that together hold one rank's slices."""

    files: tuple[str, ...]
    """Their paths, in order; not all need be there."""
    listed_in: Mapping[str, str] | None = None
    """Tensor -> file name, as an index has it."""
    index_name: str = ""
    """"" if there is no index."""


class LikeFiles(NamedTuple):
    """How a folder is divided into files, for another that is to be like it."""

    partition: dict[str, str] | None
    """Tensor -> file name; None if there is one file."""
    index_name: str
    """"" if it has no index."""


class FolderFormat(Protocol):
    """A folder whose files are one whole checkpoint, as some program saves it: how it is read, and written.

    Attributes
    ----------
    name : str
        As users say it in `format=`.
    title : str
        As texts say it: "a <title> folder".
    signs : str
        The names by which one is recognised, for texts.
    file_format : str
        The name of the `FileFormat` of its files.
    metadata : Mapping[str, str]
        What each of its files says of itself.
    index_name : str
        How the index of several files is called.
    """

    name: str
    title: str
    signs: str
    file_format: str
    metadata: Mapping[str, str]
    index_name: str

    def members(self, path: str | os.PathLike[str]) -> Members | None:
        """The files of such a folder, or of the file in it that lists them; None if it is none.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If it is one, and what lists its files is damaged.
        """
        ...

    def notes(self, folder: Path) -> list[str]:
        """What of such a folder is not used, a sentence each."""
        ...

    def file_names(self, count: int) -> list[str]:
        """How so many files of a new folder are called, in order."""
        ...

    def like(self, path: str | os.PathLike[str]) -> LikeFiles:
        """How a folder is divided, for a new one that is to be like it.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If it is none, or damaged.
        """
        ...

    def companions(self, path: str | os.PathLike[str]) -> list[Path]:
        """The small files of a folder that a new one like it takes over.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If one is not to be copied.
        """
        ...

    def companion(self, path: Path, dtypes: Iterable[str]) -> bytes:
        """The content that one of them has beside tensors of these dtypes.

        Raises
        ------
        CheckpointFileError, CheckpointError
            If it cannot be read, or is no more to be copied.
        """
        ...

    def index(self, listed_in: Mapping[str, str], nbytes: int, elements: int) -> bytes:
        """The content of an index.

        Parameters
        ----------
        listed_in
            Tensor -> file name.
        nbytes, elements
            Of all tensors together.
        """
        ...
