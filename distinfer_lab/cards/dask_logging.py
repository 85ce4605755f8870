"""Dask's own log, silenced while there is an embedded cluster.

A Dask cluster silences the log when it begins and puts it back as it was when it ends: of two at once,
the end of the first lets the other one talk. Held here, the log is put back by the last.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator

__all__ = ["silent"]

SILENCE = logging.CRITICAL

_lock = threading.Lock()
_holders: list[object] = []
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing below a critical error is printed by Dask; several may overlap, in any order."""
    holder = object()
    # Not put back: Dask logs that in-process connections end, even after a clean end of their cluster.
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    with _lock:
        if not _holders:
            for handler in logging.getLogger("distributed").handlers:
                _undo.callback(handler.setLevel, handler.level)
                handler.setLevel(SILENCE)
        _holders.append(holder)
    try:
        yield
    finally:
        with _lock:
            _holders.remove(holder)
            if not _holders:
                _undo.close()
