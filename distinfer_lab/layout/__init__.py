"""Layout arithmetic: numpy only, no files, no nets, no cluster."""

from .box import Box, Boxes, box_at, intersect_boxes, nonempty_boxes, volumes
from .layout import Layout
from .mesh import Mesh
from .split import SPLITS, Regions
from .strategy import Strategy
from .transfers import Transfers, plan_transfers

__all__ = [
    "SPLITS",
    "Box",
    "Boxes",
    "Layout",
    "Mesh",
    "Regions",
    "Strategy",
    "Transfers",
    "box_at",
    "intersect_boxes",
    "nonempty_boxes",
    "plan_transfers",
    "volumes",
]
