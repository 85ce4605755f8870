"""Predict data in micro-batches."""

from collections.abc import Sequence

from ..errors import ContextError, Option
from ..net import Spec

__all__ = ["micro_specs"]


def micro_specs(data: Sequence[Spec], count: int) -> list[Spec]:
    """The shapes of one of `count` micro-batches of these inputs; inputs without dims are whole in each.

    Raises
    ------
    ContextError
        If a batch cannot be divided evenly.
    """
    out = []
    for number, spec in enumerate(data):
        if spec.shape and spec.shape[0] % count:
            given = Option("pipeline_micro_batches", count)
            raise ContextError(
                f"{given}: input {number} has {spec.shape[0]} rows, which so many "
                "micro-batches cannot share evenly; use a number that divides them",
                given,
            )
        out.append(Spec((spec.shape[0] // count, *spec.shape[1:]), spec.dtype) if spec.shape else spec)
    return out
