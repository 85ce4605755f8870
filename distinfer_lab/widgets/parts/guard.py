"""Callbacks that cannot fail in silence.

Jupyter shows nothing at all of an error in a widget's callback, and may run callbacks in
other threads. So each goes through one guard: one at a time, and an error is told in words.
"""

import threading
import traceback
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import ipywidgets

from ...errors import DistinferError

__all__ = ["ErrorLine", "told"]


class ErrorLine(ipywidgets.HTML):  # type: ignore[misc]  # ipywidgets has no types
    """Where a widget says what went wrong; empty while nothing did."""

    def __init__(self) -> None:
        super().__init__("")
        self._lock = threading.RLock()

    def guard(self, callback: Callable[..., object]) -> Callable[..., None]:
        """The callback, one call at a time; its error is shown here, a success clears the line."""

        @wraps(callback)
        def guarded(*args: Any, **kwargs: Any) -> None:
            with self._lock:
                try:
                    callback(*args, **kwargs)
                except Exception as err:
                    self.value = told(err)
                else:
                    self.value = ""

        return guarded

    def __repr__(self) -> str:
        return "ErrorLine()"


def told(err: Exception, *, stopped: bool = False) -> str:
    """An error in words, its details folded; one by which stopped work ended is no alarm."""
    said = str(err) if isinstance(err, DistinferError) else f"{type(err).__name__}: {err}"
    if stopped:
        return f'<div role="status">{escape(said)}</div>'
    details = escape("".join(traceback.format_exception(err)))
    return (
        f'<div role="alert"><b>That did not work.</b> {escape(said)}'
        f"<details><summary>Details</summary><pre>{details}</pre></details></div>"
    )
