"""The HTML that pictures stand in: tables, sentences, and how much of it fits one cell."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ... import display
from ...display import format_bytes
from ...text import escape
from ..drawing import Drawing, img_html, shorten, stored
from ..moves import bars_svg

__all__ = [
    "BESIDE_PICTURE",
    "BESIDE_TABLE",
    "ROWS",
    "bars_html",
    "first",
    "kept",
    "lines_html",
    "register_picture",
    "table_html",
]

T = TypeVar("T")

ROWS = 20

BESIDE_TABLE = 30_000
"""The bound of an SVG that shares its 50 kB with a table, in bytes."""

BESIDE_PICTURE = 14_000
"""The bound of an SVG that shares them with a second one and a table."""

MOST_BARS = 24


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    """A table of text; a last line counts the rows of `total` that are not shown; "" for none."""
    if not total:
        return ""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(shorten(cell, 80))}</td>" for cell in row) + "</tr>" for row in rows
    )
    rest = f"<p>and {total - len(rows):,} more</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def lines_html(text: str, limit: int = ROWS) -> str:
    """The first lines of a text, each a line."""
    lines = [escape(shorten(line.strip(), 200)) for line in text.split("\n")[:limit]]
    return f"<p>{'<br>'.join(lines)}</p>"


def kept(draw: Callable[[int], str], alt: str, limit_bytes: int = BESIDE_TABLE) -> str:
    """A picture as an image, with as many cards as the bound allows (see `stored`)."""
    return img_html(stored(draw, limit_bytes), alt)


def bars_html(named: Iterable[tuple[str, int]], title: str) -> str:
    """Amounts of bytes as bars with their names; of very many the largest; "" where there are none."""
    every = list(named)
    if not every:
        return ""
    shown = every if len(every) <= MOST_BARS else sorted(every, key=lambda item: -item[1])[:MOST_BARS]
    rest = f"; the largest {len(shown)} of {len(every):,}" if len(every) > len(shown) else ""
    names = [shorten(name, 48) for name, _ in shown]
    svg = bars_svg([n for _, n in shown], f"{title}{rest}", names=names)
    total = format_bytes(sum(n for _, n in every))
    most = shorten(max(every, key=lambda item: item[1])[0], 48)
    return img_html(svg, f"{title}: {total} in all, most in {most}")


def register_picture(cls: type | str, draw: Callable[[Any], Drawing]) -> None:
    """Let records of a class be saved as the picture that `draw` makes."""
    display.register_file(cls, (".svg", ".png"), lambda record, path: draw(record).save(path))


def first(items: Iterable[T], count: int = ROWS) -> list[T]:
    """The first items."""
    return [item for item, _ in zip(items, range(count), strict=False)]
