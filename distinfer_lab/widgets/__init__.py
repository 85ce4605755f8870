"""Widgets: what people click. A widget holds no arithmetic; it shows what a lower layer says."""

from .layout_view import LayoutView
from .parts import ErrorLine, Picture
from .run_panel import RunPanel

__all__ = ["ErrorLine", "LayoutView", "Picture", "RunPanel"]
