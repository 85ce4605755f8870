"""What executing a plan means: every other executor must equal this one, bit for bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import box_of
from .plan import ReshardPlan

__all__ = ["execute"]

Shards = dict[tuple[int, str], NDArray[Any]]


def execute(plan: ReshardPlan, src: Mapping[tuple[int, str], NDArray[Any]]) -> Shards:
    """Destination (rank, tensor) -> shard, from source (rank, tensor) -> shard."""
    out: Shards = {}
    for name, tensor in plan.items():
        shapes = tensor.dst.shard_shapes(plan.dst_count)
        for rank in tensor.dst.ranks.tolist():
            out[rank, name] = np.empty(shapes[rank], tensor.dtype)
        extents = tensor.pieces.boxes[..., 1] - tensor.pieces.boxes[..., 0]
        for src_rank, dst_rank, there, here, extent in zip(
            tensor.pieces.src_rank.tolist(),
            tensor.pieces.dst_rank.tolist(),
            tensor.pieces.src_at,
            tensor.pieces.dst_at,
            extents,
            strict=True,
        ):
            piece = box_of(there, extent).of(src[src_rank, name])
            box_of(here, extent).of(out[dst_rank, name])[...] = piece
    return out
