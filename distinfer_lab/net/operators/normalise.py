"""Operators that look along whole dims: bias, softmax, layer normalisation, the loss of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Rule, Spec
from .broadcasting import SumTo, same_dtype, sum_back
from .elementwise import Mul
from .reduce import ReduceSum, normal_axes

__all__ = [
    "BiasAdd",
    "LayerNorm",
    "LayerNormGrad",
    "Normalise",
    "Softmax",
    "SoftmaxCrossEntropyGrad",
    "SoftmaxCrossEntropyWithLogits",
    "SoftmaxGrad",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class BiasAdd(Operator):
    """x[n, c, ...] + bias[c]."""

    def infer(self, *inputs: Spec) -> Spec:
        x, bias = inputs
        same_dtype(self, x, bias)
        if len(x.shape) < 2 or bias.shape != x.shape[1:2]:
            raise GraphError(
                f"BiasAdd: input of shape {list(x.shape)} and bias of shape {list(bias.shape)}; the bias has "
                "one entry for each of the input's dim 1"
            )
        return x

    def forward(self, *inputs: Array) -> Array:
        x, bias = inputs
        return x + bias.reshape(-1, *[1] * (x.ndim - 2))

    def rule(self, *inputs: Spec) -> Rule:
        names = ("n", "c", *(f"d{i}" for i in range(2, len(inputs[0].shape))))
        return Rule((names, ("c",)), names, order=names)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        ndim = len(build.spec(inputs[0]).shape)
        return [grad, build.add(ReduceSum(tuple(i for i in range(ndim) if i != 1)), grad)]


@dataclass(frozen=True)
class Softmax(Operator):
    """exp(x) over its sum along `axis`."""

    axis: int = -1

    def infer(self, *inputs: Spec) -> Spec:
        normal_axes(self, self.axis, len(inputs[0].shape))
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        powers = np.exp(x - x.max(axis=self.axis, keepdims=True))
        out: Array = powers / powers.sum(axis=self.axis, keepdims=True)
        return out

    def _names(self, ndim: int) -> tuple[str | None, ...]:
        (axis,) = normal_axes(self, self.axis, ndim)
        return tuple(None if i == axis else f"d{i}" for i in range(ndim))

    def rule(self, *inputs: Spec) -> Rule:
        names = self._names(len(inputs[0].shape))
        return Rule((names,) * len(inputs), names, order=tuple(n for n in names if n))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(SoftmaxGrad(self.axis), output, grad)]


@dataclass(frozen=True)
class SoftmaxGrad(Softmax):
    """y * (dy - sum(dy * y)), where y is the softmax."""

    def forward(self, *inputs: Array) -> Array:
        y, grad = inputs
        out: Array = y * (grad - (grad * y).sum(axis=self.axis, keepdims=True))
        return out


@dataclass(frozen=True)
class Normalise(Operator):
    """(x - mean) / sqrt(variance + epsilon), over the dims from `begin_norm_axis` on."""

    begin_norm_axis: int = -1
    epsilon: float = 1e-7

    def infer(self, *inputs: Spec) -> Spec:
        normal_axes(self, self.begin_norm_axis, len(inputs[0].shape))
        return inputs[0]

    def _axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(self.begin_norm_axis % ndim, ndim))

    def _normalised(self, x: Array) -> tuple[Array, Array]:
        axes = self._axes(x.ndim)
        centred = x - x.mean(axis=axes, keepdims=True, dtype=x.dtype)
        variance = np.square(centred).mean(axis=axes, keepdims=True, dtype=x.dtype)
        scale = np.asarray(1 / np.sqrt(variance + self.epsilon), x.dtype)
        centred *= scale
        return centred, scale

    def forward(self, *inputs: Array) -> Array:
        return self._normalised(inputs[0])[0]

    def _names(self, ndim: int) -> tuple[str | None, ...]:
        axes = self._axes(ndim)
        return tuple(None if i in axes else f"d{i}" for i in range(ndim))

    def rule(self, *inputs: Spec) -> Rule:
        names = self._names(len(inputs[0].shape))
        return Rule((names,), names, order=tuple(n for n in names if n))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(LayerNormGrad(self.begin_norm_axis, self.epsilon), inputs[0], grad)]


@dataclass(frozen=True)
class LayerNormGrad(Normalise):
    """The gradient of `Normalise` to its input, from the input and the gradient of the output."""

    def forward(self, *inputs: Array) -> Array:
        x, grad = inputs
        y, scale = self._normalised(x)
        axes = self._axes(x.ndim)
        mean = grad.mean(axis=axes, keepdims=True, dtype=x.dtype)
        along = (grad * y).mean(axis=axes, keepdims=True, dtype=x.dtype)
        out: Array = scale * (grad - mean - y * along)
        return out

    def rule(self, *inputs: Spec) -> Rule:
        names = self._names(len(inputs[0].shape))
        return Rule((names, names), names, order=tuple(n for n in names if n))


@dataclass(frozen=True)
class LayerNorm(Normalise):
    """gamma * normalised(x) + beta; MindSpore's operator of that name, its first output.

    Parameters
    ----------
    begin_norm_axis
        The first of the dims that are normalised together.
    epsilon
        Added to the variance.
    begin_params_axis
        The first of the dims that gamma and beta have.
    """

    begin_params_axis: int = -1

    def infer(self, *inputs: Spec) -> Spec:
        x, gamma, beta = inputs
        same_dtype(self, x, gamma, beta)
        wanted = x.shape[self.begin_params_axis % len(x.shape) :] if x.shape else ()
        if not x.shape or gamma.shape != wanted or beta.shape != wanted:
            raise GraphError(
                f"LayerNorm: gamma {list(gamma.shape)} and beta {list(beta.shape)} for an input of shape "
                f"{list(x.shape)}; both have the shape of its last dims, {list(wanted)}"
            )
        return super().infer(x)

    def forward(self, *inputs: Array) -> Array:
        x, gamma, beta = inputs
        out = self._normalised(x)[0]
        out *= gamma
        out += beta
        return out

    def rule(self, *inputs: Spec) -> Rule:
        names = self._names(len(inputs[0].shape))
        tail = names[len(names) - len(inputs[1].shape) :]
        return Rule((names, tail, tail), names, order=tuple(n for n in names if n))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, gamma, beta = inputs
        inner = Normalise(self.begin_norm_axis, self.epsilon)
        shape = build.spec(gamma).shape
        scaled = build.add(Mul(), grad, gamma)
        dx = build.add(LayerNormGrad(self.begin_norm_axis, self.epsilon), x, scaled)
        along = build.add(Mul(), grad, build.add(inner, x))
        return [dx, build.add(SumTo(shape), along), sum_back(build, grad, beta)]


@dataclass(frozen=True)
class SoftmaxCrossEntropyWithLogits(Operator):
    """For each row of logits[n, c] the cross entropy with labels[n, c], shape [n]."""

    def infer(self, *inputs: Spec) -> Spec:
        logits, labels = inputs
        same_dtype(self, logits, labels)
        if len(logits.shape) != 2 or logits.shape != labels.shape:
            raise GraphError(
                f"{self.name}: logits {list(logits.shape)} and labels {list(labels.shape)}; both have the "
                "shape [rows, classes] (integer labels: sparse=True)"
            )
        return Spec(logits.shape[:1], logits.dtype)

    def forward(self, *inputs: Array) -> Array:
        logits, labels = inputs
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(-(labels * logs).sum(axis=1), logits.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((("n", None), ("n", None)), ("n",), order=("n",))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(SoftmaxCrossEntropyGrad(), *inputs, grad), None]


@dataclass(frozen=True)
class SoftmaxCrossEntropyGrad(Operator):
    """(softmax(logits) * sum(labels) - labels) * dloss, row by row."""

    def infer(self, *inputs: Spec) -> Spec:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        logits, labels, grad = inputs
        shares = Softmax().forward(logits)
        out: Array = (shares * labels.sum(axis=1, keepdims=True) - labels) * grad[:, None]
        return out

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((("n", None), ("n", None), ("n",)), ("n", None), order=("n",))
