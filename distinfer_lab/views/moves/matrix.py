"""Bytes as pictures: how much each card has, and how much goes from which card to which."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...display import bytes_in_words
from ..drawing import OKABE_ITO, SHADES, document, ink_on, number, path, shorten, text

__all__ = ["bars_svg", "traffic_svg"]

MAX_BARS, MAX_CELLS = 64, 16


def bars_svg(values: Sequence[int], title: str, *, ranks: Sequence[int] | None = None) -> str:
    """One bar per card, in bytes, with the number printed behind it.

    Parameters
    ----------
    values
        Bytes per card. Above 64 cards, runs of cards are summed into one bar, and it says so.
    ranks
        The card of each value; by default 0, 1, 2 and so on.
    """
    names = [str(r) for r in (range(len(values)) if ranks is None else ranks)]
    labels, totals = _run_sums(names, np.asarray(values, np.int64), MAX_BARS)
    sums: list[int] = totals.tolist()
    size = -(-len(values) // max(len(sums), 1))
    biggest = max([*sums, 1])
    left = 20 + 6.2 * max(map(len, labels), default=1) + 28
    body = [text(12, 22, shorten(title, 80), 'font-size="13" font-weight="600"')]
    for i, (label, value) in enumerate(zip(labels, sums, strict=True)):
        y = 34 + 18 * i
        width = max(260 * value / biggest, 1)
        body.append(text(12, y + 11, f"card {label}"))
        body.append(path(left, y, width, 14, f'fill="{OKABE_ITO[1]}" stroke="#666"'))
        body.append(text(left + width + 6, y + 11, bytes_in_words(value)))
    if size > 1:
        body.append(text(12, 48 + 18 * len(sums), f"{len(values):,} cards in runs of {size}, summed"))
    high = 42 + 18 * (len(sums) + (size > 1))
    return document(max(left + 350, 24 + 7.5 * len(title)), high, title, body)


def traffic_svg(matrix: NDArray[np.int64], title: str) -> str:
    """Who sends how many bytes to whom: a row per source card, a column per destination card.

    Parameters
    ----------
    matrix
        Bytes, int64, shape (source cards, destination cards). Above 16 a side, runs of cards
        are summed into one row or column, and it says so.
    """
    rows, table = _run_sums([str(i) for i in range(matrix.shape[0])], matrix, MAX_CELLS)
    columns, across = _run_sums([str(i) for i in range(matrix.shape[1])], table.T, MAX_CELLS)
    cells = across.T
    biggest = max(int(cells.max(initial=0)), 1)
    body = [text(12, 22, shorten(title, 80), 'font-size="13" font-weight="600"')]
    body.append(text(12, 40, "from card (down) to card (across)"))
    left = 24 + 6.2 * max(map(len, rows), default=1)
    body += [text(left + 62 * j + 6, 58, label) for j, label in enumerate(columns)]
    for i, label in enumerate(rows):
        y = 64 + 24 * i
        body.append(text(12, y + 15, label))
        body += [_cell(left + 62 * j, y, int(cells[i, j]), biggest) for j in range(len(columns))]
    grouped = (len(rows), len(columns)) != matrix.shape
    if grouped:
        words = f"{matrix.shape[0]:,} x {matrix.shape[1]:,} cards, neighbours summed"
        body.append(text(12, 80 + 24 * len(rows), words))
    width = max(left + 62 * len(columns) + 12, 24 + 7.5 * min(len(title), 80), 240)
    return document(width, 74 + 24 * len(rows) + 20 * grouped, title, body)


def _cell(x: float, y: float, value: int, biggest: int) -> str:
    shade = SHADES[0] if not value else SHADES[1 + min(int(4 * value / biggest), 3)]
    square = path(x, y, 58, 20, f'fill="{shade}" stroke="#999"')
    if not value:
        return square
    words = bytes_in_words(value)
    return f'{square}<text x="{number(x + 4)}" y="{number(y + 14)}" fill="{ink_on(shade)}">{words}</text>'


def _run_sums(
    labels: Sequence[str], values: NDArray[np.int64], limit: int
) -> tuple[list[str], NDArray[np.int64]]:
    """Sum runs of equally many rows until there are at most `limit`; label a run by its ends."""
    size = max(-(-len(labels) // limit), 1)
    firsts = range(0, len(labels), size)
    names = [
        labels[a] if size == 1 else f"{labels[a]}-{labels[min(a + size, len(labels)) - 1]}" for a in firsts
    ]
    sums = [values[a : a + size].sum(axis=0) for a in firsts]
    return names, np.array(sums, np.int64).reshape(len(names), *values.shape[1:])
