"""The journal of a file that is being written: what a later run need not write again.

::

    ["layers.0.weight", "1f0c...", 0]        a finished tensor, its digest, and how many of its values overflowed
    ["layers.1.we                            the line that a killed run was writing
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..text import shown
from ..untrusted import parse_json, read_file, read_int
from .staging import open_private

__all__ = ["Journal"]

LARGEST_JOURNAL = 1 << 30

_quoted = json.JSONEncoder().encode


class Journal:
    """Which tensors of a file are finished, a line each, as JSON; a context manager.

    Parameters
    ----------
    path
        The file of the journal.
    resumed
        Whether what it says already is of use.

    Attributes
    ----------
    entered : Mapping[str, tuple[str, int]]
        Tensor -> its digest and how many values overflowed.
    damaged : bool
        Whether the journal of an earlier run could not be read; nothing of that run is used.
    """

    def __init__(self, path: Path, resumed: bool) -> None:
        self.entered, kept, self.damaged = _read_journal(path) if resumed else ({}, 0, False)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not kept:
            path.unlink(missing_ok=True)
        self._file = open_private(path, os.O_APPEND)
        self._file.truncate(kept)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def enter(self, finished: Iterable[tuple[str, str, int]]) -> None:
        """Tensors are finished: names, digests and how many values overflowed."""
        lines = [f'[{_quoted(name)}, "{digest}", {overflowed}]\n' for name, digest, overflowed in finished]
        self._file.write("".join(lines).encode())
        self._file.flush()


def _read_journal(path: Path) -> tuple[Mapping[str, tuple[str, int]], int, bool]:
    """What a journal says, the bytes of its whole lines, and whether it is damaged, so that nothing of it counts."""
    try:
        # What follows the last newline is the line that a killed run was writing.
        lines, newline, _ = read_file(path, LARGEST_JOURNAL).rpartition(b"\n")
        return dict(map(_entry, filter(None, lines.split(b"\n")))), len(lines + newline), False
    except FileNotFoundError:
        return {}, 0, False
    except (OSError, ValueError):
        return {}, 0, True


def _entry(line: bytes) -> tuple[str, tuple[str, int]]:
    """What a line says.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    found = parse_json(line)
    if not isinstance(found, list) or list(map(type, found)) != [str, str, int]:
        raise ValueError(f"{shown(found)} should be a name, a digest and a count")
    name, digest, overflowed = found
    return name, (digest, read_int(overflowed, "overflowed values"))
