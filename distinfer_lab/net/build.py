"""A graph while it is being built, by tracing and by differentiation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..display import counted
from ..errors import GraphError
from .graph import Graph, Node, NodeStrategy, Operator, Origin, Spec, call_infer

__all__ = ["GraphBuilder"]


class GraphBuilder:
    """Collects inputs, parameters and nodes; `graph()` returns them as one frozen record.

    Examples
    --------
    >>> import numpy as np
    >>> from distinfer_lab.net.operators import MatMul
    >>> build = GraphBuilder()
    >>> x = build.input("x", Spec((2, 3), np.dtype("float32")))
    >>> w = build.param("w", Spec((3, 4), np.dtype("float32")))
    >>> build.graph([build.add(MatMul(), x, w)]).outputs
    ('MatMul.1',)
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._inputs: dict[str, Spec] = {}
        self._params: dict[str, Spec] = {}
        self._specs: dict[str, Spec] = {}
        self._origin: Origin | None = None
        self._stage: int | None = None

    def __repr__(self) -> str:
        params = counted(len(self._params), "parameter")
        return f"GraphBuilder of {counted(len(self.nodes), 'operator')} and {params} so far"

    def input(self, name: str, spec: Spec) -> str:
        """Add an input."""
        self._inputs[name] = self._define(name, spec)
        return name

    def param(self, name: str, spec: Spec) -> str:
        """Add a parameter; the same one may be added again.

        Raises
        ------
        GraphError
            If the name is taken by something else, or by a parameter of another shape or dtype.
        """
        if self._params.get(name) != spec:
            self._params[name] = self._define(name, spec)
        return name

    def _define(self, name: str, spec: Spec) -> Spec:
        if name in self._specs:
            raise GraphError(
                f"{name!r} is defined twice; give each input and parameter a name of its own", parameter=name
            )
        self._specs[name] = spec
        return spec

    def add(self, op: Operator, *inputs: str, strategy: NodeStrategy | None = None) -> str:
        """Add a node; returns the name of its output.

        Raises
        ------
        GraphError
            If the inputs do not fit the operator.
        """
        number = len(self.nodes) + 1
        output = f"{op.name}.{number}"
        while output in self._specs:
            output += "_"
        self._specs[output] = call_infer(op, *(self.spec(name) for name in inputs), place=output)
        self.nodes.append(Node(output, op, inputs, strategy, self._origin, self._stage))
        return output

    def spec(self, name: str) -> Spec:
        """The shape and dtype of a value."""
        if name not in self._specs:
            raise GraphError(f"{name!r} is not defined", parameter=name)
        return self._specs[name]

    @contextmanager
    def origin(self, of: str, grad: str | None) -> Iterator[None]:
        """Nodes added inside are made for this (see `Origin`)."""
        before, self._origin = self._origin, Origin(of, grad)
        try:
            yield
        finally:
            self._origin = before

    @contextmanager
    def at_stage(self, stage: int) -> Iterator[None]:
        """Nodes added inside belong to this pipeline stage, unless an inner cell has its own."""
        before, self._stage = self._stage, stage
        try:
            yield
        finally:
            self._stage = before

    def graph(self, outputs: Sequence[str], updates: Mapping[str, str] | None = None) -> Graph:
        """What was built; nodes that no output needs are left out."""
        needed = set(outputs) | set((updates or {}).values())
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.output in needed:
                kept.append(node)
                needed.update(node.inputs)
        params = {
            name: spec for name, spec in self._params.items() if name in needed or name in (updates or {})
        }
        return Graph(dict(self._inputs), params, tuple(reversed(kept)), tuple(outputs), dict(updates or {}))
