"""Callbacks that cannot fail in silence.

Jupyter shows nothing at all of an error in a widget's callback, and may run callbacks in
other threads. So each goes through one guard: one at a time over all widgets, and errors are shown.
"""

import threading
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

import ipywidgets

from ...errors import DistinferError
from ...text import escape

__all__ = ["TURN", "ErrorLine", "error_html"]

TURN = threading.RLock()
"""Held while widgets are changed. There is one for all: widgets observe each other, and two locks could wait for
each other. It is not held during computations, nor while waiting for cards."""


class ErrorLine(ipywidgets.HTML):  # type: ignore[misc]  # ipywidgets has no types
    """The error message of a widget; empty while there is none."""

    def __init__(self) -> None:
        super().__init__("")
        self._depth = 0
        self._said = ""

    def guard(self, callback: Callable[..., object], *, clears: bool = True) -> Callable[..., None]:
        """The callback, one call at a time; its error is shown here, and that of callbacks that it causes.

        Parameters
        ----------
        clears
            A success clears the line.
        """

        @wraps(callback)
        def guarded(*args: Any, **kwargs: Any) -> None:
            with TURN:
                if not self._depth:
                    self._said = "" if clears else str(self.value)  # type: ignore[has-type]  # a trait
                self._depth += 1
                try:
                    callback(*args, **kwargs)
                except Exception as err:
                    self._said = error_html(err)
                finally:
                    self._depth -= 1
                if not self._depth:
                    self.value = self._said

        return guarded

    def __repr__(self) -> str:
        return "ErrorLine()"


def error_html(err: BaseException, *, stopped: bool = False) -> str:
    """An error message with its traceback folded; without alarm for the error that ends stopped work."""
    said = str(err) if isinstance(err, DistinferError) else f"{type(err).__name__}: {err}"
    if stopped:
        return f'<div role="status">{escape(said)}</div>'
    details = escape("".join(traceback.format_exception(err)))
    return (
        f'<div role="alert"><b>That did not work.</b> {escape(said)}'
        f"<details><summary>Details</summary><pre>{details}</pre></details></div>"
    )
