"""What the destination strategy leaves unsaid: optimizer states, plain entries, MindSpore's way.

states="follow"     moments.w lies as w does
states="replicate"  every rank gets all of moments.w
states="mindspore"  rank r keeps the slice that source rank r held, as MindSpore leaves it
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ..checkpoint import Checkpoint, TensorRecord, followed_parameter
from ..errors import ReshardError, listed
from ..layout import Layout, Regions, Strategy
from .classes import Holding
from .plan import ReshardPlan, plan_holdings

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
    records = [checkpoint.tensors[n] for n in (checkpoint.tensors if names is None else names)]
    count = 1 if dst is None else dst.ranks
    return plan_holdings(
        [record.name for record in records],
        [record.shape for record in records],
        [record.dtype for record in records],
        [record.layout for record in records],
        [_destination(record, dst, states) for record in records],
        checkpoint.ranks,
        count,
        placement=range(count) if same_cards else None,
    )


def _destination(record: TensorRecord, dst: Strategy | None, states: str) -> Holding:
    if dst is None:
        return Layout.replicated(1, len(record.shape))
    if record.name in dst:
        return dst[record.name]
    followed = followed_parameter(record.name, dst)
    if followed is not None and states == "mindspore" and record.kind != "plain":
        return KeptSlices(record.layout, dst.ranks)
    if record.kind == "plain" or (followed is not None and states == "replicate"):
        return Layout.replicated(dst.ranks, len(record.shape))
    if followed is not None:
        return dst[followed]
    raise ReshardError(
        f"{record.name}: the destination strategy has no layout for it; it names {listed(dst)}. "
        "Is it the strategy of another net?"
    )


@dataclass(frozen=True)
class KeptSlices:
    """Destination rank r gets what the r-th holder of a layout has, counted round."""

    layout: Layout
    count: int
    """The number of destination ranks."""

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """The first destination rank."""
        return (0,)

    @property
    def pattern(self) -> Hashable:
        """What equal ones have in common."""
        return ("kept", self.layout, self.count)

    def regions(self, shape: Sequence[int]) -> Regions:
        """Who gets which boxes."""
        held = self.layout.regions(shape)
        each = len(held.ranks) // len(self.layout.ranks)
        ranks = np.repeat(np.arange(self.count, dtype=np.int64), each)
        rows = np.arange(len(ranks)) % len(held.ranks)
        return Regions(ranks, held.boxes[rows], held.starts[rows])
