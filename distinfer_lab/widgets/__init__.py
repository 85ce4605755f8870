"""Widgets: what people click. A widget holds no arithmetic; it shows what a lower layer says."""

from .card_group_view import CardGroupView
from .layout_editor import LayoutEditor
from .layout_view import LayoutView
from .parts import ErrorLine, Picture
from .plan_view import PlanView
from .predict_panel import PredictPanel
from .run_panel import RunPanel
from .workbench import Workbench

__all__ = [
    "CardGroupView",
    "ErrorLine",
    "LayoutEditor",
    "LayoutView",
    "Picture",
    "PlanView",
    "PredictPanel",
    "RunPanel",
    "Workbench",
]
