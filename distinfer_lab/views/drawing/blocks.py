"""Combines finished parts of a drawing: side by side, one above the other, below a heading."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .svg import Pen, document, fitted, number, text, text_width

__all__ = ["WIDEST", "Block", "above", "finish", "heading", "moved", "notes", "side_by_side"]

WIDEST = 760
"""How wide a picture grows before its parts go below each other, in pixels: a notebook's column."""

PAD = 12


class Block(NamedTuple):
    """A finished part of a drawing, with its size in pixels; its corner is at the origin."""

    width: float
    height: float
    body: str


def moved(block: Block, x: float, y: float) -> str:
    """The block's body with its corner at (x, y)."""
    return f'<g transform="translate({number(x)} {number(y)})">{block.body}</g>' if block.body else ""


def notes(lines: Sequence[str]) -> Block:
    """Lines of plain text."""
    words = [fitted(words, WIDEST) for words in lines]
    body = "".join(text(0, 11 + 15 * i, line) for i, line in enumerate(words))
    return Block(max(map(text_width, words), default=0), 15 * len(words), body)


def heading(block: Block, title: str, lines: Sequence[str]) -> Block:
    """The block below its title and some smaller lines."""
    title = fitted(title, WIDEST, 13, bold=True)
    below = notes(lines)
    top = 20 + below.height
    body = text(0, 11, title, 'font-size="13" font-weight="600"') + moved(below, 0, 16)
    width = max(block.width, below.width, text_width(title, 13, bold=True))
    return Block(width, top + block.height, body + moved(block, 0, top))


def side_by_side(blocks: Sequence[Block], widest: float = WIDEST) -> Block:
    """The blocks next to each other, in as many rows as keep the whole narrower than `widest`."""
    gap = 28.0
    x = y = wide = bottom = 0.0
    body = []
    for block in blocks:
        if x and x + block.width > widest:
            x, y = 0.0, bottom + gap
        body.append(moved(block, x, y))
        wide, bottom = max(wide, x + block.width), max(bottom, y + block.height)
        x += block.width + gap
    return Block(wide, bottom, "".join(body))


def above(blocks: Sequence[Block], gap: float = 16) -> Block:
    """The blocks below each other; those of no height are left out."""
    y = wide = 0.0
    body = []
    for block in blocks:
        if block.height:
            body.append(moved(block, 0, y))
            wide = max(wide, block.width)
            y += block.height + gap
    return Block(wide, max(y - gap, 0), "".join(body))


def finish(block: Block, label: str, pen: Pen | None = None) -> str:
    """The block as a whole document; `label` is the text alternative."""
    width, height = math.ceil(block.width) + 2 * PAD, math.ceil(block.height) + 2 * PAD
    return document(width, height, label, [pen.defs() if pen else "", moved(block, PAD, PAD)])
