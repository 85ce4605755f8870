"""Parts of a page that take a while to build: in a thread of their own, with a text until they are ready."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from ...text import escape
from .guard import error_html
from .panel import close_all
from .work import Snapshot, Work

__all__ = ["Later"]


class Later(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Shows what is being made, then that, or why it could not be made.

    Parameters
    ----------
    words
        What is being made.
    make
        Gives the parts; called at once, in another thread.
    """

    def __init__(self, words: str, make: Callable[[], Sequence[Any]]) -> None:
        self._is_closed = False
        self._words = words
        self._said = ipywidgets.HTML()
        super().__init__([self._said])
        self._work = Work(self._show)
        self._work.start(lambda control: tuple(make()))

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Wait until the parts are there, at most `timeout` seconds; gives how it stands."""
        return self._work.wait(timeout)

    def _show(self, snapshot: Snapshot) -> None:
        if snapshot.state == "done" and self._is_closed:
            close_all(snapshot.result)
        elif snapshot.state == "done":
            self.children: tuple[Any, ...] = snapshot.result
            self._said.close()
        elif snapshot.error is not None:
            self._said.value = error_html(snapshot.error)
        else:
            self._said.value = f'<div role="status">{escape(self._words)} ...</div>'

    def close(self) -> None:
        """Be shown no more, with the parts; what is still being made will be closed too."""
        self._is_closed = True
        close_all(self.children)
        super().close()

    def __repr__(self) -> str:
        return f"Later({self._words})"
