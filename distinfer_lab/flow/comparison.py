"""What the cards predicted compared with one card: the difference, and the difference that is allowed.

Sums in another order differ by float32's rounding; copies do not differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed
from ..errors import ContextError
from ..net import Tensor
from .model import Model

__all__ = ["TOLERANCE", "Comparison", "Difference", "compare", "compare_generated"]

TOLERANCE = 1e-5
"""Relative to the largest value, in float32; of wider floats no more, of narrower ones their own rounding."""

Array = NDArray[Any]
Results = Tensor | Array | Sequence[Tensor | Array]


class Difference(NamedTuple):
    """The difference of one output."""

    shape: tuple[int, ...]
    dtype: str
    largest: float
    """The largest difference of two values."""
    allowed: float
    """How large it may be."""
    bitwise: bool
    """Whether all bits are equal."""

    @property
    def ok(self) -> bool:
        """Whether the difference is within what is allowed; values that are not finite must be the same."""
        return self.bitwise or self.largest <= self.allowed


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
    """The differences of all outputs."""

    outputs: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether all are equal to one card's, within what is allowed."""
        return all(output.ok for output in self.outputs)

    def __repr__(self) -> str:
        lines = ["equal to one card" if self.ok else "NOT equal to one card"]
        for output in self.outputs:
            how = "bit for bit" if output.bitwise else f"largest difference {output.largest:.2e}"
            rest = "" if output.bitwise else f" (allowed {output.allowed:.2e})"
            lines.append(f"  {list(output.shape)} {output.dtype}: {how}{rest}")
        return "\n".join(lines)


def compare(found: Results, expected: Results) -> Comparison:
    """Compare results of `Model.predict` with those of `Model.predict_on_one_card`.

    Raises
    ------
    ContextError
        If their numbers or shapes differ.

    Examples
    --------
    >>> compare(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    equal to one card
      [2] float64: bit for bit
    """
    ours, theirs = _arrays(found), _arrays(expected)
    shapes = [a.shape for a in ours], [a.shape for a in theirs]
    if shapes[0] != shapes[1]:
        raise ContextError(
            f"results of shapes {shapes[0]} and {shapes[1]} cannot be compared; predict the same input"
        )
    return Comparison(tuple(_difference(a, b) for a, b in zip(ours, theirs, strict=True)))


def compare_generated(model: Model, ids: Tensor, added: int) -> Comparison:
    """Compare the tokens that `Model.generate` added with those most probable on one card.

    Parameters
    ----------
    ids
        What generate gave, without a temperature, shape (sequences, tokens).
    added
        How many of the tokens it added.
    """
    tokens = ids.asnumpy()
    logits = model.predict_on_one_card(Tensor(tokens[:, :-1]))
    first = logits[0] if isinstance(logits, tuple) else logits
    expected = first.asnumpy()[:, -added:].argmax(axis=-1).astype(tokens.dtype)
    return compare(tokens[:, -added:], expected)


def _arrays(results: Results) -> list[Array]:
    parts = results if isinstance(results, tuple | list) else [results]
    return [part.asnumpy() if isinstance(part, Tensor) else np.asarray(part) for part in parts]


def _difference(found: Array, expected: Array) -> Difference:
    bitwise = found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(ours - theirs))
    largest = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
    finite = np.abs(theirs[np.isfinite(theirs)])
    rounding = TOLERANCE
    if expected.dtype.kind in "fV" and expected.dtype.itemsize < 4:
        rounding = 2.0**-7 if expected.dtype.kind == "V" else 2.0**-10
    allowed = 0.0 if expected.dtype.kind in "iub" else rounding * float(finite.max(initial=0.0))
    return Difference(found.shape, str(found.dtype), largest, allowed, bitwise)
