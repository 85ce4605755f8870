"""Arrays in pieces of bounded size, in the order of their elements.

How an array is cut depends on its shape only, so two cards that hold equal shapes, however they
lie in memory, cut them alike.
"""

from collections.abc import Iterator
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Index", "blocks", "bytes_of", "pieces_to_fill", "pieces_to_send"]

Array = NDArray[Any]
Index = tuple[int | slice | EllipsisType, ...]


def blocks(shape: tuple[int, ...], itemsize: int, most_bytes: int) -> Iterator[Index]:
    """Cut a shape into blocks that follow each other in C order.

    Parameters
    ----------
    most_bytes
        No block has more, unless one element has.

    Examples
    --------
    >>> list(blocks((4, 3), 8, 50))
    [(slice(0, 2, None), Ellipsis), (slice(2, 4, None), Ellipsis)]
    >>> list(blocks((2, 6), 8, 24))[:2]
    [(0, slice(0, 3, None), Ellipsis), (0, slice(3, 6, None), Ellipsis)]
    """
    dim, inner = len(shape), itemsize
    while dim and inner * shape[dim - 1] <= most_bytes:
        dim -= 1
        inner *= shape[dim]
    if dim == 0:
        yield (...,)
        return
    rows = max(most_bytes // inner, 1)
    for outer in np.ndindex(*shape[: dim - 1]):
        for first in range(0, shape[dim - 1], rows):
            yield (*outer, slice(first, min(first + rows, shape[dim - 1])), ...)


def bytes_of(array: Array) -> NDArray[np.uint8]:
    """The bytes of a contiguous array; dtypes that the buffer protocol does not know (bfloat16) pass too."""
    return array.reshape(-1).view(np.uint8)


def pieces_to_send(array: Array, most_bytes: int) -> Iterator[memoryview]:
    """The bytes of an array; what is not contiguous is copied, block by block."""
    if array.flags.c_contiguous:
        yield bytes_of(array).data
        return
    for block in blocks(array.shape, array.itemsize, most_bytes):
        yield bytes_of(np.ascontiguousarray(array[block])).data


def pieces_to_fill(out: Array, most_bytes: int) -> Iterator[memoryview]:
    """Memory for the bytes of an array; each piece must be full before the next is asked for."""
    if out.flags.c_contiguous:
        yield bytes_of(out).data
        return
    for block in blocks(out.shape, out.itemsize, most_bytes):
        piece = np.empty(out[block].shape, out.dtype)
        yield bytes_of(piece).data
        out[block] = piece
