"""Views: records as SVG strings and as HTML; numpy and text only, no cluster, no widgets.

drawing/    how a drawing is made and saved          holdings/   who holds what of a tensor
moves/      bytes on their way                       runs/       what happens in which order, and when
shown/      what Jupyter shows of a record
"""

from .drawing import STORED_CARDS, Drawing, img_html, stored
from .holdings import (
    Holding,
    Links,
    hold,
    layout_pair_svg,
    layout_svg,
    link_cards,
    mesh_svg,
    needed_volumes,
    partner_sets,
    strategy_svg,
    tensor_svg,
)
from .moves import (
    CardBytes,
    FileBytes,
    MoveLinks,
    bands_svg,
    bars_svg,
    files_of,
    files_svg,
    link_moves,
    memory_svg,
    traffic_svg,
)
from .runs import Step, graph_svg, line_chart, timeline_svg
from .shown import (
    checkpoint_html,
    graph_steps,
    group_html,
    layout_html,
    load_html,
    memory_html,
    mesh_html,
    plan_html,
    program_steps,
    register,
    strategy_html,
    table_html,
    times_html,
)

__all__ = [
    "STORED_CARDS",
    "CardBytes",
    "Drawing",
    "FileBytes",
    "Holding",
    "Links",
    "MoveLinks",
    "Step",
    "bands_svg",
    "bars_svg",
    "checkpoint_html",
    "files_of",
    "files_svg",
    "graph_steps",
    "graph_svg",
    "group_html",
    "hold",
    "img_html",
    "layout_html",
    "layout_pair_svg",
    "layout_svg",
    "line_chart",
    "link_cards",
    "link_moves",
    "load_html",
    "memory_html",
    "memory_svg",
    "mesh_html",
    "mesh_svg",
    "needed_volumes",
    "partner_sets",
    "plan_html",
    "program_steps",
    "register",
    "stored",
    "strategy_html",
    "strategy_svg",
    "table_html",
    "tensor_svg",
    "timeline_svg",
    "times_html",
    "traffic_svg",
]
