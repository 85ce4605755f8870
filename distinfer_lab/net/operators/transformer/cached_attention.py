"""Attention to all tokens so far, whose keys and values are in a KV cache.

::

    cache  [batch, kv_heads, length, size]      | 0 1 2 3 4 . . . |      position 3, 2 new tokens
                                                        ^ ^

The new keys and values are written into the cache, in place: a step that is repeated writes the same
again. It is the only operator that changes its inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Operator, Region, Rule, Spec
from .attention import HEAD_RUNS, HEADS, KEYS, WITHIN, GroupedHeads, attention_weights, check_heads

__all__ = ["CachedAttention"]

Array = NDArray[Any]


@dataclass(frozen=True)
class CachedAttention(GroupedHeads):
    """softmax(scale * query @ keys.T) @ values, over positions 0..position + tokens - 1 of the caches.

    Its inputs are query, new keys, new values, the cache of keys, that of values, and the position
    of the first new token (one integer).
    """

    scale: float = 1.0

    def infer(self, *inputs: Spec) -> Spec:
        query, key, value, keys, values, position = inputs
        check_heads(self, query, key)
        new = (*keys.shape[:2], query.shape[2], *keys.shape[3:])
        if key != value or keys != values or key.shape != new or key.dtype != keys.dtype:
            raise GraphError(
                f"{self.name}: keys {list(key.shape)}, values {list(value.shape)}, caches {list(keys.shape)} and "
                f"{list(values.shape)}; keys and values, "
                "and their caches, must be alike, and the caches differ in tokens only"
            )
        if position.shape or position.dtype.kind not in "iu" or query.shape[3] != key.shape[3]:
            raise GraphError(
                f"{self.name}: a position of shape {list(position.shape)} and dtype {position.dtype} for queries "
                f"{list(query.shape)}; it is one integer, and queries are of the keys' size"
            )
        return query

    def forward(self, *inputs: Array) -> Array:
        query, key, value, keys, values, position = inputs
        start = int(position)
        stop = start + query.shape[2]
        if not 0 <= start <= stop <= keys.shape[2]:
            raise GraphError(
                f"{self.name}: tokens {start}..{stop - 1} for a cache of length {keys.shape[2]}; make it longer"
            )
        keys[:, :, start:stop] = key
        values[:, :, start:stop] = value
        weights = attention_weights(query, self._attended(keys)[:, :, :stop], self.scale)
        attended = self._attended(values)[:, :, :stop]
        b, h, tokens, _ = query.shape
        folded = weights.reshape(b, attended.shape[1], h // attended.shape[1] * tokens, stop)
        out: Array = np.matmul(folded, attended)
        return out.reshape(query.shape)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule(
            (HEADS, KEYS, KEYS, KEYS, KEYS, ()), HEADS, order=("b", "h"), within=WITHIN, runs=HEAD_RUNS
        )

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return self._for_card(whole[0].shape[1] // whole[1].shape[1], inputs[0][1], inputs[1][1])
