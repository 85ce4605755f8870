"""Bytes of every card as bars: one number, or its memory before, at most and after, with the limit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...display import format_bytes
from ..drawing import OKABE_ITO, Block, Pen, finish, heading, line, path, shorten, text, text_width
from .runs import run_labels, run_sums

__all__ = ["CardBytes", "bars_svg", "memory_svg"]

MAX_BARS, MAX_CARDS = 64, 32
REACH = 260.0


class CardBytes(NamedTuple):
    """What one card holds, in bytes."""

    card: int
    before: int | None
    """None where that is not known."""
    peak: int | None
    """The most at one time; None where the card cannot tell any more, and so is `after`."""
    after: int | None


def bars_svg(
    values: Sequence[int],
    title: str,
    *,
    ranks: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """One bar per card, in bytes, with the number printed behind it.

    Parameters
    ----------
    values
        Bytes per card. Above 64 cards, runs of cards are summed into one bar, and it says so.
    ranks
        The card of each value; by default 0, 1, 2 and so on.
    names
        What each bar is of, where they are not cards; at most 64.
    """
    cards = [str(r) for r in (range(len(values)) if ranks is None else ranks)]
    labels, size = run_labels(cards, MAX_BARS)
    labels = [f"card {label}" for label in labels] if names is None else list(names)
    sums: list[int] = run_sums(np.asarray(values, np.int64), size).tolist()
    biggest = max([*sums, 1])
    left = max(map(text_width, labels), default=0) + 8
    body = []
    for i, (label, value) in enumerate(zip(labels, sums, strict=True)):
        width = max(REACH * value / biggest, 1) if value else 0
        body.append(text(0, 18 * i + 11, label))
        if value:
            body.append(path(left, 18 * i, width, 14, f'fill="{OKABE_ITO[1]}" stroke="#666"'))
        body.append(text(left + width + 6, 18 * i + 11, format_bytes(value)))
    wide = left + REACH + 6 + max((text_width(format_bytes(n)) for n in sums), default=0)
    lines = [f"{len(values):,} cards in runs of {size}, summed"] if size > 1 else []
    return finish(heading(Block(wide, 18 * len(sums), "".join(body)), shorten(title, 80), lines), title)


def memory_svg(
    cards: Sequence[CardBytes],
    title: str,
    *,
    limit: int | None = None,
    columns: tuple[str, str, str] = ("before", "at most", "after"),
    note: str = "",
) -> str:
    """The memory of every card: before, at most and after, and the limit as a line.

    Parameters
    ----------
    cards
        Above 32, of each run of cards the one with the highest peak is drawn, and it says so.
    limit
        What no card may exceed, in bytes; a card that does says so.
    columns
        What the three are called.
    note
        What is in them.
    """
    shown = _highest(cards)
    most = max([limit or 0, *(n for card in shown for n in card[1:] if n), 1])
    over = [card for card in cards if limit is not None and (card.peak or 0) > limit]
    pen = Pen(title)
    rows = _Rows(shown, columns, REACH / most, pen)
    cards_shown = "".join(rows.row(i, card, limit) for i, card in enumerate(shown))
    grid = f'<g role="grid" aria-label="memory of the cards">{cards_shown}</g>'
    block = Block(rows.width, 22 + 28 * len(shown), rows.head() + grid)
    if limit is not None:
        x = rows.left + limit * rows.scale
        mark = line(x, 18, 0, 28 * len(shown) + 2, 'stroke="#d55e00" stroke-width="2" stroke-dasharray="5 3"')
        block = block._replace(body=block.body + mark)
    before, most_of_all, after = columns
    lines = [f"in each row: {f'{before}, ' * rows.told}{most_of_all} (striped), {after}"]
    if note:
        lines.append(note)
    if len(shown) < len(cards):
        lines.append(
            f"{len(cards):,} cards; of each {-(-len(cards) // MAX_CARDS)} neighbours the one that needs most"
        )
    if limit is not None:
        verdict = f"{len(over):,} of {len(cards):,} cards go over it" if over else "no card goes over it"
        lines.append(f"dashed line: the limit, {format_bytes(limit)}; {verdict}")
    return finish(heading(block, shorten(title, 80), lines), title, pen)


class _Rows:
    """The rows of a memory picture: where its columns are, and their scale."""

    def __init__(
        self, cards: Sequence[CardBytes], columns: tuple[str, str, str], scale: float, pen: Pen
    ) -> None:
        self.scale, self.pen = scale, pen
        self.told = any(card.before is not None for card in cards)
        self.left = max((text_width(f"card {card.card}") for card in cards), default=0) + 8
        self.names = columns if self.told else ("", *columns[1:])
        words = [*self.names, *(_words(n) for card in cards for n in card[1:])]
        self.step = max(map(text_width, words)) + 14
        self.width = self.left + REACH + 14 + 3 * self.step + 50

    def head(self) -> str:
        """The names of the three numbers."""
        return "".join(
            text(self.left + REACH + 14 + self.step * i, 11, name, 'font-weight="600"')
            for i, name in enumerate(self.names)
        )

    def row(self, i: int, card: CardBytes, limit: int | None) -> str:
        """One card: three thin bars, then the numbers."""
        y = 20 + 28 * i
        fills = (OKABE_ITO[0], self.pen.hatched("#ffffff", 1), OKABE_ITO[4])
        # Around the whole row: what is hovered or chosen is the card.
        around = path(0, y - 2, self.width, 27, 'fill="none" stroke="none" pointer-events="all"')
        bars = "".join(
            path(self.left, y + 8 * j, max(n * self.scale, 1), 7, f'fill="{fill}" stroke="#444"')
            for j, (n, fill) in enumerate(zip(card[1:], fills, strict=True))
            if n
        )
        numbers = "".join(
            text(self.left + REACH + 14 + self.step * j, y + 15, _words(n) if j or self.told else "")
            for j, n in enumerate(card[1:])
        )
        over = limit is not None and (card.peak or 0) > limit
        warn = (
            text(self.left + REACH + 14 + 3 * self.step, y + 15, "over!", 'font-weight="600"') if over else ""
        )
        name = text(0, y + 15, f"card {card.card}")
        return f'<g role="row"><g data-key="card:{card.card}">{around}{bars}{name}{numbers}{warn}</g></g>'


def _words(nbytes: int | None) -> str:
    return "?" if nbytes is None else format_bytes(nbytes)


def _highest(cards: Sequence[CardBytes]) -> list[CardBytes]:
    size = max(-(-len(cards) // MAX_CARDS), 1)
    runs = [cards[a : a + size] for a in range(0, len(cards), size)]
    return [max(run, key=lambda card: card.peak or 0) for run in runs]
