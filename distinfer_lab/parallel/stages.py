"""Pipeline stages: which run of the cards computes what, and holds which parameters.

::

    8 cards, 2 stages     stage 0  cards 0..3     embedding, blocks 0 and 1
                          stage 1  cards 4..7     blocks 2 and 3, head

A net is sharded over the cards of one stage; here each node is placed on its own stage. A node outside of the
cells that have a stage is where the latest of its inputs is; a gradient is where the node is that it
differentiates. A parameter is held by every stage that reads it, and each of these updates it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import Option, ShardingError
from ..layout import Layout, Strategy
from ..net import Graph, Node
from .factors import describe, node_name
from .sharding import NodeSharding, Sharding

__all__ = ["cards_of_a_stage", "put_on_stages"]


def cards_of_a_stage(devices: int, stages: int) -> int:
    """How many cards each stage has.

    Raises
    ------
    ShardingError
        If the cards cannot be shared evenly.
    """
    if stages < 1 or devices % stages:
        fits = [n for n in range(1, devices + 1) if devices % n == 0]
        given = Option("pipeline_stages", stages)
        raise ShardingError(
            f"{given}: {devices} cards cannot be divided evenly among so many stages; "
            f"use {', '.join(map(str, fits))}",
            given,
        )
    return devices // stages


def put_on_stages(graph: Graph, sharding: Sharding, stages: int) -> Sharding:
    """Place a net that was sharded over the cards of one stage on all stages.

    Raises
    ------
    ShardingError
        If a cell has a stage that does not exist.
    """
    found = _Stages(graph, stages)
    first = {stage: stage * sharding.devices for stage in range(stages)}

    def moved(layout: Layout, at: Iterable[int]) -> Layout:
        return replace(layout, first_ranks=tuple(first[stage] for stage in sorted(at)))

    nodes = {}
    for name, node in sharding.nodes.items():
        at = found.nodes[name]
        nodes[name] = NodeSharding(
            tuple(moved(layout, at) for layout in node.inputs), moved(node.output, at), node.sums
        )
    layouts = {name: moved(layout, found.params[name]) for name, layout in sharding.strategy.items()}
    devices = sharding.devices * stages
    return replace(
        sharding,
        devices=devices,
        strategy=Strategy(layouts, sharding.strategy.shapes, devices),
        inputs={name: moved(layout, found.inputs[name]) for name, layout in sharding.inputs.items()},
        nodes=nodes,
        stages=found.operators(),
    )


class _Stages:
    """Which stages compute, or hold, each value of a graph."""

    def __init__(self, graph: Graph, count: int) -> None:
        self.graph, self.count = graph, count
        self.nodes: dict[str, set[int]] = {}
        self.params: dict[str, set[int]] = {name: set() for name in graph.params}
        updates = [node for node in graph.nodes if node.origin and node.origin.of in graph.params]
        updating = {node.output for node in updates}
        for node in graph.nodes:
            if node.output not in updating:
                self.nodes[node.output] = {self._stage(node)}
                self._read(node)
        self._follow(updates)
        self.inputs = {name: self._first_reader(name) for name in graph.inputs}

    def _stage(self, node: Node) -> int:
        if node.origin is not None:
            return min(self.nodes[node.origin.of])
        latest = [stage for name in node.inputs for stage in self.nodes.get(name, ())]
        stage = max(latest, default=0) if node.stage is None else node.stage
        if stage >= self.count:
            given = Option("pipeline_stages", stage + 1)
            raise ShardingError(
                f"{describe(node, list(self.graph.params))} is at pipeline_stage {stage}, but there are "
                f"{self.count} stages, 0 to {self.count - 1}; set {given}, or an earlier stage",
                given,
            )
        return stage

    def _read(self, node: Node) -> None:
        for name in node.inputs:
            if name in self.params:
                self.params[name] |= self.nodes[node.output]

    def _follow(self, updates: list[Node]) -> None:
        """Updates are computed wherever their results are held, and what they read is held there too."""
        wanted = {node.output: set[int]() for node in updates}
        self._spread(updates, wanted)
        # A counter that only its own update reads: every stage counts.
        everywhere = set(range(self.count))
        self.params = {name: at or set(everywhere) for name, at in self.params.items()}
        self._spread(updates, wanted)
        self.nodes |= wanted

    def _spread(self, updates: list[Node], wanted: Mapping[str, set[int]]) -> None:
        before, now = -1, 0
        while before != now:
            for param, value in self.graph.updates.items():
                if value in wanted:
                    wanted[value] |= self.params[param]
            for node in reversed(updates):
                for name in node.inputs:
                    if name in wanted:
                        wanted[name] |= wanted[node.output]
                    elif name in self.params:
                        self.params[name] |= wanted[node.output]
            before, now = now, sum(map(len, (*wanted.values(), *self.params.values())))

    def operators(self) -> dict[str, int]:
        """Node name -> stage, of the net's own nodes that read a parameter."""
        named = {node_name(n, self.graph.params): n for n in self.graph.nodes if n.origin is None}
        return {name: min(self.nodes[node.output]) for name, node in named.items() if name is not None}

    def _first_reader(self, name: str) -> set[int]:
        return next((self.nodes[node.output] for node in self.graph.nodes if name in node.inputs), {0})
