"""A plan tensor by tensor, in execution order; and what is worth a warning before it runs.

::

    step 0    embed.weight               card 0 -> 1 48 KiB ...
    step 1    layers.0.q, layers.0.k     ...

All destinations go through the tensors in the plan's order. The bytes of all steps together are the
plan's traffic.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import format_bytes
from ..errors import ReshardError
from .plan import ReshardPlan

__all__ = ["MOST_SCHEDULED", "Step", "plan_steps", "warnings_of"]

Rows = NDArray[np.int64]

MOST_SCHEDULED = 5000
"""Tensors up to which a plan is looked at one by one; each takes about 0.2 ms."""

UNEVEN = 1.5
SHORT_RUN = 4096
"""Bytes below which a run costs more to find than to read."""


class Step(NamedTuple):
    """Some neighbouring tensors of a plan, and what flows for them."""

    names: tuple[str, ...]
    traffic: Rows
    """Bytes from each source rank to each destination rank, int64, shape (src_count, dst_count)."""

    @property
    def nbytes(self) -> int:
        """All bytes of the step."""
        return int(self.traffic.sum())


def plan_steps(plan: ReshardPlan, most: int = 64) -> tuple[Step, ...]:
    """The plan's tensors in order, in at most `most` steps of about equally many bytes.

    Raises
    ------
    ReshardError
        If the plan has more than `MOST_SCHEDULED` tensors.
    """
    if len(plan) > MOST_SCHEDULED:
        raise ReshardError(
            f"{len(plan)} tensors are too many to go through one by one (at most {MOST_SCHEDULED}); "
            "plan a part of them with select="
        )
    least = max(int(plan.needed_bytes.sum()) / most, 1)
    out: list[Step] = []
    names: list[str] = []
    traffic = np.zeros((plan.src_count, plan.dst_count), np.int64)
    for name, tensor in plan.items():
        names.append(name)
        np.add.at(traffic, (tensor.pieces.src_rank, tensor.pieces.dst_rank), tensor.nbytes)
        if traffic.sum() >= least:
            out.append(Step(tuple(names), traffic))
            names, traffic = [], np.zeros_like(traffic)
    return tuple(out) if not names else (*out, Step(tuple(names), traffic))


def warnings_of(plan: ReshardPlan) -> tuple[str, ...]:
    """What someone should know before a plan is run, in sentences; none if all is well."""
    out = []
    if plan.same_cards and plan.moved_bytes > plan.bound_bytes:
        more = format_bytes(plan.moved_bytes - plan.bound_bytes)
        out.append(f"{more} more than the least possible are moved between cards.")
    sent, needed = plan.sent_bytes, plan.needed_bytes
    for verb, noun, loads in (("sends", "giving", sent), ("ends with", "getting", needed)):
        used = loads[loads > 0]
        if len(used) > 1 and loads.max() > UNEVEN * used.mean():
            out.append(
                f"Card {int(loads.argmax())} {verb} {format_bytes(int(loads.max()))}, "
                f"{loads.max() / used.mean():.1f} times the mean of the {noun} cards."
            )
    runs, total = int(plan.runs.sum()), int(needed.sum())
    if runs and total / runs < SHORT_RUN and total > SHORT_RUN:
        out.append(
            f"The bytes are in {runs:,} runs of {format_bytes(total // runs)} on average: many short reads."
        )
    empty = int((needed == 0).sum())
    if empty:
        out.append(f"{empty} of {plan.dst_count} destination cards get nothing.")
    return tuple(out)
