"""Who holds what of a tensor: cards, meshes, tensors as they are cut, and who shares bytes with whom."""

from .cards import (
    describe_sharding,
    layout_svg,
    name_key,
    plain_shape,
    shards_svg,
    strategy_svg,
)
from .cutmap import cutmap_svg
from .holding import Holding, describe_box, hold, needed_volumes
from .links import Links, link_cards, partner_sets
from .mesh import mesh_svg
from .tensor import format_ranks, tensor_svg
from .tiles import tiles

__all__ = [
    "Holding",
    "Links",
    "cutmap_svg",
    "describe_box",
    "describe_sharding",
    "format_ranks",
    "hold",
    "layout_svg",
    "link_cards",
    "mesh_svg",
    "name_key",
    "needed_volumes",
    "partner_sets",
    "plain_shape",
    "shards_svg",
    "strategy_svg",
    "tensor_svg",
    "tiles",
]
