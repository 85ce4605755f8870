"""Initial values, evaluated for any region of a tensor without making the rest.

A random value depends on the seed, the parameter's name and the element's place in the whole
tensor, never on the layout: every card makes its own shard, and all shards fit together.

References
----------
Random bits: SplitMix64 as a function of the element's number; Steele, Lea and Flood, "Fast
Splittable Pseudorandom Number Generators", 2014.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

from ..arguments import checked
from ..errors import GraphError
from .dtypes import as_dtype
from .graph import Region

__all__ = ["ArrayValues", "Initializer", "get_seed", "initializer", "set_seed"]

Array = NDArray[Any]

DISTRIBUTIONS = ("zeros", "ones", "normal", "uniform", "xavier_uniform", "he_uniform")

WINDOW_ELEMENTS = 1 << 18

_seed = [0]


@checked
def set_seed(seed: int) -> None:
    """Choose the random initial values of all parameters made from now on."""
    _seed[0] = int(seed)


def get_seed() -> int:
    """The seed in force."""
    return _seed[0]


@dataclass(frozen=True)
class Initializer:
    """A rule for the elements of a tensor.

    Parameters
    ----------
    kind
        One of zeros, ones, normal (sigma 0.01), uniform (within 0.07), xavier_uniform and
        he_uniform; or "constant".
    shape, dtype
        Of the whole tensor.
    seed
        Of the random ones.
    value
        Of "constant".
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    seed: int = 0
    value: float = 0.0

    def region(self, region: Region, name: str = "") -> Array:
        """The elements of a region, in its shape."""
        extent = tuple(b - a for a, b in region)
        if self.kind in ("zeros", "ones", "constant"):
            number = {"zeros": 0.0, "ones": 1.0}.get(self.kind, self.value)
            return np.full(extent, number, self.dtype)
        if not extent:
            return self._random(region, name)
        out = np.empty(extent, self.dtype)
        # In runs of rows: the float64 values on the way take many times the memory of the result.
        rows = max(WINDOW_ELEMENTS // max(math.prod(extent[1:]), 1), 1)
        for first in range(0, extent[0], rows):
            start = region[0][0] + first
            stop = min(start + rows, region[0][1])
            out[first : first + rows] = self._random(((start, stop), *region[1:]), name)
        return out

    def _random(self, region: Region, name: str) -> Array:
        uniform = self._uniform(region, name)
        if self.kind == "normal":
            from scipy.special import ndtri  # a quarter of a second that few cards need to spend

            return np.asarray(0.01 * ndtri(uniform), self.dtype)
        return np.asarray((2 * uniform - 1) * self._bound(), self.dtype)

    def _uniform(self, region: Region, name: str) -> Array:
        """Uniform in (0, 1), float64."""
        number: Array = np.zeros((), np.uint64)
        for (start, stop), size in zip(region, self.shape, strict=True):
            number = number[..., None] * np.uint64(size) + np.arange(start, stop, dtype=np.uint64)
        word = number + np.uint64(xxhash.xxh3_64_intdigest(name.encode(), seed=self.seed))
        word = (word + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
        word ^= word >> np.uint64(31)
        out: Array = ((word >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return out

    def _bound(self) -> float:
        """The largest magnitude of a uniform kind; weights are taken as [out, in]."""
        receptive = math.prod(self.shape[2:])
        fan_in = (self.shape[1] if len(self.shape) > 1 else self.shape[0] if self.shape else 1) * receptive
        fan_out = (self.shape[0] if self.shape else 1) * receptive
        if self.kind == "xavier_uniform":
            return math.sqrt(6 / (fan_in + fan_out))
        return math.sqrt(6 / fan_in) if self.kind == "he_uniform" else 0.07


@dataclass(frozen=True, eq=False)
class ArrayValues:
    """The elements of a user's array; or a box of it that begins at `start` of the whole."""

    array: Array
    start: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def region(self, region: Region, name: str = "") -> Array:
        """A copy of the elements of a region of the whole."""
        start = self.start or (0,) * len(region)
        part = self.array[tuple(slice(a - s, b - s) for (a, b), s in zip(region, start, strict=True))]
        return np.array(part, order="C")


@checked
def initializer(init: str | float, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Initializer:
    """Initial values by name or as one number.

    Raises
    ------
    GraphError
        If the name is unknown.

    Examples
    --------
    >>> initializer("ones", (2, 2)).region(((0, 1), (0, 2)))
    array([[1., 1.]], dtype=float32)
    """
    whole = tuple(int(n) for n in shape)
    if isinstance(init, str):
        if init not in DISTRIBUTIONS:
            raise GraphError(f"initializer {init!r} is not one of {', '.join(DISTRIBUTIONS)}")
        return Initializer(init, whole, as_dtype(dtype), get_seed())
    return Initializer("constant", whole, as_dtype(dtype), value=float(init))
