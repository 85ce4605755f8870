"""What a format of one rank's files has to know: how to index a file, what it can hold, how to lay out a new one.

A format is a class with these members in a module of its own, and one line in `file_formats.FILE_FORMATS`. Everything
else (decryption, descriptors, reads of boxes, digests, resumed runs) is the same for all formats.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from .entry import Entry, TensorSpec

__all__ = ["FileFormat", "FileIndex", "FileLayout", "ReadAt"]

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
    entries: dict[str, Entry]
    size: int
    """In bytes, without a checksum."""


class FileFormat(Protocol):
    """A format of one rank's files.

    Attributes
    ----------
    name : str
        As users say it in `format=`; files of this format end in `.<name>`.
    has_checksum : bool
        Whether a checksum may stand at the end of a file, and a file may be encrypted, as MindSpore does.
    """

    name: str
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
