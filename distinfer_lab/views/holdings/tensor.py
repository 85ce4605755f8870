"""A tensor as it is cut: its true proportions, the indices at its edges, who holds each shard.

::

       0    4    8   12   16        further dims that are cut become sheets side by side;
     0 +----+----+----+----+        a cut within a shard (optimizer shards) is dashed, the edge
       | 0,4| 1,5| 2,6| 3,7|        of a fused part thick; shards too many to be drawn are drawn
    96 +----+----+----+----+        in runs, and it says so
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...display import counted
from ...layout import Layout, nonempty_boxes
from ..drawing import (
    Block,
    Pen,
    above,
    finish,
    fitted,
    heading,
    label,
    line,
    notes,
    path,
    side_by_side,
    text,
    text_width,
)
from .holding import Holding, hold

__all__ = ["format_ranks", "tensor_block", "tensor_svg"]

WIDE, HIGH = 400.0, 200.0
MOST_CELLS = 64
LONGEST = 8.0
"""The greatest ratio of the sides of a sheet; a longer tensor is drawn shorter, and it says so."""

Cuts = NDArray[np.int64]


class Cut(NamedTuple):
    """A tensor as it is drawn."""

    shape: tuple[int, ...]
    cuts: tuple[Cuts, ...]
    """For each dim where it is cut, 0 and the size included; int64, ascending."""
    shards: dict[tuple[int, ...], list[int]]
    """For each cell of that grid the numbers of the shards that have elements in it."""
    holders: dict[int, list[int]]
    """For each shard the ranks that hold it."""
    merged: bool
    """Whether neighbouring shards are drawn as one cell."""


class Frame(NamedTuple):
    """How a sheet is drawn: the dims that it shows, and pixels for each element of them."""

    row_dim: int | None
    column_dim: int | None
    wide: float
    high: float


def tensor_svg(layout: Layout, shape: Sequence[int], *, title: str = "", ranks: int | None = None) -> str:
    """How a layout cuts a tensor, in true proportions, with the ranks that hold each shard.

    Parameters
    ----------
    layout, shape
        The layout and the tensor's full shape.
    title
        What the tensor is called.
    ranks
        The number of cards of the group, where some hold nothing of this tensor.

    Raises
    ------
    LayoutError
        If the layout cannot cut the shape.
    """
    holding = hold(layout, shape, ranks)
    name = title or "tensor"
    pen = Pen(f"{layout!r}{shape!r}{title}")
    block = heading(tensor_block(layout, holding, pen), f"{name} {list(holding.shape)}", [])
    return finish(block, f"{name} {list(holding.shape)} as {layout!r} cuts it", pen)


def tensor_block(layout: Layout, holding: Holding, pen: Pen) -> Block:
    """The sheets of a tensor, with what cannot be seen from them said below."""
    cut = _cut(layout, holding)
    frame, drawn = _frame(cut)
    facets = [d for d in range(len(cut.shape)) if d not in frame[:2] and len(cut.cuts[d]) > 2]
    firm = _firm_cuts(layout, cut.shape)
    blocks = [
        _sheet(cut, frame, dict(zip(facets, index, strict=True)), firm, pen)
        for index in product(*(range(len(cut.cuts[d]) - 1) for d in facets))
    ]
    told = "in each cell: who holds it"
    if cut.merged:
        count = len(cut.holders) - (-1 in cut.holders)
        told = f"{count:,} shards are too many to draw: each cell tells how many lie in it"
    said = [told, *_describe_dims(layout, cut.shape), *drawn, *_idle(layout, holding)]
    return above([side_by_side(blocks), notes(said)], 8)


def format_ranks(ranks: Sequence[int]) -> str:
    """Some ranks, ascending, in a few words.

    Examples
    --------
    >>> format_ranks([3]), format_ranks([0, 4]), format_ranks([0, 1, 2, 3])
    ('3', '0, 4', '0-3')
    >>> format_ranks([0, 4, 8, 12])
    '0, 4, … 12'
    """
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]}-{ranks[-1]}"
    if len(ranks) > 3:
        return f"{ranks[0]}, {ranks[1]}, … {ranks[-1]}"
    return ", ".join(map(str, ranks))


def _cut(layout: Layout, holding: Holding) -> Cut:
    shape = holding.shape
    full = nonempty_boxes(holding.parts) & holding.held[:, None]
    rows, part = np.nonzero(full)
    boxes = holding.parts[rows, part]
    cuts = [np.unique(np.append(boxes[:, d].ravel(), [0, n])) for d, n in enumerate(shape)]
    merged = False
    while math.prod(len(c) - 1 for c in cuts) > MOST_CELLS:
        most = max(range(len(cuts)), key=lambda d: len(cuts[d]))
        cuts[most], merged = np.append(cuts[most][:-1:2], shape[most]), True
    shards: dict[tuple[int, ...], list[int]] = {}
    numbers, seen = holding.shards[rows], set()
    for box, shard in zip(boxes, numbers.tolist(), strict=True):
        if (key := (shard, box.tobytes())) in seen:
            continue
        seen.add(key)
        spans = [_cells(c, a, b) for c, (a, b) in zip(cuts, box.tolist(), strict=True)]
        for cell in product(*spans):
            shards.setdefault(cell, []).append(shard)
    holders: dict[int, list[int]] = {}
    for rank, shard in enumerate(holding.shards.tolist()):
        holders.setdefault(shard, []).append(rank)
    return Cut(shape, tuple(cuts), shards, holders, merged)


def _cells(cuts: Cuts, start: int, stop: int) -> range:
    """The cells between cuts that some elements lie in."""
    first = int(np.searchsorted(cuts, start, side="right")) - 1
    return range(first, int(np.searchsorted(cuts, stop, side="left")))


def _frame(cut: Cut) -> tuple[Frame, list[str]]:
    """The dims that are drawn as rows and columns, their scale, and what to say of it."""
    ndim = len(cut.shape)
    if ndim < 2:
        wide = WIDE / max(cut.shape[0], 1) if ndim else 60.0
        return Frame(None, 0 if ndim else None, wide, 34.0), []
    order = sorted(range(ndim), key=lambda d: (len(cut.cuts[d]) <= 2, -d))
    row_dim, column_dim = sorted(order[:2])
    rows, columns = max(cut.shape[row_dim], 1), max(cut.shape[column_dim], 1)
    facets = math.prod(len(cut.cuts[d]) - 1 for d in order[2:])
    most_wide = WIDE if facets == 1 else 170.0
    ratio = min(max(columns / rows, 1 / LONGEST), LONGEST)
    width = min(most_wide, HIGH * ratio)
    # A cell is at least as wide and as high as a number needs.
    height = max(width / ratio, 15.0 * (len(cut.cuts[row_dim]) - 1))
    width = max(width, _cell_width(cut) * (len(cut.cuts[column_dim]) - 1))
    frame = Frame(row_dim, column_dim, width / columns, height / rows)
    times = frame.high / frame.wide
    if 0.95 < times < 1.05:
        return frame, []
    longer = row_dim if times < 1 else column_dim
    return frame, [f"not to scale: dim {longer} is drawn {max(times, 1 / times):.1f} times shorter"]


def _cell_width(cut: Cut) -> float:
    """What the longest names of those who hold a shard need."""
    if cut.merged:
        return 22.0
    longest = max((text_width(format_ranks(ranks), 10) for ranks in cut.holders.values()), default=0)
    return min(max(longest + 6, 22.0), 70.0)


def _firm_cuts(layout: Layout, shape: Sequence[int]) -> tuple[set[int], list[set[int]]]:
    """Where dim 0 is cut without optimizer shards; and for each dim where its fused parts begin and end."""
    fused = [
        set(np.cumsum(sizes).tolist()) if sizes else set() for sizes in layout.fused or [None] * len(shape)
    ]
    if not shape or layout.optimizer_shards == 1:
        return set(), fused
    plain = replace(layout, optimizer_shards=1).regions(shape).boxes[:, 0]
    return set(np.unique(plain).tolist()), fused


def _sheet(
    cut: Cut, frame: Frame, facet: dict[int, int], firm: tuple[set[int], list[set[int]]], pen: Pen
) -> Block:
    across = _edges(cut, frame.column_dim, frame.wide)
    down = _edges(cut, frame.row_dim, frame.high)
    left = max((text_width(str(at), 10) for at in _labels(cut, frame.row_dim)), default=0) + 6
    width, height = across[-1], down[-1]
    top = 16 + 14 * bool(facet)
    body = [text(left, 10, _describe_facet(cut, facet), 'font-size="10" font-weight="600"')] if facet else []
    body.append(path(left, top, width, height, 'class="sheet" fill="#f2f2f2" stroke="#aaa"'))
    for i, j in product(range(len(down) - 1), range(len(across) - 1)):
        shards = cut.shards.get(_cell_index(cut, frame, facet, i, j), [])
        corner = left + across[j], top + down[i]
        if shards:
            body.append(_cell(cut, shards, pen, corner, (across[j + 1] - across[j], down[i + 1] - down[i])))
    for dim, edges, is_row in ((frame.row_dim, down, True), (frame.column_dim, across, False)):
        if dim is not None:
            kinds = [_stroke(dim, int(at), firm) for at in cut.cuts[dim]]
            body += _lines(edges, kinds, (left, top), (width, height), is_row)
    body += _across_labels(cut, frame, across, left, top - 4)
    body += _down_labels(cut, frame, down, left - 4, top)
    return Block(left + width + 14, top + height + 2, "".join(body))


def _edges(cut: Cut, dim: int | None, pixels: float) -> list[float]:
    return [0.0, pixels] if dim is None else [float(at) * pixels for at in cut.cuts[dim]]


def _cell_index(cut: Cut, frame: Frame, facet: dict[int, int], i: int, j: int) -> tuple[int, ...]:
    index = dict.fromkeys(range(len(cut.shape)), 0) | facet
    if frame.row_dim is not None:
        index[frame.row_dim] = i
    if frame.column_dim is not None:
        index[frame.column_dim] = j
    return tuple(index.values())


def _cell(
    cut: Cut, shards: Sequence[int], pen: Pen, corner: tuple[float, float], size: tuple[float, float]
) -> str:
    """The first shard's colour, and who holds it; of several shards in one cell, their number."""
    number, ranks = shards[0], cut.holders[shards[0]]
    words = format_ranks(ranks)
    options = [
        f"card {words}" if len(ranks) == 1 else f"cards {words}",
        words,
        fitted(words, size[0] - 4, 10),
    ]
    if len(shards) > 1:
        options = [f"{len(shards)} shards", str(len(shards)), ""]
    fitting = next((o for o in options if text_width(o, 10) <= size[0] - 4), "")
    square = path(*corner, *size, f'fill="{pen.fill(number)}"')
    if size[1] < 12 or not fitting:
        return square
    at = corner[0] + size[0] / 2, corner[1] + size[1] / 2 + 3.5
    return square + label(*at, fitting, pen.ink(number), 'font-size="10" text-anchor="middle"')


def _stroke(dim: int, at: int, firm: tuple[set[int], list[set[int]]]) -> str:
    plain, fused = firm
    if at in fused[dim]:
        return 'stroke="#000" stroke-width="3"'
    if dim == 0 and plain and at not in plain:
        return 'stroke="#000" stroke-dasharray="4 3"'
    return 'stroke="#000"'


def _lines(
    edges: Sequence[float],
    kinds: Sequence[str],
    corner: tuple[float, float],
    size: tuple[float, float],
    is_row: bool,
) -> list[str]:
    """The cuts across one dim, the sheet's own two edges among them."""
    (left, top), (width, height) = corner, size
    if is_row:
        return [line(left, top + at, width, 0, kind) for at, kind in zip(edges, kinds, strict=True)]
    return [line(left + at, top, 0, height, kind) for at, kind in zip(edges, kinds, strict=True)]


def _labels(cut: Cut, dim: int | None) -> list[int]:
    return [] if dim is None else cut.cuts[dim].tolist()


def _across_labels(cut: Cut, frame: Frame, edges: Sequence[float], left: float, y: float) -> list[str]:
    out, free = [], -1e9
    labels = _labels(cut, frame.column_dim)
    end = left + edges[-1] - text_width(str(labels[-1]), 10) / 2 - 4 if labels else 0.0
    for at, index in zip(edges, labels, strict=False):
        half = text_width(str(index), 10) / 2
        fits = left + at - half >= free and (left + at + half <= end or index == labels[-1])
        if fits:
            out.append(text(left + at, y, str(index), 'font-size="10" text-anchor="middle"'))
            free = left + at + half + 4
    return out


def _down_labels(cut: Cut, frame: Frame, edges: Sequence[float], x: float, top: float) -> list[str]:
    out, free = [], -1e9
    labels = _labels(cut, frame.row_dim)
    for at, index in zip(edges, labels, strict=False):
        if at >= free and (at <= edges[-1] - 11 or index == labels[-1]):
            out.append(text(x, top + at + 3.5, str(index), 'font-size="10" text-anchor="end"'))
            free = at + 11
    return out


def _describe_facet(cut: Cut, facet: dict[int, int]) -> str:
    return ", ".join(f"dim {d} {cut.cuts[d][i]}:{cut.cuts[d][i + 1]}" for d, i in facet.items())


def _describe_dims(layout: Layout, shape: Sequence[int]) -> list[str]:
    """For each dim its size and who cuts it."""
    out = []
    for dim, (size, axes, parts) in enumerate(zip(shape, layout.dims, layout.parts, strict=True)):
        words = f"in {parts} parts by {' and '.join(axes)}" if axes else "whole"
        if layout.fused and layout.fused[dim]:
            words += f", each of its fused parts {list(layout.fused[dim] or ())} by itself (thick lines)"
        if dim == 0 and layout.optimizer_shards > 1:
            words += f", then each shard in {layout.optimizer_shards} among its copies (dashed lines)"
        out.append(f"dim {dim}: {counted(size, 'element')}, {words}")
    return out or ["a single number"]


def _idle(layout: Layout, holding: Holding) -> list[str]:
    """Who holds nothing, and why."""
    idle = np.flatnonzero(~holding.held)
    named = np.isin(idle, layout.ranks)
    out = []
    for ranks, words in ((idle[named], "hold an empty shard"), (idle[~named], "hold no part of this tensor")):
        if len(ranks):
            verb = words if len(ranks) > 1 else words.replace("hold", "holds", 1)
            out.append(f"card{'s' * (len(ranks) > 1)} {format_ranks(ranks.tolist())} {verb}")
    return out
