"""How a net is sharded: a layout for every value that a node reads or computes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..display import Displayed, counted
from ..layout import Layout, Mesh, Strategy

__all__ = ["NodeSharding", "Sharding", "same_layout"]


@dataclass(frozen=True)
class NodeSharding:
    """How one node is sharded: all its layouts are on one mesh."""

    inputs: tuple[Layout, ...]
    output: Layout
    sums: tuple[str, ...] = ()
    """The mesh axes over which the output is partial, and must be added up."""

    @property
    def mesh(self) -> Mesh:
        """The mesh that the node's layouts are on."""
        return self.output.mesh


@dataclass(frozen=True)
class Sharding(Displayed):
    """The result of `propagate`."""

    devices: int
    strategy: Strategy
    """Parameter -> layout, with full shapes."""
    inputs: Mapping[str, Layout]
    """The net's inputs, as MindSpore lays them out."""
    nodes: Mapping[str, NodeSharding]
    """For each node, by the name of its output."""
    operators: Mapping[str, tuple[tuple[int, ...], ...]]
    """Node name -> parts per dim of each input, for each operator that reads a parameter:
    what a strategy file lists."""
    stages: Mapping[str, int] = field(default_factory=dict)
    """Node name -> pipeline stage, for each of `operators`; those that are not named are at stage 0."""
    full_batch: bool = True
    """False: for one card's share of the batch; its layouts shard `devices` times as many rows."""

    def __repr__(self) -> str:
        return f"Sharding of {counted(len(self.nodes), 'node')} on {counted(self.devices, 'card')}\n{self.strategy!r}"


def same_layout(a: Layout, b: Layout, shape: Sequence[int]) -> bool:
    """Whether both put the same box of a tensor on every rank, whatever their axes are called."""
    if a == b:
        return True
    if a.ranks.tolist() != b.ranks.tolist():
        return False
    one, other = (_unfused(layout).regions(shape) for layout in (a, b))
    return one.boxes.shape == other.boxes.shape and bool((one.boxes == other.boxes).all())


def _unfused(layout: Layout) -> Layout:
    """The same without the parts of dims that are not sharded: they are contiguous anyway."""
    if not layout.fused or layout.optimizer_shards > 1:
        return layout
    fused = (parts if n > 1 else None for parts, n in zip(layout.fused, layout.parts, strict=True))
    return replace(layout, fused=tuple(fused))


def whole_mesh(devices: int) -> Mesh:
    """The mesh of a value that is not sharded."""
    return Mesh(repeat=devices)


def is_sharded(layout: Layout) -> bool:
    """Whether any dim has more than one shard."""
    return math.prod(layout.parts) * layout.optimizer_shards > 1
