"""Rows of a table by id, and the gradient of it.

Of a table that is sharded by rows each card takes its own rows, and zeros for those of others: partial
values, whose sum over the cards is the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GraphError
from ..graph import Builder, Operator, Region, Rule, Spec

__all__ = ["AtStep", "Gather", "GatherGrad", "OneHot"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Gather(Operator):
    """table[ids]: the entries of `axis` 0 by their numbers; an id outside the table becomes zeros.

    Parameters
    ----------
    axis
        Only 0 is supported.
    first_row
        On a card: the number of the first row that it holds.
    rows
        How many rows the whole table has, where an id outside it is to be an error.
    """

    axis: int = 0
    first_row: int = 0
    rows: int | None = None

    def infer(self, *inputs: Spec) -> Spec:
        table, ids = inputs
        if self.axis != 0 or not table.shape:
            raise GraphError(
                f"Gather: axis {self.axis} of a table of shape {list(table.shape)}; only 0 can be"
            )
        if ids.dtype.kind not in "iu":
            raise GraphError(f"Gather: ids of dtype {ids.dtype}; they must be integers")
        return Spec((*ids.shape, *table.shape[1:]), table.dtype)

    def forward(self, *inputs: Array) -> Array:
        table, ids = inputs
        if self.rows is not None and ids.size and not 0 <= ids.min() <= ids.max() < self.rows:
            bad = ids[(ids < 0) | (ids >= self.rows)][0]
            raise GraphError(f"id {bad} is not one of the table's {self.rows} rows, which count from 0")
        rows = ids.astype(np.int64) - self.first_row
        held = (rows >= 0) & (rows < len(table))
        out: Array = (
            table[np.where(held, rows, 0)]
            if len(table)
            else np.zeros((*ids.shape, *table.shape[1:]), table.dtype)
        )
        out[~held] = 0
        return out

    def rule(self, *inputs: Spec) -> Rule:
        table, ids = inputs
        columns = tuple(f"c{i}" for i in range(1, len(table.shape)))
        rows = tuple(f"i{i}" for i in range(len(ids.shape)))
        order = ("v", *columns, *rows)
        return Rule((("v", *columns), rows), (*rows, *columns), frozenset("v"), order, runs={"v": 1})

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return replace(self, first_row=inputs[0][0][0])

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        table, ids = inputs
        return [build.add(GatherGrad(build.spec(table).shape[0]), ids, grad), None]


@dataclass(frozen=True)
class GatherGrad(Operator):
    """A table of `rows` rows, in which every row is the sum of the gradients that ids send to it."""

    rows: int
    first_row: int = 0

    def infer(self, *inputs: Spec) -> Spec:
        ids, grad = inputs
        return Spec((self.rows, *grad.shape[len(ids.shape) :]), grad.dtype)

    def forward(self, *inputs: Array) -> Array:
        ids, grad = inputs
        out = np.zeros((self.rows, *grad.shape[ids.ndim :]), grad.dtype)
        rows = ids.astype(np.int64) - self.first_row
        held = (rows >= 0) & (rows < self.rows)
        np.add.at(out, rows[held], grad[held])
        return out

    def rule(self, *inputs: Spec) -> Rule:
        ids, grad = inputs
        names = tuple(f"i{i}" for i in range(len(ids.shape)))
        columns = tuple(f"c{i}" for i in range(1, 1 + len(grad.shape) - len(names)))
        order = ("v", *columns, *names)
        return Rule((names, (*names, *columns)), ("v", *columns), frozenset(names), order, runs={"v": 1})

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        start, stop = output[0]
        return GatherGrad(stop - start, start)


@dataclass(frozen=True)
class OneHot(Operator):
    """For each id a row of `depth` zeros with a one at the id."""

    depth: int
    dtype: str = "float32"

    def infer(self, *inputs: Spec) -> Spec:
        if inputs[0].dtype.kind not in "iu":
            raise GraphError(f"OneHot: ids of dtype {inputs[0].dtype}; they must be integers")
        return Spec((*inputs[0].shape, self.depth), np.dtype(self.dtype))

    def forward(self, *inputs: Array) -> Array:
        return np.asarray(inputs[0][..., None] == np.arange(self.depth), self.dtype)

    def rule(self, *inputs: Spec) -> Rule:
        names = tuple(f"d{i}" for i in range(len(inputs[0].shape)))
        return Rule((names,), (*names, None), order=names)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class AtStep(Operator):
    """rates[step], of no dims, for rates [n] and a counter [1] of the steps before this one."""

    def infer(self, *inputs: Spec) -> Spec:
        rates, step = inputs
        if len(rates.shape) != 1 or step.shape != (1,) or step.dtype.kind not in "iu":
            raise GraphError(
                f"{self.name}: rates of shape {list(rates.shape)} and steps {list(step.shape)} of {step.dtype}; "
                "they have the shapes [n] and [1], and steps are integers"
            )
        return Spec((), rates.dtype)

    def forward(self, *inputs: Array) -> Array:
        rates, step = inputs[0], int(inputs[1][0])
        if not 0 <= step < len(rates):
            raise GraphError(
                f"learning_rate has {len(rates)} values, one for each step, and this is step {step + 1}; pass more "
                "values, or one number for all steps"
            )
        return np.asarray(rates[step])

    def rule(self, *inputs: Spec) -> Rule:
        return Rule(((None,), (None,)), ())
