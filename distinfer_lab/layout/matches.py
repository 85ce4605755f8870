"""Which piece of which source box fills which part of which destination box.

::

    src boxes   [0:4] [4:8] [0:4] [4:8]          dst boxes  [0:2] [2:4] [4:6] [6:8]
    distinct    [0:4] held by 0, 2; [4:8] by 1, 3
    pieces      [0:2] of [0:4] for 0             0->0, as 0 holds it;   0->1 or 2->1;   ...

Which of the holders sends each piece is another question: see `senders`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ReshardError
from .box import Boxes, box_at, intersect_boxes, nonempty_boxes, volumes
from .split import Regions

__all__ = ["Matches", "expand_ranges", "match_regions"]

Rows = NDArray[np.int64]


class Matches(NamedTuple):
    """Pieces, one per row, by the distinct box that each is part of."""

    shard_of: Rows
    """For each source row the number of its distinct box, int64, shape (source rows,); -1 if it is empty."""
    shard: Rows
    """The number of the distinct source box of each piece, int64, shape (n,)."""
    dst_row: Rows
    """int64, shape (n,), ascending."""
    boxes: Boxes
    """int64, shape (n, ndim, 2), in the coordinates of the whole tensor."""


def match_regions(src: Regions, dst: Regions) -> Matches:
    """Fill every destination box from distinct source boxes.

    Raises
    ------
    ReshardError
        If source boxes overlap, or leave a hole in a destination box; the text names the rank.
    """
    shards, shard_of = _distinct(src.boxes)
    wanted, want_of = _distinct(dst.boxes)
    if len(_meeting(shards, shards)[0]) != len(shards):
        raise ReshardError("boxes of the source overlap without being equal; check the source strategy")
    shard, want = _meeting(shards, wanted)
    common = intersect_boxes(shards[shard], wanted[want])
    _check_filled(common, want, wanted, want_of, dst.ranks)
    # Each destination row takes all pieces of its box; `want` is ascending.
    rows = np.flatnonzero(want_of >= 0)
    rows = rows[np.argsort(dst.ranks[rows], kind="stable")]
    counts = np.bincount(want, minlength=len(wanted))
    firsts = np.cumsum(counts) - counts
    of_row, piece = expand_ranges(firsts[want_of[rows]], counts[want_of[rows]])
    return Matches(shard_of, shard[piece], rows[of_row], common[piece])


def expand_ranges(firsts: Rows, counts: Rows) -> tuple[Rows, Rows]:
    """For ranges `first, first + 1 ... first + count - 1`: the range that each item is of, and the item.

    Examples
    --------
    >>> expand_ranges(np.array([5, 0]), np.array([2, 3]))
    (array([0, 0, 1, 1, 1]), array([5, 6, 0, 1, 2]))
    """
    which = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    return which, np.arange(len(which)) - np.repeat(ends - counts - firsts, counts)


def _distinct(boxes: Boxes) -> tuple[Boxes, Rows]:
    """The distinct boxes that hold something, and for each box the number of its distinct one, or -1."""
    full = nonempty_boxes(boxes)
    number = np.full(len(boxes), -1, np.int64)
    flat = boxes[full].reshape(int(full.sum()), 2 * boxes.shape[1])
    if not flat.shape[1]:
        number[full] = 0
        return boxes[:1], number
    unique, inverse = np.unique(flat, axis=0, return_inverse=True)
    number[full] = inverse.reshape(-1)
    return unique.reshape(-1, *boxes.shape[1:]), number


def _meeting(a: Boxes, b: Boxes) -> tuple[Rows, Rows]:
    """Which of two sets of boxes, none empty, have elements in common; ascending by the second."""
    ndim = a.shape[1]
    if not ndim or not len(a) or not len(b):
        which = np.indices((len(b), len(a))).reshape(2, len(a) * len(b))
        return which[1], which[0]
    # Candidates by one dim, the one that is cut most: those that begin before the other ends and,
    # up to the first that can reach it, end after it begins. The other dims are then looked at.
    dim = max(range(ndim), key=lambda d: len(np.unique(a[:, d, 0])))
    order = np.argsort(a[:, dim, 0], kind="stable")
    reach = np.maximum.accumulate(a[order, dim, 1])
    first = np.searchsorted(reach, b[:, dim, 0], side="right")
    last = np.searchsorted(a[order, dim, 0], b[:, dim, 1], side="left")
    of_b, place = expand_ranges(first, np.maximum(last - first, 0))
    of_a = order[place]
    meets = np.ones(len(of_a), bool)
    for d in range(ndim):
        meets &= (a[:, d, 0][of_a] < b[:, d, 1][of_b]) & (b[:, d, 0][of_b] < a[:, d, 1][of_a])
    return of_a[meets], of_b[meets]


def _check_filled(common: Boxes, want: Rows, wanted: Boxes, want_of: Rows, dst_ranks: Rows) -> None:
    got = np.bincount(want, volumes(common), len(wanted)).astype(np.int64)
    need = volumes(wanted)
    if (got < need).any():
        which = int(np.flatnonzero(got < need)[0])
        rank = int(dst_ranks[np.flatnonzero(want_of == which)[0]])
        box = box_at(wanted, which)
        raise ReshardError(
            f"the source's boxes leave a hole in box {box.start}:{box.stop} of destination rank {rank}: "
            f"{int(got[which])} elements for {int(need[which])}; check the source strategy and the shape",
            rank=rank,
        )
