"""The cards of one side of a model map, beside the rows that they hold.

::

    embed, layers 0–7            what the cards of a group hold: all of them hold parts of the same rows
    +--+ +--+ +--+ +--+
    |  | |  | |  | |  |  ---[    a bracket spans these rows; the fill is the memory that a card needs, on one
    |##| |##| |##| |##|          scale for both sides
    +--+ +--+ +--+ +--+
    676 MiB a card
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...display import counted
from ..drawing import Block, fitted, muted, number, outline, text
from .table import Table, ranks_of

__all__ = [
    "MOST_GROUPS",
    "ROOM",
    "Group",
    "Place",
    "bracket",
    "group_block",
    "groups_of",
    "placed",
    "rows_held",
]

FILL = 'fill="#56b4e9" fill-opacity=".5"'
"""Of memory; a number on it can be read on a dark page, too."""
ROOM = 172.0
LARGEST, LARGE, SMALLEST = 21.0, 17.0, 3.0
"""Pitch of the cards, at most, with numbers, and at least; in pixels."""
MOST_GROUPS = 8


class Group(NamedTuple):
    """Cards that hold parts of the same rows."""

    ranks: NDArray[np.int64]
    rows: NDArray[np.bool_]
    """Which rows of the table they hold, bool, shape (rows,)."""


class Place(NamedTuple):
    """Where a group stands."""

    group: Group
    y: float
    block: Block


def groups_of(table: Table, side: int, ranks: int) -> list[Group]:
    """The cards of a side that hold anything, by what rows they hold, in order of their first ranks."""
    if not table.rows:
        return [Group(np.arange(ranks), np.zeros(0, bool))]
    held = np.array([ranks_of(row, side) for row in table.rows])
    some = np.flatnonzero(held.any(axis=0))
    found: dict[bytes, list[int]] = {}
    for rank in some.tolist():
        found.setdefault(held[:, rank].tobytes(), []).append(rank)
    return [Group(np.array(members), held[:, members[0]]) for members in found.values()]


def rows_held(table: Table, group: Group) -> str:
    """What the rows of a group are called.

    Contiguous layers of one stack are a range.
    """
    rows = [row for row, held in zip(table.rows, group.rows, strict=True) if held]
    if len(rows) == len(table.rows):
        return "every layer" if table.layers else "every tensor"
    words: list[str] = []
    layers = [row for row in rows if row.stack]
    if layers:
        words.append(_ranges(sorted(n for row in layers for n in range(row.first, row.last + 1))))
    words += [row.label for row in rows if not row.stack]
    return ", ".join(words)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers of layers, as ranges.

    >>> _ranges([0, 1, 2, 5])
    'layers 0–2, 5'
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n <= runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [f"{a}" if a == b else f"{a}–{b}" for a, b in runs]
    several = len(numbers) > 1
    return f"layer{'s' * several} {', '.join(words)}"


def group_block(
    group: Group,
    words: str,
    key: str,
    memory: NDArray[np.int64],
    most: int,
    amount: Callable[[int], str],
    height: float,
    tiles: int,
    lost: Collection[int] = (),
) -> Block:
    """The cards of a group below what they hold.

    Parameters
    ----------
    key
        What the keys of the cards begin with.
    memory, most
        Bytes of every rank of the side, and of the largest card of both.
    amount
        Formats bytes.
    height
        What the cards may take, in pixels.
    tiles
        Above so many, several cards are one tile.
    lost
        Ranks that are crossed out.
    """
    each = max(-(-len(group.ranks) // tiles), 1)
    firsts = group.ranks[::each]
    held = np.maximum.reduceat(memory[group.ranks], np.arange(0, len(group.ranks), each))
    across, pitch = _pitch(len(firsts), height)
    cells = [(pitch * (i % across), pitch * (i // across)) for i in range(len(firsts))]
    gap = 3.0 if pitch > 8 else 1.0
    side = pitch - gap
    drawn = _tiles if pitch >= LARGE else _crowd
    fills = [h / max(most, 1) for h in held.tolist()]
    body = drawn(cells, fills, side, firsts.tolist(), key)
    crossed = [cell for cell, rank in zip(cells, firsts.tolist(), strict=True) if rank in lost]
    body += _crosses(crossed, side) if crossed else ""
    tall = pitch * -(-len(firsts) // across)
    low, high = amount(int(held.min())), amount(int(held.max()))
    said = f"{high} a card" if low == high else f"{low} to {high} a card"
    if each > 1:
        said += f", a tile is {counted(each, 'card')}"
    head = fitted(words, ROOM, 11, bold=True)
    return Block(
        ROOM,
        16 + tall + 14,
        text(0, 10, head, 'font-weight="600"')
        + f'<g transform="translate(0 16)">{body}</g>'
        + muted(0, 16 + tall + 9, fitted(said, ROOM, 10.5)),
    )


def _pitch(count: int, height: float) -> tuple[int, float]:
    """How many cards stand side by side, and the distance from one to the next."""
    if count <= 64:
        across = min(count, 8)
        return across, min(LARGEST, ROOM / across)
    pitch = max(math.floor(math.sqrt(ROOM * max(height, 120.0) / count)), SMALLEST)
    return max(int(ROOM // pitch), 1), pitch


def _tiles(
    cells: Sequence[tuple[float, float]], fills: Sequence[float], side: float, ranks: Sequence[int], key: str
) -> str:
    """Cards with their numbers."""
    outlines = "".join(
        f'<path data-key="{key}:{rank}" d="{outline(x + 0.5, y + 0.5, side, side)}"/>'
        for (x, y), rank in zip(cells, ranks, strict=True)
    )
    filled = "".join(
        outline(x + 1, y + 1 + (side - 1) * (1 - f), side - 1, (side - 1) * f)
        for (x, y), f in zip(cells, fills, strict=True)
    )
    numbers = "".join(
        f'<text class="ink" x="{number(x + side / 2 + 0.5)}" y="{number(y + side / 2 + 4)}">{rank}</text>'
        for (x, y), rank in zip(cells, ranks, strict=True)
    )
    return (
        f'<g class="tile" fill="#fff" stroke="#777">{outlines}</g><path d="{filled}" {FILL}/>'
        f'<g text-anchor="middle" font-size="9.5">{numbers}</g>'
    )


def _crowd(
    cells: Sequence[tuple[float, float]], fills: Sequence[float], side: float, ranks: Sequence[int], key: str
) -> str:
    """Cards too small for numbers, as two paths."""
    outlines = "".join(outline(x, y, side, side) for x, y in cells)
    filled = "".join(
        outline(x, y + side * (1 - f), side, side * f) for (x, y), f in zip(cells, fills, strict=True)
    )
    return (
        f'<path class="tile" d="{outlines}" fill="#fff" stroke="#777" stroke-width=".5"/>'
        f'<path d="{filled}" {FILL}/>'
    )


def _crosses(cells: Sequence[tuple[float, float]], side: float) -> str:
    a, b = number(side), number(-side)
    data = "".join(f"M{number(x)} {number(y)}l{a} {a}m{b} 0l{a} {b}" for x, y in cells)
    return f'<path d="{data}" stroke="#d55e00" stroke-width="1.5" fill="none"/>'


CROSS = f'<g transform="translate(8 0)">{_crosses([(0, 0)], 11)}</g>'
"""The sample of a lost card."""


def placed(blocks: Sequence[tuple[Group, Block]], spans: Sequence[tuple[float, float]]) -> list[Place]:
    """Each group beside the middle of its rows, and none over another."""
    out: list[Place] = []
    low = 0.0
    order = sorted(range(len(blocks)), key=lambda i: sum(spans[i]))
    for i in order:
        group, block = blocks[i]
        y = max(sum(spans[i]) / 2 - block.height / 2, low)
        out.append(Place(group, y, block))
        low = y + block.height + 8
    return out


def bracket(place: Place, span: tuple[float, float], x: float, *, left: bool) -> str:
    """From the cards to the rows that they hold; the cards are left of it, or right."""
    top, bottom = span
    out = 8.0 if left else -8.0
    middle = place.y + place.block.height / 2
    mid = min(max(middle, top), bottom)
    data = (
        f"M{number(x + out)} {number(top)}H{number(x)}V{number(bottom)}H{number(x + out)}"
        f"M{number(x)} {number(mid)}L{number(x - out)} {number(middle)}"
    )
    return f'<path class="rule" d="{data}" fill="none" stroke="#999"/>'
