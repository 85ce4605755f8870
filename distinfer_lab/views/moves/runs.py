"""Neighbouring cards summed, so that many fit a picture: a label and a sum for each run of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["grouped_traffic", "run_labels", "run_sums"]

Rows = NDArray[np.int64]


def run_labels(labels: Sequence[str], limit: int) -> tuple[list[str], int]:
    """A label for each run of equally many, at most `limit` runs; and how many are in a run.

    Examples
    --------
    >>> run_labels(["0", "1", "2", "3", "4"], 3)
    (['0-1', '2-3', '4'], 2)
    """
    size = max(-(-len(labels) // limit), 1)
    ends = [(labels[a], labels[min(a + size, len(labels)) - 1]) for a in range(0, len(labels), size)]
    return [first if first == last else f"{first}-{last}" for first, last in ends], size


def run_sums(values: NDArray[Any], size: int) -> Rows:
    """The sum of each run of `size` rows, int64."""
    sums = [values[a : a + size].sum(axis=0) for a in range(0, len(values), size)]
    return np.array(sums, np.int64).reshape(len(sums), *values.shape[1:])


def grouped_traffic(matrix: NDArray[np.int64], limit: int) -> tuple[list[str], list[str], Rows]:
    """Labels of both sides and the bytes between them, with at most `limit` runs a side."""
    rows, row_size = run_labels([str(i) for i in range(matrix.shape[0])], limit)
    columns, column_size = run_labels([str(i) for i in range(matrix.shape[1])], limit)
    return rows, columns, run_sums(run_sums(matrix, row_size).T, column_size).T
