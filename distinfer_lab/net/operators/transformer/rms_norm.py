"""Normalisation by the root of the mean square, without a mean and without a bias.

References
----------
Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Builder, Operator, Rule, Spec
from ..broadcasting import SumTo, same_dtype
from ..elementwise import Mul

__all__ = ["RMSNorm", "RMSNormGrad", "RootMeanSquare"]

Array = NDArray[Any]


def _rows(ndim: int) -> tuple[str | None, ...]:
    """Factors of dims of which the last must be whole."""
    return (*(f"d{i}" for i in range(ndim - 1)), None)


@dataclass(frozen=True)
class RootMeanSquare(Operator):
    """x / sqrt(mean(x * x) + epsilon), along the last dim."""

    epsilon: float = 1e-6

    def infer(self, *inputs: Spec) -> Spec:
        if not inputs[0].shape:
            raise GraphError(f"{self.name}: the input has no dims; it needs at least 1")
        return inputs[0]

    def _scale(self, x: Array) -> Array:
        squares = np.einsum("...i,...i->...", x, x)[..., None]
        return np.asarray(1 / np.sqrt(squares / x.dtype.type(x.shape[-1]) + self.epsilon), x.dtype)

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(x * self._scale(x))

    def rule(self, *inputs: Spec) -> Rule:
        names = _rows(len(inputs[0].shape))
        return Rule((names,), names, order=tuple(n for n in names if n))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(RMSNormGrad(self.epsilon), inputs[0], grad)]


@dataclass(frozen=True)
class RMSNormGrad(RootMeanSquare):
    """The gradient of `RootMeanSquare` to its input, from the input and the gradient of the output."""

    def forward(self, *inputs: Array) -> Array:
        x, grad = inputs
        scale = self._scale(x)
        along = np.einsum("...i,...i->...", grad, x)[..., None] / x.dtype.type(x.shape[-1])
        return np.asarray(scale * (grad - x * (scale * scale * along)))

    def rule(self, *inputs: Spec) -> Rule:
        names = _rows(len(inputs[0].shape))
        return Rule((names, names), names, order=tuple(n for n in names if n))


@dataclass(frozen=True)
class RMSNorm(RootMeanSquare):
    """weight * x / sqrt(mean(x * x) + epsilon), along the last dim."""

    def infer(self, *inputs: Spec) -> Spec:
        x, weight = inputs
        same_dtype(self, x, weight)
        if not x.shape or weight.shape != x.shape[-1:]:
            raise GraphError(
                f"{self.name}: weight {list(weight.shape)} for an input of shape {list(x.shape)}; "
                f"it has one entry for each of the input's last dim"
            )
        return x

    def forward(self, *inputs: Array) -> Array:
        x, weight = inputs
        out = np.asarray(x * self._scale(x))
        out *= weight
        return out

    def rule(self, *inputs: Spec) -> Rule:
        names = _rows(len(inputs[0].shape))
        return Rule((names, (None,)), names, order=tuple(n for n in names if n))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, weight = inputs
        dx = build.add(RMSNormGrad(self.epsilon), x, build.add(Mul(), grad, weight))
        along = build.add(Mul(), grad, build.add(RootMeanSquare(self.epsilon), x))
        return [dx, build.add(SumTo(build.spec(weight).shape), along)]
