"""Tensors, parameters, and the values that stand for them while a net is traced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..arguments import checked_on_error
from ..display import Displayed
from ..errors import ArgumentTypeError, GraphError
from .build import GraphBuilder
from .dtypes import as_dtype
from .graph import NodeStrategy, Operator, Region, Spec, call_forward, call_infer, check_result
from .initializer import ArrayValues, Initializer
from .operators import Add, AddScalar, Constant, Div, MatMul, Mul, Neg, Scale, Sub

__all__ = [
    "Parameter",
    "Tensor",
    "Traced",
    "Value",
    "ValueSource",
    "apply",
    "building",
    "constant",
    "tracing",
]

Array = NDArray[Any]
R = TypeVar("R")


class Arithmetic(Displayed, Generic[R]):
    """The operators of Python; a number on either side becomes part of the graph."""

    def _apply(self, op: Operator, *others: "Value") -> R:
        return cast("R", apply(op, cast("Value", self), *others))

    def _with(self, other: "Value | float", of_number: Callable[[float], Operator], op: Operator) -> R:
        if isinstance(other, int | float) and not isinstance(other, bool):
            return self._apply(of_number(other))
        return self._apply(op, cast("Value", other))

    def __add__(self, other: "Value | float") -> R:
        return self._with(other, AddScalar, Add())

    def __radd__(self, other: float) -> R:
        return self + other

    def __sub__(self, other: "Value | float") -> R:
        return self._with(other, lambda number: AddScalar(-number), Sub())

    def __rsub__(self, other: float) -> R:
        return cast("Arithmetic[R]", -self) + other

    def __mul__(self, other: "Value | float") -> R:
        return self._with(other, Scale, Mul())

    def __rmul__(self, other: float) -> R:
        return self * other

    def __truediv__(self, other: "Value | float") -> R:
        return self._with(other, lambda number: Scale(1 / number), Div())

    def __matmul__(self, other: "Value") -> R:
        return self._apply(MatMul(), other)

    def __neg__(self) -> R:
        return self._apply(Neg())


class Tensor(Arithmetic["Tensor"]):
    """An array, by MindSpore's name.

    Parameters
    ----------
    input_data
        Whatever numpy takes. float64 becomes float32 unless `dtype` says otherwise when it
        is a list or a number; an array keeps its dtype.
    dtype
        A numpy dtype, or its name.

    Examples
    --------
    >>> Tensor([1, 2], "float32") * 2
    Tensor(shape=[2], dtype=float32, value=[2. 4.])
    """

    def __init__(self, input_data: ArrayLike, dtype: DTypeLike | None = None) -> None:
        if isinstance(input_data, Tensor):
            input_data = input_data.asnumpy()
        plain = not isinstance(input_data, np.ndarray | np.generic)
        array = np.asarray(input_data, None if dtype is None else as_dtype(dtype))
        if array.dtype == object:
            raise ArgumentTypeError(f"a Tensor is made of numbers, not of {type(input_data).__name__}")
        self._array = (
            array.astype(np.float32) if plain and dtype is None and array.dtype == np.float64 else array
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dim."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return self._array.dtype

    def asnumpy(self) -> Array:
        """The array itself."""
        return self._array

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self._array, dtype)

    def __repr__(self) -> str:
        value = np.array2string(self._array, threshold=20, edgeitems=2, separator=" ")
        return f"Tensor(shape={list(self.shape)}, dtype={self.dtype}, value={value})"


class ValueSource(Protocol):
    """Where a parameter's values are: an initialiser, an array, or shards on cards."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""

    def region(self, region: Region, name: str = "") -> Array:
        """The elements of a region, in its shape."""


@checked_on_error
class Parameter(Arithmetic["Tensor | Traced"]):
    """A named tensor of a net: shape, dtype and where its values come from.

    Parameters
    ----------
    default_input
        A Tensor, an array, a number, or what `initializer` returns. An array is sharded, never
        copied whole to each card.
    name
        By default the name of the attribute that it is set to.
    requires_grad
        Whether optimizers train it.
    parallel_optimizer
        Whether `enable_parallel_optimizer` may shard it.
    """

    def __init__(
        self,
        default_input: ArrayLike | Initializer,
        name: str | None = None,
        requires_grad: bool = True,
        *,
        parallel_optimizer: bool = True,
    ) -> None:
        initial: ValueSource = (
            default_input
            if isinstance(default_input, Initializer)
            else ArrayValues(Tensor(default_input).asnumpy())
        )
        self.initial, self.source = initial, initial
        self.name = name or "Parameter"
        self.named = name is not None
        self.requires_grad = requires_grad
        self.parallel_optimizer = parallel_optimizer

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dim of the whole tensor."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return self.source.dtype

    @property
    def spec(self) -> Spec:
        """Shape and dtype as one record."""
        return Spec(self.shape, np.dtype(self.dtype))

    def region(self, region: Region) -> Array:
        """The elements of a region (per dim a start and a stop), in its shape."""
        return self.source.region(region, self.name)

    def asnumpy(self) -> Array:
        """The whole value; gathered, if cards hold it in shards."""
        return self.region(tuple((0, n) for n in self.shape))

    def set_data(self, data: ArrayLike) -> None:
        """Replace the value.

        Raises
        ------
        GraphError
            If the shape differs.
        """
        value = Tensor(data).asnumpy()
        if value.shape != self.shape:
            raise GraphError(
                f"{self.name}: a value of shape {list(value.shape)} for a parameter of shape {list(self.shape)}",
                parameter=self.name,
            )
        self.source = self.initial = ArrayValues(value.astype(self.dtype))

    def __repr__(self) -> str:
        return f"Parameter(name={self.name}, shape={list(self.shape)}, dtype={self.dtype})"


class Traced(Arithmetic["Traced"]):
    """A value of a net that is being traced: it has a shape and a dtype, and no elements."""

    def __init__(self, build: GraphBuilder, name: str) -> None:
        self.build, self.name = build, name

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dim."""
        return self.build.spec(self.name).shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return self.build.spec(self.name).dtype

    def asnumpy(self) -> Array:
        """Not possible: elements come when the net runs."""
        raise GraphError(
            "a net was asked for elements while it is traced; `construct` may use shapes and operators only"
        )

    def __bool__(self) -> bool:
        raise GraphError("`construct` branches on a value of a tensor, which is not known while it is traced")

    def __repr__(self) -> str:
        return f"Traced({self.name}, shape={list(self.shape)}, dtype={self.dtype})"


Value = Tensor | Parameter | Traced
"""The operands and results of operators."""

_tracing: ContextVar[GraphBuilder | None] = ContextVar("_tracing", default=None)


@contextmanager
def tracing(build: GraphBuilder) -> Iterator[None]:
    """Inside, operators on parameters alone are added to `build`, though no operand refers to it."""
    token = _tracing.set(build)
    try:
        yield
    finally:
        _tracing.reset(token)


def building() -> GraphBuilder | None:
    """What the net that is being traced is added to; None while none is."""
    return _tracing.get()


@overload
def apply(op: Operator, first: Traced, /, *others: Value, strategy: NodeStrategy | None = None) -> Traced: ...


@overload
def apply(
    op: Operator, *operands: Value | Array, strategy: NodeStrategy | None = None
) -> Tensor | Traced: ...


def apply(op: Operator, *operands: Value | Array, strategy: NodeStrategy | None = None) -> Tensor | Traced:
    """Add a node where an operand is being traced; compute at once where none is.

    Raises
    ------
    ArgumentTypeError
        If an operand is neither a Tensor, a Parameter nor a traced value.
    GraphError
        If the operands do not fit.
    """
    build = next((x.build for x in operands if isinstance(x, Traced)), None)
    if build is None and any(isinstance(x, Parameter) for x in operands):
        build = _tracing.get()
    if build is not None:
        names = [_name_of(build, op, x) for x in operands]
        return Traced(build, build.add(op, *names, strategy=strategy))
    arrays = [_array_of(op, x) for x in operands]
    spec = call_infer(op, *(Spec(a.shape, a.dtype) for a in arrays))
    value = call_forward(op, arrays)
    check_result(op, arrays, value, spec)
    return Tensor(value)


def constant(value: float, dtype: str) -> Tensor | Traced:
    """One number of no dims: a node of the graph while a net is traced, else a Tensor."""
    op, build = Constant(value, dtype), _tracing.get()
    return Tensor(op.forward()) if build is None else Traced(build, build.add(op))


def _name_of(build: GraphBuilder, op: Operator, operand: Value | Array) -> str:
    if isinstance(operand, Traced):
        return operand.name
    if isinstance(operand, Parameter):
        return build.param(operand.name, operand.spec)
    if isinstance(operand, Tensor | np.ndarray):
        raise GraphError(
            f"{op.name}: a Tensor was made inside `construct`; make it a Parameter of the net with "
            "requires_grad=False, so that cards can hold it"
        )
    _refuse(op, operand)


def _array_of(op: Operator, operand: Value | Array) -> Array:
    if isinstance(operand, Tensor | Parameter):
        return operand.asnumpy()
    if isinstance(operand, np.ndarray):
        return operand
    _refuse(op, operand)


def _refuse(op: Operator, operand: object) -> NoReturn:
    raise ArgumentTypeError(
        f"{op.name} takes Tensors and Parameters, not {type(operand).__name__}: {operand!r:.60}"
    )
