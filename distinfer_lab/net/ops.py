"""Operators as a net uses them, by MindSpore's names: `ops.MatMul().shard(((2, 1), (1, 4)))(x, w)`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..display import Displayed
from ..errors import ArgumentTypeError, GraphError
from . import operators
from .graph import AxisStrategy, NodeStrategy, Operator
from .tensor import apply

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
    """Named device axes for `shard`, as MindSpore's `Layout` gives them.

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
        """For each dim of an input the axis, or the axes, that cut it; "None" for none."""
        cut = [(d,) if isinstance(d, str) else tuple(d) for d in dims]
        for name in (n for d in cut for n in d if n != "None" and n not in self.names):
            raise GraphError(f"Layout has the axes {', '.join(self.names)}, not {name!r}")
        return LayoutDims(self, tuple(tuple(n for n in d if n != "None") for d in cut))

    def __repr__(self) -> str:
        return f"Layout({self.sizes}, {self.names})"


class LayoutDims(Displayed):
    """One input's dims under a `Layout`."""

    def __init__(self, layout: Layout, dims: tuple[tuple[str, ...], ...]) -> None:
        self.layout, self.dims = layout, dims

    def __repr__(self) -> str:
        return f"{self.layout!r}{tuple(dim or 'None' for dim in self.dims)}"


def read_strategy(op: str, in_strategy: Any) -> NodeStrategy:
    """What the user gave to `shard`, as a record.

    Raises
    ------
    ArgumentTypeError
        If it is no tuple of tuples of integers, and no tuple of `Layout` dims.
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


class Primitive(Displayed):
    """An operator that can be told how to be cut, and called."""

    def __init__(self, op: Operator | None = None) -> None:
        self.op = op
        self.strategy: NodeStrategy | None = None

    @property
    def name(self) -> str:
        """The operator's name."""
        return type(self).__name__

    def shard(self, in_strategy: Any, out_strategy: Any = None) -> "Primitive":
        """Set into how many parts each dim of each input is cut; gives itself.

        Parameters
        ----------
        in_strategy
            One tuple per input, one number per dim; or one `Layout(...)(...)` per input.
        out_strategy
            Accepted only as None: the output's cut follows from the inputs'.
        """
        if out_strategy is not None:
            raise GraphError(f"{self.name}.shard: out_strategy is not supported; it follows from in_strategy")
        self.strategy = None if in_strategy is None else read_strategy(self.name, in_strategy)
        return self

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
        """The operator, and those arguments that are its inputs."""
        assert self.op is not None
        return self.op, args

    def __call__(self, *args: Any) -> Any:
        op, operands = self.bind(args)
        return apply(op, *operands, strategy=self.strategy)

    def __repr__(self) -> str:
        words = f"{self.name}()" if self.op is None else repr(self.op)
        return words if self.strategy is None else f"{words}.shard({self.strategy})"


def _plain(name: str, op: type[Operator]) -> type[Primitive]:
    """A primitive without attributes."""

    def __init__(self: Primitive) -> None:  # noqa: N807
        Primitive.__init__(self, op())

    return type(name, (Primitive,), {"__init__": __init__, "__doc__": op.__doc__, "__module__": __name__})


Add = _plain("Add", operators.Add)
TensorAdd = Add
Sub = _plain("Sub", operators.Sub)
Mul = _plain("Mul", operators.Mul)
Div = _plain("Div", operators.Div)
RealDiv = Div
Neg = _plain("Neg", operators.Neg)
ReLU = _plain("ReLU", operators.ReLU)
GeLU = _plain("GeLU", operators.GeLU)
SiLU = _plain("SiLU", operators.SiLU)
Sigmoid = _plain("Sigmoid", operators.Sigmoid)
Tanh = _plain("Tanh", operators.Tanh)
Exp = _plain("Exp", operators.Exp)
Log = _plain("Log", operators.Log)
Sqrt = _plain("Sqrt", operators.Sqrt)
Square = _plain("Square", operators.Square)
BiasAdd = _plain("BiasAdd", operators.BiasAdd)
Flatten = _plain("Flatten", operators.Flatten)
SoftmaxCrossEntropyWithLogits = _plain(
    "SoftmaxCrossEntropyWithLogits", operators.SoftmaxCrossEntropyWithLogits
)


class MatMul(Primitive):
    """The product of two matrices."""

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        super().__init__(operators.MatMul(transpose_a, transpose_b))


class BatchMatMul(Primitive):
    """The products of batches of matrices."""

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        super().__init__(operators.BatchMatMul(transpose_a, transpose_b))


class Softmax(Primitive):
    """exp(x) over its sum along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__(operators.Softmax(axis))


class LayerNorm(Primitive):
    """gamma * normalised(x) + beta; called with (x, gamma, beta)."""

    def __init__(self, begin_norm_axis: int = 1, begin_params_axis: int = 1, epsilon: float = 1e-7) -> None:
        super().__init__(operators.LayerNorm(begin_norm_axis, epsilon, begin_params_axis))


class RmsNorm(Primitive):
    """gamma * x / sqrt(mean(x * x) + epsilon), along the last dim; called with (x, gamma)."""

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__(operators.RMSNorm(epsilon))


class Reshape(Primitive):
    """Called with (x, shape)."""

    def __init__(self) -> None:
        super().__init__()

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
        x, shape = args
        return operators.Reshape(operators.Reshape(tuple(shape)).infer(_spec(x)).shape), (x,)


class Transpose(Primitive):
    """Called with (x, perm)."""

    def __init__(self) -> None:
        super().__init__()

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
        x, perm = args
        return operators.Transpose(tuple(perm)), (x,)


class ReduceSum(Primitive):
    """Called with (x, axis); no axis, or an empty one, means all."""

    reduction: type[operators.ReduceSum] = operators.ReduceSum

    def __init__(self, keep_dims: bool = False) -> None:
        super().__init__()
        self.keep_dims = keep_dims

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
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
            raise GraphError(f"Gather: batch_dims={batch_dims} is not supported; use 0")
        super().__init__()

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
        return operators.Gather(args[2] if len(args) > 2 else 0), args[:2]


class OneHot(Primitive):
    """Called with (ids, depth), and with MindSpore's on_value and off_value, which must be 1 and 0.

    The result has the dtype of on_value; float32 without one.
    """

    def __init__(self, axis: int = -1) -> None:
        if axis != -1:
            raise GraphError(f"OneHot: axis={axis} is not supported; use -1, and a Transpose after it")
        super().__init__()

    def bind(self, args: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
        ids, depth, *values = args
        if not values:
            return operators.OneHot(int(depth)), (ids,)
        on, off = (np.asarray(getattr(value, "asnumpy", lambda value=value: value)()) for value in values)
        if on.size != 1 or off.size != 1 or on != 1 or off != 0:
            raise GraphError(
                f"OneHot: on_value={on} and off_value={off} are not supported; use 1 and 0, and scale the result"
            )
        return operators.OneHot(int(depth), str(on.dtype)), (ids,)


def _spec(value: Any) -> Any:
    from .graph import Spec

    return Spec(tuple(value.shape), value.dtype)
