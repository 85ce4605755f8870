"""What no plan can beat, computed apart from the planner: bytes that must move, and the highest load.

The bytes: what each card needs less what it holds. The load: a linear program that may split every
piece at will; whole pieces cannot do better.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ReshardError
from ..layout import Boxes, intersect_boxes, volumes
from .classes import TensorClass

__all__ = ["MOST_CHOICES", "choices", "held_elements", "least_load"]

MOST_CHOICES = 200_000
"""(group, holder) pairs up to which the linear program is solved."""

Rows = NDArray[np.int64]


def held_elements(src_boxes: Boxes, src_cards: Rows, dst_boxes: Boxes, dst_cards: Rows) -> int:
    """How many elements of the destination boxes are in source boxes of the same card."""
    total = 0
    order = np.argsort(src_cards, kind="stable")
    first = np.searchsorted(src_cards[order], dst_cards, side="left")
    last = np.searchsorted(src_cards[order], dst_cards, side="right")
    # A card has one source box, or one per fused part: step through the first, the second ...
    for step in range(int((last - first).max(initial=0))):
        rows = np.flatnonzero(first + step < last)
        common = intersect_boxes(src_boxes[order[first[rows] + step]], dst_boxes[rows])
        total += int(volumes(common).sum())
    return total


def choices(classes: Sequence[TensorClass]) -> int:
    """The size of the linear program: who may send which group, counted."""
    return sum(int((kind.groups.holders >= 0).sum()) * len(kind.counts) for kind in classes)


def least_load(classes: Sequence[TensorClass], src_count: int) -> float:
    """The least that the busiest source card can send, in bytes, if pieces could be split at will.

    Raises
    ------
    ReshardError
        If there are more than `MOST_CHOICES` choices, or the solver fails.
    """
    size = choices(classes)
    if size > MOST_CHOICES:
        raise ReshardError(f"{size} choices are too many for the linear program (at most {MOST_CHOICES})")
    senders, demands, group_of = [], [], []
    groups = 0
    for kind in classes:
        holders = kind.groups.holders
        place, group, at = np.nonzero(np.broadcast_to(holders >= 0, (len(kind.counts), *holders.shape)))
        senders.append(kind.places[place, 0] + kind.src.ranks[holders[group, at]])
        group_of.append(groups + place * len(holders) + group)
        demands.append((kind.counts[:, None] * kind.groups.total * kind.dtype.itemsize).ravel())
        groups += len(kind.counts) * len(holders)
    if not groups:
        return 0.0
    import scipy.optimize  # nearly half a second, that plans and cards do without
    import scipy.sparse

    sender, which, demand = np.concatenate(senders), np.concatenate(group_of), np.concatenate(demands)
    scale = float(demand.max())
    column = np.arange(len(sender))
    # All of each group is sent; no card sends more than t, the last variable, which is minimised.
    one = np.ones(len(sender))
    sent = scipy.sparse.coo_array((one, (which, column)), (groups, len(sender) + 1)).tocsr()
    load = scipy.sparse.coo_array((one, (sender, column)), (src_count, len(sender) + 1)).tolil()
    load[:, len(sender)] = -1
    cost = np.zeros(len(sender) + 1)
    cost[-1] = 1
    found = scipy.optimize.linprog(  # type: ignore[call-overload]  # the stubs know no sparse arrays
        cost, A_ub=load.tocsr(), b_ub=np.zeros(src_count), A_eq=sent, b_eq=demand / scale, method="highs"
    )
    if not found.success:
        raise ReshardError(f"the linear program of the loads was not solved: {found.message}")
    return float(found.fun) * scale
