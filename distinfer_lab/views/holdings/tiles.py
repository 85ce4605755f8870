"""A group of cards as a grid of tiles.

::

    large                      medium       compact
    +--------------+           +------+     +----+
    | card 4 =card 0           | 4    |     |  4 |   filled with its shard's colour
    | ..........   |  tensor,  | ..## |     +----+
    | ..####....   |  its box  +------+
    | [0:96, 4:8]  |
    +--------------+

Every tile is one <g data-key="side:card">, its outline first; a live page lights it up by that key.
Compact tiles are spelled as shortly as SVG allows: 256 of them are stored in a notebook.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...layout import Box
from ...text import escape
from ..drawing import Block, Pen, fitted, number, path, text, text_width
from .holding import Holding, describe_card

__all__ = ["tiles"]

GAP = 6
BASELINE = 14
LARGE_CARDS, MEDIUM_CARDS = 32, 64
MOST_STRIPES = 4
WIDEST_CAPTION = 170
LINE = "#666"


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


class Style(NamedTuple):
    """How large the tiles of a grid are and what they say."""

    crowd: int
    """The number of cards in the whole picture."""
    width: float
    height: float
    copies: Mapping[int, str]
    """For a row that holds the same as an earlier one, the words that say so."""


def tiles(
    holding: Holding,
    side: str,
    label: str,
    pen: Pen,
    *,
    crowd: int | None = None,
) -> Block:
    """The grid of all cards of `holding`.

    Parameters
    ----------
    side
        What the keys of these cards begin with.
    label
        What the grid is, for a reader that hears it.
    crowd
        The number of cards in the whole picture, which decides how large a tile may be.
    """
    fills = _own_pieces(holding)
    style = _style(holding, len(holding.cards) if crowd is None else crowd)
    step = style.height + GAP
    rows = [
        f'<g role="row" transform="translate(0 {number(i * step + BASELINE)})">'
        + "".join(
            f'<g data-key="{side}:{holding.cards[row]}">'
            + _tile(holding, row, fills[row], pen, style, column * (style.width + GAP))
            + "</g>"
            for column, row in enumerate(range(first, min(first + holding.columns, len(holding.cards))))
        )
        + "</g>"
        for i, first in enumerate(range(0, len(holding.cards), holding.columns))
    ]
    columns = min(holding.columns, len(holding.cards))
    anchor = ' text-anchor="middle"' if style.crowd > MEDIUM_CARDS else ""
    return Block(
        columns * (style.width + GAP) - GAP,
        len(rows) * step - GAP,
        f'<g role="grid" aria-label="{escape(label)}"{anchor} fill="#000">' + "".join(rows) + "</g>",
    )


def _own_pieces(holding: Holding) -> list[list[Piece]]:
    return [
        [Piece(box, shard) for box in holding.boxes_in(row)] if shard >= 0 else []
        for row, shard in enumerate(holding.shards.tolist())
    ]


def _style(holding: Holding, crowd: int) -> Style:
    if crowd > MEDIUM_CARDS:
        return Style(crowd, max(24, max(map(text_width, holding.cards)) + 6), 20, {})
    if crowd > LARGE_CARDS:
        return Style(crowd, 52, 52, {})
    copies = _copies(holding)
    captions = max(text_width(_caption(holding, i), 10) for i in range(len(holding.cards)))
    titles = max(
        text_width(describe_card(card), bold=True) + (text_width(copies[i], 10) + 8 if i in copies else 0)
        for i, card in enumerate(holding.cards)
    )
    return Style(crowd, max(76, captions + 12, titles + 12), 84, copies)


def _copies(holding: Holding) -> dict[int, str]:
    first: dict[int, str] = {}
    out: dict[int, str] = {}
    for row, shard in enumerate(holding.shards.tolist()):
        if shard >= 0 and first.setdefault(shard, holding.cards[row]) != holding.cards[row]:
            out[row] = f"= {describe_card(first[shard])}"
    return out


def _caption(holding: Holding, row: int) -> str:
    return fitted(holding.describe(row), WIDEST_CAPTION, 10)


def _tile(holding: Holding, row: int, pieces: Sequence[Piece], pen: Pen, style: Style, x: float) -> str:
    """One tile; y = 0 is the baseline of a compact tile's text, BASELINE below its top."""
    if style.crowd > MEDIUM_CARDS:
        return _compact(holding.cards[row], pieces, pen, x, style.width)
    y = -BASELINE
    dashes = "" if holding.held[row] else ' stroke-dasharray="3 2"'
    card = path(x, y, style.width, style.height, f'class="tile" fill="#fff" stroke="{LINE}"{dashes}')
    if style.crowd > LARGE_CARDS and holding.cards[row] in holding.lost:
        return card + text(x + 5, y + 13, holding.cards[row]) + text(x + 12, y + 34, "lost")
    if style.crowd > LARGE_CARDS:
        picture = _thumbnail(
            _sheet(holding, style.width - 12, style.height - 24), holding, pieces, pen, x, y + 18
        )
        return card + text(x + 5, y + 13, holding.cards[row]) + picture
    copy = style.copies.get(row)
    end = 'font-size="10" text-anchor="end"'
    return (
        card
        + text(x + 6, y + 15, describe_card(holding.cards[row]), 'font-weight="600"')
        + (text(x + style.width - 6, y + 15, copy, end) if copy else "")
        + _thumbnail(_sheet(holding, style.width - 12, 42), holding, pieces, pen, x, y + 21)
        + text(x + 6, y + style.height - 7, _caption(holding, row), 'font-size="10"')
    )


def _compact(card: str, pieces: Sequence[Piece], pen: Pen, x: float, width: float) -> str:
    """A filled tile; stripes where it takes from several shards, no colour where from very many or none."""
    middle = number(x + width / 2)
    outline = f'd="M{number(x)}-{BASELINE}h{number(width)}v20h-{number(width)}z"'
    shards = list(dict.fromkeys(piece.shard for piece in pieces))
    if not shards or len(shards) > MOST_STRIPES:
        plain = f'<path class="tile" {outline} fill="#fff" stroke="{LINE}"/>'
        return f'{plain}<text class="ink" x="{middle}">{card}</text>'
    # The row's own ink is black: only white is said.
    white = ' fill="#fff"' if all(pen.ink(shard) == "#fff" for shard in shards) else ""
    square = f'<path {outline} fill="{pen.fill(shards[0])}" stroke="{LINE}"/>'
    return f'{square}{_stripes(pieces, shards, pen, x, width)}<text{white} x="{middle}">{card}</text>'


def _stripes(pieces: Sequence[Piece], shards: Sequence[int], pen: Pen, x: float, width: float) -> str:
    """The second shard and those after it, each as wide as its part of the elements."""
    sizes = [sum(piece.box.size for piece in pieces if piece.shard == shard) for shard in shards]
    left, out = x + width * sizes[0] / sum(sizes), ""
    for shard, size in zip(shards[1:], sizes[1:], strict=True):
        wide = width * size / sum(sizes)
        out += f'<path d="M{number(left)}-{BASELINE}h{number(wide)}v20h-{number(wide)}z" fill="{pen.fill(shard)}"/>'
        left += wide
    return out


def _sheet(holding: Holding, width: float, height: float) -> Sheet:
    """Show the dims that are cut first, then the last ones: rows down, columns across."""
    if not holding.shape:
        return Sheet(None, None, 12, 12)
    if len(holding.shape) == 1:
        return Sheet(None, 0, width, 12)
    parts = holding.parts[holding.held]
    whole = [bool((parts[:, :, d] == (0, n)).all()) for d, n in enumerate(holding.shape)]
    order = sorted(range(len(whole)), key=lambda d: (whole[d], -d if whole[d] else d))
    row_dim, column_dim = sorted(order[:2])
    ratio = holding.shape[column_dim] / max(holding.shape[row_dim], 1)
    # A thumbnail is a sketch: a long thin tensor would leave no room to see its cuts.
    ratio = min(max(ratio, 0.7), 2.2)
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
