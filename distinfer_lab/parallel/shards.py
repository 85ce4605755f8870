"""Where the boxes of a value are in the shards of the cards that hold it.

::

    whole   [0:16]                     fused (8, 4, 4), in 2 shards
    rank 0  [0:4] [8:10] [12:14]       its shard, 8 long:   [0:4] [4:6] [6:8]
    rank 1  [4:8] [10:12] [14:16]

All but fused tensors have one box a rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Any

from numpy.typing import NDArray

from ..layout import Box, Layout

__all__ = ["Index", "LaidBox", "ShardMap", "Shards", "shard_map"]

Shape = tuple[int, ...]
Shards = dict[str, NDArray[Any]]
"""What one card holds, by name."""
Index = tuple[slice | EllipsisType, ...]
"""A part of an array, as a view (also of an array of no dims)."""


@dataclass(frozen=True)
class LaidBox:
    """One box that a rank holds."""

    whole: Box
    """In the coordinates of the whole tensor."""
    shard: Box
    """The same, in the rank's shard."""


@dataclass(frozen=True)
class ShardMap:
    """What every rank holds of one tensor."""

    boxes: Mapping[int, tuple[LaidBox, ...]]
    """Rank -> its boxes; ranks that hold nothing of the tensor are not named."""
    shapes: Mapping[int, Shape]
    """Rank -> the shape of its shard."""

    def place(self, rank: int, box: Box) -> Index:
        """Where a box of the whole tensor, part of one that the rank holds, is in the rank's shard."""
        laid = next(laid for laid in self.boxes[rank] if laid.whole.common(box) == box)
        return (*box.within(laid.whole).moved(laid.shard.start).slices(), ...)


@lru_cache(maxsize=4096)
def shard_map(layout: Layout, shape: Shape) -> ShardMap:
    """Where the boxes of a tensor of this shape are.

    Raises
    ------
    LayoutError
        If the layout cannot shard this shape.
    """
    regions = layout.regions(shape)
    boxes: dict[int, list[LaidBox]] = {}
    rows = zip(regions.ranks.tolist(), regions.boxes.tolist(), regions.starts.tolist(), strict=True)
    for rank, row, start in rows:
        whole = Box(tuple(a for a, _ in row), tuple(b for _, b in row))
        shard = Box((0,) * len(start), whole.shape).moved(start)
        boxes.setdefault(rank, []).append(LaidBox(whole, shard))
    each = len(regions.ranks) // len(layout.ranks)
    ends = regions.ends.reshape(len(layout.ranks), each, len(shape)).max(axis=1, initial=0).tolist()
    shapes = {rank: tuple(end) for rank, end in zip(layout.ranks.tolist(), ends, strict=True)}
    return ShardMap({rank: tuple(found) for rank, found in boxes.items()}, shapes)
