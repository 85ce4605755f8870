"""Pipeline stages: the axis `pp` of a mesh shares out layers, not dims.

::

    pp=2, tp=2, 3 layers      ranks 0, 1 (stage 0)    embedding, layers 0 and 1
                              ranks 2, 3 (stage 1)    layer 2, last norm, head

Layer i of n is held by stage i * pp // n.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import LayoutError
from ..layout import Layout, Mesh
from .configuration import Part
from .expressions import AbsentField, evaluate
from .rule import Rule

__all__ = ["AXIS", "Stages", "on_stages", "stages_of"]

AXIS = "pp"
LAYERS = "num_hidden_layers or n_layer or num_layers"


@dataclass(frozen=True)
class Stages:
    """How many stages share how many layers.

    Parameters
    ----------
    has_head
        Whether the checkpoint has a head of its own; if not, the embedding is the head, too.
    """

    count: int
    layers: int
    has_head: bool

    def of(self, rule: Rule, part: Part) -> tuple[int, ...]:
        """The stages that hold a tensor, in order."""
        every, last = tuple(range(self.count)), self.count - 1
        if rule.stage in ("first", "last", "head", "all"):
            return every if rule.stage == "all" else (0,) if rule.stage == "first" else (last,)
        if rule.stage == "embedding":
            return (0,) if self.has_head or last == 0 else (0, last)
        if not part.is_main:  # a tower whose output the first layer takes
            return (0,)
        # Layers that only help to train (multi-token prediction) are counted on from the last one.
        return every if part.layer is None else (min(part.layer * self.count // self.layers, last),)


def stages_of(mesh: Mesh, parts: Iterable[Part], rules: Iterable[Rule]) -> Stages | None:
    """The stages of a mesh with an axis `pp`; None if it has none.

    Parameters
    ----------
    parts, rules
        Of all tensors.

    Raises
    ------
    LayoutError
        If there are more stages than layers.
    """
    if AXIS not in mesh.axis_names:
        return None
    count = mesh.axis_size(AXIS)
    main = [part for part in parts if part.is_main]
    numbered = max((part.layer for part in main if part.layer is not None), default=-1) + 1
    try:
        said = evaluate(LAYERS, replace(main[0], layer=None).lookup) if main else None
    except AbsentField:
        said = None
    except ValueError as err:
        raise LayoutError(str(err), of=err) from err
    layers = said or numbered
    if count > max(layers, 1):
        raise LayoutError(
            f"{AXIS}={count} is more than the {layers} layers of the model; use {AXIS}={max(layers, 1)}"
        )
    return Stages(count, layers or 1, any(rule.stage == "head" for rule in rules))


def on_stages(layout: Layout, count: int, stages: tuple[int, ...]) -> Layout:
    """A layout for the ranks of some pipeline stages.

    Parameters
    ----------
    layout
        For a mesh whose axis `pp` has size 1: the ranks of one stage.
    count
        The number of stages.
    """
    mesh = layout.mesh
    sizes = [
        count if name == AXIS else size for name, size in zip(mesh.axis_names, mesh.axis_sizes, strict=True)
    ]
    if len(stages) == count:
        return replace(layout, mesh=Mesh.from_axes(mesh.axis_names, tuple(sizes)))
    strides = tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))
    row_major = tuple(math.prod(mesh.axis_sizes[i + 1 :]) for i in range(len(sizes)))
    differ = any(a != b for a, b, size in zip(strides, row_major, mesh.axis_sizes, strict=True) if size > 1)
    apart = strides[mesh.axis_index(AXIS)]
    return replace(
        layout, first_ranks=tuple(stage * apart for stage in stages), strides=strides if differ else ()
    )
