"""Who writes the files of a conversion: threads of this process, or whoever else has `write_files`."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ..display import Displayed
from ..errors import ReshardError
from ..sizes import default_threads
from .file_writer import Control, FileReport, WriteTask, Written, write_file
from .sources import BoxReader

__all__ = ["ROUTES", "Executor", "Threads"]

ROUTES = ("auto", "files", "channels")


@runtime_checkable
class Executor(Protocol):
    """Who writes destination files: `Threads` of this process, or a card group."""

    def write_files(
        self,
        tasks: Sequence[WriteTask],
        sources: Mapping[int, BoxReader],
        control: Callable[[int], Control],
        route: str,
    ) -> Written:
        """Do all tasks.

        Parameters
        ----------
        sources
            Source rank -> its slices, open in this process; workers elsewhere open them by the paths in the tasks.
        control
            Gives the control of a destination rank.
        route
            "files": every worker reads the source files that it needs; "channels": each reads its own
            and the pieces go from worker to worker; "auto": the first if all workers see all files.
        """
        ...


@dataclass(frozen=True)
class Threads(Displayed):
    """Threads of this process, each of which writes one file at a time.

    Parameters
    ----------
    count
        How many; None: as many as this process may use cores, at most 8. Those that no file is left for read ahead.

    Raises
    ------
    ReshardError
        If it is less than 1.
    """

    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ReshardError(f"Threads({self.count}): at least 1 thread is needed")

    def write_files(
        self,
        tasks: Sequence[WriteTask],
        sources: Mapping[int, BoxReader],
        control: Callable[[int], Control],
        route: str,
    ) -> Written:
        """See `Executor`; there is one route."""
        stopped = threading.Event()
        count = self.count or default_threads()

        def write(task: WriteTask) -> FileReport:
            watched = _Stoppable(control(task.share.rank), stopped)
            return write_file(task, watched, sources, ahead=count > len(tasks))

        if count == 1:
            return Written(tuple(write(task) for task in tasks))
        # The largest first, so that none is left over at the end.
        order = sorted(range(len(tasks)), key=lambda i: -tasks[i].nbytes)
        with ThreadPoolExecutor(count) as pool:
            running = {i: pool.submit(write, tasks[i]) for i in order}
            try:
                wait(running.values(), return_when=FIRST_EXCEPTION)
                _raise_first(running.values())
                return Written(tuple(running[i].result() for i in range(len(tasks))))
            except BaseException:  # Ctrl-C, too, which only this thread sees
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise


class _Stoppable(NamedTuple):
    """`Control` that also stops when another thread failed."""

    control: Control
    stopped: threading.Event

    def advance(self, nbytes: int) -> None:
        self.control.advance(nbytes)

    def check(self) -> None:
        if self.stopped.is_set():
            raise ReshardError("another file of the same run failed, or the run was stopped")
        self.control.check()


def _raise_first(running: Iterable[Future[FileReport]]) -> None:
    """Raise the first error of those that ended; one that was stopped because of it comes later."""
    for future in running:
        if future.done():
            future.result()
