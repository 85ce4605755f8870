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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import DistinferError, GraphError
from ..text import shown

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
    "call_forward",
    "call_infer",
    "call_local",
    "check_result",
    "faulty",
    "naming",
    "rule_of",
    "wrong_result",
]

Array = NDArray[Any]
Region = tuple[tuple[int, int], ...]


RETURNS = {
    "infer": "return the output's Spec: a tuple of integers and a np.dtype; raise GraphError if inputs do not fit",
    "forward": "return an array of the shape and dtype that infer promises; on a card the inputs are shards",
    "rule": "return a Rule with the factors of each input and of the output",
    "gradient": "return one value name per input, each of the input's shape, or None where no gradient flows",
    "local": "return the operator for one card's shards: self, or a changed copy",
}
"""Method of an operator -> what it should do."""


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
        raise GraphError(
            f"{self.name} has no gradient; give its class a method gradient(build, inputs, output, grad) that adds "
            "nodes and returns one value name per input"
        )

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        """Make the operator for one card, from the `whole` specs of its inputs and the card's regions.

        There is a region for each input, and one for the output.

        Most operators mean the same on a shard. Those whose attributes hold sizes or
        offsets (a reshape's target, a mean's count, the first row of a sharded table) return
        themselves changed.
        """
        return self


def faulty(op: Operator, method: str, inputs: Sequence[Any], problem: object, place: str = "") -> GraphError:
    """The error of an operator whose method is wrong, for the caller to raise.

    Parameters
    ----------
    inputs
        The arrays or specs that the method was given.
    problem
        What it raised, or what is wrong with what it returned.
    place
        The operator's output in the net, where it is known.
    """
    where = f" at {place}" if place else ""
    given = ", ".join(f"{list(x.shape)} {x.dtype}" for x in inputs) or "no inputs"
    if isinstance(problem, Exception):
        problem = f"raised {type(problem).__name__}: {problem}"
    return GraphError(f"{op.name}.{method}{where}, given {given}, {problem}; {RETURNS[method]}")


@contextmanager
def naming(op: Operator, method: str, inputs: Sequence[Spec], place: str = "") -> Iterator[None]:
    """What a method of an operator raises names the operator, unless it is an error of this package."""
    try:
        yield
    except DistinferError:
        raise
    except Exception as err:
        raise faulty(op, method, inputs, err, place) from err


def call_infer(op: Operator, *inputs: Spec, place: str = "") -> Spec:
    """What `op.infer` returns, if it is a Spec.

    Raises
    ------
    GraphError
        If the inputs do not fit the operator, or the method is wrong.
    """
    with naming(op, "infer", inputs, place):
        spec: object = op.infer(*inputs)
    if not isinstance(spec, Spec):
        raise faulty(op, "infer", inputs, f"returned {shown(spec)}", place)
    valid_shape = isinstance(spec.shape, tuple) and all(isinstance(n, int | np.integer) for n in spec.shape)
    if not (valid_shape and isinstance(spec.dtype, np.dtype)):
        raise faulty(op, "infer", inputs, f"returned {shown(spec)}", place)
    return spec


def call_rule(op: Operator, *inputs: Spec) -> Rule:
    """What `op.rule` returns, if it is a Rule.

    Raises
    ------
    GraphError
        If the method is wrong.
    """
    with naming(op, "rule", inputs):
        rule: object = op.rule(*inputs)
    if not isinstance(rule, Rule):
        raise faulty(op, "rule", inputs, f"returned {shown(rule)}")
    return rule


def call_local(
    op: Operator, whole: Sequence[Spec], inputs: Sequence[Region], output: Region, place: str = ""
) -> Operator:
    """What `op.local` returns, if it is an operator.

    Raises
    ------
    GraphError
        If the method is wrong.
    """
    with naming(op, "local", whole, place):
        local: object = op.local(whole, inputs, output)
    if not isinstance(local, Operator):
        raise faulty(op, "local", whole, f"returned {shown(local)}", place)
    return local


def call_forward(op: Operator, inputs: Sequence[Array], place: str = "") -> Array:
    """The value of an operator, or of a card's shard; its shape is not checked, since every step comes here.

    Raises
    ------
    GraphError
        If `forward` raises anything else than an error of this package.
    """
    try:  # not `naming`: a context manager would cost as much as a small operator
        return np.asarray(op.forward(*inputs))
    except (DistinferError, MemoryError):
        raise
    except Exception as err:
        raise faulty(op, "forward", inputs, err, place) from err


def wrong_result(
    op: Operator, inputs: Sequence[Array | Spec], value: Array, spec: Spec, place: str = ""
) -> GraphError:
    """The error of a value that is not what `infer` promised."""
    problem = f"returned {list(value.shape)} {value.dtype}, but infer says {list(spec.shape)} {spec.dtype}"
    return faulty(op, "forward", inputs, problem, place)


def check_result(op: Operator, inputs: Sequence[Array], value: Array, spec: Spec, place: str = "") -> None:
    """Refuse a value that is not what `infer` promised.

    Raises
    ------
    GraphError
        Naming both shapes and dtypes.
    """
    if Spec(value.shape, value.dtype) != spec:
        raise wrong_result(op, inputs, value, spec, place)


def rule_of(op: Operator, *inputs: Spec) -> Rule:
    """The sharding rule of an operator, with its `order` filled in.

    Raises
    ------
    GraphError
        If the rule does not fit the operator's inputs and output: shards could not be put together.
    """
    rule = call_rule(op, *inputs)
    specs, operands = (*inputs, call_infer(op, *inputs)), (*rule.inputs, rule.output)
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
            specs[node.output] = call_infer(node.op, *(specs[i] for i in node.inputs), place=node.output)
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
