"""The tensor of a cut map: its slices in colour, frames around what each inference card needs, indices at its edges.

Two dims are drawn, true to scale where that leaves room for the cuts; runs of further cut dims are sheets next
to each other. A slice is drawn by its own boxes and a frame by those of its shard, so that neither hides another.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layout import nonempty_boxes
from ..drawing import ink_on, label, line, muted, outline, path, text, text_width
from .cut_flows import Flows
from .cut_sides import Dims
from .holding import Holding

__all__ = ["Patch", "Stage", "merged", "stage_body", "stage_of"]

MOST_SHEETS = 8
LEAST, TALLEST = 110.0, 330.0
GAP = 12.0
MOST_WORDS, MOST_SEAMS = 160, 256

Span = tuple[float, float]
Index = tuple[tuple[int, int], ...]


class Stage(NamedTuple):
    """How a tensor is drawn; lengths in pixels, its first sheet's corner at (0, 0)."""

    shape: tuple[int, ...]
    dims: Dims
    sheets: tuple[Index, ...]
    """For each sheet, the run of each dim of `dims.sheets` that it shows."""
    drawn: tuple[int | None, ...]
    """The sheets from left to right; None for those that are left out."""
    width: float
    """Of one sheet."""
    height: float
    cuts: tuple[tuple[int, ...], ...]
    """For each dim where either side cuts it, 0 and its size included."""

    @property
    def total(self) -> float:
        """The width of all sheets."""
        return len(self.drawn) * (self.width + GAP) - GAP

    def left(self, place: int) -> float:
        """Where the sheet at a place begins."""
        return place * (self.width + GAP)

    def across(self, start: int, stop: int) -> Span:
        """Where a run of columns lies within a sheet."""
        return _span(start, stop, self.dims.column, self.shape, self.width)

    def down(self, start: int, stop: int) -> Span:
        """Where a run of rows lies within a sheet."""
        return _span(start, stop, self.dims.row, self.shape, self.height)

    @property
    def stretched(self) -> float:
        """How many times longer rows are drawn than columns; 1 for true proportions."""
        row, column = self.dims.row, self.dims.column
        if row is None or column is None or not self.shape[row] or not self.shape[column]:
            return 1.0
        return (self.height / self.shape[row]) / (self.width / self.shape[column])


def _span(start: int, stop: int, dim: int | None, shape: tuple[int, ...], pixels: float) -> Span:
    if dim is None:
        return 0.0, pixels
    scale = pixels / max(shape[dim], 1)
    return start * scale, stop * scale


def stage_of(train: Holding, infer: Holding, dims: Dims, width: float) -> Stage:
    """A stage that is at most so wide."""
    shape = train.shape
    cuts = tuple(_cuts((train, infer), d, n) for d, n in enumerate(shape))
    runs = [tuple(zip(cuts[d], cuts[d][1:], strict=False)) for d in dims.sheets]
    sheets = tuple(product(*runs))
    drawn: tuple[int | None, ...] = tuple(range(len(sheets)))
    if len(sheets) > MOST_SHEETS:
        drawn = (0, 1, 2, 3, None, len(sheets) - 1)
    each = (width - GAP * (len(drawn) - 1)) / len(drawn)
    return Stage(shape, dims, sheets, drawn, each, _height(shape, dims, each, cuts), cuts)


def _cuts(sides: Sequence[Holding], dim: int, size: int) -> tuple[int, ...]:
    found = [{0, size}]
    for side in sides:
        found.append(set(side.parts[:, :, dim][nonempty_boxes(side.parts)].ravel().tolist()))
    return tuple(sorted(set().union(*found)))


def _height(shape: tuple[int, ...], dims: Dims, width: float, cuts: Sequence[Sequence[int]]) -> float:
    if dims.row is None or dims.column is None:
        return 46.0
    true = width * shape[dims.row] / max(shape[dims.column], 1)
    least = max(LEAST if len(dims.sheets) == 0 else 70.0, 17.0 * (len(cuts[dims.row]) - 1))
    return min(max(true, least), TALLEST if not dims.sheets else 200.0)


class Patch(NamedTuple):
    """A rectangle on the stage."""

    x: float
    y: float
    width: float
    height: float


def _rectangles(stage: Stage, box: NDArray[np.int64]) -> Iterator[Patch]:
    """A box of the tensor, on every sheet that shows some of it."""
    dims = stage.dims
    across = stage.across(*(box[dims.column].tolist() if dims.column is not None else (0, 1)))
    down = stage.down(*(box[dims.row].tolist() if dims.row is not None else (0, 1)))
    for place, sheet in enumerate(stage.drawn):
        if sheet is None:
            continue
        runs = stage.sheets[sheet]
        if all(box[d, 0] < b and a < box[d, 1] for d, (a, b) in zip(dims.sheets, runs, strict=True)):
            yield Patch(stage.left(place) + across[0], down[0], across[1] - across[0], down[1] - down[0])


def stage_body(stage: Stage, flows: Flows, colours: Sequence[str]) -> str:
    """The sheets, with slices, frames and words, and the indices at their edges."""
    body = [
        path(stage.left(place), 0, stage.width, stage.height, 'class="sheet" fill="#f2f2f2"')
        for place, sheet in enumerate(stage.drawn)
        if sheet is not None
    ]
    body += [_gap(stage, place) for place, sheet in enumerate(stage.drawn) if sheet is None]
    slices = [
        (Patch(*r), colours[shard]) for shard, box in _distinct(flows.train) for r in _rectangles(stage, box)
    ]
    body += [path(*patch, f'fill="{fill}"') for patch, fill in merged(slices)]
    body.append(_seams([patch for patch, _ in slices]))
    body.append(_frames([r for _, box in _distinct(flows.infer) for r in _rectangles(stage, box)]))
    body += _words(stage, flows, colours)
    return "".join(body) + _rulers(stage)


def merged(patches: Sequence[tuple[Patch, str]]) -> list[tuple[Patch, str]]:
    """The same with neighbors of one colour as one, where they follow each other in a row."""
    out: list[tuple[Patch, str]] = []
    for patch, fill in patches:
        if out and out[-1][1] == fill and _follows(out[-1][0], patch):
            last = out[-1][0]
            out[-1] = (last._replace(width=patch.x + patch.width - last.x), fill)
        else:
            out.append((patch, fill))
    return out


def _follows(one: Patch, other: Patch) -> bool:
    return (one.y, one.height) == (other.y, other.height) and abs(one.x + one.width - other.x) < 0.01


def _gap(stage: Stage, place: int) -> str:
    middle = stage.left(place) + stage.width / 2
    left_out = len(stage.sheets) - sum(s is not None for s in stage.drawn)
    return text(middle, stage.height / 2, f"{left_out} more", 'text-anchor="middle"')


def _distinct(holding: Holding) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Every box of every distinct shard."""
    numbers, rows = np.unique(holding.shards, return_index=True)
    for shard, row in zip(numbers.tolist(), rows.tolist(), strict=True):
        if shard >= 0:
            for box in holding.parts[row][nonempty_boxes(holding.parts[row])]:
                yield shard, box


def _seams(patches: Sequence[Patch]) -> str:
    """Dotted lines between slices, where they are large enough to be distinguished."""
    large = [outline(*p) for p in patches if min(p.width, p.height) >= 8 and len(patches) <= MOST_SEAMS]
    dotted = 'fill="none" stroke="#222" stroke-width=".8" stroke-dasharray="1 2"'
    return f'<path d="{"".join(large)}" {dotted}/>' if large else ""


def _frames(patches: Sequence[Patch]) -> str:
    """What one inference card needs each: heavy lines, with room between those of neighbors."""
    small = any(min(p.width, p.height) <= 8 for p in patches)
    inset, width = (0.4, ".8") if small else (1.2, "2")
    inner = [
        outline(p.x + inset, p.y + inset, max(p.width - 2 * inset, 0.2), max(p.height - 2 * inset, 0.2))
        for p in patches
    ]
    frame = f'class="frame" fill="none" stroke="#111" stroke-width="{width}"'
    return f'<path d="{"".join(inner)}" {frame}/>' if inner else ""


def _words(stage: Stage, flows: Flows, colours: Sequence[str]) -> list[str]:
    """Which card sends a piece, or that it stays, where there is room to say it."""
    out: list[str] = []
    if len(flows.pieces) > MOST_WORDS:
        return out
    for piece in flows.pieces:
        for r in _rectangles(stage, piece.box):
            if piece.stays and r.width > 14 and r.height > 24:
                dashes = f'fill="none" stroke="{ink_on(colours[piece.slice])}" stroke-dasharray="3 2"'
                out.append(path(r.x + 5, r.y + 5, r.width - 10, r.height - 10, dashes))
            words = next((w for w in piece.words if text_width(w, 11) <= r.width - 8), "")
            if words and r.height >= 15:
                bold = ' font-weight="600"' if piece.stays else ""
                at = r.x + r.width / 2, r.y + r.height / 2 + 4
                out.append(label(*at, words, ink_on(colours[piece.slice]), f'text-anchor="middle"{bold}'))
    return out


def _rulers(stage: Stage) -> str:
    """The indices of the cuts, along the top of every sheet and down the first."""
    out = []
    column, row = stage.dims.column, stage.dims.row
    for place, sheet in enumerate(stage.drawn):
        if column is not None and sheet is not None:
            at = [(stage.left(place) + stage.across(0, c)[1], c) for c in stage.cuts[column]]
            out += _across_labels(at, narrow=bool(stage.dims.sheets))
    if row is not None:
        free = -1e9
        for c in stage.cuts[row]:
            y = stage.down(0, c)[1]
            if y >= free and (y <= stage.height - 12 or c == stage.shape[row]):
                out.append(line(-4, y, 4, 0))
                out.append(muted(-7, y + 3.5, str(c), 'text-anchor="end"'))
                free = y + 12
    return "".join(out)


def _across_labels(at: Sequence[tuple[float, int]], narrow: bool) -> list[str]:
    if narrow:
        return []
    out, free = [], -1e9
    end = at[-1][0] - text_width(str(at[-1][1]), 10.5) / 2 - 4
    for x, index in at:
        half = text_width(str(index), 10.5) / 2
        if x - half >= free and (x + half <= end or index == at[-1][1]):
            out.append(line(x, -4, 0, 4))
            out.append(muted(x, -7, str(index), 'text-anchor="middle"'))
            free = x + half + 4
    return out
