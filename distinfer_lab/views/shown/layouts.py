"""What Jupyter shows of a record: an image that survives anywhere, and a small table.

Every function here takes a record and gives HTML below 50 kB, in which nothing needs trust:
tables, text and <img>. No function reads a tensor's bytes or asks a cluster anything.
Classes of higher layers are known by their public names, and by what the Protocols say.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeVar

from ... import display
from ...errors import LayoutError
from ...layout import Layout, Mesh, Strategy
from ..drawing import img_html, shorten, stored
from ..holdings import layout_svg, mesh_svg, plain_shape, strategy_svg

__all__ = ["layout_html", "mesh_html", "register", "strategy_html", "table_html"]

T = TypeVar("T")

ROWS = 20

BESIDE_TABLE = 30_000
"""The bound of an SVG that shares its 50 kB with a table, in bytes."""


def mesh_html(mesh: Mesh) -> str:
    """The ranks of a mesh."""
    svg = stored(lambda cards: mesh_svg(mesh, max_cards=cards))
    return img_html(svg, f"{mesh!r}: {mesh.size} cards")


def layout_html(layout: Layout) -> str:
    """A layout on the smallest tensor that it can cut, as it knows no shape."""
    shape = plain_shape(layout)
    title = f"a tensor of {layout.ndim} dims"
    try:
        svg = stored(lambda cards: layout_svg(layout, shape, title=title, max_cards=cards))
    except LayoutError:
        # Some cuts fit no small tensor: then the mesh says at least who is who.
        return mesh_html(layout.mesh)
    return img_html(svg, f"{layout!r} on {title}")


def strategy_html(strategy: Strategy) -> str:
    """A picture of the first distinct layouts and a table of the first parameters."""
    svg = stored(lambda cards: strategy_svg(strategy, max_cards=cards), BESIDE_TABLE)
    rows = [
        [
            shorten(name, 60),
            str(list(strategy.shapes[name])) if name in strategy.shapes else "",
            layout.describe_cut() or "(no dims)",
            repr(layout.mesh),
            f"{layout.replicas}",
        ]
        for name, layout in _first(strategy.items(), ROWS)
    ]
    table = table_html(["parameter", "shape", "cut", "mesh", "copies"], rows, len(strategy))
    return img_html(svg, f"Strategy of {len(strategy)} parameters on {strategy.ranks} ranks") + table


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    """A table of text; a last line counts the rows of `total` that are not shown."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(shorten(cell, 80))}</td>" for cell in row) + "</tr>" for row in rows
    )
    rest = f"<p>and {total - len(rows):,} more</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def register() -> None:
    """Tell `display` how each class is drawn; called once, when something is first shown."""
    display.register(Mesh, mesh_html)
    display.register(Layout, layout_html)
    display.register(Strategy, strategy_html)


def _first(items: Iterable[T], count: int) -> list[T]:
    return [item for item, _ in zip(items, range(count), strict=False)]
