"""How a box of an array lies in a file: which runs of bytes are contiguous, and how many rows to read at once."""

import math
from typing import Any

from numpy.typing import NDArray

from ..layout import Box
from .entry import Entry

__all__ = ["READ_COST_BYTES", "contiguous_from", "last_cut_dim", "rows_to_read", "run_bytes", "stepped_dim"]

Array = NDArray[Any]

READ_COST_BYTES = 12 << 10
"""What one more read costs, as bytes that are read in that time (about 2 us here, from the page cache)."""


def contiguous_from(view: Array) -> int:
    """From which dim on a view is contiguous."""
    dim = view.ndim
    while dim and view[(0,) * (dim - 1)].flags.c_contiguous:
        dim -= 1
    return dim


def run_bytes(view: Array) -> int:
    """The length of the runs that make up a view."""
    return math.prod(view.shape[contiguous_from(view) :]) * view.dtype.itemsize


def rows_to_read(entry: Entry, box: Box, buffer_bytes: int) -> int:
    """How many rows to read at a time, gaps and all; 0 where reading run by run costs less."""
    last = last_cut_dim(entry.shape, box)
    if last < 1:
        return 0
    row = math.prod(entry.shape[last:]) * entry.dtype.itemsize
    gap = row - row // entry.shape[last] * box.shape[last]
    whole = math.prod(entry.shape[stepped_dim(entry.shape, box) + 1 :]) * entry.dtype.itemsize
    return buffer_bytes // whole if 0 < gap < READ_COST_BYTES else 0


def last_cut_dim(shape: tuple[int, ...], box: Box) -> int:
    """The last dim of which the box does not hold all; -1 if there is none."""
    last = len(shape) - 1
    while last >= 0 and box.start[last] == 0 and box.stop[last] == shape[last]:
        last -= 1
    return last


def stepped_dim(shape: tuple[int, ...], box: Box) -> int:
    """The dim whose rows are read together: the one before the last cut dim."""
    return max(last_cut_dim(shape, box) - 1, 0)
