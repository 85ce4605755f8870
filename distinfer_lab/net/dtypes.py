"""The dtypes of tensors, by MindSpore's names."""

from difflib import get_close_matches
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from ..errors import ArgumentTypeError
from ..text import shown

__all__ = [
    "as_dtype",
    "bfloat16",
    "dtypes",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
]

float16, float32, float64 = np.dtype("float16"), np.dtype("float32"), np.dtype("float64")
bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
int8, int16, int32, int64 = np.dtype("int8"), np.dtype("int16"), np.dtype("int32"), np.dtype("int64")
uint8 = np.dtype("uint8")

dtypes: dict[str, np.dtype[Any]] = {
    dtype.name: dtype
    for dtype in (float16, float32, float64, bfloat16, int8, int16, int32, int64, uint8, np.dtype("bool"))
}
"""MindSpore's names of dtypes, as numpy's dtypes."""


def as_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype as an object, from any form of it.

    Raises
    ------
    ArgumentTypeError
        If it is not a dtype.

    Examples
    --------
    >>> as_dtype("int65")
    Traceback (most recent call last):
    distinfer_lab.errors.ArgumentTypeError: dtype='int65' is not a dtype; write "int64"
    """
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as err:
        near = get_close_matches(dtype, dtypes, 1) if isinstance(dtype, str) else []
        write = f'"{near[0]}"' if near else 'one such as "float32" or "bfloat16"'
        raise ArgumentTypeError(f"dtype={shown(dtype)} is not a dtype; write {write}") from err
    return found
