"""Layout arithmetic: numpy only, no files, no nets, no cluster."""

from .box import Box, Boxes, box_at, box_of, intersect_boxes, nonempty_boxes, volumes, windows
from .layout import Layout
from .matches import Matches, expand_ranges, match_regions
from .mesh import Mesh
from .split import SPLITS, Regions, cut_points
from .strategy import Strategy
from .transfers import Transfers, plan_transfers

__all__ = [
    "SPLITS",
    "Box",
    "Boxes",
    "Layout",
    "Matches",
    "Mesh",
    "Regions",
    "Strategy",
    "Transfers",
    "box_at",
    "box_of",
    "cut_points",
    "expand_ranges",
    "intersect_boxes",
    "match_regions",
    "nonempty_boxes",
    "plan_transfers",
    "volumes",
    "windows",
]
