"""What carrying out a plan means: every other executor must equal this one, bit for bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import box_at
from .plan import ReshardPlan

__all__ = ["execute"]

Shards = dict[tuple[int, str], NDArray[Any]]


def execute(plan: ReshardPlan, src: Mapping[tuple[int, str], NDArray[Any]]) -> Shards:
    """Destination (rank, tensor) -> shard, from source (rank, tensor) -> shard."""
    out: Shards = {}
    for name, tensor in plan.items():
        outer = {int(r): box_at(tensor.src_boxes, i) for i, r in enumerate(tensor.src_ranks)}
        inner = {int(r): box_at(tensor.dst_boxes, i) for i, r in enumerate(tensor.dst_ranks)}
        for rank, box in inner.items():
            out[rank, name] = np.empty(box.shape, tensor.dtype)
        pieces = tensor.transfers
        for i, (giver, taker) in enumerate(
            zip(pieces.src_rank.tolist(), pieces.dst_rank.tolist(), strict=True)
        ):
            box = box_at(pieces.boxes, i)
            there = src[giver, name][box.within(outer[giver]).slices()]
            out[taker, name][box.within(inner[taker]).slices()] = there
    return out
