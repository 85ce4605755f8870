"""Partition: a graph and its sharding in, one program for all cards out.

A reader that wants a value in another layout than it lies in gets a redistribution; an operator
whose summed factor is cut gets an all-reduce; a value is freed after its last reader.
"""

from collections.abc import Mapping
from dataclasses import replace

from ..errors import ShardingError
from ..layout import Layout
from ..net import Graph, Node, Spec
from .program import AllReduce, Compute, Held, Instruction, Program, Redistribute
from .sharding import NodeSharding, Sharding, same_layout

__all__ = ["partition"]


def partition(graph: Graph, sharding: Sharding, held: Mapping[str, Layout] | None = None) -> Program:
    """Make the program that computes `graph` as `sharding` says.

    Parameters
    ----------
    held
        How parameters lie on the cards, where that differs from `sharding.strategy`.

    Raises
    ------
    ShardingError
        If a parameter is held on ranks that the program has not, or the sharding was found with
        full_batch=False: the graph then counts the rows of one card (a mean's, for one), not of all.
    """
    if not sharding.full_batch:
        raise ShardingError(
            "this sharding was found with full_batch=False, for a graph of one card's share of the batch; "
            "to run, trace with the whole batch (the shares one after another) and use full_batch=True"
        )
    return _Partition(graph, sharding, held or {}).program()


class _Partition:
    def __init__(self, graph: Graph, sharding: Sharding, held: Mapping[str, Layout]) -> None:
        self.graph, self.sharding = graph, sharding
        self.instructions: list[Instruction] = []
        self.values: dict[str, Held] = {}
        self.versions: dict[str, list[str]] = {}
        for name, spec in graph.params.items():
            layout = held.get(name, sharding.strategy[name])
            if int(layout.ranks.max()) >= sharding.devices:
                raise ShardingError(
                    f"{name} lies on ranks up to {int(layout.ranks.max())}, but the program has "
                    f"{sharding.devices} cards; load it for {sharding.devices}"
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
        """An input comes cut as its first reader wants it: the controller need not send more."""
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
        else:
            partial = f"{node.output} partial"
            self._define(partial, partial, spec, sharding.output)
            self.instructions.append(Compute(partial, node.op, inputs))
            self.instructions.append(AllReduce(node.output, (partial,), sharding.sums))
        self._define(node.output, node.output, spec, sharding.output)

    def _as(self, name: str, layout: Layout) -> str:
        """The version of a value that lies like this, made if there is none."""
        spec = self.graph.specs[name]
        for version in self.versions[name]:
            if same_layout(self.values[version].layout, layout, spec.shape):
                return version
        output = f"{name} as {len(self.versions[name])}"
        self.instructions.append(Redistribute(output, (name,)))
        self._define(output, name, spec, layout)
        return output


def _with_frees(instructions: list[Instruction], kept: set[str]) -> tuple[Instruction, ...]:
    """The same, each instruction freeing the values that nothing after it reads."""
    out: list[Instruction] = []
    needed = set(kept)
    for instruction in reversed(instructions):
        mentioned = dict.fromkeys((*instruction.inputs, instruction.output))
        frees = tuple(name for name in mentioned if name not in needed)
        needed.update(instruction.inputs)
        out.append(replace(instruction, frees=frees))
    return tuple(reversed(out))
