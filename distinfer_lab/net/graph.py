"""A graph: the result of tracing a net, and of differentiating it.

::

    inputs   x [128, 96]                       nodes
    params   w [96, 16]          h = MatMul(x, w)   shard ((2,1),(1,4))
                                 y = Neg(h)
    outputs  y

Values have names; a node computes one value from earlier ones by one `Operator`. An operator
knows its shapes, its numpy meaning, its gradient as more nodes, and its sharding `Rule`: the
factors of its dims, in the manner of einsum.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import GraphError

__all__ = [
    "AxisStrategy",
    "Builder",
    "Graph",
    "Node",
    "NodeStrategy",
    "Operator",
    "Origin",
    "Region",
    "Rule",
    "Spec",
    "rule_of",
]

Array = NDArray[Any]
Region = tuple[tuple[int, int], ...]


class Spec(NamedTuple):
    """The shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Rule(NamedTuple):
    """Which dims of an operator are sharded together.

    Each dim carries the name of a factor; dims of one name are sharded alike. None marks a dim that
    must stay whole. For `MatMul` the inputs are (("m", "k"), ("k", "n")), the output is
    ("m", "n") and `sums` is {"k"}: sharding k leaves partial values that are added up.
    """

    inputs: tuple[tuple[str | None, ...], ...]
    output: tuple[str | None, ...]
    sums: frozenset[str] = frozenset()
    """Factors that the output lacks and that are summed over: sharding one leaves partial sums. A dim that is
    reduced in another way (a maximum, a norm) must stay whole: None."""
    order: tuple[str, ...] = ()
    """The factors as mesh axes, slowest first (MindSpore's device matrix); by default as in the inputs."""
    within: Mapping[str, str] = {}
    """Factors that may only be sharded by the leading axes of another's: {"k": "h"} where 2 query heads h share
    a head k of keys. Where the output has k and not h, the other axes of h leave partial values."""
    fused: Mapping[int, tuple[tuple[int, ...] | None, ...]] = {}
    """Operand (-1: the output) -> for each dim the sizes of its parts, each of which is sharded by itself."""
    runs: Mapping[str, int] = {}
    """Factors whose elements an operator knows by their place: a card holds one contiguous run of each, from
    a multiple of this many elements to another, or to the end."""


class AxisStrategy(NamedTuple):
    """A strategy by named axes, as MindSpore's `Layout` objects say it."""

    axis_names: tuple[str, ...]
    axis_sizes: tuple[int, ...]
    inputs: tuple[tuple[tuple[str, ...], ...], ...]
    """For each input, for each dim, the axes that shard it, major first."""
    split: str = "even"
    """How a dim is divided whose size the number of parts does not divide evenly (`layout.SPLITS`)."""


class Origin(NamedTuple):
    """What a node of a gradient or of an update was made for."""

    of: str
    """The forward value whose operator is differentiated, or the parameter that is updated."""
    grad: str | None
    """The gradient that it starts from."""


NodeStrategy = tuple[tuple[int, ...], ...] | AxisStrategy


class Builder(Protocol):
    """What an operator's gradient is added to (see `build.GraphBuilder`)."""

    def add(self, op: "Operator", *inputs: str) -> str:
        """Add `op(*inputs)`; returns the name of its output."""

    def spec(self, name: str) -> Spec:
        """The shape and dtype of a value."""


class Operator(ABC):
    """One kind of computation. Subclasses are frozen dataclasses of their attributes."""

    @property
    def name(self) -> str:
        """The operator's name, as MindSpore spells it in a strategy file."""
        return type(self).__name__

    @abstractmethod
    def infer(self, *inputs: Spec) -> Spec:
        """The output's shape and dtype; GraphError names what does not fit."""

    @abstractmethod
    def forward(self, *inputs: Array) -> Array:
        """The value, by numpy. Also what a card does with its shards, after `local`."""

    @abstractmethod
    def rule(self, *inputs: Spec) -> Rule:
        """How the operator may be sharded, for these (whole) inputs."""

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        """Add nodes that carry `grad`, the gradient of `output`, back to each input.

        Returns one value name per input, None where no gradient flows (integer inputs).
        """
        raise GraphError(f"{self.name} has no gradient")

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        """Make the operator for one card, from the `whole` specs of its inputs and the card's regions.

        There is a region for each input, and one for the output.

        Most operators mean the same on a shard. Those whose attributes hold sizes or
        offsets (a reshape's target, a mean's count, the first row of a sharded table) return
        themselves changed.
        """
        return self


def rule_of(op: Operator, *inputs: Spec) -> Rule:
    """The sharding rule of an operator, with its `order` filled in.

    Raises
    ------
    GraphError
        If the rule does not fit the operator's inputs and output: shards could not be put together.
    """
    rule = op.rule(*inputs)
    specs, operands = (*inputs, op.infer(*inputs)), (*rule.inputs, rule.output)
    if [len(factors) for factors in operands] != [len(spec.shape) for spec in specs]:
        raise GraphError(
            f"{op.name}.rule: {operands} for inputs and an output of shapes "
            f"{', '.join(str(list(spec.shape)) for spec in specs)}; give a factor or None for each dim"
        )
    factors = dict.fromkeys(f for dims in rule.inputs for f in dims if f is not None)
    lost = factors.keys() - {*rule.output, *rule.sums, *rule.within, *rule.within.values()}
    if lost:
        raise GraphError(
            f"{op.name}.rule: the output lacks {', '.join(map(repr, sorted(lost)))}; add it to `sums` if the "
            "operator sums over it, else make it None, so that the dim stays whole"
        )
    return rule._replace(order=rule.order or tuple(f for f in factors if f not in rule.within))


@dataclass(frozen=True)
class Node:
    """`output = op(*inputs)`."""

    output: str
    op: Operator
    inputs: tuple[str, ...]
    strategy: NodeStrategy | None = None
    """How the user wants it sharded (`.shard(...)`)."""
    origin: Origin | None = None
    """For a node of a gradient or of an optimizer's update; None for the net's own nodes."""
    stage: int | None = None
    """The pipeline stage of the cell that made it; None outside of cells that have one."""


@dataclass(frozen=True, repr=False)
class Graph(Displayed):
    """Inputs, parameters and nodes in the order of computation.

    Raises
    ------
    GraphError
        If a node reads a value that nothing before it defines, or a name is defined twice.
    """

    inputs: Mapping[str, Spec]
    params: Mapping[str, Spec]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    updates: Mapping[str, str] = field(default_factory=dict)
    """Training: parameter -> the value that replaces it at the end of the step."""
    specs: Mapping[str, Spec] = field(init=False, repr=False, compare=False)
    """The shape and dtype of every value."""

    def __post_init__(self) -> None:
        specs: dict[str, Spec] = {**self.inputs, **self.params}
        for node in self.nodes:
            for name in node.inputs:
                if name not in specs:
                    raise GraphError(
                        f"{node.output} = {node.op.name}(...) reads {name!r}, which nothing before it defines",
                        parameter=name,
                    )
            if node.output in specs:
                raise GraphError(f"{node.output!r} is defined twice", parameter=node.output)
            specs[node.output] = node.op.infer(*(specs[i] for i in node.inputs))
        for name in (*self.outputs, *self.updates.values()):
            if name not in specs:
                raise GraphError(f"the graph returns {name!r}, which nothing defines", parameter=name)
        object.__setattr__(self, "specs", specs)

    def __repr__(self) -> str:
        lines = [
            f"Graph of {counted(len(self.nodes), 'operator')} and {counted(len(self.params), 'parameter')}"
        ]
        lines += [f"  {name} {list(spec.shape)} {spec.dtype}  input" for name, spec in self.inputs.items()]
        for node in self.nodes:
            shape = list(self.specs[node.output].shape)
            lines.append(f"  {node.output} {shape} = {node.op.name}({', '.join(node.inputs)})")
        return "\n".join([*lines, f"  returns {', '.join(self.outputs)}"])
