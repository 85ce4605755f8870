"""Tiles of a cut map: what one card holds, as a bar in the colours of the slices that its bytes were.

::

    large              medium     small    a crowd
    +-------------+    +-----+    +---+    one colour a place,
    | card 3      |    |  3  |    |###|    thin lines between cards
    | ==========  |    | === |    +---+
    +-------------+    +-----+
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..drawing import ink_on, number, pale, path, text, text_width
from .cut_flows import Flows, Part
from .cut_sides import Side
from .cut_stage import Patch, merged

__all__ = ["Cards", "Cell", "grid"]

LINE = "#777"
MOST_PARTS = 600


class Cell(NamedTuple):
    """A card and its place."""

    rank: int
    x: float
    y: float
    width: float
    height: float


class Cards(NamedTuple):
    """The cards of one side as they are drawn."""

    key: str
    """What the keys of its cards begin with."""
    side: Side
    flows: Flows
    colours: Sequence[str]
    downward: bool
    """Whether the parts of a bar lie below each other; else they lie side by side."""
    max_tiles: int
    """More cards than this are a crowd."""


def grid(cards: Cards, rows: Sequence[Sequence[Cell]]) -> str:
    """All cards as a grid that can be walked by keys."""
    total = sum(len(row) for row in rows)
    small = rows[0][0].width < 14 or rows[0][0].height < 13
    bars = cards.key == "train" or cards.flows.parts <= MOST_PARTS
    if total > cards.max_tiles:
        return _crowd(cards, rows)
    out = []
    for row in rows:
        tiles = "".join(
            f'<g data-key="{cards.key}:{cell.rank}">{_tile(cards, cell, small, bars)}</g>'
            for cell in row
            if cell.rank >= 0
        )
        out.append(f'<g role="row">{tiles}</g>')
    name = "training cards" if cards.key == "train" else "inference cards"
    return f'<g role="grid" aria-label="{name}">{"".join(out)}</g>'


def _crowd(cards: Cards, rows: Sequence[Sequence[Cell]]) -> str:
    """Cards too many to be elements of their own: their colours, and lines between them."""
    first, last = rows[0][0], rows[-1][-1]
    step = (last.y - first.y) / max(len(rows) - 1, 1)
    wide = (rows[0][-1].x - first.x) / max(len(rows[0]) - 1, 1)
    columns = list(zip(*rows, strict=True))
    fills = [[_fill(cards, cell.rank) for cell in column] for column in columns]
    if all(len(set(column)) == 1 for column in fills):
        spots = [
            (Patch(c[0].x, first.y, wide, step * len(rows)), f[0])
            for c, f in zip(columns, fills, strict=True)
        ]
    else:
        spots = [(Patch(cell.x, cell.y, wide, step), _fill(cards, cell.rank)) for row in rows for cell in row]
    out = [path(*patch, f'fill="{fill}"') for patch, fill in merged(spots)]
    across, down = number(wide * len(columns)), number(step * len(rows))
    gaps = "".join(f"M{number(first.x)} {number(row[0].y - 0.5)}h{across}" for row in rows[1:])
    gaps += "".join(f"M{number(cell.x - 0.5)} {number(first.y)}v{down}" for cell in rows[0][1:])
    return "".join(out) + f'<path class="gap" d="{gaps}" fill="none" stroke="#fff"/>'


def _fill(cards: Cards, rank: int) -> str:
    """The one colour of a card in a crowd: its slice's; white for one that is pieced together of several."""
    if cards.key == "train":
        return cards.colours[int(cards.flows.train.shards[rank])]
    found = np.unique(cards.flows.train.shards[cards.flows.needed[:, rank] > 0])
    return cards.colours[int(found[0])] if len(found) == 1 else "#fff"


def _parts(cards: Cards, rank: int) -> list[tuple[str, int, bool]]:
    """For each part of a card its fill, its elements, and whether it is dashed as what stays."""
    if cards.key == "infer":
        found = cards.flows.parts_of_inference(rank)
        return [(cards.colours[p.number], p.elements, not p.moves) for p in found]
    colour = cards.colours[int(cards.flows.train.shards[rank])]
    found = cards.flows.parts_of_training(rank)
    merged: list[Part] = []
    for part in found:
        if merged and merged[-1].moves == part.moves:
            merged[-1] = merged[-1]._replace(elements=merged[-1].elements + part.elements)
        else:
            merged.append(part)
    if not merged:
        return [(pale(colour), 1, False)]
    return [(colour if p.moves else pale(colour), p.elements, False) for p in merged]


def _tile(cards: Cards, cell: Cell, small: bool, bars: bool) -> str:
    _, x, y, width, height = cell
    thin = ' stroke-width=".5"' if small else ""
    outline = path(x, y, width, height, f'class="tile" fill="#fff" stroke="{LINE}"{thin}')
    parts = _parts(cards, cell.rank) if bars else []
    name, downward = str(cell.rank), cards.downward
    if small:
        return outline + _bar(parts, cell, downward)
    if height >= 30 and width >= text_width("card 888", 10, bold=True) + 12:
        words = text(x + 6, y + 13, f"card {name}", 'font-size="10" font-weight="600"')
        return outline + words + _bar(parts, Cell(0, x + 5, y + 18, width - 10, height - 23), downward)
    fits = text_width(name, 9.5) <= width - 2
    words = text(x + width / 2, y + 11, name, 'font-size="9.5" text-anchor="middle"') if fits else ""
    if height >= 20:
        return outline + words + _bar(parts, Cell(0, x + 3, y + 14, width - 6, height - 17), downward)
    return outline + words + _bar(parts, Cell(0, x, y + height - 3, width, 3), False)


def _bar(parts: Sequence[tuple[str, int, bool]], place: Cell, downward: bool) -> str:
    """What a card holds, each part as long as its share of the elements."""
    _, x, y, width, height = place
    total = max(sum(size for _, size, _ in parts), 1)
    out, begun = "", 0.0
    for fill, size, stays in parts:
        share = size / total
        across = (x + width * begun, y, width * share, height)
        box = (x, y + height * begun, width, height * share) if downward else across
        out += path(*box, f'fill="{fill}"')
        if stays and min(box[2:]) >= 6:
            dashes = f'fill="none" stroke="{ink_on(fill)}" stroke-dasharray="2.5 1.5"'
            out += path(box[0] + 1.5, box[1] + 1.5, box[2] - 3, box[3] - 3, dashes)
        begun += share
    return out
