"""What colours, frames and dashes of a cut map mean."""

from collections.abc import Sequence

from ..drawing import Block, moved, muted, pale, path, text_width
from .cut_tiles import Cards
from .tensor import format_ranks

__all__ = ["legend"]

SIDES = ("Training", "Inference")


def legend(cards: Sequence[Cards], room: float) -> Block:
    """What colours, frames and dashes mean, as far as they occur; and who holds nothing."""
    flows, colours = cards[0].flows, cards[0].colours
    shared = len(colours) // max(len(set(colours)), 1)
    was = f"colour: {shared} neighboring slices" if shared > 1 else "colour: the slice it was"
    entries = [("slices", was), ("frame", "frame: what one inference card needs")]
    if flows.kept.any():
        entries.append(("dashed", "dashed: stays on its card"))
    if (flows.sent.sum(axis=1)[flows.train.held] == 0).any():
        entries.append(("pale", "pale: a copy sends it"))
    out, x, y = "", 0.0, 0.0
    for kind, words in entries:
        wide = 34 + text_width(words, 10.5) + 16
        if x + wide > room:
            x, y = 0.0, y + 18
        out += moved(Block(wide, 12, _swatch(kind, colours) + muted(34, 9.5, words)), x, y)
        x += wide
    lines = [_idle(what, one.side.idle) for what, one in zip(SIDES, cards, strict=True) if one.side.idle]
    for i, words in enumerate(lines):
        out += muted(0, y + 28 + 14 * i, words)
    return Block(x, y + 12 + 14 * len(lines) + 4 * bool(lines), out)


def _idle(what: str, ranks: list[int]) -> str:
    several = len(ranks) > 1
    return f"{what} card{'s' * several} {format_ranks(ranks)} hold{'s' * (not several)} none of it"


def _swatch(kind: str, colours: Sequence[str]) -> str:
    """The sample in front of an entry of the legend."""
    first = (*colours, "#fff")[0]
    if kind == "slices":
        some = colours[:: max(len(colours) // 4, 1)][:4]
        return "".join(path(7 * i, 0, 7, 11, f'fill="{c}"') for i, c in enumerate(some))
    if kind == "frame":
        return path(1, 0.5, 26, 10, 'class="frame" fill="none" stroke="#111" stroke-width="2"')
    if kind == "pale":
        return path(0, 0, 28, 11, f'fill="{pale(first)}"')
    dashed = 'fill="none" stroke="#000" stroke-dasharray="2.5 1.5"'
    return path(0, 0, 28, 11, f'fill="{first}"') + path(2, 2, 24, 7, dashed)
