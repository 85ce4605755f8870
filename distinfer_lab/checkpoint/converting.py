"""Values in another dtype, and how many of them did not fit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convert"]

Array = NDArray[Any]


def convert(data: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.int64]]:
    """Rows of values in another dtype, and for each row how many finite values became infinite.

    Examples
    --------
    >>> convert(np.array([[1.0, 1e9], [2.0, 3.0]]), np.dtype("f2"))[1]
    array([1, 0])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = data.astype(dtype)
        if not np.issubdtype(data.dtype, np.number) and data.dtype.kind != "V":
            return found, np.zeros(len(data), np.int64)
        return found, np.count_nonzero(~np.isfinite(found) & np.isfinite(data), axis=1)
