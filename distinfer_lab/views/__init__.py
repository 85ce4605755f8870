"""Views: records as SVG strings and as HTML; numpy and text only, no cluster, no widgets."""

from .holding import Holding, hold, needed_volumes
from .links import Links, link_cards, partner_sets
from .movement import bars_svg, traffic_svg
from .pictures import layout_pair_svg, layout_svg, mesh_svg, strategy_svg
from .records import checkpoint_html, group_html, load_html, memory_html, plan_html, register_records
from .reprs import layout_html, mesh_html, strategy_html, table_html
from .reprs import register as register_layouts
from .svg import STORED_CARDS, Drawing, img_html, stored

__all__ = [
    "STORED_CARDS",
    "Drawing",
    "Holding",
    "Links",
    "bars_svg",
    "checkpoint_html",
    "group_html",
    "hold",
    "img_html",
    "layout_html",
    "layout_pair_svg",
    "layout_svg",
    "link_cards",
    "load_html",
    "memory_html",
    "mesh_html",
    "mesh_svg",
    "needed_volumes",
    "partner_sets",
    "plan_html",
    "register",
    "stored",
    "strategy_html",
    "strategy_svg",
    "table_html",
    "traffic_svg",
]


def register() -> None:
    """Tell `display` how each record is drawn; called once, when something is first shown."""
    register_layouts()
    register_records()
