"""Where the cards of a cut map stand: over (or next to) the part of the tensor that they hold, copies further out."""

from collections.abc import Sequence

import numpy as np

from ..drawing import Block, line, muted, text_width
from .cut_sides import Side
from .cut_stage import Stage
from .cut_tiles import Cards, Cell, grid

__all__ = ["cards_across", "cards_block", "cards_down"]

BETWEEN = 4.0
SMALL = 10.5


def cards_across(cards: Cards, stage: Stage, *, above: bool) -> Block:
    """The cards of a side that cuts columns, each over or under its own; copies are stacked away from the tensor."""
    table = cards.side.ranks[:, 0, 0, :]
    spans = _spans([stage.across(*run) for run in _runs(cards.side, 3, stage.dims.column)], stage.width, 22.0)
    height = _clamped(220 / len(table) - BETWEEN, 5.0, 42.0)
    top = 16.0 * bool(cards.side.names[3][0])
    rows = []
    for copy, ranks in enumerate(table.tolist()):
        y = copy * (height + BETWEEN) + (top if above else 0)
        rows.append(
            [Cell(r, a + 2, y, max(b - a - 4, 3.0), height) for r, (a, b) in zip(ranks, spans, strict=True)]
        )
    bottom = len(table) * (height + BETWEEN) - BETWEEN
    names_at = 10 if above else bottom + 13
    body = grid(cards, rows)
    body += _names_across([(a + b) / 2 for a, b in spans], cards.side.names[3], names_at, stage.width)
    body += _names_down([row[0].y + height / 2 for row in rows], cards.side.names[0], -8)
    return Block(stage.width, bottom + top, body)


def cards_down(cards: Cards, stage: Stage, room: float) -> Block:
    """The cards of a side that cuts rows (and columns), each next to its own; copies go away from the tensor."""
    ranks = cards.side.ranks[:, 0]
    copies, down, across = ranks.shape
    names = cards.side.names[2]
    left = max((text_width(w, SMALL) for w in names), default=0) + 8 if names[0] else 0.0
    wide = _clamped((room - left) / (copies * across) - BETWEEN, 4.0, 130.0 if copies * across == 1 else 74.0)
    spans = _spans([stage.down(*run) for run in _runs(cards.side, 2, stage.dims.row)], stage.height, 17.0)
    high = [_clamped(b - a - BETWEEN, 3.0, 44.0) for a, b in spans]
    order = ranks.transpose(1, 0, 2).reshape(down, copies * across).tolist()
    rows = [
        [Cell(r, left + k * (wide + BETWEEN), sum(span) / 2 - h / 2, wide, h) for k, r in enumerate(row)]
        for row, span, h in zip(order, spans, high, strict=True)
    ]
    body = grid(cards, rows) + _names_down([sum(span) / 2 for span in spans], names, left - 6)
    labels = cards.side.names[0] if copies > 1 else cards.side.names[3]
    groups = copies if copies > 1 else across
    each = copies * across // groups * (wide + BETWEEN)
    body += _names_across(
        [left + each * (k + 0.5) - BETWEEN / 2 for k in range(groups)], labels, -7, left + each * groups
    )
    return Block(left + copies * across * (wide + BETWEEN) - BETWEEN, stage.height, body)


def cards_block(cards: Cards, stage: Stage) -> Block:
    """The cards of a side that hold all of it, or that cut into sheets: in a block, sheet by sheet."""
    ranks = cards.side.ranks
    sheets = ranks.shape[1]
    room = stage.total / sheets
    inside = [ranks[:, s].reshape(-1) for s in range(sheets)]
    columns = _columns(len(inside[0]), room, cards.side)
    lines = -(-len(inside[0]) // columns)
    wide = _clamped(room / columns - BETWEEN - 6.0 / columns, 4.0, 150.0)
    high = _clamped(220 / lines - BETWEEN, 5.0, 34.0)
    top = 16.0
    rows = [
        [
            Cell(r, s * room + j * (wide + BETWEEN), top + i * (high + BETWEEN), wide, high)
            for s in range(sheets)
            for j, r in enumerate(inside[s][i * columns : (i + 1) * columns].tolist())
        ]
        for i in range(lines)
    ]
    body = grid(cards, rows)
    names = cards.side.names[1]
    if sheets > 1:
        for s in range(sheets):
            body += _bracket(s * room, top - 4, room - 8)
        body += _names_across([s * room + (room - 8) / 2 for s in range(sheets)], names, top - 8, stage.total)
    return Block(stage.total, top + lines * (high + BETWEEN) - BETWEEN, body)


def _runs(side: Side, along: int, dim: int | None) -> list[tuple[int, int]]:
    """For each place along an edge the run of indices that its cards hold; (0, 0) for several runs or none."""
    out = []
    for ranks in np.moveaxis(side.ranks, along, 0).reshape(side.ranks.shape[along], -1).tolist():
        boxes = side.holding.boxes_of(max(ranks))
        runs = {(0, 1) if dim is None else (box.start[dim], box.stop[dim]) for box in boxes}
        out.append(runs.pop() if len(runs) == 1 else (0, 0))
    return out


def _spans(runs: Sequence[tuple[float, float]], length: float, least: float) -> list[tuple[float, float]]:
    """The runs themselves where each has room for a card; else equal shares of the edge."""
    if all(b - a >= min(least, length / len(runs)) - 0.01 for a, b in runs):
        return list(runs)
    return [(length * i / len(runs), length * (i + 1) / len(runs)) for i in range(len(runs))]


def _columns(cards: int, room: float, side: Side) -> int:
    """How many cards stand side by side: the last axis of the mesh, or what there is room for."""
    widest = max(int(room // 26), 1) if cards <= 128 else max(int(room // 8), 1)
    last = next((n for n in reversed(side.layout.mesh.axis_sizes) if n > 1), 1)
    if last <= widest and cards % last == 0 and cards // last <= 16:
        return last
    return min(cards, widest)


def _bracket(x: float, y: float, width: float) -> str:
    return line(x, y, width, 0) + line(x, y, 0, 4) + line(x + width, y, 0, 4)


def _clamped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _names_across(at: Sequence[float], names: Sequence[str], y: float, width: float) -> str:
    """Names over their places; each second, fourth, ... where all have no room."""
    widest = max((text_width(w, SMALL) for w in names), default=0) + 6
    every = 1
    while every < len(names) and width / max(len(names), 1) * every < widest:
        every *= 2
    out = ""
    for x, name in list(zip(at, names, strict=False))[::every]:
        half = text_width(name, SMALL) / 2
        middle = min(max(x, half), max(width - half, half))
        out += muted(middle, y, name, 'text-anchor="middle"') if name else ""
    return out


def _names_down(at: Sequence[float], names: Sequence[str], x: float) -> str:
    out, free = "", -1e9
    for y, name in zip(at, names, strict=False):
        if name and y >= free:
            out += muted(x, y + 3.5, name, 'text-anchor="end"')
            free = y + 12
    return out
