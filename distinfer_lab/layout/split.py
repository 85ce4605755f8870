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

__all__ = ["SPLITS", "Regions", "cut_points", "piece_runs", "share_rows"]

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


def piece_runs(
    length: int,
    axes: Sequence[int],
    split: str = "even",
    sizes: Sequence[int] | None = None,
    fused: Sequence[int] | None = None,
) -> Ints:
    """The runs of a dim that each piece consists of, int64, shape (pieces, fused parts, 3).

    The last dim is start and stop in the tensor, and start in the shard; all count elements.

    Parameters
    ----------
    length, axes, split, sizes
        See `cut_points`.
    fused
        The sizes of the parts along the dim, each of which is cut by itself; None: one part.

    Raises
    ------
    LayoutError
        If the fused parts are not the dim, or the pieces cannot share one of them so.

    Examples
    --------
    >>> piece_runs(16, [2], fused=[8, 4, 4])[1].tolist()
    [[4, 8, 0], [10, 12, 4], [14, 16, 6]]
    """
    parts = tuple(fused or (length,))
    if sum(parts) != length:
        raise LayoutError(f"{length} elements, but its fused parts {parts} add up to {sum(parts)}")
    runs, offset = [], 0
    shard = np.zeros(math.prod(axes), np.int64)
    for part in parts:
        cuts = cut_points(part, axes, split, sizes)
        runs.append(np.stack([offset + cuts[:-1], offset + cuts[1:], shard], axis=-1))
        shard = shard + np.diff(cuts)
        offset += part
    return np.stack(runs, axis=1)


def share_rows(runs: Ints, members: Ints, shards: int, split: str) -> None:
    """Share the rows of equal shards among the members of each optimizer group, in place.

    A shard's rows are shared as they lie in it, so that a run of a fused part may be cut, or
    left to another member.

    Parameters
    ----------
    runs
        What each rank would hold, as `piece_runs` has it, shape (ranks, fused parts, 3).
    members
        The place of each rank in its group, shape (ranks,), below `shards`.
    shards
        How many ranks share a shard.
    split
        One of `SPLITS`.

    Raises
    ------
    LayoutError
        If the split is even and the rows do not divide.
    """
    ends = runs[..., 2] + runs[..., 1] - runs[..., 0]
    rows = ends.max(axis=1)
    if split == "even" and (rows % shards).any():
        bad = int(rows[rows % shards != 0][0])
        raise LayoutError(
            f"dim 0 of a shard has {bad} rows, which {shards} optimizer shards cannot share evenly; "
            "use a divisor of it, or another split",
            dim=0,
        )
    share = -(-rows // shards)
    first = np.minimum(members * share, rows)[:, None]
    last = np.minimum(first + share[:, None], rows[:, None])
    start, end = np.maximum(runs[..., 2], first), np.minimum(ends, last)
    runs[..., 0] += start - runs[..., 2]
    runs[..., 1] = runs[..., 0] + np.maximum(end - start, 0)
    runs[..., 2] = np.minimum(start, end) - first
