"""Numpy's broadcasting as operators, and its opposite: each is the gradient of the other.

A dim of size 1 that is stretched has no factor: every card needs it whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Region, Rule, Spec

__all__ = ["BroadcastTo", "SumTo", "broadcast_factors", "same_dtype", "sum_back"]

Array = NDArray[Any]
Factors = tuple[str | None, ...]


def same_dtype(op: Operator, *inputs: Spec) -> np.dtype[Any]:
    """The dtype that all inputs share.

    Raises
    ------
    GraphError
        If they differ: nothing is converted implicitly.
    """
    found = {str(spec.dtype) for spec in inputs}
    if len(found) > 1:
        raise GraphError(f"{op.name}: inputs of dtypes {', '.join(sorted(found))}; cast them to one dtype")
    return inputs[0].dtype


def broadcast_factors(shapes: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> tuple[Factors, ...]:
    """For each input the factor of each dim, named d0, d1 ... by the output's dims."""
    out = []
    for shape in shapes:
        first = len(output) - len(shape)
        out.append(tuple(f"d{first + i}" if n == output[first + i] else None for i, n in enumerate(shape)))
    return tuple(out)


def sum_back(build: Builder, grad: str, value: str) -> str:
    """`grad`, summed over what broadcasting stretched, in the shape of `value`."""
    shape = build.spec(value).shape
    return grad if build.spec(grad).shape == shape else build.add(SumTo(shape), grad)


@dataclass(frozen=True)
class SumTo(Operator):
    """Sum over what broadcasting to the input's shape would stretch; the opposite of broadcasting."""

    shape: tuple[int, ...]

    def infer(self, *inputs: Spec) -> Spec:
        return Spec(self.shape, inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        extra = x.ndim - len(self.shape)
        stretched = tuple(i for i, n in enumerate(self.shape) if n == 1 and x.shape[extra + i] != 1)
        out = x.sum(axis=(*range(extra), *(extra + i for i in stretched)), keepdims=True, dtype=x.dtype)
        return np.asarray(out.reshape(self.shape), x.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        shape = inputs[0].shape
        names = tuple(f"d{i}" for i in range(len(shape)))
        extra = len(shape) - len(self.shape)
        output = tuple(names[extra + i] if n == shape[extra + i] else None for i, n in enumerate(self.shape))
        return Rule((names,), output, frozenset(names) - frozenset(output), names)

    def local(
        self,
        whole: Sequence[Spec],
        inputs: Sequence[Region],
        output: Region,
    ) -> "Operator":
        return SumTo(tuple(b - a for a, b in output))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(BroadcastTo(build.spec(inputs[0]).shape), grad)]


@dataclass(frozen=True)
class BroadcastTo(Operator):
    """Stretch dims of size 1, and add dims on the left."""

    shape: tuple[int, ...]

    def infer(self, *inputs: Spec) -> Spec:
        try:
            fits = np.broadcast_shapes(inputs[0].shape, self.shape) == self.shape
        except ValueError:
            fits = False
        if not fits:
            raise GraphError(f"{self.name}: {list(inputs[0].shape)} does not broadcast to {list(self.shape)}")
        return Spec(self.shape, inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        return np.broadcast_to(inputs[0], self.shape)

    def rule(self, *inputs: Spec) -> Rule:
        names = tuple(f"d{i}" for i in range(len(self.shape)))
        first = len(self.shape) - len(inputs[0].shape)
        source = tuple(
            names[first + i] if n == self.shape[first + i] else None for i, n in enumerate(inputs[0].shape)
        )
        return Rule((source,), names, order=names)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return BroadcastTo(tuple(b - a for a, b in output))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(SumTo(build.spec(inputs[0]).shape), grad)]
