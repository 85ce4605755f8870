"""One of the parts that are concatenated along a dim.

GPT-2 keeps query, key and value as one weight of [n, 3n]. Each part is sharded by itself, so that one
of 2 cards holds half of each, concatenated::

    whole   q q k k v v          card 0   q k v          card 1   q k v
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Builder, Operator, Region, Rule, Spec

__all__ = ["Part", "PartGrad"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Part(Operator):
    """The part number `which` of those of `sizes` along `dim`; a view.

    Parameters
    ----------
    dim
        Counted from 0.
    sizes
        The parts' sizes in elements, which add up to the dim.
    which
        Counted from 0.
    """

    dim: int
    sizes: tuple[int, ...]
    which: int

    def _run(self) -> slice:
        stop = list(accumulate(self.sizes))[self.which]
        return slice(stop - self.sizes[self.which], stop)

    def infer(self, *inputs: Spec) -> Spec:
        shape = inputs[0].shape
        if not 0 <= self.dim < len(shape) or sum(self.sizes) != shape[self.dim]:
            raise GraphError(
                f"{self.name}: parts {list(self.sizes)} of dim {self.dim} of an input of shape {list(shape)}; "
                "they must add up to the dim"
            )
        if not 0 <= self.which < len(self.sizes):
            raise GraphError(f"{self.name}: part {self.which} of {len(self.sizes)}; count from 0")
        return Spec(_replaced(shape, self.dim, self.sizes[self.which]), inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0][(slice(None),) * self.dim + (self._run(),)]

    def _rule(self, ndim: int, fused_operand: int) -> Rule:
        names = tuple(f"d{i}" for i in range(ndim))
        fused = tuple(self.sizes if i == self.dim else None for i in range(ndim))
        return Rule((names,), names, order=names, fused={fused_operand: fused})

    def rule(self, *inputs: Spec) -> Rule:
        return self._rule(len(inputs[0].shape), 0)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        start, stop = output[self.dim]
        return Part(self.dim, _shares(self.sizes, self.which, stop - start), self.which)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(PartGrad(self.dim, self.sizes, self.which), grad)]


@dataclass(frozen=True)
class PartGrad(Part):
    """The gradient of the whole: that of the part, and zeros for the others."""

    def infer(self, *inputs: Spec) -> Spec:
        return Spec(_replaced(inputs[0].shape, self.dim, sum(self.sizes)), inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        grad = inputs[0]
        out = np.zeros(_replaced(grad.shape, self.dim, sum(self.sizes)), grad.dtype)
        out[(slice(None),) * self.dim + (self._run(),)] = grad
        return out

    def rule(self, *inputs: Spec) -> Rule:
        return self._rule(len(inputs[0].shape), -1)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        start, stop = inputs[0][self.dim]
        return PartGrad(self.dim, _shares(self.sizes, self.which, stop - start), self.which)


def _replaced(shape: Sequence[int], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _shares(sizes: tuple[int, ...], which: int, share: int) -> tuple[int, ...]:
    """One card's sizes of all parts, where it has `share` elements of one; all are sharded alike."""
    scale = math.gcd(sizes[which], share)
    mine, whole = share // scale, sizes[which] // scale
    for size in sizes:
        if size * mine % whole:
            raise GraphError(f"Part: parts of sizes {list(sizes)} cannot all be sharded to {mine}/{whole}")
    return tuple(size * mine // whole for size in sizes)
