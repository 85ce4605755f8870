"""Neighbouring cards summed, so that many fit a picture: a label and a sum for each run of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "APART",
    "CARDS",
    "FILES",
    "SUMMED",
    "GroupedTraffic",
    "Sides",
    "Window",
    "called",
    "doing",
    "grouped_traffic",
    "run_labels",
    "run_sums",
]

Rows = NDArray[np.int64]


class Sides(NamedTuple):
    """What gives and what gets, and the verbs of both."""

    sender: str
    receiver: str
    gives: str
    gets: str


CARDS = Sides("card", "card", "sends", "receives")
FILES = Sides("file", "rank", "gives", "gets")
"""Where all read the same files, nothing moves from card to card."""

APART = "inference runs on other cards, though both are numbered from 0: every byte travels"
SUMMED = "neighbours are summed: what stays on its card is not marked, and not in the sums at the edges"
Window = tuple[range, range]
"""The source cards and the destination cards that are looked at."""


class GroupedTraffic(NamedTuple):
    """Bytes between cards, or between runs of neighbours."""

    rows: list[str]
    """What to call the source side of each row: a card, or "0-7"."""
    columns: list[str]
    cells: Rows
    """int64, shape (rows, columns)."""
    moved: Rows
    """The cells without what stays on its card."""
    stays: list[int] | None
    """For each column the row of its own card (out of range if it has none); None where cards are summed."""
    note: str
    """What is not there to be seen; "" if every card of both sides is."""


def run_labels(labels: Sequence[str], limit: int) -> tuple[list[str], int]:
    """A label for each run of equally many, at most `limit` runs; and how many are in a run.

    Examples
    --------
    >>> run_labels(["0", "1", "2", "3", "4"], 3)
    (['0-1', '2-3', '4'], 2)
    """
    size = max(-(-len(labels) // limit), 1)
    ends = [(labels[a], labels[min(a + size, len(labels)) - 1]) for a in range(0, len(labels), size)]
    return [first if first == last else f"{first}-{last}" for first, last in ends], size


def run_sums(values: NDArray[Any], size: int) -> Rows:
    """The sum of each run of `size` rows, int64."""
    sums = [values[a : a + size].sum(axis=0) for a in range(0, len(values), size)]
    return np.array(sums, np.int64).reshape(len(sums), *values.shape[1:])


def grouped_traffic(
    matrix: NDArray[np.int64],
    limit: int,
    window: Window | None = None,
    placement: Sequence[int] | None = None,
) -> GroupedTraffic:
    """The bytes between cards, or between those of a window, with at most `limit` runs a side.

    `placement` tells the source card on which each destination card lives, if on any.

    Examples
    --------
    >>> grouped_traffic(np.eye(6, dtype=np.int64), 2, (range(0, 3), range(2, 4))).note
    'cards 0-2 to 2-3 of 6 x 6, neighbours summed'
    """
    sources, destinations = window or (range(matrix.shape[0]), range(matrix.shape[1]))
    rows, row_size = run_labels([str(i) for i in sources], limit)
    columns, column_size = run_labels([str(i) for i in destinations], limit)
    part = matrix[sources.start : sources.stop, destinations.start : destinations.stop]
    summed = ", neighbours summed" * (max(row_size, column_size) > 1)
    sides = f"{matrix.shape[0]:,} x {matrix.shape[1]:,}"
    note = f"{sides} cards{summed}" if summed else ""
    if part.shape != matrix.shape:
        note = f"cards {_run(sources)} to {_run(destinations)} of {sides}{summed}"
    stays, away = None, part
    if placement is not None:
        stays = [placement[card] - sources.start for card in destinations]
        away = np.where(np.arange(len(sources))[:, None] == np.array(stays, np.int64), 0, part)
    cells, moved = (run_sums(run_sums(found, row_size).T, column_size).T for found in (part, away))
    return GroupedTraffic(rows, columns, cells, moved, None if summed else stays, note)


def called(kind: str, label: str) -> str:
    """The text for a card or a run of cards.

    Examples
    --------
    >>> called("card", "3"), called("card", "0-7")
    ('card 3', 'cards 0-7')
    """
    return f"{kind}s {label}" if "-" in label else f"{kind} {label}"


def doing(kind: str, label: str, verb: str) -> str:
    """What a card, or a run of them, does; the verb is that of one.

    Examples
    --------
    >>> doing("card", "3", "sends"), doing("card", "0-7", "sends")
    ('card 3 sends', 'cards 0-7 send')
    """
    return f"{called(kind, label)} {verb.removesuffix('s') if '-' in label else verb}"


def _run(cards: range) -> str:
    return f"{cards.start}-{cards.stop - 1}" if len(cards) > 1 else f"{cards.start}"
