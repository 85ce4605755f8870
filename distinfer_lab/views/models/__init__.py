"""A whole model in one look: layers down, classes of tensors across, and the cards that hold them."""

from .inventory import Held, held_by_layouts, held_by_plan
from .modelmap import modelmap_svg

__all__ = ["Held", "held_by_layouts", "held_by_plan", "modelmap_svg"]
