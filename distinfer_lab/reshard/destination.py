"""What the destination strategy leaves unsaid: optimizer states, plain entries, MindSpore's way.

states="follow"     moments.w lies as w does
states="replicate"  every rank gets all of moments.w
states="mindspore"  rank r keeps the slice that source rank r held, as MindSpore leaves it
"""

from collections.abc import Sequence

import numpy as np

from ..checkpoint import Checkpoint, TensorRecord, followed_parameter
from ..errors import ReshardError, listed
from ..layout import Boxes, Layout, Strategy, Transfers
from .plan import ReshardPlan, TensorPlan, plan_reshard

__all__ = ["STATES", "plan_checkpoint"]

STATES = ("follow", "replicate", "mindspore")


def plan_checkpoint(
    checkpoint: Checkpoint,
    dst: Strategy | None,
    *,
    states: str = "follow",
    names: Sequence[str] | None = None,
    same_cards: bool = False,
) -> ReshardPlan:
    """Plan the way of a checkpoint's tensors to a destination strategy.

    Parameters
    ----------
    dst
        Who shall hold what; None: rank 0 gets everything.
    states
        What becomes of states that `dst` does not name (see above).
    names
        The tensors to plan; by default all.
    same_cards
        See `plan_reshard`.

    Raises
    ------
    ReshardError
        If `dst` lacks a parameter, or holes or overlaps are found.
    """
    if states not in STATES:
        raise ReshardError(f"states={states!r} is not one of {', '.join(STATES)}")
    records = {n: checkpoint.tensors[n] for n in (checkpoint.tensors if names is None else names)}
    src = Strategy(
        {n: r.layout for n, r in records.items()}, {n: r.shape for n, r in records.items()}, checkpoint.ranks
    )
    dtypes = {n: r.dtype for n, r in records.items()}
    if dst is None:
        return plan_reshard(src, None, dtypes=dtypes, same_cards=same_cards)
    left = {n for n, r in records.items() if states == "mindspore" and r.kind != "plain" and n not in dst}
    left = {n for n in left if followed_parameter(n, checkpoint.tensors)}
    layouts = {n: _destination(r, dst, states) for n, r in records.items() if n not in left}
    rest = Strategy({n: src[n] for n in layouts}, src.shapes, src.ranks)
    plan = plan_reshard(rest, Strategy(layouts, ranks=dst.ranks), dtypes=dtypes, same_cards=same_cards)
    kept = {n: _left_alone(records[n], dst.ranks) for n in left}
    tensors = {n: kept[n] if n in kept else plan[n] for n in records}
    return ReshardPlan(tensors, checkpoint.ranks, dst.ranks, same_cards)


def _destination(record: TensorRecord, dst: Strategy, states: str) -> Layout:
    if record.name in dst:
        return dst[record.name]
    followed = followed_parameter(record.name, dst)
    if record.kind == "plain" or (followed is not None and states == "replicate"):
        return Layout.replicated(dst.ranks, len(record.shape))
    if followed is not None:
        return dst[followed]
    raise ReshardError(
        f"{record.name}: the destination strategy has no layout for it; it names {listed(dst)}. "
        "Is it the strategy of another net?"
    )


def _left_alone(record: TensorRecord, ranks: int) -> TensorPlan:
    """Destination rank r gets what the r-th holder has, counted round."""
    boxes: Boxes = record.layout.boxes(record.shape)
    dst = np.arange(ranks, dtype=np.int64)
    row = dst % len(boxes)
    src_ranks = record.layout.ranks
    transfers = Transfers(src_ranks[row], dst, boxes[row])
    return TensorPlan(record.name, record.shape, record.dtype, src_ranks, boxes, dst, boxes[row], transfers)
