"""Long work of a panel: in a thread of its own, one at a time, watched and stopped.

::

    work.start(job)     False while another job runs: a double click starts one
    work.cancel()       the job's `cancelled()` is True from now on
    work.snapshot       Snapshot(state="running", progress=..., seconds=...)

A ticker tells the panel ten times a second at most, so that a job may report as often as it likes.
What a job says after another one was started is dropped.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...cards import Run
from ...checkpoint import Progress
from ...errors import DistinferError
from .guard import TURN

__all__ = ["Control", "Job", "Snapshot", "State", "Work"]

TICK_SECONDS = 0.1

State = Literal["ready", "running", "cancelling", "cancelled", "done", "failed"]
Job = Callable[["Control"], Any]


@dataclass(frozen=True)
class Snapshot:
    """How a job stands.

    Parameters
    ----------
    state
        "cancelled" is a job that ended because it was asked to.
    progress
        What the job last said; None before it says anything.
    seconds
        Since it began, or what it took.
    result
        Of a job that is done.
    error
        Of one that failed or was cancelled.
    """

    state: State = "ready"
    progress: Progress | None = None
    seconds: float = 0.0
    result: Any = None
    error: BaseException | None = None

    @property
    def at_work(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in ("running", "cancelling")


@dataclass(eq=False)
class Control:
    """What a job is given, to report its progress and to see whether it was cancelled."""

    stop: threading.Event = field(default_factory=threading.Event)
    last: Progress | None = None
    run: Run[object] | None = None

    def progress(self, progress: Progress) -> None:
        """Report how far the job is."""
        self.last = progress

    def cancelled(self) -> bool:
        """Whether the job is to stop."""
        return self.stop.is_set()

    def attach(self, run: Run[object]) -> None:
        """Cancel this run of the cards when the job is cancelled."""
        self.run = run
        if self.cancelled():
            run.cancel()

    def cancel(self) -> None:
        """Ask the job to stop."""
        self.stop.set()
        if self.run is not None:
            self.run.cancel()


class Work:
    """Runs jobs, one at a time.

    Parameters
    ----------
    tell
        Called with each new snapshot, from whatever thread; it must neither block nor raise.
    """

    def __init__(self, tell: Callable[[Snapshot], None]) -> None:
        self.snapshot = Snapshot()
        self._tell = tell
        self._control = Control()
        self._ended = threading.Event()

    def start(self, job: Job) -> bool:
        """Begin a job; False, and nothing else, if one is at work."""
        with TURN:
            if self.snapshot.at_work:
                return False
            control = self._control = Control()
            ended = self._ended = threading.Event()
            began = time.monotonic()
            self._say(control, Snapshot("running"))
        run = contextvars.copy_context().run  # under the settings of whoever starts it
        runner = threading.Thread(target=run, args=(self._run, job, control, ended, began), daemon=True)
        ticker = threading.Thread(target=self._tick, args=(control, ended, began), daemon=True)
        runner.start()
        ticker.start()
        return True

    def cancel(self) -> None:
        """Ask the job to stop; no effect where none is at work."""
        with TURN:
            if self.snapshot.state != "running":
                return
            control = self._control
            self._say(control, replace(self.snapshot, state="cancelling"))
        control.cancel()

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Wait until the job has ended, at most `timeout` seconds; gives how it stands."""
        self._ended.wait(timeout)
        return self.snapshot

    def _run(self, job: Job, control: Control, ended: threading.Event, began: float) -> None:
        try:
            last = Snapshot("done", result=job(control))
        except BaseException as err:  # it ends here, whatever it is
            # An error of ours, after it was asked to stop, is its way of stopping.
            stopped = control.cancelled() and isinstance(err, DistinferError)
            last = Snapshot("cancelled" if stopped else "failed", error=err)
        try:
            with TURN:
                seconds = time.monotonic() - began
                self._say(control, replace(last, progress=control.last, seconds=seconds))
        finally:
            ended.set()

    def _tick(self, control: Control, ended: threading.Event, began: float) -> None:
        while not ended.wait(TICK_SECONDS):
            with TURN:
                if self._control is control and self.snapshot.at_work:
                    seconds = time.monotonic() - began
                    self._say(control, replace(self.snapshot, progress=control.last, seconds=seconds))

    def _say(self, control: Control, snapshot: Snapshot) -> None:
        """Enter how the job stands and tell it, unless another one was started since."""
        if control is self._control:
            self.snapshot = snapshot
            self._tell(snapshot)
