"""Operators as a net uses them, by MindSpore's names: `ops.MatMul().shard(((2, 1), (1, 4)))(x, w)`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ..display import Displayed
from ..errors import ArgumentTypeError, GraphError, Option
from . import operators
from .graph import AxisStrategy, NodeStrategy, Operator, Spec
from .tensor import Tensor, Traced, Value, apply

__all__ = [
    "Add",
    "BatchMatMul",
    "BiasAdd",
    "Div",
    "Exp",
    "Flatten",
    "Gather",
    "GeLU",
    "LayerNorm",
    "Layout",
    "Log",
    "MatMul",
    "Mul",
    "Neg",
    "OneHot",
    "Primitive",
    "ReLU",
    "RealDiv",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "RmsNorm",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropyWithLogits",
    "Sqrt",
    "Square",
    "Sub",
    "Tanh",
    "TensorAdd",
    "Transpose",
]


class Layout(Displayed):
    """Named device axes for `shard`, as in MindSpore's `Layout`.

    Examples
    --------
    >>> grid = Layout((2, 4), ("dp", "mp"))
    >>> _ = MatMul().shard((grid("dp", "None"), grid("None", "mp")))
    """

    def __init__(self, device_matrix: Sequence[int], alias_name: Sequence[str]) -> None:
        if len(device_matrix) != len(alias_name) or len(set(alias_name)) != len(alias_name):
            raise GraphError(
                f"Layout({tuple(device_matrix)}, {tuple(alias_name)}): give one name of its own for each axis"
            )
        self.sizes, self.names = tuple(device_matrix), tuple(alias_name)

    def __call__(self, *dims: str | Sequence[str]) -> "LayoutDims":
        """For each dim of an input the axis, or the axes, that shard it; "None" for none."""
        axes = [(d,) if isinstance(d, str) else tuple(d) for d in dims]
        for name in (n for d in axes for n in d if n != "None" and n not in self.names):
            raise GraphError(f"Layout has the axes {', '.join(self.names)}, not {name!r}")
        return LayoutDims(self, tuple(tuple(n for n in d if n != "None") for d in axes))

    def __repr__(self) -> str:
        return f"Layout({self.sizes}, {self.names})"


class LayoutDims(Displayed):
    """One input's dims under a `Layout`."""

    def __init__(self, layout: Layout, dims: tuple[tuple[str, ...], ...]) -> None:
        self.layout, self.dims = layout, dims

    def __repr__(self) -> str:
        return f"{self.layout!r}{tuple(dim or 'None' for dim in self.dims)}"


Arguments = tuple[Any, ...]

InStrategy = Sequence[Sequence[int]] | Sequence[LayoutDims]
"""What `shard` takes: for each input one number per dim, or one `Layout(...)(...)`."""


def read_strategy(op: str, in_strategy: InStrategy) -> NodeStrategy:
    """What the user gave to `shard`, as a record.

    Raises
    ------
    ArgumentTypeError
        If it is neither a tuple of tuples of integers nor a tuple of `Layout` dims.
    """
    if not isinstance(in_strategy, tuple | list):
        raise ArgumentTypeError(
            f"{op}.shard takes one tuple per input, e.g. ((2, 1), (1, 4)), not {in_strategy!r}"
        )
    if in_strategy and all(isinstance(s, LayoutDims) for s in in_strategy):
        layout = in_strategy[0].layout
        return AxisStrategy(layout.names, layout.sizes, tuple(s.dims for s in in_strategy))
    out = []
    for given in in_strategy:
        if not isinstance(given, tuple | list) or not all(type(n) is int for n in given):
            raise ArgumentTypeError(f"{op}.shard takes a tuple of integers for each input, not {given!r}")
        out.append(tuple(given))
    return tuple(out)


class Primitive(Displayed, ABC):
    """An operator that can be sharded, and called."""

    def __init__(self) -> None:
        self.strategy: NodeStrategy | None = None

    @property
    def name(self) -> str:
        """The operator's name."""
        return type(self).__name__

    def shard(self, in_strategy: InStrategy | None, out_strategy: None = None) -> Self:
        """Set into how many shards each dim of each input is divided; returns the primitive itself.

        Parameters
        ----------
        in_strategy
            One tuple per input, one number per dim; or one `Layout(...)(...)` per input.
        out_strategy
            Only None is supported: how the output is sharded follows from the inputs.
        """
        if out_strategy is not None:
            raise GraphError(f"{self.name}.shard: out_strategy is not supported; it follows from in_strategy")
        self.strategy = None if in_strategy is None else read_strategy(self.name, in_strategy)
        return self

    @abstractmethod
    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        """The operator, and those arguments that are its inputs."""

    def __call__(self, *args: Any) -> Tensor | Traced:
        op, operands = self.bind(args)
        return apply(op, *operands, strategy=self.strategy)

    def _described(self) -> str:
        return f"{self.name}()"

    def __repr__(self) -> str:
        text = self._described()
        return text if self.strategy is None else f"{text}.shard({self.strategy})"


class Fixed(Primitive):
    """A primitive whose operator is known when it is made; all arguments of its call are inputs."""

    def __init__(self, op: Operator) -> None:
        super().__init__()
        self.op = op

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        return self.op, args

    def _described(self) -> str:
        return repr(self.op)


class Plain(Fixed):
    """A primitive without attributes."""

    operator: ClassVar[type[Operator]]

    def __init__(self) -> None:
        super().__init__(self.operator())


class Add(Plain):
    """x + y."""

    operator = operators.Add


TensorAdd = Add


class Sub(Plain):
    """x - y."""

    operator = operators.Sub


class Mul(Plain):
    """x * y."""

    operator = operators.Mul


class Div(Plain):
    """x / y."""

    operator = operators.Div


RealDiv = Div


class Neg(Plain):
    """-x."""

    operator = operators.Neg


class ReLU(Plain):
    """max(x, 0); its slope at 0 is 0."""

    operator = operators.ReLU


class GeLU(Plain):
    """x * Phi(x) by the tanh form, as MindSpore's `GeLU` and GPT-2 have it.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """

    operator = operators.GeLU


class SiLU(Plain):
    """x / (1 + exp(-x)), also called swish."""

    operator = operators.SiLU


class Sigmoid(Plain):
    """1 / (1 + exp(-x)), without overflow."""

    operator = operators.Sigmoid


class Tanh(Plain):
    """tanh(x)."""

    operator = operators.Tanh


class Exp(Plain):
    """exp(x)."""

    operator = operators.Exp


class Log(Plain):
    """The natural logarithm."""

    operator = operators.Log


class Sqrt(Plain):
    """The square root."""

    operator = operators.Sqrt


class Square(Plain):
    """x * x."""

    operator = operators.Square


class BiasAdd(Plain):
    """x[n, c, ...] + bias[c]."""

    operator = operators.BiasAdd


class Flatten(Plain):
    """All dims but the first become one."""

    operator = operators.Flatten


class SoftmaxCrossEntropyWithLogits(Plain):
    """For each row of logits[n, c] the cross entropy with labels[n, c], shape [n]."""

    operator = operators.SoftmaxCrossEntropyWithLogits


class MatMul(Fixed):
    """The product of two matrices."""

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        super().__init__(operators.MatMul(transpose_a, transpose_b))


class BatchMatMul(Fixed):
    """The products of batches of matrices."""

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        super().__init__(operators.BatchMatMul(transpose_a, transpose_b))


class Softmax(Fixed):
    """exp(x) over its sum along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__(operators.Softmax(axis))


class LayerNorm(Fixed):
    """gamma * normalised(x) + beta; called with (x, gamma, beta)."""

    def __init__(self, begin_norm_axis: int = 1, begin_params_axis: int = 1, epsilon: float = 1e-7) -> None:
        super().__init__(operators.LayerNorm(begin_norm_axis, epsilon, begin_params_axis))


class RmsNorm(Fixed):
    """gamma * x / sqrt(mean(x * x) + epsilon), along the last dim; called with (x, gamma)."""

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__(operators.RMSNorm(epsilon))


class Reshape(Primitive):
    """Called with (x, shape)."""

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        x, shape = args
        return operators.Reshape(operators.Reshape(tuple(shape)).infer(_spec(x)).shape), (x,)


class Transpose(Primitive):
    """Called with (x, perm)."""

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        x, perm = args
        return operators.Transpose(tuple(perm)), (x,)


class ReduceSum(Primitive):
    """Called with (x, axis); no axis, or an empty one, means all."""

    reduction: type[operators.ReduceSum] = operators.ReduceSum

    def __init__(self, keep_dims: bool = False) -> None:
        super().__init__()
        self.keep_dims = keep_dims

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        axis = args[1] if len(args) > 1 else ()
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        return self.reduction(axes, self.keep_dims), args[:1]


class ReduceMean(ReduceSum):
    """Called with (x, axis); no axis, or an empty one, means all."""

    reduction = operators.ReduceMean


class Gather(Primitive):
    """Called with (table, ids, axis), where axis is 0."""

    def __init__(self, batch_dims: int = 0) -> None:
        if batch_dims != 0:
            given = Option("batch_dims", batch_dims)
            raise GraphError(f"Gather: {given} is not supported; use 0", given)
        super().__init__()

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        return operators.Gather(args[2] if len(args) > 2 else 0), args[:2]


class OneHot(Primitive):
    """Called with (ids, depth), and with MindSpore's on_value and off_value, which must be 1 and 0.

    The result has the dtype of on_value; float32 without one.
    """

    def __init__(self, axis: int = -1) -> None:
        if axis != -1:
            given = Option("axis", axis)
            raise GraphError(f"OneHot: {given} is not supported; use -1, and a Transpose after it", given)
        super().__init__()

    def bind(self, args: Arguments) -> tuple[Operator, tuple[Value, ...]]:
        ids, depth, *values = args
        if not values:
            return operators.OneHot(int(depth)), (ids,)
        on, off = (np.asarray(getattr(value, "asnumpy", lambda value=value: value)()) for value in values)
        if on.size != 1 or off.size != 1 or on != 1 or off != 0:
            raise GraphError(
                f"OneHot: on_value={on} and off_value={off} are not supported; use 1 and 0, and scale the result"
            )
        return operators.OneHot(int(depth), str(on.dtype)), (ids,)


def _spec(value: Value) -> Spec:
    return Spec(value.shape, value.dtype)
