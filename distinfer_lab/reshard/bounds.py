"""What no plan can beat, computed apart from the planner: bytes that must move, and the highest load.

The bytes: what each card needs less what it holds. The load: a linear program that may cut every
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
    """How many elements of the destination boxes lie in source boxes of the same card."""
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
    """The size of the linear program: who may give which group, counted."""
    return sum(int((kind.groups.holders >= 0).sum()) * len(kind.counts) for kind in classes)


def least_load(classes: Sequence[TensorClass], src_count: int) -> float:
    """The least that the busiest source card can send, in bytes, if pieces could be cut at will.

    Raises
    ------
    ReshardError
        If there are more than `MOST_CHOICES` choices, or the solver fails.
    """
    size = choices(classes)
    if size > MOST_CHOICES:
        raise ReshardError(f"{size} choices are too many for the linear program (at most {MOST_CHOICES})")
    givers, demands, group_of = [], [], []
    groups = 0
    for kind in classes:
        holders = kind.groups.holders
        place, group, at = np.nonzero(np.broadcast_to(holders >= 0, (len(kind.counts), *holders.shape)))
        givers.append(kind.places[place, 0] + kind.src.ranks[holders[group, at]])
        group_of.append(groups + place * len(holders) + group)
        demands.append((kind.counts[:, None] * kind.groups.total * kind.dtype.itemsize).ravel())
        groups += len(kind.counts) * len(holders)
    if not groups:
        return 0.0
    import scipy.optimize  # nearly half a second, that plans and cards do without
    import scipy.sparse

    giver, which, demand = np.concatenate(givers), np.concatenate(group_of), np.concatenate(demands)
    scale = float(demand.max())
    column = np.arange(len(giver))
    # Each group is given whole; no giver gives more than t, the last variable, which is minimised.
    one = np.ones(len(giver))
    given = scipy.sparse.coo_array((one, (which, column)), (groups, len(giver) + 1)).tocsr()
    load = scipy.sparse.coo_array((one, (giver, column)), (src_count, len(giver) + 1)).tolil()
    load[:, len(giver)] = -1
    cost = np.zeros(len(giver) + 1)
    cost[-1] = 1
    found = scipy.optimize.linprog(  # type: ignore[call-overload]  # the stubs know no sparse arrays
        cost, A_ub=load.tocsr(), b_ub=np.zeros(src_count), A_eq=given, b_eq=demand / scale, method="highs"
    )
    if not found.success:
        raise ReshardError(f"the linear program of the loads was not solved: {found.message}")
    return float(found.fun) * scale
