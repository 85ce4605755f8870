"""Which card each destination rank should live on, where that is free to choose.

A rank number is only a name: after (data 2, tensor 4) -> (tensor 4, data 2) the same bytes can stay
on the same cards, if the ranks are assigned to the cards in another order.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked_on_error
from ..layout import Strategy
from .plan import ReshardPlan
from .planner import plan_reshard

__all__ = ["cheapest_placement", "held_bytes"]


@checked_on_error
def cheapest_placement(
    src: Strategy, dst: Strategy, *, dtypes: Mapping[str, np.dtype[Any]] | None = None
) -> tuple[int, ...]:
    """The card of every destination rank such that as few bytes as possible move, over all tensors.

    Card r holds source rank r; where there are more destination ranks, the further cards are empty.
    Ranks that gain nothing by it stay where they are.

    Parameters
    ----------
    src, dst, dtypes
        See `plan_reshard`, whose argument `placement` the result is.

    Raises
    ------
    ReshardError, LayoutError
        As `plan_reshard`.

    Examples
    --------
    >>> from distinfer_lab.layout import Layout, Mesh
    >>> src = Layout(Mesh(d=2, t=4), "d+t -")
    >>> dst = Layout(Mesh(t=4, d=2), "d+t -")
    >>> cheapest_placement(Strategy({"w": src}, {"w": (8, 2)}), Strategy({"w": dst}))
    (0, 4, 1, 5, 2, 6, 3, 7)
    """
    plan = plan_reshard(src, dst, dtypes=dtypes, same_cards=False)
    held = held_bytes(plan)
    size = max(held.shape)
    # Of equal choices the one that leaves ranks where they are, by less than a byte each.
    gain = np.zeros((size, held.shape[1]))
    gain[: held.shape[0]] = held * (2.0 * size)
    gain[np.arange(held.shape[1]), np.arange(held.shape[1])] += 1
    import scipy.optimize  # nearly half a second, that plans and cards do without

    card, rank = scipy.optimize.linear_sum_assignment(gain, maximize=True)
    out = np.empty(held.shape[1], np.int64)
    out[rank] = card
    return tuple(out.tolist())


def held_bytes(plan: ReshardPlan) -> NDArray[np.int64]:
    """Bytes that each source rank holds of what each destination rank needs, (src_count, dst_count).

    `plan` must be one between different cards, so that no card keeps anything.
    """
    out = np.zeros(plan.src_count * plan.dst_count, np.int64)
    for kind in plan.classes:
        holders = kind.groups.holders[kind.groups.group]
        piece, at = np.nonzero(holders >= 0)
        sender = kind.places[:, 0, None] + kind.src.ranks[holders[piece, at]]
        receiver = kind.places[:, 1, None] + kind.dst.ranks[kind.found.dst_row[piece]]
        nbytes = kind.counts[:, None] * kind.sizes[piece]
        out += np.bincount((sender * plan.dst_count + receiver).ravel(), nbytes.ravel(), len(out)).astype(
            np.int64
        )
    return out.reshape(plan.src_count, plan.dst_count)
