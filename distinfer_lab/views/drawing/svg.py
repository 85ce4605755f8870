"""SVG as strings: a document, its few elements, and what Jupyter stores of it.

A drawing carries no <style> (in a live page it would leak onto everything else), no script
and no link. Colours are plain attributes; a few class names let a live page recolour it for a
dark theme: `paper` the card behind all, `sheet` an empty tensor, `tile` a card, `rule` a thin
line, `ink` text, `muted` small text, `frame` a heavy line, `gap` a line in the colour of paper.
"""

import base64
import hashlib
import math
from collections.abc import Callable, Iterable

from ...text import escape
from .palette import INK, MUTED, hatch_of, ink_on, swatch

__all__ = [
    "STORED_BYTES",
    "STORED_CARDS",
    "Pen",
    "document",
    "fitted",
    "img_html",
    "label",
    "line",
    "muted",
    "number",
    "outline",
    "path",
    "shorten",
    "stored",
    "text",
    "text_width",
    "themed",
]

FONT = "system-ui,Helvetica,Arial,sans-serif"

ROUND, BEND = 8.0, 3.6
"""Radius of a card's corners, and how far before a corner its curve's control point lies; in pixels."""

DARK = (
    "@media (prefers-color-scheme:dark){.paper{fill:#161616;stroke:#444}.ink{fill:#eee}.muted{fill:#aaa}"
    ".rule{stroke:#999}.sheet{fill:#2a2a2a}.tile{fill:#202020;stroke:#888}.frame{stroke:#f5f5f5}.gap{stroke:#161616}}"
)
"""The colours of a dark page: browsers tell an image the scheme of the element that shows it."""

STORED_CARDS = 256
"""How many tiles a picture has at most that is stored in a notebook."""

STORED_BYTES = 36_000
"""The bound of a stored SVG, in bytes: as base64, with its text, it stays below 50 kB."""

ADVANCES = {
    0.30: "'IJijl",
    0.35: " ,./:;|\\·",
    0.40: "()-[]ft",
    0.45: "!r",
    0.50: '"*_`–',
    0.55: "?csz",
    0.60: "FLkvxy",
    0.65: "$0123456789EPSTYabdeghnopqu{}",
    0.70: "ABCKRVXZ",
    0.75: "NU",
    0.80: "&DGHOQ",
    0.85: "#+<=>^w~→×",
    0.90: "M",
}
"""Widths of characters in em, of the widest of the usual sans-serif fonts (DejaVu Sans)."""
ADVANCE_OF = {c: em for em, characters in ADVANCES.items() for c in characters}
BOLDER = 0.1
"""How much wider a bold character is at most, in em."""


def number(value: float) -> str:
    """A length in pixels with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(words: str, size: float = 11, *, bold: bool = False) -> float:
    """How wide a line of text is at most, in pixels, whatever sans-serif font the page has.

    Examples
    --------
    >>> text_width("card 12") < text_width("card 12", bold=True) < 55
    True
    """
    # Not sum(): how that rounds depends on Python's version, and a picture must not.
    return math.fsum(ADVANCE_OF.get(c, 1.0) + BOLDER * bold for c in words) * size


def shorten(words: str, limit: int) -> str:
    """The words themselves, or their start and an ellipsis.

    Examples
    --------
    >>> shorten("layers.0.weight", 9)
    'layers.0…'
    """
    return words if len(words) <= limit else words[: limit - 1] + "…"


def fitted(words: str, width: float, size: float = 11, *, bold: bool = False) -> str:
    """The words, shortened until they are at most so many pixels wide; "" where not one letter fits.

    Examples
    --------
    >>> fitted("layers.0.weight", 60), fitted("w", 2)
    ('layers.0…', '')
    """
    if text_width(words, size, bold=bold) <= width:
        return words
    kept = words
    while kept and text_width(kept + "…", size, bold=bold) > width:
        kept = kept[:-1]
    return f"{kept}…" if kept else ""


def text(x: float, y: float, words: str, attributes: str = "") -> str:
    """Text in ink, its baseline starting at (x, y)."""
    more = f" {attributes}" if attributes else ""
    return f'<text class="ink" x="{number(x)}" y="{number(y)}"{more}>{escape(words)}</text>'


def muted(x: float, y: float, words: str, attributes: str = "", size: float = 10.5) -> str:
    """Small grey text, which follows the theme."""
    more = f" {attributes}" if attributes else ""
    return (
        f'<text class="muted" x="{number(x)}" y="{number(y)}" fill="{MUTED}" '
        f'font-size="{number(size)}"{more}>{escape(words)}</text>'
    )


def label(x: float, y: float, words: str, fill: str, attributes: str = "") -> str:
    """Text in a colour of its own, for it stands on a fill that no theme changes."""
    more = f" {attributes}" if attributes else ""
    return f'<text x="{number(x)}" y="{number(y)}" fill="{fill}"{more}>{escape(words)}</text>'


def outline(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as path data, in the shortest spelling there is of one."""
    w = number(width)
    return f"M{number(x)} {number(y)}h{w}v{number(height)}h-{w}z"


def path(x: float, y: float, width: float, height: float, attributes: str) -> str:
    """A rectangle."""
    return f'<path d="{outline(x, y, width, height)}" {attributes}/>'


def line(x: float, y: float, dx: float, dy: float, attributes: str = "") -> str:
    """A line from (x, y) by (dx, dy); a thin rule, which follows the theme, unless a color is given."""
    more = attributes or 'class="rule" stroke="#999"'
    return f'<path d="M{number(x)} {number(y)}l{number(dx)} {number(dy)}" fill="none" {more}/>'


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
        return self.hatched(*swatch(shard))

    def hatched(self, colour: str, hatch: int) -> str:
        """The value of the `fill` attribute of a colour under hatch number `hatch`, 0 for none."""
        if not hatch:
            return colour
        name = f"{self._id}-{colour.removeprefix('#')}{hatch}"
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
            f'<path d="{hatch_of(hatch)}" fill="none" stroke="{ink_on(colour)}" stroke-opacity=".35"/></pattern>'
            for (colour, hatch), name in sorted(self._used.items())
        )
        return f"<defs>{patterns}</defs>" if patterns else ""


def document(width: float, height: float, label: str, body: Iterable[str]) -> str:
    """A whole SVG on a light card of its own; `label` is the text alternative."""
    w, h = number(width), number(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'role="group" aria-label="{escape(label)}" font-family="{FONT}" font-size="11" fill="{INK}">'
        f'<path class="paper" d="{_rounded(width, height)}" fill="#fff" stroke="#ddd"/>'
        + "".join(body)
        + "</svg>"
    )


def _rounded(width: float, height: float) -> str:
    """The outline of the card: half a pixel inside the picture, with round corners."""
    edge, right, low = 0.5, width - 0.5, height - 0.5
    across, down = number(width - 1 - 2 * ROUND), number(height - 1 - 2 * ROUND)

    def corner(*points: float) -> str:
        return "C" + " ".join(map(number, points))

    return (
        f"M{number(edge + ROUND)} {number(edge)}h{across}"
        + corner(right - BEND, edge, right, edge + BEND, right, edge + ROUND)
        + f"v{down}"
        + corner(right, low - BEND, right - BEND, low, right - ROUND, low)
        + f"h-{across}"
        + corner(edge + BEND, low, edge, low - BEND, edge, low - ROUND)
        + f"v-{down}"
        + corner(edge, edge + BEND, edge + BEND, edge, edge + ROUND, edge)
        + "z"
    )


def themed(svg: str) -> str:
    """The drawing as an image that follows the theme of the page that shows it.

    Only for a file or an `<img>`, which keep a style to themselves; in a page it would leak onto everything else.
    """
    start = svg.index(">") + 1
    return f"{svg[:start]}<style>{DARK}</style>{svg[start:]}"


def img_html(svg: str, alt: str) -> str:
    """The drawing as an image that survives in a notebook nobody has trusted yet, light or dark as the page.

    JupyterLab strips an inline <svg> there; an <img> with its data inside stays.
    """
    data = base64.b64encode(themed(svg).encode()).decode("ascii")
    style = "max-width:100%;height:auto"
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/svg+xml;base64,{data}">'


def stored(draw: Callable[[int], str], limit_bytes: int = STORED_BYTES) -> str:
    """What `draw(max_cards)` gives for the largest `max_cards` whose picture is within the limit."""
    cards = STORED_CARDS
    while len(svg := draw(cards)) > limit_bytes and cards > 8:
        cards //= 2
    return svg
