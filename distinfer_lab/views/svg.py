"""SVG as strings: a document, its few elements, and what Jupyter stores of it.

A drawing carries no <style> (in a live page it would leak onto everything else), no script
and no link. Colours are plain attributes; four class names let a live page recolour it for a
dark theme: `paper` the card behind all, `sheet` an empty tensor, `tile` a card, `ink` text.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .palette import INK, hatch_of, ink_on, swatch

__all__ = [
    "STORED_BYTES",
    "STORED_CARDS",
    "Drawing",
    "Pen",
    "document",
    "img_html",
    "number",
    "path",
    "shorten",
    "stored",
    "text",
]

FONT = "system-ui,Helvetica,Arial,sans-serif"

STORED_CARDS = 256
"""How many tiles a picture has at most that is stored in a notebook."""

STORED_BYTES = 36_000
"""The bound of a stored SVG, in bytes: as base64, with its text, it stays below 50 kB."""


def number(value: float) -> str:
    """A length in pixels with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def shorten(words: str, limit: int) -> str:
    """The words themselves, or their start and an ellipsis.

    Examples
    --------
    >>> shorten("layers.0.weight", 9)
    'layers.0…'
    """
    return words if len(words) <= limit else words[: limit - 1] + "…"


def text(x: float, y: float, words: str, attributes: str = "") -> str:
    """Text in ink, its baseline starting at (x, y)."""
    more = f" {attributes}" if attributes else ""
    return f'<text class="ink" x="{number(x)}" y="{number(y)}"{more}>{escape(words)}</text>'


def path(x: float, y: float, width: float, height: float, attributes: str) -> str:
    """A rectangle, as the shortest spelling there is of one."""
    w = number(width)
    return f'<path d="M{number(x)} {number(y)}h{w}v{number(height)}h-{w}z" {attributes}/>'


class Pen:
    """Gives each number its fill, and remembers which hatches the document must define.

    Parameters
    ----------
    seed
        What the drawing shows: the ids of its patterns are derived from it, so that two
        drawings in one page do not share an id by chance.
    """

    def __init__(self, seed: str) -> None:
        self._id = "h" + hashlib.sha256(seed.encode()).hexdigest()[:6]
        self._used: dict[tuple[str, int], str] = {}

    def fill(self, shard: int) -> str:
        """The value of the `fill` attribute of shard `shard`."""
        colour, hatch = swatch(shard)
        if not hatch:
            return colour
        name = f"{self._id}-{shard % 7}{hatch}"
        self._used[colour, hatch] = name
        return f"url(#{name})"

    def ink(self, shard: int) -> str:
        """The colour of text that stands on shard `shard`."""
        return ink_on(swatch(shard).colour)

    def defs(self) -> str:
        """The patterns used so far, to stand before what uses them."""
        patterns = "".join(
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse">'
            f'<path d="M0 0h6v6H0z" fill="{colour}"/>'
            f'<path d="{hatch_of(hatch)}" stroke="{ink_on(colour)}" stroke-opacity=".4"/></pattern>'
            for (colour, hatch), name in sorted(self._used.items())
        )
        return f"<defs>{patterns}</defs>" if patterns else ""


def document(width: float, height: float, label: str, body: Iterable[str]) -> str:
    """A whole SVG on a light card of its own; `label` says in words what it shows."""
    w, h = number(width), number(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'role="group" aria-label="{escape(label)}" font-family="{FONT}" font-size="11" fill="{INK}">'
        f'<path class="paper" d="M.5.5h{number(width - 1)}v{number(height - 1)}h-{number(width - 1)}z" '
        f'fill="#fff" stroke="#ccc"/>' + "".join(body) + "</svg>"
    )


def img_html(svg: str, alt: str) -> str:
    """The drawing as an image that survives in a notebook nobody has trusted yet.

    JupyterLab strips an inline <svg> there; an <img> with its data inside stays.
    """
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def stored(draw: Callable[[int], str], limit_bytes: int = STORED_BYTES) -> str:
    """What `draw(max_cards)` gives for the largest `max_cards` whose picture is within the limit."""
    cards = STORED_CARDS
    while len(svg := draw(cards)) > limit_bytes and cards > 8:
        cards //= 2
    return svg


@dataclass(frozen=True, repr=False)
class Drawing:
    """A still picture: shows itself in a notebook, trusted or not, and saves itself as SVG."""

    svg: str
    alt: str
    """What the picture says, in a sentence."""

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the SVG to `file`."""
        Path(file).write_text(self.svg, encoding="utf-8")

    def html(self) -> str:
        """The picture as HTML, for a page or a cell."""
        return img_html(self.svg, self.alt)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.alt, "text/html": self.html()}
