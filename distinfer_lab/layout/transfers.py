"""Who sends which piece to whom, where one tensor gets another layout and rank r of both is one card."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .box import Boxes, volumes
from .matches import match_regions
from .senders import group_pieces, least_busy
from .split import Regions

__all__ = ["Transfers", "plan_transfers"]

Rows = NDArray[np.int64]


class Transfers(NamedTuple):
    """Pieces with their senders, one per row."""

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


def plan_transfers(src: Regions, dst: Regions, replica: Rows | None = None) -> Transfers:
    """Fill every destination box of one tensor.

    A card keeps what it holds; of the holders of any other piece the least busy sends it.

    Parameters
    ----------
    replica
        The replica that each card is of, int64, shape (cards,). If given, each piece is sent by the holder of
        the destination's replica, so that groups of cards do not mix, unless a card would then send more.

    Raises
    ------
    ReshardError
        As `match_regions`.
    """
    found = match_regions(src, dst)
    dst_rank = dst.ranks[found.dst_row]
    groups = group_pieces(found, src, src.ranks, dst_rank, None)
    holders = np.where(groups.holders >= 0, src.ranks[groups.holders], -1)
    asked = np.flatnonzero(groups.group >= 0)
    group, sizes = groups.group[asked], volumes(found.boxes)[asked]
    cards = int(max(src.ranks.max(initial=0), dst_rank.max(initial=0))) + 1
    sender = least_busy(sizes, group, holders, np.zeros(cards, np.int64))
    if replica is not None:
        counts = (holders >= 0).sum(axis=1)
        same = holders[group, replica[dst_rank[asked]] % counts[group]]
        if _most_sent(same, sizes) <= _most_sent(sender, sizes):
            sender = same
    src_rank = dst_rank.copy()
    src_rank[asked] = sender
    return Transfers(src_rank, dst_rank, found.boxes)


def _most_sent(sender: Rows, sizes: Rows) -> int:
    return int(np.bincount(sender, sizes, 1).max())
