"""What a slice file holds: names, dtypes, shapes, and where in the file each content is."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from ..layout import Box
from ..untrusted import check_shape

__all__ = [
    "ByteSource",
    "ByteWindows",
    "Entry",
    "Kind",
    "Piece",
    "Place",
    "SlicesInFiles",
    "TensorSpec",
    "byte_runs",
    "content_bytes",
    "stretches",
]


class ByteSource(Protocol):
    """A file whose entries are read as the bytes that they are."""

    def entry(self, name: str) -> "Entry":
        """The entry of that name, which can be read."""
        ...

    def fill(self, name: str, start: int, target: memoryview) -> None:
        """Fill `target` with the content of an entry from byte `start` on."""

    def scatter(self, name: str, start: int, targets: Sequence[memoryview], nbytes: int) -> None:
        """The same for many targets, one after the other, of so many bytes together."""

    def place(self, name: str) -> "Place | None":
        """Where the content of a tensor lies, if it is in one piece; None: it is read in another way."""


class ByteWindows(Protocol):
    """A file that is read at any byte."""

    def fill_window(self, offset: int, target: memoryview) -> bool:
        """Fill `target` with the bytes of the file from `offset` on; False if the system did not."""


class SlicesInFiles:
    """What is true of one rank's slices wherever there are files of them, one or several."""

    is_lost, reason = False, ""
    """Whether the slices cannot be had, and why."""

    @property
    def by_bytes(self) -> Self:
        """Itself, as a `ByteSource`."""
        return self

    @property
    def missing(self) -> tuple[str, ...]:
        """Tensors that an index lists, and no file holds."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What of an index and the files does not agree."""
        return ()


class Piece(NamedTuple):
    """A run of bytes of a file."""

    offset: int
    nbytes: int


class Kind(NamedTuple):
    """What entries have in common."""

    type_name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    problem: str = ""


class Place(NamedTuple):
    """Where the content of a tensor lies, in one piece."""

    file: ByteWindows
    kind: Kind
    """One object for all entries of a file that are of one kind."""
    offset: int


class Entry(NamedTuple):
    """One tensor, or one text, of a slice file."""

    name: str
    type_name: str
    """As the file spells it; "str" is text."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """The runs that make up the content, in order."""
    problem: str = ""
    """Why the entry can be listed but not read; "" if it can be read."""

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        return sum(piece.nbytes for piece in self.pieces)

    @property
    def kind(self) -> Kind:
        """What it has in common with other entries."""
        return Kind(self.type_name, self.dtype, self.shape, self.problem)

    @property
    def is_text(self) -> bool:
        """Whether the entry is a text and no tensor."""
        return self.type_name == "str"


class TensorSpec(NamedTuple):
    """What will be written: a tensor of this dtype and shape, or a text."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    text: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        if self.text is not None:
            return 4 * len(self.text)
        return math.prod(self.shape) * self.dtype.itemsize


def content_bytes(shape: Sequence[int], itemsize: int) -> int | None:
    """Bytes of a content of that shape; None where no array can have it (too many dims, or too large a dim).

    >>> content_bytes((2, 3), 4), content_bytes((0, 2**62), 4)
    (24, None)
    """
    try:
        check_shape(shape, "its shape", itemsize)
    except ValueError:
        return None
    return math.prod(shape) * itemsize


def stretches(pieces: Sequence[Piece], start: int, nbytes: int) -> Iterator[Piece]:
    """Where so many bytes of a content from byte `start` on lie in the file, stretch by stretch."""
    for piece in pieces:
        if start >= piece.nbytes:
            start -= piece.nbytes
            continue
        count = min(piece.nbytes - start, nbytes)
        if not count:
            return
        yield Piece(piece.offset + start, count)
        start, nbytes = 0, nbytes - count


def byte_runs(shape: tuple[int, ...], box: Box, itemsize: int) -> tuple[list[int], int]:
    """Where each contiguous run of a box begins in a row-major tensor, in order, and the bytes of each run."""
    whole = len(shape)
    while whole and box.start[whole - 1] == 0 and box.stop[whole - 1] == shape[whole - 1]:
        whole -= 1
    # Dims before `whole - 1` are stepped through; that one is cut; those after it are whole.
    inner = math.prod(shape[whole:]) * itemsize
    if whole == 0:
        return [0], inner
    last = whole - 1
    starts = np.array([box.start[last] * inner], np.int64)
    step = inner
    for dim in range(last, 0, -1):
        step *= shape[dim]
        rows = np.arange(box.start[dim - 1], box.stop[dim - 1], dtype=np.int64) * step
        starts = np.add.outer(rows, starts).ravel()
    return starts.tolist(), (box.stop[last] - box.start[last]) * inner
