"""What leans on private parts of Dask, Tornado and multiprocessing, in one place, each with the reason.

To be looked at with each new version of Dask; ``.ci/versions`` runs the tests of the cards on the lowest one.

::

    LastingCluster, QuickNanny          workers come back, soon, however often they are lost
    QuietScheduler, QuietWorker         serve no pages
    ProcessWorker                       leaves the keyboard's interrupt to the controller
    ClosingClient                       closed when it cannot start, and never by the garbage collector
    leave_to_parent                     a child made by fork ends nothing of its parent's cluster
    is_importing_main                   whether processes can be started now
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any, ClassVar

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.core import Status
from distributed.utils import get_mp_context

__all__ = [
    "PRELOADED",
    "ClosingClient",
    "LastingCluster",
    "ProcessWorker",
    "QuickNanny",
    "QuietScheduler",
    "QuietWorker",
    "can_fork_from_server",
    "is_importing_main",
    "leave_to_parent",
]

PRELOADED = ["distributed", "distributed.nanny", "distributed.worker"] + [
    f"distinfer_lab.{name}" for name in ("cards", "cards.preload", "checkpoint", "net", "parallel")
]
"""What the process imports from which workers are forked."""
ABANDON_SECONDS = 10.0
"""How long a start that was interrupted is waited for, so that it ends in order."""

_embedded: "weakref.WeakSet[SpecCluster]" = weakref.WeakSet()
"""The clusters of this process: a child made by fork must not end them."""


class LastingCluster(SpecCluster):  # type: ignore[misc]  # distributed has no types
    """Keeps every worker: its nanny starts it again.

    Dask looks 15 seconds after a loss whether the worker is back, and dismisses its nanny if it is not there; that
    may be just the moment of a second loss (see dask/distributed#3088).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except KeyboardInterrupt:
            self._abandon()
            raise
        _embedded.add(self)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        super(SpecCluster, self)._update_worker_status(op, msg)

    def _abandon(self) -> None:
        """End what a start that was interrupted has begun; Dask's own close fails where a worker is not up yet."""
        self._instances.discard(self)
        with contextlib.suppress(Exception):
            self.sync(self._end_all, callback_timeout=ABANDON_SECONDS + 3)
        with contextlib.suppress(Exception):
            self._loop_runner.stop()

    async def _end_all(self) -> None:
        # A process that is just being made would complain of what is gone.
        deadline = time.monotonic() + ABANDON_SECONDS
        while any(server.status in (Status.init, Status.starting) for server in self._created):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.03)
        await asyncio.gather(*(server.close() for server in self._created), return_exceptions=True)
        if self.scheduler:  # after those whom its end would make talk
            await self.scheduler.close()


class QuietScheduler(Scheduler):  # type: ignore[misc]  # distributed has no types
    """Serves no pages: Dask's have no password, whatever the cluster's certificates, and show all tasks."""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """See `Scheduler`."""


class QuietWorker(Worker):  # type: ignore[misc]  # distributed has no types
    """Serves no pages, as `QuietScheduler`."""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """See `Worker`."""


class ProcessWorker(QuietWorker):
    """A worker that has its process to itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # An interrupt from the keyboard reaches every process of the terminal; it is the controller's to hear.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().__init__(*args, **options)


class QuickNanny(Nanny):  # type: ignore[misc]  # distributed has no types
    """Starts, and starts again, its worker from a process that has imported what it needs: 8 in 1.5 s, not 4.4."""

    _lock = threading.Lock()
    _starting: ClassVar[list[Any]] = []
    """One entry per start on its way; the first one holds the setting that all need."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # With it, glibc maps new memory for every array above 128 KiB, and each page of it faults again.
        for environment in (self.pre_spawn_env, self.env):
            environment.pop("MALLOC_TRIM_THRESHOLD_", None)

    async def instantiate(self) -> Any:
        """See `Nanny`."""
        _hear_no_interrupt()
        with self._quick_processes():
            return await super().instantiate()

    async def _on_worker_exit(self, exitcode: int) -> None:
        # A process that ends before its worker is up fails the start. Dask before 2026.8 retries for ever
        # (dask/distributed#6426, mended by #9313).
        if self.status not in (Status.init, Status.starting):
            await super()._on_worker_exit(exitcode)

    @contextlib.contextmanager
    def _quick_processes(self) -> Iterator[None]:
        if not can_fork_from_server():
            yield
            return
        with self._lock:
            if not self._starting:
                setting = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
                get_mp_context()  # sets a preload list of its own, once; ours replaces it
                multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
                self._starting.append(setting)
            self._starting.append(self)
        try:
            yield
        finally:
            with self._lock:
                self._starting.remove(self)
                if len(self._starting) == 1:
                    self._starting.pop().__exit__(None, None, None)


def _hear_no_interrupt() -> None:
    """From its first moment on a process that this thread starts hears no interrupt, as `ProcessWorker` later."""
    if threading.current_thread() is not threading.main_thread():
        resource_tracker.ensure_running()  # if Python started it later, it would undo the mask
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def can_fork_from_server() -> bool:
    """Whether Python can start processes from one that is prepared; where it cannot, Dask starts each by itself."""
    # Python talks to that one by a Unix socket in the folder for temporary files, under a name of 31 bytes.
    has_room = len(os.fsencode(tempfile.gettempdir())) + 31 < 104
    return has_room and "forkserver" in multiprocessing.get_all_start_methods()


class ClosingClient(Client):  # type: ignore[misc]  # distributed has no types
    """A client that is closed when it cannot start, and never by the garbage collector.

    The collector runs at any time; while another client starts, a close would wait forever for a lock that its own
    thread holds. Neither does a closed client of Dask's always end its thread (dask/distributed#4072).
    """

    def __del__(self) -> None:
        pass

    def start(self, **options: Any) -> Any:
        """See `Client`."""
        try:
            return super().start(**options)
        except BaseException:
            self.close()
            raise

    def close(self, *args: Any, **options: Any) -> Any:
        """See `Client`; its thread ends too where the scheduler was lost, or was never there."""
        closing = super().close(*args, **options)
        if not self.asynchronous:
            self._loop_runner.stop()
        return closing


def is_importing_main() -> bool:
    """Whether this is a process that multiprocessing starts, and that still imports its main script.

    It cannot start others yet: multiprocessing says so too, but only after Dask has started a loop that waits for it.
    """
    return bool(getattr(multiprocessing.current_process(), "_inheriting", False))


def leave_to_parent(cluster: Any) -> None:
    """In a child made by fork: take from its end all that would end its parent's cluster.

    An interpreter that ends closes the clusters that it knows, removes their folders and stops its daemons.
    """
    cluster.shutdown_on_close = False
    for node in (cluster.scheduler, *cluster.workers.values()):
        folder = getattr(node, "_workdir", None)
        if folder is not None:
            folder._finalizer.detach()
        started = getattr(getattr(node, "process", None), "process", None)
        if started is not None:
            started._proc_finalizer.detach()
            multiprocessing.process._children.discard(started._process)  # type: ignore[attr-defined]


def _leave_all_to_parent() -> None:
    for cluster in list(_embedded):
        leave_to_parent(cluster)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
