"""A mesh as a grid of cards: its last axis across, the one before it down, the others as facets.

::

    pp=0      tp 0   1   2        pp=1      tp 0   1   2
        dp=0     0   1   2            dp=0     6   7   8
        dp=1     3   4   5            dp=1     9  10  11
"""

import math
from itertools import product
from typing import NamedTuple

from ...display import counted
from ...layout import Mesh
from ...text import escape
from ..drawing import STORED_CARDS, Block, finish, heading, number, side_by_side, text, text_width

__all__ = ["mesh_svg"]

STEP_X, STEP_Y, GAP = 30, 24, 6
MOST_COLUMNS, WRAPPED = 24, 16


class Shown(NamedTuple):
    """A mesh with so few tiles that they can be drawn."""

    names: tuple[str, ...]
    """The axes that are drawn."""
    sizes: tuple[int, ...]
    """How many tiles along each of them."""
    run: int
    """How many positions of the last of them one tile stands for."""
    axis_size: int
    """The number of positions of the last of them."""
    inner: int
    """How many ranks lie at one position of it: those of the axes that are not drawn."""


def mesh_svg(mesh: Mesh, *, max_cards: int = STORED_CARDS) -> str:
    """The ranks of a mesh, by their coordinates.

    Parameters
    ----------
    max_cards
        Above so many, runs of ranks are one tile, and it says so.
    """
    shown = _shown(mesh, max_cards)
    facets = list(product(*map(range, shown.sizes[:-2])))
    blocks = [_facet(mesh, shown, index) for index in facets]
    words = f"{mesh!r}: {counted(mesh.size, 'card')}"
    return finish(heading(side_by_side(blocks), words, _lines(mesh, shown)), words)


def _shown(mesh: Mesh, limit: int) -> Shown:
    names, sizes = mesh.axis_names or ("card",), mesh.axis_sizes or (1,)
    count = len(sizes)
    while count > 1 and math.prod(sizes[: count - 1]) > limit:
        count -= 1
    last = sizes[count - 1]
    tiles = min(max(limit // math.prod(sizes[: count - 1]), 1), last)
    run = -(-last // tiles)
    kept = (*sizes[: count - 1], -(-last // run))
    return Shown(names[:count], kept, run, last, math.prod(sizes[count:]))


def _lines(mesh: Mesh, shown: Shown) -> list[str]:
    lines = []
    if len(mesh.axis_sizes) > 1 and shown.run * shown.inner == 1:
        lines.append(f"numbers are ranks; {mesh.axis_names[-1]} runs fastest")
    if shown.run * shown.inner > 1:
        groups = math.prod(shown.sizes)
        lines.append(f"{mesh.size:,} cards, drawn in {groups} groups of {shown.run * shown.inner}")
    return lines


def _facet(mesh: Mesh, shown: Shown, index: tuple[int, ...]) -> Block:
    """The tiles of the last two axes, for one position on the others."""
    labels = _labels(shown, index)
    narrow = len(labels[0]) == 1 and len(labels) > MOST_COLUMNS
    if narrow:
        labels = [[label for row in labels for label in row]]
    wrapped = len(labels[0]) > MOST_COLUMNS
    if wrapped:
        labels = [row[i : i + WRAPPED] for row in labels for i in range(0, len(row), WRAPPED)]
    step = max(STEP_X, max(text_width(label) for row in labels for label in row) + 6 + GAP)
    left = 0.0
    rows = (
        [] if narrow or len(shown.sizes) < 2 else [f"{shown.names[-2]}={i}" for i in range(shown.sizes[-2])]
    )
    title = ", ".join(f"{name}={i}" for name, i in zip(shown.names, index, strict=False))
    top = 16.0 * bool(title)
    bold = 'font-weight="600"'
    body = [text(0, 11, title, bold)] if title else []
    if rows:
        left = max(map(text_width, rows)) + 8
        per_row = len(labels) // len(rows)
        body += [text(0, top + 30 + STEP_Y * per_row * i, words) for i, words in enumerate(rows)]
    if not wrapped:
        body += _column_heads(shown, left, top, step)
    cells = "".join(_row(row, top + 30 + STEP_Y * i, left, step) for i, row in enumerate(labels))
    words = escape(f"ranks of {mesh!r} {title}".strip())
    body.append(f'<g role="grid" aria-label="{words}" text-anchor="middle">{cells}</g>')
    wide = left + step * max(map(len, labels)) - GAP
    width = max(
        wide, text_width(title, bold=True), text_width(shown.names[-1]) + left + step * len(labels[0])
    )
    return Block(width, top + 16 + STEP_Y * len(labels), "".join(body))


def _column_heads(shown: Shown, left: float, top: float, step: float) -> list[str]:
    """The name of the last axis, then its positions."""
    middle = 'text-anchor="middle" font-size="10"'
    heads = [
        text(
            left + step * j + (step - GAP) / 2,
            top + 11,
            f"{shown.names[-1]}={j}" if j == 0 else str(j),
            middle,
        )
        for j in range(shown.sizes[-1])
        if shown.run == 1
    ]
    return (
        heads
        if heads
        else [text(left, top + 11, f"{shown.names[-1]}, in runs of {shown.run}", 'font-size="10"')]
    )


def _labels(shown: Shown, index: tuple[int, ...]) -> list[list[str]]:
    """The ranks of every tile, row by row."""
    rows, columns = (1, 1, *shown.sizes)[-2:]
    base = 0
    for size, i in zip(shown.sizes, index, strict=False):
        base = base * size + i
    out = []
    for i in range(rows):
        before = (base * rows + i) * shown.axis_size
        starts = [(before + j * shown.run) * shown.inner for j in range(columns)]
        stops = [(before + min((j + 1) * shown.run, shown.axis_size)) * shown.inner for j in range(columns)]
        out.append([str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(starts, stops, strict=True)])
    return out


def _row(labels: list[str], y: float, left: float, step: float) -> str:
    tiles = "".join(_tile(label, left + step * j, step - GAP) for j, label in enumerate(labels))
    return f'<g role="row" transform="translate(0 {number(y)})">{tiles}</g>'


def _tile(label: str, x: float, width: float) -> str:
    outline = f'd="M{number(x)}-14h{number(width)}v20h-{number(width)}z"'
    return (
        f'<g data-key="card:{label}"><path class="tile" {outline} fill="#fff" stroke="#666"/>'
        f'<text class="ink" x="{number(x + width / 2)}">{label}</text></g>'
    )
