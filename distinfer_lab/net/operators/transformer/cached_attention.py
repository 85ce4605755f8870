"""Attention to all tokens so far, whose keys and values a card keeps in its cache.

::

    cache  [batch, key heads, places, size]     | 0 1 2 3 4 . . . |      position 3, 2 new tokens
                                                        ^ ^

The new keys and values are written at their places, in the cache itself: a step that is repeated
writes the same again. It is the only operator that changes what it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Operator, Region, Rule, Spec
from .attention import HEAD_RUNS, HEADS, KEYS, WITHIN, _Grouped, attention_weights, check_heads

__all__ = ["CachedAttention"]

Array = NDArray[Any]


@dataclass(frozen=True)
class CachedAttention(_Grouped):
    """softmax(scale * query @ keys.T) @ values, over the places 0..position + tokens - 1 of the caches.

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
                f"{list(values.shape)}; the first two, and the last two, are alike but for the tokens"
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
                f"{self.name}: tokens {start}..{stop - 1} for a cache of {keys.shape[2]} places; make it larger"
            )
        keys[:, :, start:stop] = key
        values[:, :, start:stop] = value
        shares = attention_weights(query, self._looked_at(keys)[:, :, :stop], self.scale)
        seen = self._looked_at(values)[:, :, :stop]
        b, h, tokens, _ = query.shape
        folded = shares.reshape(b, seen.shape[1], h // seen.shape[1] * tokens, stop)
        out: Array = np.matmul(folded, seen)
        return out.reshape(query.shape)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule(
            (HEADS, KEYS, KEYS, KEYS, KEYS, ()), HEADS, order=("b", "h"), within=WITHIN, runs=HEAD_RUNS
        )

    def local(self, whole: Sequence[Spec], inputs: Sequence[Region], output: Region) -> "Operator":
        return self._for_card(whole[0].shape[1] // whole[1].shape[1], inputs[0][1], inputs[1][1])
