"""Which piece goes from whom to whom, so that every destination box is filled exactly once.

    src boxes   [0:4] [4:8] [0:4] [4:8]          dst boxes  [0:2] [2:4] [4:6] [6:8]
    holders of [0:4]: 0, 2; of [4:8]: 1, 3       0->0 [0:2]   0->1 or 2->1 [2:4]   3->3 [6:8] ...

A destination takes from itself what it holds; else the holders of a shard serve in turn.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ReshardError
from .box import Boxes, box_at, intersect_boxes, nonempty_boxes, volumes

__all__ = ["Transfers", "plan_transfers"]

Rows = NDArray[np.int64]


class Transfers(NamedTuple):
    """Pieces, one per row."""

    src_rank: Rows
    """int64, shape (n,)."""
    dst_rank: Rows
    """int64, shape (n,); ascending."""
    boxes: Boxes
    """int64, shape (n, ndim, 2), in the coordinates of the whole tensor."""

    @property
    def sizes(self) -> Rows:
        """Elements of each piece, int64, shape (n,)."""
        return volumes(self.boxes)

    @property
    def moved(self) -> Rows:
        """Elements of each piece that leaves its card, 0 for the others, int64, shape (n,)."""
        return np.where(self.src_rank != self.dst_rank, self.sizes, 0)


def plan_transfers(
    src_boxes: Boxes, src_ranks: Rows, dst_boxes: Boxes, dst_ranks: Rows, *, same_cards: bool = True
) -> Transfers:
    """Fill every destination box from source boxes.

    Parameters
    ----------
    src_boxes, dst_boxes
        int64, shape (n, ndim, 2). Source boxes are equal or disjoint.
    src_ranks, dst_ranks
        The rank of each box.
    same_cards
        Rank r of both sides is one card, which keeps what it holds.

    Raises
    ------
    ReshardError
        If source boxes overlap, or leave a hole in a destination box; the text names the rank.
    """
    shards, shard_of = _distinct(src_boxes)
    filled = nonempty_boxes(shards)
    wanted, want_of = _distinct(dst_boxes)
    common = intersect_boxes(shards[:, None], wanted[None])
    meets = nonempty_boxes(common) & filled[:, None] & nonempty_boxes(wanted)[None]
    _check_filled(common, meets, wanted, want_of, dst_ranks)
    # For each destination row, the shards that its box meets.
    rows = np.argsort(dst_ranks, kind="stable")
    dst_row, shard = np.nonzero(meets[:, want_of[rows]].T)
    dst_row = rows[dst_row]
    src = _choose(shard, shard_of, src_ranks, dst_ranks[dst_row], same_cards)
    return Transfers(src, dst_ranks[dst_row], common[shard, want_of[dst_row]])


def _distinct(boxes: Boxes) -> tuple[Boxes, Rows]:
    """The distinct boxes, and for each box the number of the distinct one."""
    flat = boxes.reshape(len(boxes), -1)
    if not flat.shape[1]:
        return boxes[:1], np.zeros(len(boxes), np.int64)
    unique, inverse = np.unique(flat, axis=0, return_inverse=True)
    return unique.reshape(-1, *boxes.shape[1:]), inverse.reshape(-1).astype(np.int64)


def _check_filled(
    common: Boxes, meets: NDArray[np.bool_], wanted: Boxes, want_of: Rows, dst_ranks: Rows
) -> None:
    got = np.where(meets, volumes(common), 0).sum(axis=0)
    need = volumes(wanted)
    for word, bad in (("leave a hole in", got < need), ("overlap in", got > need)):
        if bad.any():
            which = int(np.flatnonzero(bad)[0])
            rank = int(dst_ranks[np.flatnonzero(want_of == which)[0]])
            box = box_at(wanted, which)
            raise ReshardError(
                f"the source's boxes {word} box {box.start}:{box.stop} of destination rank {rank}: "
                f"{int(got[which])} elements for {int(need[which])}; check the source strategy and the shape"
            )


def _choose(shard: Rows, shard_of: Rows, src_ranks: Rows, dst_rank: Rows, same_cards: bool) -> Rows:
    """The rank that gives each piece: the destination itself if it can, else the holders in turn."""
    order = np.lexsort((src_ranks, shard_of))
    holders = src_ranks[order]
    counts = np.bincount(shard_of)
    firsts = np.cumsum(counts) - counts
    own = np.zeros(len(shard), bool)
    if same_cards:
        held = set(zip(shard_of.tolist(), src_ranks.tolist(), strict=True))
        own = np.array([pair in held for pair in zip(shard.tolist(), dst_rank.tolist(), strict=True)], bool)
    turn = np.zeros(len(shard), np.int64)
    asking = np.flatnonzero(~own)
    by_shard = asking[np.argsort(shard[asking], kind="stable")]
    if len(by_shard):
        _, first, size = np.unique(shard[by_shard], return_index=True, return_counts=True)
        turn[by_shard] = np.arange(len(by_shard)) - np.repeat(first, size)
    given = holders[firsts[shard] + turn % counts[shard]]
    return np.where(own, dst_rank, given)
