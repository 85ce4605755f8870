"""Layout arithmetic: numpy only, no files, no nets, no cluster."""

from .box import Box, Boxes, box_at, intersect_boxes, nonempty_boxes, volumes
from .layout import Layout
from .mesh import Mesh
from .strategy import Strategy

__all__ = [
    "Box",
    "Boxes",
    "Layout",
    "Mesh",
    "Strategy",
    "box_at",
    "intersect_boxes",
    "nonempty_boxes",
    "volumes",
]
