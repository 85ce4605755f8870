"""Matrix products. Sharding the inner factor k leaves partial sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Rule, Spec
from .broadcasting import broadcast_factors, same_dtype, sum_back

__all__ = ["BatchMatMul", "MatMul"]

Array = NDArray[Any]


@dataclass(frozen=True)
class BatchMatMul(Operator):
    """x[..., m, k] @ y[..., k, n]; leading dims broadcast.

    Parameters
    ----------
    transpose_a, transpose_b
        The last two dims of x (of y) come the other way round.
    """

    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, *inputs: Spec) -> Spec:
        x, y = inputs
        dtype = same_dtype(self, x, y)
        if min(len(x.shape), len(y.shape)) < 2:
            raise GraphError(f"{self.name}: inputs of shapes {_pair(x, y)}; each needs at least 2 dims")
        m, k = x.shape[:-3:-1] if self.transpose_a else x.shape[-2:]
        k2, n = y.shape[:-3:-1] if self.transpose_b else y.shape[-2:]
        if k != k2:
            raise GraphError(
                f"{self.name}: the inner dims of {_pair(x, y)} are {k} and {k2}; they must be equal "
                f"(transpose_a={self.transpose_a}, transpose_b={self.transpose_b})"
            )
        try:
            batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        except ValueError as err:
            raise GraphError(f"{self.name}: the leading dims of {_pair(x, y)} do not broadcast") from err
        return Spec((*batch, m, n), dtype)

    def forward(self, *inputs: Array) -> Array:
        x, y = inputs
        out: Array = np.matmul(
            np.swapaxes(x, -1, -2) if self.transpose_a else x,
            np.swapaxes(y, -1, -2) if self.transpose_b else y,
        )
        return out

    def rule(self, *inputs: Spec) -> Rule:
        x, y = inputs
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        x_batch, y_batch = broadcast_factors([x.shape[:-2], y.shape[:-2]], batch)
        names = tuple(f"d{i}" for i in range(len(batch)))
        return Rule(
            (
                (*x_batch, *(("k", "m") if self.transpose_a else ("m", "k"))),
                (*y_batch, *(("n", "k") if self.transpose_b else ("k", "n"))),
            ),
            (*names, "m", "n"),
            frozenset("k"),
            (*names, "m", "k", "n"),
        )

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, y = inputs
        a, b = self.transpose_a, self.transpose_b
        product = type(self)
        dx = build.add(product(b, True), y, grad) if a else build.add(product(False, not b), grad, y)
        dy = build.add(product(True, a), grad, x) if b else build.add(product(not a, False), x, grad)
        return [sum_back(build, dx, x), sum_back(build, dy, y)]


@dataclass(frozen=True)
class MatMul(BatchMatMul):
    """x[m, k] @ y[k, n] of matrices."""

    def infer(self, *inputs: Spec) -> Spec:
        x, y = inputs
        if (len(x.shape), len(y.shape)) != (2, 2):
            raise GraphError(
                f"{self.name}: inputs of shapes {_pair(x, y)}; both need 2 dims (BatchMatMul takes more)"
            )
        return super().infer(x, y)


def _pair(x: Spec, y: Spec) -> str:
    return f"{list(x.shape)} and {list(y.shape)}"
