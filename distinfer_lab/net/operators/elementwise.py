"""Operators that work on each element by itself, with numpy's broadcasting.

A dim of size 1 that is stretched carries no factor: every card needs it whole.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Rule, Spec
from .broadcasting import broadcast_factors, same_dtype, sum_back

__all__ = [
    "Add",
    "AddScalar",
    "Cast",
    "Div",
    "Exp",
    "GeLU",
    "Identity",
    "Log",
    "Mul",
    "Neg",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Sqrt",
    "Square",
    "Sub",
    "Tanh",
    "Unary",
    "UnaryGrad",
    "UnaryWithSlope",
]

Array = NDArray[Any]


class _Binary(Operator):
    """output = f(x, y), broadcast."""

    def infer(self, *inputs: Spec) -> Spec:
        x, y = inputs
        dtype = same_dtype(self, x, y)
        try:
            return Spec(np.broadcast_shapes(x.shape, y.shape), dtype)
        except ValueError as err:
            raise GraphError(
                f"{self.name}: shapes {list(x.shape)} and {list(y.shape)} do not broadcast; "
                "align them on the right, with equal sizes or 1"
            ) from err

    def rule(self, *inputs: Spec) -> Rule:
        output = np.broadcast_shapes(*(spec.shape for spec in inputs))
        names = tuple(f"d{i}" for i in range(len(output)))
        return Rule(broadcast_factors([s.shape for s in inputs], output), names, order=names)


@dataclass(frozen=True)
class Add(_Binary):
    """x + y."""

    def forward(self, *inputs: Array) -> Array:
        return np.add(*inputs)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [sum_back(build, grad, value) for value in inputs]


@dataclass(frozen=True)
class Sub(_Binary):
    """x - y."""

    def forward(self, *inputs: Array) -> Array:
        return np.subtract(*inputs)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [sum_back(build, grad, inputs[0]), sum_back(build, build.add(Neg(), grad), inputs[1])]


@dataclass(frozen=True)
class Mul(_Binary):
    """x * y."""

    def forward(self, *inputs: Array) -> Array:
        return np.multiply(*inputs)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, y = inputs
        return [
            sum_back(build, build.add(Mul(), grad, y), x),
            sum_back(build, build.add(Mul(), grad, x), y),
        ]


@dataclass(frozen=True)
class Div(_Binary):
    """x / y."""

    def forward(self, *inputs: Array) -> Array:
        return np.true_divide(*inputs)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, y = inputs
        dx = build.add(Div(), grad, y)
        dy = build.add(Neg(), build.add(Mul(), dx, output))
        return [sum_back(build, dx, x), sum_back(build, dy, y)]


class Unary(Operator):
    """output = f(x), element by element."""

    def infer(self, *inputs: Spec) -> Spec:
        return inputs[0]

    def rule(self, *inputs: Spec) -> Rule:
        names = tuple(f"d{i}" for i in range(len(inputs[0].shape)))
        return Rule((names,), names, order=names)


class UnaryWithSlope(Unary):
    """output = f(x), whose slope is a formula of x and the output."""

    @abstractmethod
    def slope(self, x: Array, y: Array) -> Array:
        """df/dx where f(x) = y."""

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(UnaryGrad(self), inputs[0], output, grad)]


@dataclass(frozen=True)
class UnaryGrad(Operator):
    """The gradient of a unary operator: slope(x, y) * dy."""

    of: UnaryWithSlope

    @property
    def name(self) -> str:
        return f"{self.of.name}Grad"

    def infer(self, *inputs: Spec) -> Spec:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        x, y, grad = inputs
        return np.asarray(self.of.slope(x, y) * grad, x.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        names = tuple(f"d{i}" for i in range(len(inputs[0].shape)))
        return Rule((names,) * 3, names, order=names)


@dataclass(frozen=True)
class Neg(Unary):
    """-x."""

    def forward(self, *inputs: Array) -> Array:
        return np.negative(inputs[0])

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Neg(), grad)]


@dataclass(frozen=True)
class ReLU(UnaryWithSlope):
    """max(x, 0); its slope at 0 is 0."""

    def forward(self, *inputs: Array) -> Array:
        return np.maximum(inputs[0], np.zeros((), inputs[0].dtype))

    def slope(self, x: Array, y: Array) -> Array:
        return (x > 0).astype(x.dtype)


@dataclass(frozen=True)
class GeLU(UnaryWithSlope):
    """x * Phi(x) by the tanh form, as MindSpore's `GeLU` and GPT-2 have it.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        out = np.multiply(x, x, out=np.empty_like(x))
        out *= math.sqrt(2 / math.pi) * 0.044715
        out += math.sqrt(2 / math.pi)
        out *= x
        np.tanh(out, out=out)
        out += 1
        out *= x
        out *= 0.5
        return out

    def slope(self, x: Array, y: Array) -> Array:
        t = np.tanh(_gelu_inner(x))
        inner_slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return np.asarray(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner_slope)


def _gelu_inner(x: Array) -> Array:
    return np.asarray(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


@dataclass(frozen=True)
class Sigmoid(UnaryWithSlope):
    """1 / (1 + exp(-x)), without overflow."""

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        small = np.exp(-np.abs(x))
        return np.asarray(np.where(x >= 0, 1, small) / (1 + small), x.dtype)

    def slope(self, x: Array, y: Array) -> Array:
        return np.asarray(y * (1 - y))


@dataclass(frozen=True)
class Tanh(UnaryWithSlope):
    """tanh(x)."""

    def forward(self, *inputs: Array) -> Array:
        return np.tanh(inputs[0])

    def slope(self, x: Array, y: Array) -> Array:
        return np.asarray(1 - y * y)


@dataclass(frozen=True)
class Exp(UnaryWithSlope):
    """exp(x)."""

    def forward(self, *inputs: Array) -> Array:
        return np.exp(inputs[0])

    def slope(self, x: Array, y: Array) -> Array:
        return y


@dataclass(frozen=True)
class Log(UnaryWithSlope):
    """The natural logarithm."""

    def forward(self, *inputs: Array) -> Array:
        return np.log(inputs[0])

    def slope(self, x: Array, y: Array) -> Array:
        return np.asarray(1 / x)


@dataclass(frozen=True)
class Sqrt(UnaryWithSlope):
    """The square root."""

    def forward(self, *inputs: Array) -> Array:
        return np.sqrt(inputs[0])

    def slope(self, x: Array, y: Array) -> Array:
        return np.asarray(0.5 / y)


@dataclass(frozen=True)
class Square(UnaryWithSlope):
    """x * x."""

    def forward(self, *inputs: Array) -> Array:
        return np.square(inputs[0])

    def slope(self, x: Array, y: Array) -> Array:
        return np.asarray(2 * x)


@dataclass(frozen=True)
class Identity(Unary):
    """X itself, without a copy."""

    def forward(self, *inputs: Array) -> Array:
        return inputs[0]

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [grad]


@dataclass(frozen=True)
class Scale(Unary):
    """x * factor, a number that is part of the graph."""

    factor: float

    def forward(self, *inputs: Array) -> Array:
        return np.asarray(inputs[0] * self.factor, inputs[0].dtype)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Scale(self.factor), grad)]


@dataclass(frozen=True)
class AddScalar(Unary):
    """x + amount, a number that is part of the graph."""

    amount: float

    def forward(self, *inputs: Array) -> Array:
        return np.asarray(inputs[0] + self.amount, inputs[0].dtype)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [grad]


@dataclass(frozen=True)
class Cast(Unary):
    """The same numbers in another dtype."""

    dtype: str

    def infer(self, *inputs: Spec) -> Spec:
        return Spec(inputs[0].shape, np.dtype(self.dtype))

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].astype(self.dtype)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Cast(str(build.spec(inputs[0]).dtype)), grad)]
