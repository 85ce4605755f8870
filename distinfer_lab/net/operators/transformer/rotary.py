"""Positions of tokens, and rotary embeddings: queries and keys, rotated by angles that grow with the position.

References
----------
Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021. The halves of a
head are rotated against each other, as https://github.com/huggingface/transformers does in `rotate_half`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import GraphError
from ...graph import Builder, Operator, Rule, Spec

__all__ = ["Angles", "Positions", "Rotary"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Positions(Operator):
    """The positions of `length` tokens, the first of which is given: int64, shape (length,)."""

    length: int

    def infer(self, *inputs: Spec) -> Spec:
        if inputs[0].shape or inputs[0].dtype.kind not in "iu":
            raise GraphError(
                f"{self.name}: a position of shape {list(inputs[0].shape)} and dtype {inputs[0].dtype}; "
                "it is one integer"
            )
        return Spec((self.length,), np.dtype(np.int64))

    def forward(self, *inputs: Array) -> Array:
        return np.arange(self.length, dtype=np.int64) + np.int64(inputs[0])

    def rule(self, *inputs: Spec) -> Rule:
        return Rule(((),), (None,))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class Angles(Positions):
    """Cosines and sines of the angles of `length` tokens, shape (2, length, len(frequencies)).

    Parameters
    ----------
    frequencies
        By how much each angle grows from one token to the next, in radians.
    """

    frequencies: tuple[float, ...] = ()
    dtype: str = "float32"

    def infer(self, *inputs: Spec) -> Spec:
        super().infer(*inputs)
        return Spec((2, self.length, len(self.frequencies)), np.dtype(self.dtype))

    def forward(self, *inputs: Array) -> Array:
        positions = super().forward(*inputs)
        # transformers multiplies in float32; far positions would show the difference.
        angles = np.outer(positions.astype(np.float32), np.array(self.frequencies, np.float32))
        return np.stack([np.cos(angles), np.sin(angles)]).astype(self.dtype, copy=False)

    def rule(self, *inputs: Spec) -> Rule:
        return Rule(((),), (None, None, None))


@dataclass(frozen=True)
class Rotary(Operator):
    """Rotate heads x[batch, heads, tokens, size] by `Angles` of (2, tokens, size / 2).

    Parameters
    ----------
    backwards
        Rotate by the opposite angles, as gradients are.
    """

    backwards: bool = False

    def infer(self, *inputs: Spec) -> Spec:
        x, angles = inputs
        if len(x.shape) != 4 or angles.shape != (2, x.shape[2], x.shape[3] / 2):
            raise GraphError(
                f"{self.name}: heads of shape {list(x.shape)} and angles of shape {list(angles.shape)}; they are "
                "[batch, heads, tokens, size] and [2, tokens, size / 2]"
            )
        return x

    def forward(self, *inputs: Array) -> Array:
        x, (cos, sin) = inputs
        half = x.shape[-1] // 2
        left, right = x[..., :half], x[..., half:]
        if self.backwards:
            sin = -sin
        out: Array = np.empty(x.shape, x.dtype)
        np.subtract(left * cos, right * sin, out=out[..., :half])
        np.add(right * cos, left * sin, out=out[..., half:])
        return out

    def rule(self, *inputs: Spec) -> Rule:
        heads = ("b", "h", "t", None)
        return Rule((heads, (None, "t", None)), heads, order=("b", "h", "t"))

    def gradient(self, build: Builder, inputs: Sequence[str], output: str, grad: str) -> Sequence[str | None]:
        return [build.add(replace(self, backwards=not self.backwards), grad, inputs[1]), None]
