"""Bytes as bands from the cards that give to the cards that get: as wide as they are many.

::

    card 0  ===.  ==  card 0
            ==. ====
    card 1  === ====  card 1
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...display import format_bytes
from ..drawing import Block, Pen, finish, heading, label, number, path, shorten, text, text_width
from .runs import APART, CARDS, SUMMED, GroupedTraffic, Rows, Sides, Window, doing, grouped_traffic

__all__ = ["bands_svg"]

MAX_CARDS = 12
REACH, LEVEL = 300.0, 84.0
"""How far a band goes, and how far of it is level, for its words."""
GAP = 8.0
LOWEST = 18.0
THIN, NAMED = 2.0, 13.0
"""Pixels: a band that is thinner is drawn as a line; one that is wider has its number in it."""
STAYS = 'stroke="#222" stroke-width="1.2" stroke-dasharray="4 2"'
SPACE, MOST_OF_ONE = 240.0, 60.0
"""How many pixels all bands together are wide, and how many for each card where there are few."""


class Side(NamedTuple):
    """The cards of one side, top to bottom."""

    key: str
    labels: Sequence[str]
    words: Sequence[str]
    tops: Sequence[float]
    heights: Sequence[float]


def bands_svg(
    matrix: NDArray[np.int64],
    title: str,
    *,
    placement: Sequence[int] | None = None,
    max_cards: int = MAX_CARDS,
    window: Window | None = None,
    sides: Sides = CARDS,
) -> str:
    """What goes from which card to which, as bands.

    Parameters
    ----------
    matrix, placement
        As for `traffic_svg`, and so are the keys.
    max_cards
        Above so many a side, runs of cards are summed, and it says so.
    window
        The source and the destination cards that are looked at; by default all.
    sides
        What gives and what gets.
    """
    shown = grouped_traffic(matrix, max_cards, window, placement)
    scale = min(SPACE, MOST_OF_ONE * max(shown.cells.shape)) / max(int(shown.cells.sum()), 1)
    lines = [
        f"left: {sides.sender}s that send; right: {sides.receiver}s that receive; a band has its sender's number"
    ]
    if shown.note:
        lines.append(shown.note)
    if any(0 <= card < len(shown.rows) for card in shown.stays or ()):
        lines.append("white bands with a dashed edge stay on their card")
    if shown.stays is None and sides is CARDS:
        lines.append(APART if placement is None else SUMMED)
    thin = shown.cells[(shown.cells > 0) & (shown.cells * scale < NAMED)]
    if thin.size:
        several = f"{thin.size} bands are" if thin.size > 1 else "1 band is"
        lines.append(f"{several} too thin for a number: {format_bytes(int(thin.sum()))} in all")
    pen = Pen(title)
    return finish(heading(_bands(shown, sides, scale, pen), shorten(title, 80), lines), title, pen)


def _bands(shown: GroupedTraffic, sides: Sides, scale: float, pen: Pen) -> Block:
    rows, columns, cells, stays = shown.rows, shown.columns, shown.cells, shown.stays
    gives = [doing(sides.sender, label, sides.gives) for label in rows]
    gets = [doing(sides.receiver, label, sides.gets) for label in columns]
    given = _side("train", rows, gives, (cells.sum(axis=1), shown.moved.sum(axis=1)), scale)
    got = _side("infer", columns, gets, (cells.sum(axis=0), shown.moved.sum(axis=0)), scale)
    wide = max(map(text_width, [*given.words, *got.words]), default=0) + 14
    starts = _starts(given, cells, scale)
    stops = _starts(got, cells.T, scale).T
    bands = []
    for i, j in np.argwhere(cells).tolist():
        stays_here = stays is not None and stays[j] == i
        look = ("#fff", "#000", STAYS) if stays_here else (pen.fill(i), pen.ink(i), "")
        place = wide, starts[i, j], stops[i, j], cells[i, j] * scale
        words = f"{rows[i]}: {format_bytes(int(cells[i, j]))}"
        bands.append(_band(f"{rows[i]}>{columns[j]}", place, look, words))
    body = f'<g role="grid" aria-label="bytes on their way"><g role="row">{"".join(bands)}</g></g>'
    body += _cards(given, 0, wide) + _cards(got, wide + REACH, wide)
    height = max(side.tops[-1] + side.heights[-1] if side.tops else 0 for side in (given, got))
    return Block(2 * wide + REACH, height, body)


def _side(
    key: str, labels: Sequence[str], doings: Sequence[str], totals: tuple[Rows, Rows], scale: float
) -> Side:
    """Tiles as high as all their bytes; with text that says what of them moves, and what stays."""
    every, moved = totals
    words = [
        f"{does} {format_bytes(away)}"
        + (f", {'keep' if '-' in label else 'keeps'} {format_bytes(total - away)}" if total > away else "")
        for label, does, total, away in zip(labels, doings, every.tolist(), moved.tolist(), strict=True)
    ]
    heights = np.maximum(every * scale, LOWEST)
    tops = np.concatenate([[0.0], np.cumsum(heights + GAP)[:-1]]) if len(labels) else heights
    return Side(key, labels, words, tops.tolist(), heights.tolist())


def _starts(side: Side, cells: Rows, scale: float) -> NDArray[np.float64]:
    """Where the upper edge of every band leaves its card: one below the other, in the card's middle."""
    before = np.cumsum(cells, axis=1) - cells
    slack = np.array(side.heights) - cells.sum(axis=1) * scale
    out: NDArray[np.float64] = np.array(side.tops)[:, None] + slack[:, None] / 2 + before * scale
    return out


def _band(key: str, place: tuple[float, float, float, float], look: tuple[str, str, str], words: str) -> str:
    """A band from height `start` on the left to `stop` on the right; its number if it is wide enough."""
    x, start, stop, wide = place
    middle, end = number(x + (REACH + LEVEL) / 2), number(x + REACH)
    upper = f"M{number(x)} {start:.2f}h{LEVEL:g}C{middle} {start:.2f} {middle} {stop:.2f} {end} {stop:.2f}"
    low, left = f"{stop + wide:.2f}", f"{start + wide:.2f}"
    lower = f"L{end} {low}C{middle} {low} {middle} {left} {number(x + LEVEL)} {left}h-{LEVEL:g}z"
    # What is thinner than its edges would have no colour.
    edge = look[2] or (f'stroke="{look[0]}"' if wide < THIN else 'stroke="#444" stroke-width=".5"')
    band = f'<path d="{upper}{lower}" fill="{look[0]}" fill-opacity=".9" {edge}/>'
    if wide < NAMED:
        return f'<g data-key="move:{key}">{band}</g>'
    inside = label(x + 6, start + wide / 2 + 3.5, words, look[1], 'font-size="10"')
    return f'<g data-key="move:{key}">{band}{inside}</g>'


def _cards(side: Side, x: float, wide: float) -> str:
    """The cards of a side as tiles, each with its name and its bytes."""
    out = []
    for name, words, top, height in zip(side.labels, side.words, side.tops, side.heights, strict=True):
        tile = path(x, top, wide, height, 'class="tile" fill="#fff" stroke="#666"')
        inside = text(x + 6, top + height / 2 + 4, words)
        out.append(f'<g role="row"><g data-key="{side.key}:{name}">{tile}{inside}</g></g>')
    return f'<g role="grid" aria-label="{side.key} cards">{"".join(out)}</g>'
