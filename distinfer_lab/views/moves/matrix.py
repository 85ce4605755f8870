"""Who sends how many bytes to whom, as a matrix.

::

               0        1       sends
    0       = 4 KiB    1 KiB    1 KiB     "=" marks what stays on its card:
    1         2 KiB   = 2 KiB   2 KiB     it is not in the sums
 receives     2 KiB    1 KiB    3 KiB

The keys are "train:1" and "infer:0" for the heads of rows and columns, "move:1>0" for a cell.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...display import format_bytes
from ..drawing import Block, finish, heading, ink_on, number, shade_of, shorten, text_width
from .runs import APART, CARDS, SUMMED, GroupedTraffic, Sides, Window, grouped_traffic

__all__ = ["traffic_svg"]

MAX_CELLS = 16
STEP = 24


def traffic_svg(
    matrix: NDArray[np.int64],
    title: str,
    *,
    placement: Sequence[int] | None = None,
    max_cells: int = MAX_CELLS,
    window: Window | None = None,
    sides: Sides = CARDS,
    names: Sequence[str] | None = None,
) -> str:
    """Who sends how many bytes to whom: a row per source card, a column per destination card.

    Parameters
    ----------
    matrix
        Bytes, int64, shape (source cards, destination cards).
    placement
        The source card on which each destination card lives: bytes that stay there are marked.
    max_cells
        Above so many a side, runs of cards are summed into one row or column, and it says so.
    window
        The source and the destination cards that are looked at; by default all.
    sides
        What gives and what gets.
    names
        What the source of each row is called, where that is not its number.
    """
    shown = grouped_traffic(matrix, max_cells, window, placement)
    lines = [
        f"rows: {sides.sender}s that send; columns: {sides.receiver}s that receive; darker is more bytes"
    ]
    if shown.note:
        lines.append(shown.note)
    if shown.stays is not None:
        lines.append(f"= stays on its card; it is not in {sides.gives} and {sides.gets}")
    elif sides is CARDS:
        lines.append(APART if placement is None else SUMMED)
    else:
        lines.append("what several ranks read counts for each of them")
    senders = shown.rows
    if names is not None:
        senders = [names[int(row)] if row.isdecimal() else row for row in shown.rows]
    return finish(heading(_grid(shown, senders, sides), shorten(title, 80), lines), title)


def _grid(shown: GroupedTraffic, senders: Sequence[str], sides: Sides) -> Block:
    """The cells and their sums; `senders` is what the rows are called."""
    rows, columns, cells, stays = shown.rows, shown.columns, shown.cells, shown.stays
    gives, gets = shown.moved.sum(axis=1).tolist(), shown.moved.sum(axis=0).tolist()
    amounts = [format_bytes(n) for n in [*gives, *gets, *cells.ravel().tolist()] if n]
    step = max(map(text_width, [sides.gives, *amounts, *columns])) + (28 if stays else 16)
    left = max(map(text_width, [sides.gets, *senders])) + 14
    most = int(cells.max(initial=0))
    heads = [_head(f"infer:{label}", label, left + step * j, step) for j, label in enumerate(columns)]
    body = [_row(0, ["<g></g>", *heads, _words(sides.gives, left + step * (len(columns) + 0.5))])]
    for i, label in enumerate(rows):
        made = [
            _cell(
                f"{label}>{columns[j]}",
                value,
                most,
                (left + step * j, step),
                stays is not None and stays[j] == i,
            )
            for j, value in enumerate(cells[i].tolist())
        ]
        total = _words(format_bytes(gives[i]), left + step * (len(columns) + 0.5))
        body.append(_row(i + 1, [_head(f"train:{label}", senders[i], 0, left), *made, total]))
    totals = [*gets, sum(gets)]
    feet = [_words(format_bytes(n), left + step * (j + 0.5)) for j, n in enumerate(totals)]
    body.append(_row(len(rows) + 1, [_words(sides.gets, left / 2), *feet]))
    words = 'role="grid" aria-label="bytes from each card to each card"'
    grid = f'<g {words} text-anchor="middle" stroke-width="1">{"".join(body)}</g>'
    return Block(left + step * (len(columns) + 1), STEP * (len(rows) + 2), grid)


def _row(number_of_row: int, parts: Sequence[str]) -> str:
    return f'<g role="row" transform="translate(0 {STEP * number_of_row + 16})">{"".join(parts)}</g>'


def _words(words: str, x: float) -> str:
    return f'<g><text class="ink" x="{number(x)}">{words}</text></g>'


def _head(key: str, label: str, x: float, step: float) -> str:
    """The name of a row or a column; its outline is there to be lit up."""
    square = (
        f'<path class="tile" d="M{number(x)}-14h{number(step - 4)}v20h-{number(step - 4)}z" fill="#fff"/>'
    )
    words = f'<text class="ink" x="{number(x + (step - 4) / 2)}" font-weight="600">{label}</text>'
    return f'<g data-key="{key}">{square}{words}</g>'


def _cell(key: str, value: int, most: int, place: tuple[float, float], stays: bool) -> str:
    x, step = place
    shade = shade_of(value, most)
    width = number(step - 4)
    outline = f'd="M{number(x)}-14h{width}v20h-{width}z" fill="{shade}" stroke="#999"/>'
    if not value:
        return f'<g><path class="tile" {outline}</g>'
    words = ("= " if stays else "") + format_bytes(value)
    ink = f'<text x="{number(x + (step - 4) / 2)}" fill="{ink_on(shade)}">{words}</text>'
    return f'<g data-key="move:{key}"><path {outline}{ink}</g>'
