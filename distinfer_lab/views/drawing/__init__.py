"""How a drawing is made: SVG's few elements, colours, blocks that are put together, and files."""

from .blocks import WIDEST, Block, above, finish, heading, moved, notes, side_by_side
from .drawing import Drawing
from .palette import INK, OKABE_ITO, SHADES, ink_on, shade_of, swatch
from .svg import (
    STORED_BYTES,
    STORED_CARDS,
    Pen,
    document,
    fitted,
    img_html,
    label,
    line,
    number,
    path,
    shorten,
    stored,
    text,
    text_width,
)

__all__ = [
    "INK",
    "OKABE_ITO",
    "SHADES",
    "STORED_BYTES",
    "STORED_CARDS",
    "WIDEST",
    "Block",
    "Drawing",
    "Pen",
    "above",
    "document",
    "finish",
    "fitted",
    "heading",
    "img_html",
    "ink_on",
    "label",
    "line",
    "moved",
    "notes",
    "number",
    "path",
    "shade_of",
    "shorten",
    "side_by_side",
    "stored",
    "swatch",
    "text",
    "text_width",
]
