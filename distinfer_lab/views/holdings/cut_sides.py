"""Where the cards of one side stand around a tensor: at the edge of the dim that they cut.

::

    across (top, bottom)      tp 0  tp 1  tp 2        down (left, right)    whole
                        dp 0   0     1     2          tp 0   0   4          copies of all of it,
                        dp 1   3     4     5          tp 1   1   5          in a block

A card's place follows from where its first box begins, so that any layout has one: fused, uneven, with optimizer
shards, of a pipeline stage. Its names are the mesh axes that set it apart from its neighbours.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layout import Layout, nonempty_boxes
from .holding import Holding

__all__ = ["Dims", "Side", "arrange", "drawn_dims"]

Ranks = NDArray[np.int64]
ALONG = ("sheets", "rows", "columns")


class Dims(NamedTuple):
    """Which dims of a tensor a picture shows how."""

    sheets: tuple[int, ...]
    """Cut dims beyond two: each run of them is a sheet of its own."""
    row: int | None
    column: int | None


class Side(NamedTuple):
    """The cards of training or of inference, in their places."""

    layout: Layout
    holding: Holding
    dims: Dims
    ranks: Ranks
    """int64, shape (copies, sheets, rows, columns): who holds what lies there; -1 for nobody."""
    names: tuple[tuple[str, ...], ...]
    """For each of those four what its places are called, by the axes of the mesh; "" for what has no name."""

    @property
    def edge(self) -> str:
        """Along which edges its cards stand: "whole", "across", "down", "both" or "sheets"."""
        _, _, rows, columns = self.ranks.shape
        if self.dims.sheets:
            return "sheets"
        return {(False, False): "whole", (False, True): "across", (True, False): "down"}.get(
            (rows > 1, columns > 1), "both"
        )

    @property
    def idle(self) -> list[int]:
        """The ranks that hold nothing of the tensor."""
        return np.flatnonzero(~self.holding.held).tolist()


def drawn_dims(train: Holding, infer: Holding) -> Dims:
    """The last two dims that either side cuts; where fewer are cut, the last ones."""
    ndim = len(train.shape)
    cut = [_is_cut(train, d) or _is_cut(infer, d) for d in range(ndim)]
    order = sorted(range(ndim), key=lambda d: (not cut[d], -d))
    if ndim < 2:
        return Dims((), None, 0 if ndim else None)
    row, column = sorted(order[:2])
    return Dims(tuple(sorted(d for d in order[2:] if cut[d])), row, column)


def _is_cut(holding: Holding, dim: int) -> bool:
    parts = holding.parts[:, :, dim][nonempty_boxes(holding.parts)]
    return bool((parts != (0, holding.shape[dim])).any())


def arrange(layout: Layout, holding: Holding, dims: Dims) -> Side:
    """The cards of one side in their places."""
    held = np.flatnonzero(holding.held)
    if not len(held):
        return Side(layout, holding, dims, np.full((1, 1, 1, 1), -1), (("",),) * 4)
    groups = [dims.sheets, *((() if d is None else (d,)) for d in (dims.row, dims.column))]
    starts = _first_starts(holding)[held]
    places = np.stack([_place(starts[:, list(group)]) for group in groups], axis=1)
    counts = places.max(axis=0) + 1
    flat = np.ravel_multi_index(tuple(places.T), tuple(counts))
    copy = _numbers_within(flat)
    ranks = np.full((int(copy.max()) + 1, *counts), -1)
    ranks[copy, places[:, 0], places[:, 1], places[:, 2]] = held
    axes = [tuple(a for d in group for a in layout.dims[d]) for group in groups]
    rest = tuple(a for a in layout.mesh.axis_names if a not in layout.axes)
    names = [_names(layout, ranks, k, of) for k, of in enumerate([rest, *axes])]
    return Side(layout, holding, dims, ranks, tuple(names))


def _first_starts(holding: Holding) -> Ranks:
    full = nonempty_boxes(holding.parts)
    first = full.argmax(axis=1)
    out: Ranks = holding.parts[np.arange(len(first)), first, :, 0]
    return out


def _place(starts: Ranks) -> Ranks:
    """The number of each row among the distinct ones, in ascending order."""
    if not starts.shape[1]:
        return np.zeros(len(starts), np.int64)
    return np.asarray(np.unique(starts, axis=0, return_inverse=True)[1]).ravel()


def _numbers_within(groups: Ranks) -> Ranks:
    """How many equal ones stand before each."""
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    out = np.empty(len(groups), np.int64)
    out[order] = np.arange(len(groups)) - np.repeat(first, counts)
    return out


def _names(layout: Layout, ranks: Ranks, along: int, axes: tuple[str, ...]) -> tuple[str, ...]:
    """The coordinates by which the places along one direction differ; "" where these are not the same throughout."""
    axes = tuple(a for a in axes if layout.mesh.axis_size(a) > 1)
    rows = np.moveaxis(ranks, along, 0).reshape(ranks.shape[along], -1)
    named = [[_coordinates(layout, r, axes) for r in row.tolist() if r >= 0] for row in rows]
    alike = all(len({tuple(c) for c in row}) == 1 for row in named) and axes
    if not alike or len({tuple(row[0]) for row in named}) < len(named):
        return ("",) * len(rows)
    return tuple(" ".join(f"{a} {c}" for a, c in zip(axes, row[0], strict=True)) for row in named)


def _coordinates(layout: Layout, rank: int, axes: tuple[str, ...]) -> list[int]:
    row = layout.row_of(rank) % layout.mesh.size
    at = np.unravel_index(row, layout.mesh.axis_sizes)
    return [int(at[layout.mesh.axis_index(a)]) for a in axes]
