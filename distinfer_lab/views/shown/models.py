"""The model map of records that know many tensors."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...display import counted
from ...errors import LayoutError
from ...layout import Layout, Strategy
from ..drawing import Drawing, stored
from ..models import held_by_layouts, held_by_plan, modelmap_svg
from .tables import BESIDE_TABLE

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint
    from ...reshard import ReshardPlan

__all__ = ["FEWEST", "checkpoint_map", "mesh_words", "plan_map", "strategy_map"]

FEWEST = 4
"""Of fewer tensors each is drawn by itself."""


def strategy_map(strategy: Strategy) -> Drawing | None:
    """The model and the cards that hold it; None where the strategy has few tensors, or not all of their shapes."""
    if len(strategy) < FEWEST or len(strategy.shapes) < len(strategy):
        return None
    words = f"Strategy of {counted(len(strategy), 'parameter')} on {counted(strategy.ranks, 'rank')}"
    tensors = ((name, strategy.shapes[name], 1, layout) for name, layout in strategy.items())
    try:
        held = held_by_layouts(tensors)
    except LayoutError:
        return None
    captions = (mesh_words(strategy), "")

    def draw(tiles: int) -> str:
        return modelmap_svg(
            held, list(strategy), (strategy.ranks, 0), captions=captions, in_bytes=False, max_tiles=tiles
        )

    return Drawing(stored(draw, BESIDE_TABLE), words)


def checkpoint_map(checkpoint: "Checkpoint", limit: int) -> Drawing | None:
    """The model, and the ranks whose files hold it; None of few tensors."""
    records = list(checkpoint.tensors.values())
    if len(records) < FEWEST:
        return None
    held = held_by_layouts((r.name, r.shape, r.dtype.itemsize, r.layout) for r in records)
    layouts = {record.name: record.layout for record in records}

    def draw(tiles: int) -> str:
        return modelmap_svg(
            held,
            list(layouts),
            (checkpoint.ranks, 0),
            captions=(mesh_words(layouts), ""),
            lost=checkpoint.lost,
            max_tiles=tiles,
        )

    return Drawing(stored(draw, limit), f"Who holds what of {counted(len(records), 'tensor')}")


def plan_map(plan: "ReshardPlan", captions: tuple[str, str] = ("", "")) -> Drawing | None:
    """The model between the cards of training and those of inference; None of few tensors."""
    if len(plan) < FEWEST:
        return None
    held = held_by_plan(plan)

    def draw(tiles: int) -> str:
        return modelmap_svg(
            held, plan.names, (plan.src_count, plan.dst_count), plan=plan, captions=captions, max_tiles=tiles
        )

    words = f"{counted(plan.src_count, 'training card')} to {counted(plan.dst_count, 'inference card')}"
    return Drawing(stored(draw, BESIDE_TABLE), f"A model of {counted(len(plan), 'tensor')}: {words}")


def mesh_words(layouts: Mapping[str, Layout]) -> str:
    """The mesh of most of the tensors that are cut; "" if none is."""
    meshes = Counter(layout.mesh for layout in layouts.values() if any(layout.dims))
    return repr(meshes.most_common(1)[0][0]) if meshes else ""
