"""Sizes as people write them ("64 MiB"), and the sizes that hold where none is given."""

import os
import re

from .errors import Option, ReshardError

__all__ = ["BUFFER_BYTES", "MOST_THREADS", "default_threads", "size_of"]

BUFFER_BYTES = 32 << 20
"""The memory for data of each worker, where nothing else is said."""

MOST_THREADS = 8
"""Where none is given; each thread has a buffer of its own."""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def size_of(value: int | str, name: str = "size") -> int:
    """A number of bytes, given as one or as text; `name` is for the error.

    Raises
    ------
    ReshardError
        If it is not a size of 1 byte or more.

    Examples
    --------
    >>> size_of("64 MiB"), size_of("1.5GB"), size_of(4096)
    (67108864, 1500000000, 4096)
    """
    found, given = value, Option(name, value)
    if isinstance(value, str):
        parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if parts is None or parts[2].upper() not in UNITS:
            raise ReshardError(f"{given} is not a valid size; give bytes, or text such as '64 MiB'", given)
        found = int(float(parts[1]) * UNITS[parts[2].upper()])
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ReshardError(f"{given}: at least 1 byte is needed", given)
    return found


def default_threads() -> int:
    """The number of threads where none is given: as many as cores, at most `MOST_THREADS`."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)
