"""Cross entropy of logits whose classes are sharded: no card ever sees the logits of another.

Each card reduces its run of the classes, and the label's logit if it is in it::

    logits  [rows, classes]    -> partial [rows, parts + 1]   log sum exp of run 0, 1 ..., the label's logit
    sharded by classes            added up over the cards     zeros for what other cards hold
                               -> losses [rows]               log sum exp of the runs - the label's logit
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Builder, Operator, Region, Rule, Spec

__all__ = ["PartialLogSumExp", "PartialLogSumExpGrad", "SparseCrossEntropy", "SparseCrossEntropyGrad"]

Array = NDArray[Any]


def _log_sum_exp(x: Array) -> Array:
    """Along the last dim, which is kept; minus infinity for an empty one."""
    most = x.max(axis=-1, keepdims=True)
    return np.asarray(most + np.log(np.exp(x - most).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class PartialLogSumExp(Operator):
    """The log sum exp of each run of the classes of logits[n, c], and the logit of labels[n].

    Parameters
    ----------
    parts
        How many runs the classes are divided into; the last ones are shorter where they do not come out even.
    first, classes
        On a card: the first class that it holds, and the number of all classes.
    """

    parts: int = 1
    first: int = 0
    classes: int = 0

    def infer(self, *inputs: Spec) -> Spec:
        logits, labels = inputs
        if len(logits.shape) != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
            raise GraphError(
                f"{self.name}: logits {list(logits.shape)} and labels {list(labels.shape)} of {labels.dtype}; they "
                "have the shapes [rows, classes] and [rows], and labels are integers"
            )
        return Spec((logits.shape[0], self._runs(logits.shape[1]) + 1), logits.dtype)

    def _length(self, classes: int) -> int:
        """Of a run."""
        return max(-(-classes // self.parts), 1)

    def _runs(self, classes: int) -> int:
        """How many runs are not empty."""
        return -(-classes // self._length(classes))

    def held(self, count: int) -> list[tuple[int, slice]]:
        """The number of each run of which a card that holds `count` classes has a part, and which part."""
        length = self._length(self.classes or count)
        stop = self.first + count
        runs = range(self.first // length, -(-stop // length)) if count else ()
        return [
            (run, slice(max(run * length - self.first, 0), min((run + 1) * length, stop) - self.first))
            for run in runs
        ]

    def forward(self, *inputs: Array) -> Array:
        logits, labels = inputs
        rows, count = logits.shape
        classes = self.classes or count
        _check_labels(labels, classes)
        out = np.zeros((rows, self._runs(classes) + 1), logits.dtype)
        for run, part in self.held(count):
            out[:, run] = _log_sum_exp(logits[:, part])[:, 0]
        columns = labels.astype(np.int64) - self.first
        mine = np.flatnonzero((columns >= 0) & (columns < count))
        out[mine, -1] = logits[mine, columns[mine]]
        return out

    def rule(self, *inputs: Spec) -> Rule:
        runs = {"c": self._length(inputs[0].shape[1])}
        return Rule((("n", "c"), ("n",)), ("n", None), frozenset("c"), ("n", "c"), runs=runs)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        first, stop = inputs[0][1]
        classes = whole[0].shape[1]
        length = self._length(classes)
        if any(place % length and place != classes for place in (first, stop)):
            raise GraphError(
                f"{self.name}: a card holds the classes {first}..{stop - 1}, but runs are {length} long; shard "
                f"the classes into {self.parts} parts"
            )
        return replace(self, first=first, classes=classes)

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(PartialLogSumExpGrad(self.parts), *inputs, output, grad), None]


def _check_labels(labels: Array, classes: int) -> None:
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise GraphError(f"label {bad} is not one of the {classes} classes, which count from 0")


@dataclass(frozen=True)
class PartialLogSumExpGrad(PartialLogSumExp):
    """The gradient of the logits, from logits, labels, the sums of the partial values and their gradient."""

    def infer(self, *inputs: Spec) -> Spec:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        logits, labels, runs, grad = inputs
        out = np.empty_like(logits)
        for run, part in self.held(logits.shape[1]):
            np.subtract(logits[:, part], runs[:, run : run + 1], out=out[:, part])
            np.exp(out[:, part], out=out[:, part])
            out[:, part] *= grad[:, run : run + 1]
        columns = labels.astype(np.int64) - self.first
        mine = np.flatnonzero((columns >= 0) & (columns < logits.shape[1]))
        out[mine, columns[mine]] += grad[mine, -1]
        return out

    def rule(self, *inputs: Spec) -> Rule:
        runs = {"c": self._length(inputs[0].shape[1])}
        return Rule((("n", "c"), ("n",), ("n", None), ("n", None)), ("n", "c"), order=("n", "c"), runs=runs)


@dataclass(frozen=True)
class SparseCrossEntropy(Operator):
    """The losses [n] of the sums of `PartialLogSumExp`."""

    def infer(self, *inputs: Spec) -> Spec:
        if len(inputs[0].shape) != 2 or inputs[0].shape[1] < 2:
            raise GraphError(
                f"{self.name}: partial values of shape {list(inputs[0].shape)}; they are [rows, parts + 1]"
            )
        return Spec(inputs[0].shape[:1], inputs[0].dtype)

    def forward(self, *inputs: Array) -> Array:
        runs = inputs[0]
        return np.asarray(_log_sum_exp(runs[:, :-1])[:, 0] - runs[:, -1])

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((("n", None),), ("n",), order=("n",))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(SparseCrossEntropyGrad(), inputs[0], grad)]


@dataclass(frozen=True)
class SparseCrossEntropyGrad(Operator):
    """The gradient of the partial values: the probability of each run, and minus one for the label's logit."""

    def infer(self, *inputs: Spec) -> Spec:
        return inputs[0]

    def forward(self, *inputs: Array) -> Array:
        runs, grad = inputs
        out = np.empty_like(runs)
        np.exp(runs[:, :-1] - _log_sum_exp(runs[:, :-1]), out=out[:, :-1])
        out[:, -1] = -1
        out *= grad[:, None]
        return out

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((("n", None), ("n",)), ("n", None), order=("n",))
