"""Widgets: what people click. A widget holds no arithmetic; it shows what a lower layer says."""

from .guard import ErrorLine
from .layout_view import LayoutView
from .picture import Picture

__all__ = ["ErrorLine", "LayoutView", "Picture"]
