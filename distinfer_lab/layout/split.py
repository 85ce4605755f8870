"""How a dim is shared by the parts that cut it, and what all ranks hold as a result.

::

    10 elements by 4 parts
    even          not at all: 4 does not divide 10
    torch_chunk   3 3 3 1: runs of ceil(10 / 4); of several axes, each cuts the pieces of those before it
    gspmd_ceil    3 3 3 1: the same, but several axes count as one of their product
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import LayoutError
from .box import Boxes

__all__ = ["SPLITS", "Regions", "cut_points"]

SPLITS = ("even", "torch_chunk", "gspmd_ceil")

Ints = NDArray[np.int64]


class Regions(NamedTuple):
    """What all ranks hold, one box per row; a rank of a fused tensor has several rows."""

    ranks: Ints
    """int64, shape (n,)."""
    boxes: Boxes
    """int64, shape (n, ndim, 2), in the coordinates of the whole tensor."""
    starts: Ints
    """Where each box begins in the shard of its rank, int64, shape (n, ndim)."""

    @property
    def ends(self) -> Ints:
        """Where each box ends in the shard of its rank, int64, shape (n, ndim)."""
        out: Ints = self.starts + np.maximum(self.boxes[..., 1] - self.boxes[..., 0], 0)
        return out

    def shard_shapes(self, ranks: int) -> Ints:
        """The shape of the shard of each of `ranks` ranks, int64, shape (ranks, ndim); 0 where there is none."""
        out = np.zeros((ranks, self.boxes.shape[1]), np.int64)
        np.maximum.at(out, self.ranks, self.ends)
        return out


def cut_points(
    length: int, axes: Sequence[int], split: str = "even", sizes: Sequence[int] | None = None
) -> Ints:
    """Where a dim is cut, int64, shape (parts + 1,), from 0 to `length`.

    Parameters
    ----------
    length
        Elements of the dim.
    axes
        Sizes of the mesh axes that cut it, most significant first; their product is the number of parts.
    split
        One of `SPLITS`.
    sizes
        The size of every part, where it is explicit.

    Raises
    ------
    LayoutError
        If the parts cannot share the dim so.
    """
    parts = math.prod(axes)
    if sizes is not None:
        if sum(sizes) != length:
            raise LayoutError(f"{length} elements, but the sizes {tuple(sizes)} add up to {sum(sizes)}")
        return np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
    if split == "torch_chunk":
        return _chunks(length, axes)
    if split == "even" and length % parts:
        fits = max(n for n in range(1, parts) if length % n == 0)
        raise LayoutError(
            f"{length} elements, which {parts} parts cannot share evenly; use {fits} parts, "
            "explicit sizes, or another split"
        )
    return np.minimum(np.arange(parts + 1, dtype=np.int64) * -(-length // parts), length)


def _chunks(length: int, axes: Sequence[int]) -> Ints:
    cuts = np.array([0, length], np.int64)
    for n in axes:
        lengths = np.diff(cuts)
        steps = np.minimum(np.outer(-(-lengths // n), np.arange(n)), lengths[:, None])
        cuts = np.append((cuts[:-1, None] + steps).ravel(), length)
    return cuts
