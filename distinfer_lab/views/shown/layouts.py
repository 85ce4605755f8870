"""What Jupyter shows of meshes, layouts, boxes, strategies and rules."""

from pathlib import Path
from typing import TYPE_CHECKING

from ... import display
from ...display import counted
from ...errors import LayoutError
from ...layout import Box, Layout, Mesh, Strategy
from ..drawing import Drawing, shorten, stored
from ..holdings import describe_sharding, layout_svg, mesh_svg, plain_shape, strategy_svg
from .models import strategy_map
from .tables import BESIDE_TABLE, ROWS, first, kept, lines_html, register_picture, table_html

if TYPE_CHECKING:
    from ...reshard import Topology
    from ...rules import Rules

__all__ = ["layout_html", "mesh_html", "register", "strategy_html"]


def mesh_drawing(mesh: Mesh) -> Drawing:
    """The ranks of a mesh."""
    svg = stored(lambda cards: mesh_svg(mesh, max_cards=cards))
    return Drawing(svg, f"{mesh!r}: {counted(mesh.size, 'card')}")


def mesh_html(mesh: Mesh) -> str:
    """The ranks of a mesh."""
    return mesh_drawing(mesh).html()


def layout_drawing(layout: Layout) -> Drawing:
    """A layout on the smallest tensor that it can cut, as it knows no shape."""
    shape = plain_shape(layout)
    title = f"a tensor of {layout.ndim} dims"
    try:
        svg = stored(lambda cards: layout_svg(layout, shape, title=title, max_cards=cards))
    except LayoutError:
        # Some cuts fit no small tensor: then the mesh says at least who is who.
        return mesh_drawing(layout.mesh)
    return Drawing(svg, f"{layout!r} on {title}")


def layout_html(layout: Layout) -> str:
    """A layout on the smallest tensor that it can cut, as it knows no shape."""
    return layout_drawing(layout).html()


def box_html(box: Box) -> str:
    """For each dim where the box begins and ends."""
    rows = [
        [f"dim {d}", str(a), str(b), str(b - a)]
        for d, (a, b) in enumerate(zip(box.start, box.stop, strict=True))
    ]
    table = table_html(["", "from", "up to", "elements"], rows[:ROWS], len(rows))
    return f"<p>Box of {counted(box.size, 'element')}</p>{table if rows else ''}"


def strategy_drawing(strategy: Strategy) -> Drawing:
    """The model map of a strategy; of few tensors, or without their shapes, the first distinct layouts."""
    whole = strategy_map(strategy)
    if whole is not None:
        return whole
    svg = stored(lambda cards: strategy_svg(strategy, max_cards=cards), BESIDE_TABLE)
    words = f"Strategy of {counted(len(strategy), 'parameter')} on {counted(strategy.ranks, 'rank')}"
    return Drawing(svg, words)


def strategy_html(strategy: Strategy) -> str:
    """A picture of the first distinct layouts and a table of the first parameters."""
    rows = [
        [
            shorten(name, 60),
            str(list(strategy.shapes[name])) if name in strategy.shapes else "",
            describe_sharding(layout),
            repr(layout.mesh),
            f"{layout.replicas}",
        ]
        for name, layout in first(strategy.items())
    ]
    table = table_html(["parameter", "shape", "cut", "mesh", "copies"], rows, len(strategy))
    return strategy_drawing(strategy).html() + table


def rules_html(rules: "Rules") -> str:
    """The mesh, and which names lie how."""
    rows = [
        [
            rule.match,
            "whole" if rule.dims is None else ", ".join(" and ".join(dim) or "whole" for dim in rule.dims),
        ]
        for rule in rules.rules[:ROWS]
    ]
    picture = kept(lambda cards: mesh_svg(rules.mesh, max_cards=cards), repr(rules.mesh))
    return picture + table_html(["names", "each dim is cut by"], rows, len(rules.rules))


def topology_html(topology: "Topology") -> str:
    """The hosts and their cards."""
    return lines_html(repr(topology))


def _write_strategy(strategy: Strategy, path: Path) -> None:
    from ...formats import write_strategy

    write_strategy(path, strategy)


def register() -> None:
    """Tell `display` how each class is drawn."""
    display.register(Mesh, mesh_html)
    display.register(Layout, layout_html)
    display.register(Box, box_html)
    display.register(Strategy, strategy_html)
    register_picture(Mesh, mesh_drawing)
    register_picture(Layout, layout_drawing)
    register_picture(Strategy, strategy_drawing)
    display.register_file(Strategy, (".json", ".ckpt"), _write_strategy)
    display.register("distinfer_lab.rules.Rules", rules_html)
    display.register("distinfer_lab.reshard.Topology", topology_html)
