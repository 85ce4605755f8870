"""The steps of a session that are done, in order: entered whole, or not at all.

A step begins at a version of the log, and is entered only if the log is still at that version: of two steps
that run at once, the one that ends first counts.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ..errors import ContextError
from .steps import LaidOut, Loaded, Opened, Predicted, Step

__all__ = ["StepLog"]

ORDER: tuple[type[Step], ...] = (Opened, LaidOut, Loaded, Predicted)

S = TypeVar("S", bound=Step)


class StepLog:
    """The steps that are done.

    Attributes
    ----------
    done : tuple[Step, ...]
        In order.
    version : int
        Another number after every change.
    """

    def __init__(self) -> None:
        self.done: tuple[Step, ...] = ()
        self.version = 0
        self._lock = threading.RLock()
        self._watching: list[Callable[[], None]] = []

    def find(self, kind: type[S]) -> S | None:
        """The step of this kind, if it is done."""
        return next((step for step in self.done if isinstance(step, kind)), None)

    def enter(self, step: Step, begun: int) -> None:
        """Put a step in place of what it was before, and of all that came after it.

        Parameters
        ----------
        begun
            The version that the step began with.

        Raises
        ------
        ContextError
            If there is another version now; what the step holds is closed.
        """
        with self._lock:
            if begun != self.version:
                step.resources.close()
                raise ContextError(
                    "another step was completed in the meantime, so this one was discarded; run it again if needed"
                )
            self._forget_from(ORDER.index(type(step)))
            self.done += (replace(step, version=self.version),)
        self._notify()

    def clear(self) -> None:
        """Forget all steps."""
        with self._lock:
            self._forget_from(0)
        self._notify()

    def _forget_from(self, number: int) -> None:
        """Forget the steps from this one on; what they hold is closed, the last step's first."""
        self.version += 1
        forgotten, self.done = self.done[number:], self.done[:number]
        for step in reversed(forgotten):
            step.resources.close()

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Have `notify()` called after every change, in the thread that made it; gives what ends that."""
        self._watching.append(notify)

        def end() -> None:
            if notify in self._watching:
                self._watching.remove(notify)

        return end

    def _notify(self) -> None:
        for notify in list(self._watching):
            notify()
