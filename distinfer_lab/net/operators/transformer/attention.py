"""Causal attention of query heads that share KV heads in groups.

::

    query  [batch, heads, tokens, size]        4 query heads, 2 KV heads, on 2 cards:
    key    [batch, kv_heads, tokens, size]     card 0  q0 q1 | k0      card 1  q2 q3 | k1
                                               on 4:   q0 | k0   q1 | k0   q2 | k1   q3 | k1

KV heads are sharded along with the query heads that attend to them; where there are more cards than
KV heads, several cards hold the same one.

References
----------
Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models", 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Builder, Operator, Region, Rule, Spec
from ..broadcasting import same_dtype
from ..elementwise import Scale
from ..normalise import SoftmaxGrad

__all__ = [
    "AttentionWeights",
    "GroupedHeads",
    "GroupedMatMul",
    "GroupedOuter",
    "attention_weights",
    "check_heads",
]

Array = NDArray[Any]

HEADS = ("b", "h", None, None)
KEYS = ("b", "k", None, None)
WITHIN = {"k": "h"}
HEAD_RUNS = {"h": 1, "k": 1}


def check_heads(op: Operator, query: Spec, key: Spec) -> None:
    """Refuse shapes that are not heads of one batch, and KV heads that query heads cannot share evenly.

    Raises
    ------
    GraphError
        Naming the shapes.
    """
    same_dtype(op, query, key)
    if len(query.shape) != 4 or len(key.shape) != 4 or query.shape[0] != key.shape[0]:
        raise GraphError(
            f"{op.name}: heads of shapes {list(query.shape)} and {list(key.shape)}; both are "
            "[batch, heads, tokens, size] with one batch"
        )
    if not key.shape[1] or query.shape[1] % key.shape[1]:
        raise GraphError(
            f"{op.name}: {query.shape[1]} query heads cannot share {key.shape[1]} KV heads evenly"
        )


@dataclass(frozen=True)
class GroupedHeads(Operator):
    """An operator on query heads and KV heads, each of which serves as many query heads.

    Parameters
    ----------
    first
        On a card: the first of its KV heads that its query heads attend to.
    count
        On a card: how many of them they attend to; 0 for all.
    each
        On a card whose query heads are not whole groups: the KV head, of its own, for each of them.
    """

    first: int = 0
    count: int = 0
    each: tuple[int, ...] = ()

    def _attended(self, key: Array) -> Array:
        if self.each:
            return key[:, self.each]
        return key[:, self.first : self.first + self.count] if self.count else key

    def _for_card(self, groups: int, heads: tuple[int, int], held: tuple[int, int]) -> "GroupedHeads":
        """The operator of a card that holds the query heads `heads` and the KV heads `held`."""
        first, last = heads[0] // groups, -(-heads[1] // groups)
        count, mine = last - first, heads[1] - heads[0]
        if first < held[0] or last > held[1]:
            raise GraphError(
                f"{self.name}: query heads {heads[0]}..{heads[1] - 1} need KV heads {first}..{last - 1}, but "
                f"this card holds {held[0]}..{held[1] - 1}; shard both by the same axes"
            )
        if count > 1 and mine != count * groups:
            return replace(self, each=tuple(head // groups - held[0] for head in range(*heads)))
        return replace(self, first=first - held[0], count=count)


def _folded(x: Array, kv_heads: int) -> Array:
    """[b, h, t, n] as [b, k, (h / k) * t, n]: one product for all query heads of a KV head."""
    b, h, t, n = x.shape
    return x if h == kv_heads else x.reshape(b, kv_heads, h // kv_heads * t, n)


@dataclass(frozen=True)
class GroupedMatMul(GroupedHeads):
    """x[b, h, t, n] @ y[b, k, n, m], each of y for h / k heads of x; or @ y[b, k, m, n] transposed."""

    transpose_b: bool = False

    def infer(self, *inputs: Spec) -> Spec:
        x, y = inputs
        check_heads(self, x, y)
        inner, outer = y.shape[:1:-1] if self.transpose_b else y.shape[2:]
        if x.shape[3] != inner:
            raise GraphError(
                f"{self.name}: the inner dims of {list(x.shape)} and {list(y.shape)} are {x.shape[3]} and {inner}; "
                f"they must be equal (transpose_b={self.transpose_b})"
            )
        return Spec((*x.shape[:3], outer), x.dtype)

    def forward(self, *inputs: Array) -> Array:
        x, y = inputs[0], self._attended(inputs[1])
        out: Array = np.matmul(_folded(x, y.shape[1]), np.swapaxes(y, 2, 3) if self.transpose_b else y)
        return out.reshape(*x.shape[:3], out.shape[3])

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((HEADS, KEYS), HEADS, order=("b", "h"), within=WITHIN, runs=HEAD_RUNS)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return self._for_card(whole[0].shape[1] // whole[1].shape[1], inputs[0][1], inputs[1][1])

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        x, y = inputs
        heads = build.spec(y).shape[1]
        dx = build.add(GroupedMatMul(transpose_b=not self.transpose_b), grad, y)
        left, right = (grad, x) if self.transpose_b else (x, grad)
        return [dx, build.add(GroupedOuter(heads), left, right)]


@dataclass(frozen=True)
class GroupedOuter(Operator):
    """For each of `kv_heads` the sum over the heads that share it of x[.., t, m].T @ y[.., t, n].

    Parameters
    ----------
    start, stop
        On a card: the KV heads of its sums; those that none of its query heads attend to stay 0.
    heads
        On a card: how many query heads share a KV head, and the first query head that it holds.
    """

    kv_heads: int
    groups: int = 0
    first_head: int = 0
    start: int = 0

    def infer(self, *inputs: Spec) -> Spec:
        x, y = inputs
        check_heads(self, x, y)
        if x.shape[:3] != y.shape[:3] or x.shape[1] % self.kv_heads:
            raise GraphError(
                f"{self.name}: heads of shapes {list(x.shape)} and {list(y.shape)} for {self.kv_heads} KV heads; "
                "both have as many heads and tokens, a multiple of the KV heads"
            )
        return Spec((x.shape[0], self.kv_heads, x.shape[3], y.shape[3]), x.dtype)

    def forward(self, *inputs: Array) -> Array:
        x, y = inputs
        products = np.matmul(np.swapaxes(x, 2, 3), y)
        groups = self.groups or x.shape[1] // self.kv_heads
        out = np.zeros((x.shape[0], self.kv_heads, *products.shape[2:]), products.dtype)
        for head in range(x.shape[1]):
            out[:, (self.first_head + head) // groups - self.start] += products[:, head]
        return out

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((HEADS, HEADS), KEYS, order=("b", "h"), within=WITHIN, runs=HEAD_RUNS)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        groups = whole[0].shape[1] // self.kv_heads
        start, stop = output[1]
        return GroupedOuter(stop - start, groups, inputs[0][1][0], start)


@dataclass(frozen=True)
class AttentionWeights(GroupedHeads):
    """softmax(scale * query @ key.T), where token i attends to tokens 0..i; [b, h, tokens, tokens]."""

    scale: float = 1.0

    def infer(self, *inputs: Spec) -> Spec:
        query, key = inputs
        check_heads(self, query, key)
        if query.shape[2:] != key.shape[2:]:
            raise GraphError(
                f"{self.name}: queries {list(query.shape)} and keys {list(key.shape)}; both are of the same tokens "
                "and size"
            )
        return Spec((*query.shape[:3], key.shape[2]), query.dtype)

    def forward(self, *inputs: Array) -> Array:
        query, key = inputs
        return attention_weights(query, self._attended(key), self.scale)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule((HEADS, KEYS), HEADS, order=("b", "h"), within=WITHIN, runs=HEAD_RUNS)

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return self._for_card(whole[0].shape[1] // whole[1].shape[1], inputs[0][1], inputs[1][1])

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        query, key = inputs
        # What the mask hides has weight 0, and so no gradient.
        scores = build.add(Scale(self.scale), build.add(SoftmaxGrad(), output, grad))
        dkey = build.add(GroupedOuter(build.spec(key).shape[1]), scores, query)
        return [build.add(GroupedMatMul(), scores, key), dkey]


def attention_weights(query: Array, key: Array, scale: float) -> Array:
    """See `AttentionWeights`; the last query is at the position of the last key."""
    b, h, tokens, _ = query.shape
    keys = key.shape[2]
    out: Array = np.matmul(_folded(query, key.shape[1]), np.swapaxes(key, 2, 3)).reshape(b, h, tokens, keys)
    out *= scale
    if tokens > 1:
        hidden = np.triu(np.ones((tokens, keys), bool), keys - tokens + 1)
        np.copyto(out, -np.inf, where=hidden)
    out -= out.max(axis=3, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=3, keepdims=True)
    return out
