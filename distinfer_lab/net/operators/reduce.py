"""Sums and means over dims. Sharding a dim that is summed leaves partial sums."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Region, Rule, Spec
from .broadcasting import BroadcastTo
from .elementwise import Scale
from .shapes import Reshape

__all__ = ["ReduceMean", "ReduceSum", "normal_axes"]

Array = NDArray[Any]


def normal_axes(op: Operator, axis: Sequence[int] | int | None, ndim: int) -> tuple[int, ...]:
    """The axes as sorted numbers of 0 or more; all axes, if there are none.

    Raises
    ------
    GraphError
        If one is out of range.
    """
    axes = (axis,) if isinstance(axis, int) else tuple(axis or range(ndim))
    for a in axes:
        if not -ndim <= a < ndim:
            raise GraphError(f"{op.name}: axis {a} for an input of {ndim} dims; use {-ndim}..{ndim - 1}")
    return tuple(sorted({a % ndim for a in axes}))


@dataclass(frozen=True)
class ReduceSum(Operator):
    """The sum over some dims; an empty `axis` means all of them."""

    axis: tuple[int, ...] = ()
    keep_dims: bool = False

    def infer(self, *inputs: Spec) -> Spec:
        shape = inputs[0].shape
        axes = normal_axes(self, self.axis, len(shape))
        if self.keep_dims:
            return Spec(tuple(1 if i in axes else n for i, n in enumerate(shape)), inputs[0].dtype)
        return Spec(tuple(n for i, n in enumerate(shape) if i not in axes), inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        axes = normal_axes(self, self.axis, x.ndim)
        return np.asarray(x.sum(axis=axes, keepdims=self.keep_dims, dtype=x.dtype), x.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        ndim = len(inputs[0].shape)
        axes = normal_axes(self, self.axis, ndim)
        names = tuple(f"d{i}" for i in range(ndim))
        kept = [None if i in axes else name for i, name in enumerate(names)]
        output = tuple(kept) if self.keep_dims else tuple(name for name in kept if name is not None)
        return Rule((names,), output, frozenset(names[i] for i in axes), names)

    def _spread(self, build: Builder, x: str, grad: str) -> str:
        """`grad` in the shape of x, every element as often as it was summed."""
        shape = build.spec(x).shape
        axes = normal_axes(self, self.axis, len(shape))
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        if build.spec(grad).shape != kept:
            grad = build.add(Reshape(kept), grad)
        return build.add(BroadcastTo(shape), grad)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [self._spread(build, inputs[0], grad)]


@dataclass(frozen=True)
class ReduceMean(ReduceSum):
    """The mean over some dims; an empty `axis` means all of them."""

    count: int = 0
    """On a card that holds a part: how many elements the whole mean is over."""

    def _count(self, shape: Sequence[int]) -> int:
        axes = normal_axes(self, self.axis, len(shape))
        return self.count or int(np.prod([shape[a] for a in axes], dtype=np.int64))

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(super().forward(x) / x.dtype.type(self._count(x.shape)), x.dtype)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return replace(self, count=self._count(whole[0].shape))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        spread = self._spread(build, inputs[0], grad)
        return [build.add(Scale(1 / self._count(build.spec(inputs[0]).shape)), spread)]
