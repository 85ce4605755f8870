"""The cut map: one tensor, the cards that held it in training and the cards that need it for inference.

::

                 training cards, over the columns that they hold
            +------+------+------+------+
            |stays |from 1|from 2|from 3|  -> card 0      the tensor stands in the middle, once; its colours are
            +------+------+------+------+                 the slices that training left, a frame is what one
            |from 0|stays |from 6|from 7|  -> card 1      inference card needs; what is dashed stays on its card
            +------+------+------+------+

A side stands at the edge of the dim that it cuts, so that places say what arrows would.
"""

import math
from collections.abc import Sequence

from ...display import counted
from ...layout import Layout, Transfers
from ..drawing import STORED_CARDS, Block, document, fitted, moved, muted, slice_colours, text, text_width
from .cards import describe_sharding
from .cut_cards import cards_across, cards_block, cards_down
from .cut_flows import flows_of
from .cut_legend import legend
from .cut_sides import Side, arrange, drawn_dims
from .cut_stage import Stage, stage_body, stage_of
from .cut_tiles import Cards
from .headline import facts, headline

__all__ = ["cutmap_svg"]

WIDTH, PAD = 760.0, 20.0
HEAD = 55.0
RULER = 50.0
SIDEWAYS = ("down", "both")
SIDE_ROOM = 250.0
WIDEST_STAGE = 460.0


def cutmap_svg(
    train: Layout,
    infer: Layout,
    shape: Sequence[int],
    *,
    transfers: Transfers | None = None,
    name: str = "",
    itemsize: int | None = None,
    max_tiles: int = STORED_CARDS,
    ranks: tuple[int | None, int | None] = (None, None),
    same_cards: bool = True,
) -> str:
    """How one tensor is cut in training and for inference, and which card gets what from which.

    Parameters
    ----------
    train, infer, shape
        Both layouts and the tensor's full shape.
    transfers
        Who sends what to whom, as of a plan; by default those that move least.
    name
        The tensor's name.
    itemsize
        Bytes of an element; without it amounts are elements.
    max_tiles
        A side of more cards than this is drawn as a crowd: one colour a place, and no card is an element of its own.
    ranks
        The number of cards of both groups, where some hold nothing of this tensor.
    same_cards
        Whether rank r of both groups is one card.

    Raises
    ------
    LayoutError
        If a layout cannot cut the shape.
    """
    flows = flows_of(train, infer, shape, ranks, transfers, same_cards)
    dims = drawn_dims(flows.train, flows.infer)
    sides = arrange(train, flows.train, dims), arrange(infer, flows.infer, dims)
    stage = stage_of(flows.train, flows.infer, dims, _stage_width(sides, bool(dims.sheets)))
    colours = _colours(flows.slices, max_tiles)
    cards = [
        Cards(key, side, flows, colours, side.edge == "across", max_tiles)
        for key, side in zip(("train", "infer"), sides, strict=True)
    ]
    begun = _training(cards[0], stage)
    drawn = stage_body(stage, flows, colours) + _sheet_names(stage)
    body = begun.body + moved(Block(0, 0, drawn), begun.width, begun.height)
    ended = _inference(cards[1], stage, begun.width, begun.height)
    return _page(
        headline(train, infer, flows),
        facts(train, infer, flows, name, itemsize),
        body + ended.body,
        ended.height,
        cards,
    )


def _colours(slices: int, most: int) -> list[str]:
    """A colour for each slice; neighbors share one where they are too many to be drawn one by one."""
    run = -(-slices // most)
    some = slice_colours(-(-slices // run) if run else 0)
    return [some[i // run] for i in range(slices)]


def _page(title: str, line: str, body: str, height: float, cards: Sequence[Cards]) -> str:
    """The whole picture: the finding and the facts above, the legend below."""
    wide = WIDTH - 2 * PAD
    head = text(0, 14, fitted(title, wide, 17, bold=True), 'font-size="17" font-weight="700"')
    head += muted(0, 33, fitted(line, wide, 11.5), size=11.5)
    foot = legend(cards, wide)
    below = HEAD + height + 18
    parts = head + moved(Block(0, 0, body), 0, HEAD) + moved(foot, 0, below)
    return document(
        WIDTH, below + foot.height + 2 * PAD - 6, f"{title}. {line}", [moved(Block(0, 0, parts), PAD, PAD)]
    )


def _stage_width(sides: Sequence[Side], sheets: bool) -> float:
    """How wide the tensor may be drawn, with the cards at its sides."""
    room = WIDTH - 2 * PAD - RULER
    if sheets:
        return room
    taken = [_room(side) + 26 for side in sides if side.edge in SIDEWAYS]
    return min(room - math.fsum(taken), WIDEST_STAGE if taken else room - 60)


def _room(side: Side) -> float:
    """How wide the cards at the left or right of the tensor may be."""
    names = max((text_width(name, 10.5) for name in side.names[2]), default=0.0) + 8
    count = int(side.ranks.shape[0] * side.ranks.shape[3])
    return names + min(count * (130.0 if count == 1 else 78.0 if count <= 3 else 30.0), SIDE_ROOM)


def _training(cards: Cards, stage: Stage) -> Block:
    """The training cards; the width and height of the block are where the tensor begins."""
    caption = _caption(cards.side, "Trained on")
    if cards.side.edge in SIDEWAYS:
        block = cards_down(cards, stage, _room(cards.side))
        x, y = block.width + RULER + 16, 62.0
        return Block(x, y, _head(caption, 0, y - 44, x - RULER + stage.width) + moved(block, 0, y))
    across = cards.side.edge == "across"
    block = cards_across(cards, stage, above=True) if across else cards_block(cards, stage)
    body = _head(caption, RULER, 10, stage.total) + moved(block, RULER, 38)
    return Block(RULER, 38 + block.height + 28, body)


def _inference(cards: Cards, stage: Stage, x: float, y: float) -> Block:
    """The inference cards, with the tensor's corner at (x, y); the height is where the picture ends."""
    caption = _caption(cards.side, "Predicts on")
    if cards.side.edge in SIDEWAYS:
        at = x + stage.width + 26
        body = _head(caption, at, y - 44, WIDTH - 2 * PAD - at)
        block = cards_down(cards, stage, _room(cards.side))
        return Block(0, y + stage.height, body + moved(block, at, y))
    across = cards.side.edge == "across"
    block = cards_across(cards, stage, above=False) if across else cards_block(cards, stage)
    top = y + stage.height + 10
    below = top + block.height + 16
    return Block(0, below + 30, moved(block, x, top) + _head(caption, x, below + 12, stage.total))


def _sheet_names(stage: Stage) -> str:
    out = ""
    for place, sheet in enumerate(stage.drawn):
        if sheet is not None:
            runs = zip(stage.dims.sheets, stage.sheets[sheet], strict=True)
            words = ", ".join(
                f"dim {d}: {a}" if b == a + 1 else f"dim {d}: {a}-{b - 1}" for d, (a, b) in runs
            )
            out += muted(
                stage.left(place) + stage.width / 2,
                -6,
                fitted(words, stage.width + 8, 10.5),
                'text-anchor="middle"',
            )
    return out


def _caption(side: Side, verb: str) -> tuple[str, str]:
    cards = counted(len(side.holding.cards), "card")
    return f"{verb} {cards}".upper(), f"{side.layout.mesh!r}: {describe_sharding(side.layout)}"


def _head(words: tuple[str, str], x: float, y: float, room: float) -> str:
    """The caption of a side: in one line where there is room, else in two."""
    caption, more = words
    out = muted(x, y, caption, 'font-weight="700" letter-spacing=".6"', 10)
    wide = text_width(caption, 10, bold=True) * 1.1 + 14
    if wide + text_width(more, 11) <= room:
        return out + muted(x + wide, y, more, size=11)
    return out + muted(x, y + 15, fitted(more, max(room, 120), 11), size=11)
