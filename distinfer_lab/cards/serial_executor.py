"""An executor with one thread, in which a group talks to its cluster: work is done in order and gives futures.

`ThreadPoolExecutor` will not do: an interpreter that exits waits for its threads before it closes what is open.
"""

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["SerialExecutor"]

Item = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class SerialExecutor:
    """A thread that does work in the order in which it is given."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cards", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Have work done after all that was given before, in the caller's context (see `contextvars`)."""
        future: Future[Any] = Future()
        self._items.put((future, contextvars.copy_context().run, (work, *args)))
        return future

    def close(self) -> None:
        """Do no more; what has not begun is cancelled, and what has is waited for."""
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        self._items.put(None)
        if not self.is_here:
            self._thread.join()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            future, work, args = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args))
                except BaseException as err:
                    future.set_exception(err)
            # An idle thread should hold nothing of what it did.
            del item, future, work, args
