"""Partition: a graph and its sharding in, one program for all cards out.

A reader that needs a value in another layout than it has gets a redistribution, in one step or in
several (see `redistribution`), from its nearest version. An operator whose summed
factor is sharded gets an all-reduce, or, where all readers need only a part of the sum, a reduce-scatter.
A value is freed after its last reader.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from ..arguments import checked_on_error
from ..errors import ShardingError
from ..layout import Layout
from ..net import Graph, Node, Spec
from .program import AllReduce, Compute, Held, Instruction, Program, Redistribute, ReduceScatter
from .redistribution import route
from .sharding import NodeSharding, Sharding, same_layout
from .shards import shard_map

__all__ = ["partition"]


@checked_on_error
def partition(graph: Graph, sharding: Sharding, held: Mapping[str, Layout] | None = None) -> Program:
    """Make the program that computes `graph` as `sharding` says.

    Parameters
    ----------
    held
        The layouts that the cards hold parameters in, where they differ from `sharding.strategy`.

    Raises
    ------
    ShardingError
        If a parameter is held on ranks that the program has not, or the sharding was made with
        full_batch=False: the graph then counts the rows of one card (a mean's, for one), not of all.
    """
    if not sharding.full_batch:
        raise ShardingError(
            "this sharding was made with full_batch=False, for a graph of one card's share of the batch; "
            "to run, trace with the whole batch (the shares one after another) and use full_batch=True"
        )
    return _Partition(graph, sharding, held or {}).program()


class _Partition:
    def __init__(self, graph: Graph, sharding: Sharding, held: Mapping[str, Layout]) -> None:
        self.graph, self.sharding = graph, sharding
        self.instructions: list[Instruction] = []
        self.values: dict[str, Held] = {}
        self.versions: dict[str, list[str]] = {}
        self.wanted = self._wanted()
        for name, spec in graph.params.items():
            layout = held.get(name, sharding.strategy[name])
            if int(layout.ranks.max()) >= sharding.devices:
                raise ShardingError(
                    f"{name} is held on ranks up to {int(layout.ranks.max())}, but the program has "
                    f"{sharding.devices} cards; load it for {sharding.devices}",
                    parameter=name,
                )
            self._define(name, name, spec, layout)
        for name, spec in graph.inputs.items():
            self._define(name, name, spec, self._input_layout(name))

    def program(self) -> Program:
        for node in self.graph.nodes:
            self._compute(node, self.sharding.nodes[node.output])
        updates = {
            param: self._as(value, self.values[param].layout) for param, value in self.graph.updates.items()
        }
        outputs = self.graph.outputs
        kept = {*outputs, *updates.values(), *self.graph.params}
        return Program(
            self.sharding.devices,
            tuple(self.graph.inputs),
            tuple(self.graph.params),
            outputs,
            updates,
            _with_frees(self.instructions, kept),
            self.values,
        )

    def _define(self, name: str, of: str, spec: Spec, layout: Layout) -> None:
        self.values[name] = Held(spec, layout)
        self.versions.setdefault(of, []).append(name)

    def _input_layout(self, name: str) -> Layout:
        """An input is sharded as its first reader needs it: the controller need not send more."""
        for node in self.graph.nodes:
            if name in node.inputs:
                return self.sharding.nodes[node.output].inputs[node.inputs.index(name)]
        return self.sharding.inputs[name]

    def _compute(self, node: Node, sharding: NodeSharding) -> None:
        inputs = tuple(
            self._as(name, layout) for name, layout in zip(node.inputs, sharding.inputs, strict=True)
        )
        spec = self.graph.specs[node.output]
        if not sharding.sums:
            self.instructions.append(Compute(node.output, node.op, inputs))
            self._define(node.output, node.output, spec, sharding.output)
            return
        partial = f"{node.output} partial"
        self._define(partial, partial, spec, sharding.output)
        self.instructions.append(Compute(partial, node.op, inputs))
        part = self._part_of_sum(node.output, sharding)
        if part is None:
            self.instructions.append(AllReduce(node.output, (partial,), sharding.sums))
        else:
            self.instructions.append(ReduceScatter(node.output, (partial,), sharding.sums))
        self._define(node.output, node.output, spec, part or sharding.output)

    def _wanted(self) -> dict[str, list[Layout | None]]:
        """Value -> the layouts in which it is read; None for an output, which may have any."""
        out: dict[str, list[Layout | None]] = {name: [None] for name in self.graph.outputs}
        for node in self.graph.nodes:
            layouts = self.sharding.nodes[node.output].inputs
            for name, layout in zip(node.inputs, layouts, strict=True):
                out.setdefault(name, []).append(layout)
        for param, name in self.graph.updates.items():
            out.setdefault(name, []).append(self.sharding.strategy[param])
        return out

    def _part_of_sum(self, name: str, sharding: NodeSharding) -> Layout | None:
        """The layout in which all read a sum, if each card needs only a part, and that is less to send."""
        shape = self.graph.specs[name].shape
        first, *others = self.wanted.get(name, [None])
        same = first is not None and all(
            other is not None and same_layout(other, first, shape) for other in others
        )
        return first if first is not None and same and _scatters(sharding, first, shape) else None

    def _as(self, name: str, layout: Layout) -> str:
        """The version of a value in this layout; it is made if there is none."""
        spec = self.graph.specs[name]
        for version in self.versions[name]:
            if _holds(self.values[version].layout, layout, spec.shape):
                return version
        ways = [
            (route(self.values[version].layout, layout, spec.shape, spec.dtype.itemsize), version)
            for version in self.versions[name]
        ]
        (stops, _), version = min(ways, key=lambda way: way[0][1])
        for stop in stops:
            output = f"{name} as {len(self.versions[name])}"
            self.instructions.append(Redistribute(output, (version,)))
            self._define(output, name, spec, stop)
            version = output
        return version


def _holds(layout: Layout, wanted: Layout, shape: tuple[int, ...]) -> bool:
    """Whether every rank of a wanted layout holds what it needs; others may hold something too (other stages)."""
    if same_layout(layout, wanted, shape):
        return True
    if len(layout.ranks) <= len(wanted.ranks):
        return False
    held = shard_map(layout, shape).boxes
    return all(held.get(rank) == boxes for rank, boxes in shard_map(wanted, shape).boxes.items())


def _scatters(sharding: NodeSharding, part: Layout, shape: tuple[int, ...]) -> bool:
    """Whether every card needs only one box of its sum, and a group together not much more than one copy.

    A reduce-scatter sends each card all the others' parts; an all-reduce and a slice send twice its
    share of the whole.
    """
    held, kept = shard_map(sharding.output, shape), shard_map(part, shape)
    if held.shapes.keys() != kept.shapes.keys() or any(len(boxes) != 1 for boxes in kept.boxes.values()):
        return False
    for rank, boxes in kept.boxes.items():
        if not any(laid.whole.common(boxes[0].whole) == boxes[0].whole for laid in held.boxes[rank]):
            return False
    cards = math.prod(sharding.mesh.axis_size(axis) for axis in sharding.sums)
    parts = [boxes[0].whole.size * cards for boxes in kept.boxes.values()]
    return max(parts) < 2 * max(laid.whole.size for boxes in held.boxes.values() for laid in boxes)


def _with_frees(instructions: list[Instruction], kept: set[str]) -> tuple[Instruction, ...]:
    """The same, each instruction freeing the values that are dead after it."""
    out: list[Instruction] = []
    needed = set(kept)
    for instruction in reversed(instructions):
        mentioned = dict.fromkeys((*instruction.inputs, instruction.output))
        frees = tuple(name for name in mentioned if name not in needed)
        needed.update(instruction.inputs)
        out.append(replace(instruction, frees=frees))
    return tuple(reversed(out))
