"""Propagation: from a few operators' strategies to a layout for every value.

The net's own nodes, in order of precedence: what `shard` says; what a training strategy file
says; in auto_parallel what a neighbour's layout suggests, forwards and backwards; else data
parallel, by the first dim. The nodes of a gradient follow the node that they differentiate,
and the nodes of an update follow their parameter. A parameter has the layout that its first reader
needs; in auto_parallel its other readers follow, in data_parallel every card holds it whole.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..arguments import checked
from ..errors import Option, ShardingError
from ..layout import Layout, Strategy
from ..net import Graph, Node, NodeStrategy, Rule, Spec, rule_of
from .factors import (
    Axes,
    FactorSharding,
    data_parallel_parts,
    describe,
    dim_shardings,
    mesh_of_parts,
    misfit,
    node_name,
    read_strategy,
    shard_by_axes,
)
from .sharding import NodeSharding, Sharding, is_sharded, same_layout, whole_mesh
from .stages import cards_of_a_stage, put_on_stages

__all__ = ["MODES", "node_name", "propagate"]

Hints = list[tuple[tuple[str | None, ...], Layout]]
"""Factors of one operand's dims, and the layout of that operand."""

MODES = ("stand_alone", "data_parallel", "semi_auto_parallel", "auto_parallel")


@checked
def propagate(
    graph: Graph,
    devices: int,
    *,
    full_batch: bool = True,
    mode: str = "semi_auto_parallel",
    loaded: Mapping[str, NodeStrategy] | None = None,
    parallel_optimizer: bool | Collection[str] = False,
    stages: int = 1,
) -> Sharding:
    """Find the layout of every value of a net on `devices` cards.

    Parameters
    ----------
    graph
        What tracing gave.
    full_batch
        False: the graph was traced with one card's share of the batch; sizes are taken times
        the cards of a stage.
    mode
        One of `MODES`. stand_alone cuts nothing; data_parallel ignores `shard` and cuts the
        batch only: each card holds every parameter whole (unless `parallel_optimizer` cuts it).
    loaded
        Node name -> strategy, of a training strategy file.
    parallel_optimizer
        FactorSharding parameters that an optimizer updates, and their states, among the cards that
        would hold equal shards, where their rows can be shared evenly; all of them, or those named.
    stages
        Pipeline stages: the net is sharding for an n-th of the cards, and every node put on its stage's.
        With 1, the stages of cells are ignored.

    Raises
    ------
    ShardingError
        If a strategy does not fit its operator or the cards, readers of one parameter want it in
        different layouts, or the stages do not fit the cards or the cells.
    """
    if devices < 1:
        given = Option("devices", devices)
        raise ShardingError(f"{given}: a net runs on 1 card or more", given)
    if mode not in MODES:
        given = Option("mode", mode)
        raise ShardingError(f"{given} is not one of {', '.join(MODES)}", given)
    cards = cards_of_a_stage(devices, stages)
    if not full_batch:
        graph = _whole_batch(graph, cards)
    found = _Propagation(graph, cards, mode, loaded or {}, parallel_optimizer).sharding(full_batch)
    return found if stages == 1 else put_on_stages(graph, found, stages)


def _whole_batch(graph: Graph, devices: int) -> Graph:
    inputs = {
        name: Spec((spec.shape[0] * devices, *spec.shape[1:]), spec.dtype) if spec.shape else spec
        for name, spec in graph.inputs.items()
    }
    return replace(graph, inputs=inputs)


class _Propagation:
    def __init__(
        self,
        graph: Graph,
        devices: int,
        mode: str,
        loaded: Mapping[str, NodeStrategy],
        parallel_optimizer: bool | Collection[str],
    ) -> None:
        self.graph, self.devices, self.mode, self.loaded = graph, devices, mode, loaded
        self.parallel_optimizer = parallel_optimizer
        self.forward = [node for node in graph.nodes if node.origin is None]
        self.nodes: dict[str, NodeSharding] = {}
        self.params: dict[str, Layout] = {}
        self.grads: dict[str, Node] = {}
        self.by_output = {node.output: node for node in graph.nodes}

    def sharding(self, full_batch: bool) -> Sharding:
        self._shard_forward()
        for node in self.forward:
            self._place_params(node)
        if self.parallel_optimizer:
            self._shard_updated()
        for node in self.graph.nodes:
            if node.origin is not None:
                self._shard_gradient(node)
        for name, spec in self.graph.params.items():
            self.params.setdefault(name, self._whole(spec))
        shapes = {name: self.graph.params[name].shape for name in self.params}
        ordered = {name: self.params[name] for name in self.graph.params}
        return Sharding(
            self.devices,
            Strategy(ordered, shapes, self.devices),
            {name: self._input(spec, full_batch) for name, spec in self.graph.inputs.items()},
            self.nodes,
            self._operators(),
            full_batch=full_batch,
        )

    def _operators(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        out: dict[str, tuple[tuple[int, ...], ...]] = {}
        for node in self.forward:
            name = node_name(node, self.graph.params)
            if name is not None:
                out[name] = tuple(layout.parts for layout in self.nodes[node.output].inputs)
        return out

    def _whole(self, spec: Spec) -> Layout:
        return Layout(whole_mesh(self.devices), ((),) * len(spec.shape))

    def _input(self, spec: Spec, full_batch: bool) -> Layout:
        if full_batch or not spec.shape:
            return self._whole(spec)
        return Layout(whole_mesh(self.devices), (("repeat",), *((),) * (len(spec.shape) - 1)))

    def _rule(self, node: Node) -> Rule:
        return rule_of(node.op, *self._specs(node))

    def _specs(self, node: Node) -> list[Spec]:
        return [self.graph.specs[name] for name in node.inputs]

    # The net's own nodes

    def _shard_forward(self) -> None:
        for node in self.forward:
            strategy = self._strategy(node)
            if strategy is not None:
                self._shard_as_asked(replace(node, strategy=strategy))
        if self.mode == "auto_parallel":
            both_ways = (*self.forward, *reversed(self.forward))
            while sum(self._spread(node) for node in both_ways):
                pass
        for node in self.forward:
            if node.output not in self.nodes and not self._follow_params(node):
                self._shard_by_default(node)

    def _strategy(self, node: Node) -> NodeStrategy | None:
        if self.mode in ("stand_alone", "data_parallel"):
            return None
        if node.strategy is not None:
            return node.strategy
        return self.loaded.get(node_name(node, self.graph.params) or "")

    def _shard_as_asked(self, node: Node) -> None:
        rule = self._rule(node)
        what = describe(node, list(self.graph.params))
        if self.by_output[node.output].strategy is None:
            what += " (by the training strategy file; `shard` in the net overrides it)"
        mesh, axes = read_strategy(
            node, rule, self._specs(node), self.graph.specs[node.output], self.devices, what
        )
        self.nodes[node.output] = shard_by_axes(mesh, axes, rule)

    def _shard_by_default(self, node: Node) -> None:
        rule = self._rule(node)
        parts: Mapping[str, int] = {}
        if self.mode != "stand_alone":
            parts = data_parallel_parts(rule, self._specs(node), self.graph.specs[node.output], self.devices)
            parts = {f: n for f, n in parts.items() if f not in _whole_factors(self._placed(node, rule))}
        mesh, axes = mesh_of_parts(parts, rule, self.devices, describe(node, list(self.graph.params)))
        self.nodes[node.output] = shard_by_axes(mesh, axes, rule)

    def _placed(self, node: Node, rule: Rule) -> Hints:
        """In auto_parallel, the layouts that the parameters of a node have for their other readers."""
        if self.mode != "auto_parallel":
            return []
        factors_of = dict(zip(node.inputs, rule.inputs, strict=True))
        out: Hints = []
        for reader in self.forward:
            if reader.output in self.nodes:
                layouts = zip(reader.inputs, self.nodes[reader.output].inputs, strict=True)
                shared = ((n, layout) for n, layout in layouts if n in factors_of and n in self.graph.params)
                out += [(factors_of[name], layout) for name, layout in shared]
        return out

    def _neighbours(self, node: Node, rule: Rule) -> Hints:
        """The layouts of the values that a node reads or computes, where the node on the other side is sharded."""
        out: Hints = [
            (factors, self.nodes[name].output)
            for factors, name in zip(rule.inputs, node.inputs, strict=True)
            if name in self.nodes
        ]
        for reader in self.forward:
            if reader.output in self.nodes:
                layouts = zip(reader.inputs, self.nodes[reader.output].inputs, strict=True)
                out += [(rule.output, layout) for name, layout in layouts if name == node.output]
        return [(factors, layout) for factors, layout in out if is_sharded(layout)]

    def _spread(self, node: Node) -> bool:
        """Shard a node as its neighbours are, if one of them is sharded already; True if that was new."""
        if node.output in self.nodes:
            return False
        rule = self._rule(node)
        return self._shard_like(node, rule, self._placed(node, rule), self._neighbours(node, rule))

    def _follow_params(self, node: Node) -> bool:
        """Shard a node as its parameters are for other readers; True if one of them is sharded."""
        rule = self._rule(node)
        return self._shard_like(node, rule, self._placed(node, rule), [])

    def _shard_like(self, node: Node, rule: Rule, placed: Hints, neighbours: Hints) -> bool:
        """Shard a node by hints on one mesh: `placed` must be kept, `neighbours` may be."""
        hints = [(factors, layout) for factors, layout in (*placed, *neighbours) if is_sharded(layout)]
        if not hints:
            return False
        like = hints[0][1]
        axes = _axes_of(
            [(f, layout) for f, layout in hints if layout.mesh == like.mesh], rule, _whole_factors(placed)
        )
        self.nodes[node.output] = shard_by_axes(like.mesh, self._fitting(node, rule, axes, like), rule)
        return True

    def _fitting(self, node: Node, rule: Rule, axes: Axes, like: Layout) -> Axes:
        """What the node can take of this sharding; one that follows a neighbour's parts may do without them."""
        specs = [*self._specs(node), self.graph.specs[node.output]]
        out: dict[str, FactorSharding] = {}
        for factor, sharding in axes.items():
            for possible in (sharding, sharding._replace(fused=None)):
                if misfit(like.mesh, factor, possible, rule, specs) is None:
                    out[factor] = possible
                    break
        return out

    def _place_params(self, node: Node) -> None:
        for name, layout in zip(node.inputs, self.nodes[node.output].inputs, strict=True):
            if name not in self.graph.params:
                continue
            spec = self.graph.params[name]
            if self.mode == "data_parallel":
                self.params.setdefault(name, self._whole(spec))
                continue
            first = self.params.setdefault(name, layout)
            if not same_layout(first, layout, spec.shape):
                raise ShardingError(
                    f"{name}: its readers need it in different layouts, {first!r} and {layout!r} "
                    f"(the latter for {describe(node, list(self.graph.params))}); shard them alike",
                    parameter=name,
                )

    def _shard_updated(self) -> None:
        """Shard the rows of every updated parameter over its replicas, where that is even."""
        named = None if isinstance(self.parallel_optimizer, bool) else self.parallel_optimizer
        for name in self.graph.updates:
            layout = self.params.get(name) if named is None or name in named else None
            if layout is None or not layout.dims or layout.replicas == 1:
                continue
            rows = layout.shard_shape(self.graph.params[name].shape)[0]
            if rows % layout.replicas == 0:
                self.params[name] = replace(layout, optimizer_shards=layout.replicas)

    # Nodes of gradients and updates

    def _shard_gradient(self, node: Node) -> None:
        assert node.origin is not None
        if node.origin.of in self.graph.params:
            self._shard_update(node, node.origin.of)
            return
        source = self.nodes[node.origin.of]
        rule = self._rule(node)
        hints: Hints = []
        for factors, name in zip(rule.inputs, node.inputs, strict=True):
            layout = self._behind(node, name, source)
            if layout is not None and layout.mesh == source.mesh:
                hints.append((factors, layout))
        hints += self._differentiated(node, rule, source)
        axes = self._fitting(node, rule, _axes_of(hints, rule), source.output)
        self.nodes[node.output] = shard_by_axes(source.mesh, axes, rule)

    def _behind(self, node: Node, name: str, source: NodeSharding) -> Layout | None:
        """The layout of a value that a gradient node reads, as the differentiated node has it."""
        assert node.origin is not None
        forward = self.by_output[node.origin.of]
        if name in (node.origin.of, node.origin.grad):
            return source.output
        if name in forward.inputs:
            return source.inputs[forward.inputs.index(name)]
        return self.nodes[name].output if name in self.nodes else None

    def _differentiated(self, node: Node, rule: Rule, source: NodeSharding) -> Hints:
        """The layouts of parameters of its shape, of which a gradient node's output may be the gradient.

        A factor that follows another is known from the operands themselves.
        """
        assert node.origin is not None
        names = self.by_output[node.origin.of].inputs
        spec = self.graph.specs[node.output]
        return [
            (rule.output, layout)
            for name, layout in zip(names, source.inputs, strict=True)
            if self.graph.specs[name] == spec and (name in self.graph.params or rule.within)
        ]

    def _shard_update(self, node: Node, param: str) -> None:
        spec = self.graph.params[param]
        layout = self.params.setdefault(param, self._whole(spec))

        def like_param(name: str) -> Layout:
            found = self.graph.specs[name]
            return layout if found.shape == spec.shape else self._whole(found)

        inputs = tuple(like_param(name) for name in node.inputs)
        for name, wanted in zip(node.inputs, inputs, strict=True):
            if name in self.graph.params:
                self.params.setdefault(name, wanted)
        self.nodes[node.output] = NodeSharding(inputs, like_param(node.output))


def _axes_of(hints: Hints, rule: Rule, whole: Collection[str] = ()) -> dict[str, FactorSharding]:
    """How each factor is sharded, by the layouts of some operands on one mesh; the first to claim an axis has it.

    Factors of `whole` are not sharded.
    """
    out: dict[str, FactorSharding] = {}
    used: set[str] = set()
    for factors, layout in hints:
        for factor, sharding in zip(factors, dim_shardings(layout), strict=True):
            if factor is None or factor in out or factor in whole or factor in rule.within:
                continue
            if sharding.axes and not used.intersection(sharding.axes):
                out[factor] = sharding
                used.update(sharding.axes)
    for inner, outer in rule.within.items():
        found = [
            sharding
            for fs, layout in hints
            for f, sharding in zip(fs, dim_shardings(layout), strict=True)
            if f == inner
        ]
        first = next((sharding for sharding in found if sharding.axes), FactorSharding())
        if outer in out and first.axes == out[outer].axes[: len(first.axes)]:
            out[inner] = first
    return out


def _whole_factors(placed: Hints) -> set[str]:
    """The factors of the dims that these layouts leave whole."""
    dims = (pair for factors, layout in placed for pair in zip(factors, layout.dims, strict=True))
    return {factor for factor, axes in dims if factor is not None and not axes}
