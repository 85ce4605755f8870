"""Operators that only move elements: reshape, transpose, flatten."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Region, Rule, Spec

__all__ = ["Constant", "Flatten", "Reshape", "Transpose"]

Array = NDArray[Any]
Names = list[str | None]


def _extent(region: Region) -> tuple[int, ...]:
    return tuple(b - a for a, b in region)


def reshape_factors(src: Sequence[int], dst: Sequence[int]) -> tuple[Names, Names]:
    """Factors of a reshape: where runs of dims have equal products, their major dims go together.

    [8, 6, 4] -> [48, 4]: 8 and 48 share a factor, as a shard of the 8 is a shard of the 48; the 6 is
    whole; 4 and 4 share one. Dims of size 1 belong to no group.
    """
    left: Names = [None] * len(src)
    right: Names = [None] * len(dst)
    i = j = 0
    while i < len(src) and j < len(dst):
        if 1 in (src[i], dst[j]):
            i, j = i + (src[i] == 1), j + (dst[j] == 1)
            continue
        first_i, first_j = i, j
        a, b = src[i], dst[j]
        i, j = i + 1, j + 1
        while a != b and (i < len(src) or j < len(dst)):
            if a < b and i < len(src):
                a, i = a * src[i], i + 1
            elif j < len(dst):
                b, j = b * dst[j], j + 1
            else:
                a, i = a * src[i], i + 1
        if a == b and src[first_i] > 1 and dst[first_j] > 1:
            left[first_i] = right[first_j] = f"g{first_i}"
    return left, right


@dataclass(frozen=True)
class Reshape(Operator):
    """The same elements in another shape; one size may be -1."""

    shape: tuple[int, ...]

    def infer(self, *inputs: Spec) -> Spec:
        size = math.prod(inputs[0].shape)
        known = math.prod(n for n in self.shape if n != -1)
        shape = self.shape
        if self.shape.count(-1) == 1 and known and size % known == 0:
            shape = tuple(size // known if n == -1 else n for n in self.shape)
        if math.prod(shape) != size or min(shape, default=0) < 0:
            raise GraphError(
                f"{self.name}: {list(inputs[0].shape)} has {size} elements, which do not fit "
                f"shape {list(self.shape)}"
            )
        return Spec(shape, inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].reshape(self.shape)

    def rule(self, *inputs: Spec) -> Rule:
        left, right = reshape_factors(inputs[0].shape, self.infer(*inputs).shape)
        names = tuple(dict.fromkeys(n for n in left if n is not None))
        return Rule((tuple(left),), tuple(right), order=names)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return Reshape(_extent(output))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Reshape(build.spec(inputs[0]).shape), grad)]


@dataclass(frozen=True)
class Flatten(Operator):
    """All dims but the first become one."""

    def infer(self, *inputs: Spec) -> Spec:
        shape = inputs[0].shape
        if not shape:
            raise GraphError("Flatten: the input has no dims; it needs at least 1")
        return Spec((shape[0], math.prod(shape[1:])), inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def rule(self, *inputs: Spec) -> Rule:
        # Only the batch may be sharded, as in MindSpore: one card then has whole rows.
        rest = (None,) * (len(inputs[0].shape) - 1)
        return Rule((("n", *rest),), ("n", None), order=("n",))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Reshape(build.spec(inputs[0]).shape), grad)]


@dataclass(frozen=True)
class Transpose(Operator):
    """Dim i of the output is dim perm[i] of the input."""

    perm: tuple[int, ...]

    def infer(self, *inputs: Spec) -> Spec:
        shape = inputs[0].shape
        if sorted(self.perm) != list(range(len(shape))):
            raise GraphError(
                f"{self.name}: perm {list(self.perm)} for an input of {len(shape)} dims; name each dim once"
            )
        return Spec(tuple(shape[p] for p in self.perm), inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].transpose(self.perm)

    def rule(self, *inputs: Spec) -> Rule:
        names = tuple(f"d{i}" for i in range(len(self.perm)))
        return Rule((names,), tuple(names[p] for p in self.perm), order=names)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(Transpose(tuple(int(i) for i in np.argsort(self.perm))), grad)]


@dataclass(frozen=True)
class Constant(Operator):
    """One number, of no dims, that is part of the graph."""

    value: float
    dtype: str = "float32"

    def infer(self, *inputs: Spec) -> Spec:
        return Spec((), np.dtype(self.dtype))

    def forward(self, *inputs: Array) -> Array:
        return np.array(self.value, self.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((), ())

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return []
