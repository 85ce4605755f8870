"""A group of cards as a grid of tiles.

    large                      medium       compact
    +--------------+           +------+     +----+
    | card 3       |           | 3    |     |  3 |   filled with its shard's colour
    | ..........   |  tensor,  | ..## |     +----+
    | ..####....   |  its box  +------+
    | [0:96, 4:8]  |
    +--------------+

Every tile is one <g data-key="side:card">, its outline first; a live page lights it up by that key.
Compact tiles are spelled as shortly as SVG allows: 256 of them are stored in a notebook.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ..layout import Box
from .holding import Holding
from .svg import Pen, number, path, shorten, text

__all__ = ["Block", "Piece", "beside", "heading", "tiles"]

GAP = 6
BASELINE = 14
LARGE_CARDS, MEDIUM_CARDS = 32, 64
LINE = "#666"


class Block(NamedTuple):
    """A finished part of a drawing, with its size in pixels; its corner is at the origin."""

    width: float
    height: float
    body: str


class Piece(NamedTuple):
    """A region of a card's tensor and the shard number that colours it."""

    box: Box
    shard: int


class Sheet(NamedTuple):
    """A small picture of a whole tensor: the dims that it shows and its size in pixels."""

    row_dim: int | None
    column_dim: int | None
    width: float
    height: float


def tiles(
    holding: Holding,
    side: str,
    label: str,
    pen: Pen,
    *,
    pieces: Sequence[Sequence[Piece]] | None = None,
    crowd: int | None = None,
) -> Block:
    """The grid of all cards of `holding`.

    Parameters
    ----------
    side
        What the keys of these cards begin with.
    label
        What the grid is, for a reader that hears it.
    pieces
        For each card what to colour of its tensor; by default its box, in its shard's colour.
    crowd
        The number of cards in the whole picture, which decides how large a tile may be.
    """
    own = [[Piece(holding.box(i), s)] if s >= 0 else [] for i, s in enumerate(holding.shards.tolist())]
    fills = own if pieces is None else pieces
    crowd = len(holding.cards) if crowd is None else crowd
    width, height = _tile_size(holding, crowd)
    step = height + GAP
    rows = [
        f'<g role="row" transform="translate(0 {number(i * step + BASELINE)})">'
        + "".join(
            f'<g data-key="{side}:{holding.cards[row]}">'
            + _tile(holding, row, fills[row], pen, crowd, column * (width + GAP))
            + "</g>"
            for column, row in enumerate(range(first, min(first + holding.columns, len(holding.cards))))
        )
        + "</g>"
        for i, first in enumerate(range(0, len(holding.cards), holding.columns))
    ]
    columns = min(holding.columns, len(holding.cards))
    anchor = ' text-anchor="middle"' if crowd > MEDIUM_CARDS else ""
    return Block(
        columns * (width + GAP) - GAP,
        len(rows) * step - GAP,
        f'<g role="grid" aria-label="{escape(label)}"{anchor} fill="#000">' + "".join(rows) + "</g>",
    )


def _tile_size(holding: Holding, crowd: int) -> tuple[float, float]:
    if crowd > MEDIUM_CARDS:
        return max(22, 6 * max(map(len, holding.cards)) + 8), 20
    if crowd > LARGE_CARDS:
        return 52, 52
    longest = max(len(_caption(holding, i)) for i in range(len(holding.cards)))
    return max(76, 6 * longest + 14), 84


def _caption(holding: Holding, row: int) -> str:
    return shorten(holding.describe(row), 24)


def _tile(holding: Holding, row: int, pieces: Sequence[Piece], pen: Pen, crowd: int, x: float) -> str:
    """One tile; y = 0 is the baseline of a compact tile's text, BASELINE below its top."""
    width, height = _tile_size(holding, crowd)
    if crowd > MEDIUM_CARDS:
        return _compact(holding.cards[row], pieces, pen, x, width)
    y = -BASELINE
    dashes = "" if holding.held[row] else ' stroke-dasharray="3 2"'
    card = path(x, y, width, height, f'class="tile" fill="#fff" stroke="{LINE}"{dashes}')
    if crowd > LARGE_CARDS:
        picture = _thumbnail(_sheet(holding, width - 12, height - 24), holding, pieces, pen, x, y + 18)
        return card + text(x + 5, y + 13, holding.cards[row]) + picture
    return (
        card
        + text(x + 6, y + 15, f"card {holding.cards[row]}", 'font-weight="600"')
        + _thumbnail(_sheet(holding, width - 12, 42), holding, pieces, pen, x, y + 21)
        + text(x + 6, y + height - 7, _caption(holding, row), 'font-size="10"')
    )


def _compact(card: str, pieces: Sequence[Piece], pen: Pen, x: float, width: float) -> str:
    """A filled tile; one that takes from several shards, or holds nothing, has no colour of its own."""
    middle = number(x + width / 2)
    outline = f'd="M{number(x)}-{BASELINE}h{number(width)}v20h-{number(width)}z"'
    if len(pieces) != 1:
        plain = f'<path class="tile" {outline} fill="#fff" stroke="{LINE}"/>'
        return f'{plain}<text class="ink" x="{middle}">{card}</text>'
    shard = pieces[0].shard
    # The row's own ink is black: only white is said.
    white = ' fill="#fff"' if pen.ink(shard) == "#fff" else ""
    square = f'<path {outline} fill="{pen.fill(shard)}" stroke="{LINE}"/>'
    return f'{square}<text{white} x="{middle}">{card}</text>'


def _sheet(holding: Holding, width: float, height: float) -> Sheet:
    """Show the dims that are cut first, then the last ones: rows down, columns across."""
    if not holding.shape:
        return Sheet(None, None, 12, 12)
    if len(holding.shape) == 1:
        return Sheet(None, 0, width, 12)
    whole = [(holding.boxes[holding.held][:, d] == (0, n)).all() for d, n in enumerate(holding.shape)]
    order = sorted(range(len(whole)), key=lambda d: (whole[d], -d if whole[d] else d))
    row_dim, column_dim = sorted(order[:2])
    ratio = holding.shape[column_dim] / max(holding.shape[row_dim], 1)
    # A schematic picture: a long thin tensor would leave no room to see its cuts.
    ratio = min(max(ratio, 1.0), 2.2)
    wide = min(width, height * ratio)
    return Sheet(row_dim, column_dim, wide, min(height, wide / ratio))


def _thumbnail(sheet: Sheet, holding: Holding, pieces: Sequence[Piece], pen: Pen, x: float, y: float) -> str:
    x += 6
    out = [path(x, y, sheet.width, sheet.height, 'class="sheet" fill="#f2f2f2" stroke="#aaa"')]
    for piece in pieces:
        left, wide = _span(piece.box, sheet.column_dim, holding.shape, sheet.width)
        top, high = _span(piece.box, sheet.row_dim, holding.shape, sheet.height)
        fill = f'fill="{pen.fill(piece.shard)}" stroke="#222" stroke-width=".6"'
        out.append(path(x + left, y + top, wide, high, fill))
    return "".join(out)


def _span(box: Box, dim: int | None, shape: tuple[int, ...], pixels: float) -> tuple[float, float]:
    """Where a box begins along one side of a sheet, and how far it goes; never too thin to see."""
    if dim is None:
        return 0.0, pixels
    scale = pixels / max(shape[dim], 1)
    extent = max((box.stop[dim] - box.start[dim]) * scale, 1.0)
    return min(box.start[dim] * scale, pixels - extent), extent


def heading(block: Block, title: str, lines: Sequence[str]) -> Block:
    """The block below its title and some smaller lines."""
    top = 16 + 14 * len(lines)
    words = text(0, 11, title, 'font-size="13" font-weight="600"')
    words += "".join(text(0, 27 + 14 * i, line) for i, line in enumerate(lines))
    widest = max([7.3 * len(title), *(5.8 * len(line) for line in lines)])
    body = f'{words}<g transform="translate(0 {number(top + 4)})">{block.body}</g>'
    return Block(max(block.width, widest), top + 4 + block.height, body)


def beside(blocks: Sequence[Block], widest: float = 760) -> Block:
    """The blocks next to each other, in as many rows as keep the whole narrower than `widest`."""
    gap = 28.0
    x = y = wide = bottom = 0.0
    body = []
    for block in blocks:
        if x and x + block.width > widest:
            x, y = 0.0, bottom + gap
        body.append(f'<g transform="translate({number(x)} {number(y)})">{block.body}</g>')
        wide, bottom = max(wide, x + block.width), max(bottom, y + block.height)
        x += block.width + gap
    return Block(wide, bottom, "".join(body))
