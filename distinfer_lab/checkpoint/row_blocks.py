"""Shards as tables of bytes: rows that come from rows of source slices, block by block, with little arithmetic.

::

    a row cut       rows 0..1 of the shard are rows 4..5 of slice 0, rows 2..3 are rows 0..1 of slice 1
    a column cut    every row is a run of bytes of a row of slice 0, then one of slice 1
    both            strips of rows, and in each strip columns

Most tensors of a model are cut in their first two dims only, so that this is all there is to their pieces. A
block stays in the processor's cache from the read to the write. Its columns are put in their places by the system,
in few calls, or by numpy where their runs are short. All other tensors go box by box.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..formats import READ_COST_BYTES, ByteSource
from ..layout import Box
from .rank_reads import TensorRead

__all__ = ["BLOCK_BYTES", "BlockReader", "RowBlock", "RowColumn", "RowPlan", "row_plan_of"]

Bytes = NDArray[np.uint8]

BLOCK_BYTES = 2 << 20
"""Smaller blocks cost more calls, and two threads more turns at the interpreter; larger ones leave the caches."""
PLACED_RUN = 1 << 10
"""Shorter runs cost the system more than numpy takes to put them in their places."""


class RowColumn(NamedTuple):
    """A run of bytes in each row of a strip."""

    src_rank: int
    start: int
    """Where it begins in the content of the slice, in the strip's first row."""
    stride: int
    """From one row to the next in the slice."""
    at: int
    """Where it begins in the rows of the shard."""
    nbytes: int


class RowSpan(NamedTuple):
    """Rows of a block that are of one strip."""

    at: int
    """Row of the block."""
    rows: int
    inside: int
    """Rows of the strip before it."""
    columns: Sequence[RowColumn]


class RowBlock(NamedTuple):
    """Some rows of a shard."""

    rows: int
    spans: Sequence[RowSpan]
    row_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes


class RowPlan(NamedTuple):
    """A shard as rows of bytes."""

    row_bytes: int
    strips: Sequence[tuple[int, int, Sequence[RowColumn]]]
    """First row, last row (not included), and the columns that make up each row."""

    @property
    def scratch_bytes(self) -> int:
        """The most that is read on the way of rows of which not all is wanted."""
        return max(
            (
                (last - first) * c.stride
                for first, last, columns in self.strips
                for c in columns
                if not self._takes_rows(c)
            ),
            default=0,
        )

    def _takes_rows(self, column: RowColumn) -> bool:
        return column.nbytes == column.stride == self.row_bytes

    def blocks(self, most_bytes: int) -> Iterator[RowBlock]:
        """The shard in order; no block has more bytes, unless one row has."""
        most = max(most_bytes // self.row_bytes, 1)
        spans: list[RowSpan] = []
        rows = 0
        for first, last, columns in self.strips:
            row = first
            while row < last:
                count = min(last - row, most - rows)
                spans.append(RowSpan(rows, count, row - first, columns))
                row, rows = row + count, rows + count
                if rows == most:
                    yield RowBlock(rows, spans, self.row_bytes)
                    spans, rows = [], 0
        if rows:
            yield RowBlock(rows, spans, self.row_bytes)


class BlockReader:
    """Reads blocks of tables.

    Parameters
    ----------
    slots
        Memory for the blocks that are there at one time, uint8; each block fits.
    scratch
        Memory for at least one row of every slice, uint8: what is read on the way.
    """

    def __init__(self, slots: Sequence[Bytes], scratch: Bytes) -> None:
        self._slots, self._scratch = slots, scratch
        self._places: dict[tuple[int, ...], list[memoryview]] = {}
        self._left = self._most = 4 * sum(map(len, slots)) // PLACED_RUN
        """How many places may be remembered: those of any block of all slots, with the gaps, and as many again."""

    def __repr__(self) -> str:
        return f"BlockReader({len(self._slots)} slots)"

    def read(
        self, name: str, block: RowBlock, sources: Mapping[int, ByteSource], slot: int = 0
    ) -> tuple[Bytes, int]:
        """The content of a block, there until the slot is used again, and the bytes that were read."""
        read = sum(
            self._read(name, block.row_bytes, span, column, sources[column.src_rank], slot)
            for span in block.spans
            for column in span.columns
        )
        return self._slots[slot][: block.nbytes], read

    def _read(
        self, name: str, row_bytes: int, span: RowSpan, column: RowColumn, source: ByteSource, slot: int
    ) -> int:
        _, start, stride, at, nbytes = column
        begin, covered = start + span.inside * stride, (span.rows - 1) * stride + nbytes
        if nbytes == stride == row_bytes:
            source.fill(name, begin, self._slots[slot][span.at * row_bytes :][:covered].data)
        elif nbytes >= PLACED_RUN:
            places = self._places_of(slot, row_bytes, span.at, span.rows, at, nbytes, stride - nbytes)
            source.scatter(name, begin, places, covered)
        else:
            rows = self._slots[slot][span.at * row_bytes :][: span.rows * row_bytes].reshape(-1, row_bytes)
            return self._read_short(name, begin, stride, source, rows[:, at : at + nbytes])
        return covered

    def _places_of(
        self, slot: int, row_bytes: int, row: int, rows: int, at: int, nbytes: int, gap: int
    ) -> list[memoryview]:
        """Where the runs of a column go, and between them what lies between them."""
        form = (slot, row_bytes, row, rows, at, nbytes, gap)
        if form not in self._places:
            memory, between = self._slots[slot].data, self._scratch.data[:gap]
            starts = range(row * row_bytes + at, (row + rows) * row_bytes, row_bytes)
            places = [memory[start : start + nbytes] for start in starts]
            if gap:
                places = [place for run in places for place in (run, between)][:-1]
            if len(places) > self._left:
                self._places.clear()
                self._left = self._most
            self._places[form] = places
            self._left -= len(places)
        return self._places[form]

    def _read_short(self, name: str, begin: int, stride: int, source: ByteSource, out: Bytes) -> int:
        """Read rows of a slice with what lies between them, and keep the beginning of each."""
        nbytes, most, read = out.shape[1], len(self._scratch) // stride, 0
        for first in range(0, len(out), most):
            part = out[first : first + most]
            covered = (len(part) - 1) * stride + nbytes
            source.fill(name, begin + first * stride, self._scratch[:covered].data)
            part[...] = self._scratch[: len(part) * stride].reshape(-1, stride)[:, :nbytes]
            read += covered
        return read


def row_plan_of(
    tensor: TensorRead, shape_of: Callable[[int], tuple[int, ...]], most_bytes: int
) -> RowPlan | None:
    """A shard as a table; None if it is none, or if another way costs less.

    That is so where rows are longer than `most_bytes`, on either side, and where much lies between the runs
    that are wanted.

    Parameters
    ----------
    shape_of
        Source rank -> the shape of its slice.

    Examples
    --------
    >>> from distinfer_lab.checkpoint.rank_reads import ReadItem
    >>> f4 = np.dtype("f4")
    >>> half = Box((0, 0), (2, 3))
    >>> parts = ReadItem(0, half, half), ReadItem(1, half, Box((0, 3), (2, 6)))
    >>> found = row_plan_of(TensorRead("w", "w", (2, 6), f4, f4, parts), lambda rank: (2, 3), 1024)
    >>> found.row_bytes, found.strips[0][2][1]
    (24, RowColumn(src_rank=1, start=0, stride=12, at=12, nbytes=12))
    """
    shape, itemsize = tensor.shape, tensor.source_dtype.itemsize
    row_bytes = math.prod(shape[1:]) * itemsize
    if not shape or not tensor.parts or not 0 < row_bytes <= most_bytes:
        return None
    placed = []
    for part in tensor.parts:
        src_shape = shape_of(part.src_rank)
        inner = math.prod(shape[2:]) * itemsize
        if src_shape[2:] != shape[2:] or not (_is_whole(part.dst, shape) and _is_whole(part.src, src_shape)):
            return None
        if any(stop > size for stop, size in zip(part.src.stop, src_shape, strict=True)):
            return None  # another file than was planned with; who reads box by box says so
        stride = math.prod(src_shape[1:]) * itemsize
        left, at, wide = (
            (part.src.start[1] * inner, part.dst.start[1] * inner, part.dst.shape[1] * inner)
            if len(shape) > 1
            else (0, 0, itemsize)
        )
        if stride > most_bytes or stride - wide >= READ_COST_BYTES:
            return None
        start = part.src.start[0] * stride + left
        placed.append(
            (part.dst.start[0], part.dst.stop[0], RowColumn(part.src_rank, start, stride, at, wide))
        )
    edges = sorted({edge for first, last, _ in placed for edge in (first, last)})
    placed.sort(key=lambda item: (item[0], item[2].at))
    return RowPlan(row_bytes, [(a, b, _columns(placed, a)) for a, b in pairwise(edges)])


def _columns(placed: Sequence[tuple[int, int, RowColumn]], row: int) -> list[RowColumn]:
    """The columns of the strip that begins at a row."""
    return sorted(
        (
            column._replace(start=column.start + (row - first) * column.stride)
            for first, last, column in placed
            if first <= row < last
        ),
        key=lambda column: column.at,
    )


def _is_whole(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether a box is cut in the first two dims only."""
    return all(a == 0 and b == n for a, b, n in zip(box.start[2:], box.stop[2:], shape[2:], strict=True))
