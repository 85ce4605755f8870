"""Further activations of transformers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..elementwise import UnaryWithSlope

__all__ = ["ErfGeLU", "SiLU"]

Array = NDArray[Any]


@dataclass(frozen=True)
class SiLU(UnaryWithSlope):
    """x / (1 + exp(-x)), also called swish."""

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        out = np.negative(x, out=np.empty_like(x))
        with np.errstate(over="ignore"):  # x / inf is the 0 that is meant
            np.exp(out, out=out)
        out += 1
        return np.divide(x, out, out=out)

    def slope(self, x: Array, y: Array) -> Array:
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(-x))
        return np.asarray(share + y * (1 - share))


@dataclass(frozen=True)
class ErfGeLU(UnaryWithSlope):
    """x * Phi(x) by the error function; `GeLU` is the form with tanh.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """

    def forward(self, *inputs: Array) -> Array:
        x = inputs[0]
        out = _erf(x)
        out += 1
        out *= x
        out *= 0.5
        return out

    def slope(self, x: Array, y: Array) -> Array:
        density = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return np.asarray(0.5 * (1 + _erf(x)) + x * density)


def _erf(x: Array) -> Array:
    """The error function of x / sqrt(2), as an array of its own."""
    from scipy.special import erf  # a tenth of a second that few nets need to spend

    out: Array = erf(x * math.sqrt(0.5), out=np.empty_like(x))
    return out
