"""What Jupyter shows of a record: HTML below 50 kB that needs no trust, and reads no tensor and no file.

An image survives anywhere, and a small table next to it. All but layouts are known by their
public names: who shows a mesh need not load what plans, reads and trains.
"""

from . import checkpoints, groups, layouts, nets, plans
from .checkpoints import checkpoint_html
from .groups import group_html, load_html, memory_html, times_html
from .layouts import layout_html, mesh_html, strategy_html
from .nets import graph_steps, program_steps
from .plans import plan_html
from .tables import table_html

__all__ = [
    "checkpoint_html",
    "graph_steps",
    "group_html",
    "layout_html",
    "load_html",
    "memory_html",
    "mesh_html",
    "plan_html",
    "program_steps",
    "register",
    "strategy_html",
    "table_html",
    "times_html",
]


def register() -> None:
    """Tell `display` how each record is drawn; called once, when something is first shown."""
    for module in (layouts, checkpoints, plans, nets, groups):
        module.register()
