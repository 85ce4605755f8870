"""What Jupyter shows of a record: HTML below 50 kB that needs no trust."""

from .layouts import layout_html, mesh_html, strategy_html, table_html
from .layouts import register as register_layouts
from .records import checkpoint_html, group_html, load_html, memory_html, plan_html, register_records

__all__ = [
    "checkpoint_html",
    "group_html",
    "layout_html",
    "load_html",
    "memory_html",
    "mesh_html",
    "plan_html",
    "register",
    "strategy_html",
    "table_html",
]


def register() -> None:
    """Tell `display` how each record is drawn; called once, when something is first shown."""
    register_layouts()
    register_records()
