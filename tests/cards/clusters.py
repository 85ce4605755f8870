"""Clusters of processes of their own, as somebody else would have started them; and ways to kill them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
from distributed import Client, LocalCluster

ROOT = Path(__file__).parents[2]


def until(condition, seconds=60):
    """Wait until something holds; an error if it does not come to pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def dask_command(*words, **environment):
    """A scheduler or worker as a process that says nothing."""
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


class Cluster:
    """A scheduler and workers without nannies: who is killed stays dead until another is started."""

    def __init__(self, workers, *options, scheme="tcp", scheduler_options=(), host="127.0.0.1"):
        self._folder = tempfile.TemporaryDirectory(prefix="cluster-")
        # The scheduler takes a port itself: one that was found free before it starts may be another's by then.
        self.scheduler_file = Path(self._folder.name, "scheduler.json")
        common = ["--scheduler-file", str(self.scheduler_file), "--no-dashboard"]
        self._options = [*common, "--host", host, *options]
        scheduler = [*common, "--host", f"{scheme}://{host}", "--port", "0"]
        self.scheduler = dask_command("dask_scheduler", *scheduler, *scheduler_options)
        self.workers = []
        for _ in range(workers):
            self.add()

    def add(self, *options, nthreads=1, **environment):
        """Start one more worker; gives its process."""
        words = [
            *self._options,
            "--no-nanny",
            "--nthreads",
            str(nthreads),
            "--death-timeout",
            "30",
        ]
        self.workers.append(dask_command("dask_worker", *words, *options, **environment))
        return self.workers[-1]

    def wait(self, security=None):
        """Until the scheduler knows all workers that were started; then `address` is known too."""
        until(self._listens)
        self.address = json.loads(self.scheduler_file.read_text())["address"]
        options = {} if security is None else {"security": security}
        with Client(self.address, set_as_default=False, timeout=60, **options) as client:
            if self.workers:
                client.wait_for_workers(len(self.workers), timeout=60)

    def _listens(self):
        """Whether the scheduler has written its file, which it does once it listens."""
        assert self.scheduler.poll() is None, "the scheduler has ended"
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(self.scheduler_file.read_text()))
        return False

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()
        self._folder.cleanup()


@contextlib.contextmanager
def cluster_of(workers, *options, security=None, **more):
    made = Cluster(workers, *options, **more)
    try:
        made.wait(security)
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def local_cluster(workers):
    """The address of a cluster of process workers whose nannies start them again, however often they are lost."""
    # Dask would dismiss the nanny of a worker that is away 15 seconds after an earlier loss, as in a second one.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        LocalCluster(
            n_workers=workers, processes=True, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
    ):
        yield cluster.scheduler_address


def pids_of(cards):
    """The process of every card, in rank order."""
    found = cards.client.run(os.getpid)
    return [found[address] for address in cards.runtime.membership.addresses]


def kill_later(pid, seconds):
    """Kill a process after a while; gives the thread that does."""

    def kill():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    return timer
