"""Who holds what of a tensor: cards, meshes, tensors as they are cut, and who shares bytes with whom."""

from .cards import (
    cut_in_words,
    layout_pair_svg,
    layout_svg,
    name_key,
    plain_shape,
    shards_svg,
    strategy_svg,
)
from .holding import Holding, describe_box, hold, needed_volumes
from .links import Links, link_cards, partner_sets
from .mesh import mesh_svg
from .tensor import ranks_in_words, tensor_svg
from .tiles import tiles

__all__ = [
    "Holding",
    "Links",
    "cut_in_words",
    "describe_box",
    "hold",
    "layout_pair_svg",
    "layout_svg",
    "link_cards",
    "mesh_svg",
    "name_key",
    "needed_volumes",
    "partner_sets",
    "plain_shape",
    "ranks_in_words",
    "shards_svg",
    "strategy_svg",
    "tensor_svg",
    "tiles",
]
