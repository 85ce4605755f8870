"""A handle of work that goes on: its progress, its result, and a way to stop it.

::

    run = group.start(work)
    run.progress            Progress(done=3, total=8)
    run.cancel()            looked at per window and per collective
    run.result()            or `await run`
"""

import asyncio
from collections.abc import Callable, Generator
from concurrent import futures
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from ..comm import Origin
from ..display import Displayed
from .store import CancelledError

__all__ = ["Progress", "Run"]

STOP_SECONDS = 0.8
"""How long an interrupt waits for the cards to stop."""


class Progress(NamedTuple):
    """How many cards, steps or windows are done, of how many."""

    done: int
    total: int


T_co = TypeVar("T_co", covariant=True)
Done = TypeVar("Done")


class Run(Displayed, Generic[T_co]):
    """Work that was started on a card group, and whose result is a T_co."""

    def __init__(self) -> None:
        self.progress = Progress(0, 0)
        self.cancelled = False
        self._origin = Origin("run")
        self._future: Future[Any] | None = None

    def bind(self, future: "Future[Any]") -> None:
        """Be the handle of this future."""
        self._future = future

    def carry_out(self, work: Callable[["Run[object]"], Done]) -> Done:
        """Do the work (in the group's thread), unless it was cancelled before it began."""
        self.check()
        return work(self)

    def check(self) -> None:
        """Raise if the run was cancelled; the group's thread calls it whenever it waits."""
        if self.cancelled:
            raise CancelledError("the run was cancelled")

    def advance(self, done: int, total: int) -> None:
        """Enter progress."""
        self.progress = Progress(done, total)

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future is not None and self._future.done()

    def __repr__(self) -> str:
        state = "done" if self.done else "cancelled" if self.cancelled else "at work"
        if self.done and self._future is not None and not self._future.cancelled():
            failed = self._future.exception()
            state = "done" if failed is None else f"failed: {type(failed).__name__}: {failed}"
        counted = f", {self.progress.done} of {self.progress.total}" if self.progress.total else ""
        return f"Run {state}{counted}"

    def cancel(self) -> None:
        """Ask the cards to stop; `result()` then raises CardError. No effect on a run that is done."""
        self._origin.check()
        if not self.done:
            self.cancelled = True

    def result(self, timeout: float | None = None) -> T_co:
        """Wait for the result, at most `timeout` seconds; an interrupt from the keyboard cancels.

        Raises
        ------
        TimeoutError
            If it is not done in time; it goes on.
        CardError
            If a card failed or the run was cancelled, or in a child made by fork; or whatever error the work raised.
        """
        self._origin.check()
        assert self._future is not None
        try:
            result: T_co = self._future.result(timeout)
        except KeyboardInterrupt:
            self.cancel()
            # The cards stop within their next look; who goes on at once finds them free.
            futures.wait([self._future], STOP_SECONDS)
            raise
        return result

    def __await__(self) -> Generator[Any, None, T_co]:
        self._origin.check()
        assert self._future is not None
        try:
            result: T_co = yield from asyncio.wrap_future(self._future).__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return result
