"""What a sum over cards sends: the arithmetic that programs predict by, and cards follow.

::

    small      every card sends all of its array to every other      n - 1 arrays
    large      every card sends each other one run, of n, of its array,
               then the sum of its own run to each other             about 2 (n - 1) / n arrays

The small one takes one round of messages, the large one two.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["AT_ONCE_BYTES", "goes_at_once", "reduced_elements", "runs"]

AT_ONCE_BYTES = 64 << 10
"""Up to here a round of messages costs more than the bytes."""

Rows = NDArray[np.int64]


def goes_at_once(nbytes: int) -> bool:
    """Whether an array of so many bytes goes to all others whole."""
    return nbytes <= AT_ONCE_BYTES


def runs(size: int, cards: int) -> list[tuple[int, int]]:
    """The elements that each card of a group adds up: start inclusive, stop exclusive.

    Examples
    --------
    >>> runs(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    """
    cuts = [size * i // cards for i in range(cards + 1)]
    return list(pairwise(cuts))


def reduced_elements(sizes: Rows, itemsize: int) -> Rows:
    """How many elements each card of some groups sends in a sum.

    Parameters
    ----------
    sizes
        The elements of each card's array, int64, shape (groups, cards of each); alike within a group.
    itemsize
        In bytes.

    Examples
    --------
    >>> reduced_elements(np.array([[4, 4, 4], [40000, 40000, 40000]]), 4)
    array([[    8,     8,     8],
           [53333, 53333, 53334]])
    """
    count, place = sizes.shape[1], np.arange(sizes.shape[1])
    own = sizes * (place + 1) // count - sizes * place // count
    large = sizes - own + own * (count - 1)
    out: Rows = np.where(sizes * itemsize <= AT_ONCE_BYTES, sizes * (count - 1), large)
    return out
