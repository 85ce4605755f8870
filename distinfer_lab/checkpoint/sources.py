"""Where the slices of a checkpoint are, rank by rank, and who can read them.

::

    SliceSource   where one rank's slices are; can be pickled     FileSource, cards.CardSource
        open()    on the worker that needs them
    OpenSource    boxes of them can be read                       SliceFile, FileSet, a card's own shards

    Slices        what a checkpoint has open of them              SliceFile, FileSet, UnreadableSlices

Nobody asks which of these it has: what has no path is opened by the card that holds it, and what has no entries
is not read by this process.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn, Protocol

from numpy.typing import NDArray

from ..errors import CheckpointFileError
from ..formats import ByteSource, Entry, FileSet, PartFiles, SliceFile, open_files, paths_of
from ..layout import Box
from ..secret import secret_key

__all__ = [
    "BoxReader",
    "FileSource",
    "MissingFile",
    "OpenSource",
    "SliceSource",
    "Slices",
    "UnreadableSlices",
]

Array = NDArray[Any]


class BoxReader(Protocol):
    """Something that holds slices: a file, or a card's memory."""

    @property
    def by_bytes(self) -> ByteSource | None:
        """The same, if its slices can be read as the bytes that they are."""

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int) -> int:
        """Read a box of an entry into a view of its shape and dtype; gives the bytes that were read."""
        ...


class OpenSource(BoxReader, Protocol):
    """What `SliceSource.open` gives."""

    @property
    def nbytes_read(self) -> int:
        """Bytes of content read from files so far."""
        ...

    def check_unchanged(self) -> None:
        """Raise if it is no more what was opened."""

    def close(self) -> None:
        """Close it."""


class SliceSource(Protocol):
    """Where one rank's slices are; small, and can be pickled."""

    @property
    def path(self) -> str:
        """By which whoever sees it can open it; "" if only the card of the same number has the slices."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """The files at the path."""
        ...

    @property
    def placement(self) -> str:
        """The placement on cards that holds the slices; "" if files do."""
        ...

    def open(self) -> OpenSource:
        """Open it in this process; who opens it closes it."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Slices in files.

    Parameters
    ----------
    location
        A file, a Hugging Face folder or its index, or several files.
    dec_key, dec_mode
        For encrypted files.
    """

    location: str | PartFiles
    dec_key: bytes | None = None
    dec_mode: str = "AES-GCM"
    placement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dec_key", secret_key(self.dec_key))

    @property
    def path(self) -> str:
        """See `SliceSource`."""
        return os.fspath(self.location)

    @property
    def files(self) -> tuple[str, ...]:
        """See `SliceSource`."""
        return paths_of(self.location)

    def open(self, *, crc_check: bool = False) -> SliceFile | FileSet:
        """See `SliceSource`; `crc_check` as for `open_slice`."""
        return open_files(self.location, dec_key=self.dec_key, dec_mode=self.dec_mode, crc_check=crc_check)


@dataclass(frozen=True)
class UnreadableSlices:
    """In place of files: slices that this process cannot read, and why.

    Parameters
    ----------
    path
        What they are called.
    reason
        Why nobody here can read them, as a clause.
    """

    path: str
    reason: str
    is_lost: ClassVar[bool] = False
    format: ClassVar[str] = ""
    files: ClassVar[tuple[SliceFile, ...]] = ()
    entries: ClassVar[Mapping[str, Entry]] = MappingProxyType({})
    missing: ClassVar[tuple[str, ...]] = ()
    """Tensors that an index lists, and no file holds."""
    notes: ClassVar[tuple[str, ...]] = ()
    by_bytes: ClassVar[None] = None

    def _refuse(self, name: str) -> NoReturn:
        words = f"{self.path}: {name} cannot be read: {self.reason}"
        raise CheckpointFileError(words, file=self.path, parameter=name)

    def entry(self, name: str) -> NoReturn:
        """Refuse it: there is none."""
        self._refuse(name)

    def text(self, name: str) -> NoReturn:
        """Refuse it: there is none."""
        self._refuse(name)

    def path_of(self, name: str) -> NoReturn:
        """Refuse it: there is none."""
        self._refuse(name)

    def read(self, name: str, box: Box | None = None) -> NoReturn:
        """Refuse it: there is nothing to read."""
        self._refuse(name)

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int) -> NoReturn:
        """Refuse it: there is nothing to read."""
        self._refuse(name)

    def fill(self, name: str, start: int, target: memoryview) -> NoReturn:
        """Refuse it: there is nothing to read."""
        self._refuse(name)

    def check_unchanged(self) -> None:
        """There is nothing that could change."""

    def close(self) -> None:
        """There is nothing to close."""


class MissingFile(UnreadableSlices):
    """In place of a file that is not there, or not to be used: its slices are lost."""

    is_lost: ClassVar[bool] = True


Slices = SliceFile | FileSet | UnreadableSlices
