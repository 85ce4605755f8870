"""Operators that only move elements: reshape, transpose, flatten, broadcast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Operator, Region, Rule, Spec

if TYPE_CHECKING:
    from ..build import GraphBuilder

__all__ = ["BroadcastTo", "Constant", "Flatten", "Reshape", "Transpose"]

Array = NDArray[Any]
Names = list[str | None]


def _extent(region: Region) -> tuple[int, ...]:
    return tuple(b - a for a, b in region)


def reshape_factors(src: Sequence[int], dst: Sequence[int]) -> tuple[Names, Names]:
    """Factors of a reshape: where runs of dims have equal products, their major dims go together.

    [8, 6, 4] -> [48, 4]: 8 and 48 share a factor, as a cut of the 8 is a cut of the 48; the 6 is
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

    def gradient(
        self, build: "GraphBuilder", inputs: Sequence[str], output: str, grad: str
    ) -> Sequence[str | None]:
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
        # Only the batch may be cut, as in MindSpore: one card then has whole rows.
        rest = (None,) * (len(inputs[0].shape) - 1)
        return Rule((("n", *rest),), ("n", None), order=("n",))

    def gradient(
        self, build: "GraphBuilder", inputs: Sequence[str], output: str, grad: str
    ) -> Sequence[str | None]:
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

    def gradient(
        self, build: "GraphBuilder", inputs: Sequence[str], output: str, grad: str
    ) -> Sequence[str | None]:
        return [build.add(Transpose(tuple(int(i) for i in np.argsort(self.perm))), grad)]


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
        return BroadcastTo(_extent(output))

    def gradient(
        self, build: "GraphBuilder", inputs: Sequence[str], output: str, grad: str
    ) -> Sequence[str | None]:
        from .elementwise import SumTo

        return [build.add(SumTo(build.spec(inputs[0]).shape), grad)]


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

    def gradient(
        self, build: "GraphBuilder", inputs: Sequence[str], output: str, grad: str
    ) -> Sequence[str | None]:
        return []
