"""A card's memory: the shards of every placement, kept by a plugin of the Dask worker.

Shards are not Dask results, so Dask neither spills nor copies nor forgets them. A placement is
a net's values on a group; its values are replaced as a whole, at the end of a training step,
and only once every card has finished that step.

::

    placement "net-1"   values   {"w": shard, ...}      what is in force
                        pending  {"w": shard, ...}      of a step that not all cards have confirmed
"""

import contextlib
import ctypes
import functools
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from distributed import Worker, WorkerPlugin, get_worker
from distributed.comm import get_address_host
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from ..comm import Channels, Endpoint, Epoch, InProcessEndpoint, Listener, TcpEndpoint, UnixEndpoint
from ..errors import CardError
from .records import CardMemory, GroupTerms, Ticket

__all__ = [
    "CancelledError",
    "CardMemoryError",
    "CardRestartedError",
    "CardStore",
    "Placed",
    "open_store",
    "private_bytes",
]

Array = NDArray[Any]

SLACK_BYTES = 64 << 20
"""What a process may take beyond its declared memory: the allocator's, the sockets', the interpreter's."""


class CancelledError(CardError):
    """The run was cancelled."""


class CardMemoryError(CardError):
    """A card has, or would have, no memory for what it should hold."""


class CardRestartedError(CardError):
    """The worker behind a card was lost, and with it what the card held."""


@dataclass
class Placed:
    """One placement's values on one card."""

    values: dict[str, Array] = field(default_factory=dict)
    pending: dict[str, Array] = field(default_factory=dict)
    pending_run: int = -1

    def commit_or_rollback(self, committed_run: int) -> None:
        """Put the pending values in force if run `committed_run` is the one that made them, else drop them."""
        if self.pending and self.pending_run == committed_run:
            self.values.update(self.pending)
        self.pending = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all values, pending ones included."""
        return sum(v.nbytes for part in (self.values, self.pending) for v in part.values())


class CardStore(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """What one worker keeps for one card group.

    Parameters
    ----------
    terms
        Of the group; a worker may serve several groups.
    anchor
        The key of a task whose result lives as long as the group: when Dask lets go of it, because
        the controller went away, so does the store.
    """

    def __init__(self, terms: GroupTerms, anchor: str) -> None:
        self.name, self.anchor = terms.name, anchor
        self._terms = terms

    def setup(self, worker: Worker) -> None:
        """Open the card's endpoint (called by Dask when the store is added to the worker)."""
        self._worker = worker
        self.incarnation = secrets.token_hex(8)
        self.in_process = self._terms.controller == (os.uname().nodename, os.getpid())
        self.listener = Listener(self._endpoint())
        self.placements: dict[str, Placed] = {}
        self.programs: dict[str, Any] = {}
        self.channels: Channels | None = None
        self.epoch: Epoch | None = None
        self.rank = -1
        self.cancelled = -1
        self.working_bytes = 0
        self.peak_bytes = 0
        self.private_peak = 0
        self.progress: dict[int, int] = {}
        """Of the reshard at work: destination rank -> bytes done."""
        self._idle_private = self._work_private = 0
        self._blas = ThreadpoolController()

    def _endpoint(self) -> Endpoint:
        if self._worker.address.startswith("inproc"):
            return InProcessEndpoint()
        if self._terms.folder is not None:
            return UnixEndpoint(self._terms.folder)
        security = self._worker.security
        return TcpEndpoint(
            get_address_host(self._worker.address),
            security.get_listen_args("worker").get("ssl_context"),
            security.get_connection_args("worker").get("ssl_context"),
        )

    def transition(self, key: str, start: str, finish: str, **details: Any) -> None:
        """Stop all work and leave when the controller is gone (called by Dask for every task's changes)."""
        if key == self.anchor and finish in {"released", "cancelled", "forgotten"}:
            self.cancelled = sys.maxsize
            self._worker.loop.add_callback(self.leave)

    async def leave(self) -> None:
        """Take the store from its worker."""
        if self._worker.plugins.get(self.name) is self:
            await self._worker.plugin_remove(self.name)

    def teardown(self, worker: Worker) -> None:
        """Close the endpoint and let go of everything."""
        self.forget()
        self.listener.close()

    def forget(self) -> None:
        """Drop all placements and channels."""
        if self.channels is not None:
            self.channels.close()
            self.channels = None
        self.placements.clear()
        self.programs.clear()

    def join(self, epoch: Epoch, rank: int) -> None:
        """Become card `rank` of this epoch; channels of an earlier one are closed."""
        if self.channels is not None:
            self.channels.close()
        self.rank, self.epoch = rank, epoch
        self.listener.admit(epoch)
        self.channels = Channels(rank, epoch, self.listener, self.check)
        if not self.in_process:
            self._blas.limit(limits=epoch.threads)
            self._idle_private = self._idle_private or private_bytes()

    def check(self) -> None:
        """Raise if the run at work was cancelled; looked at per window and per collective."""
        if self.cancelled >= self._run:
            raise CancelledError(f"card {self.rank}: run {self._run} was cancelled", rank=self.rank)
        if self._beyond:
            raise self._too_much(self._beyond, "private memory")

    def _too_much(self, nbytes: int, kind: str) -> CardMemoryError:
        return CardMemoryError(
            f"card {self.rank} came to {nbytes} bytes of {kind}, {self.held_bytes} of them shards, which exceeds the "
            f"card_memory of {self._terms.card_bytes}; shard the net over more cards, take smaller batches, or make "
            "the group with a larger card_memory",
            rank=self.rank,
        )

    _run = 0
    _beyond = 0
    """Bytes of private memory that were found to be too many."""

    @contextlib.contextmanager
    def work(self, ticket: Ticket) -> Iterator["CardStore"]:
        """Do a gang's work: the ticket is checked, and channels of a failed run are closed."""
        if ticket.incarnation != self.incarnation:
            raise CardRestartedError(
                f"card {ticket.rank}: its worker was lost and restarted, so its shards are gone",
                rank=ticket.rank,
            )
        if self.epoch is None or ticket.epoch != self.epoch.number:
            raise CancelledError(
                f"card {ticket.rank}: the group has moved on from epoch {ticket.epoch}", rank=ticket.rank
            )
        self._run = ticket.run
        self._work_private = self._beyond = 0
        self.check()
        try:
            with contextlib.nullcontext() if self.in_process else self._sampled():
                yield self
        except BaseException as err:
            if self.channels is not None:
                self.channels.close()
            if isinstance(err, CardMemoryError):
                # What the work held hangs on the error's frames, and would count against the next work.
                traceback.clear_frames(err.__traceback__)
                _give_back()
            raise
        finally:
            self.working_bytes = 0

    def placed(self, key: str) -> Placed:
        """The values of a placement.

        Raises
        ------
        CardError
            If this card has none under that key.
        """
        if key not in self.placements:
            raise CardError(
                f"card {self.rank} holds no placement {key!r}; load or initialise it first", rank=self.rank
            )
        return self.placements[key]

    def put(self, key: str, values: Mapping[str, Array], replace: bool) -> None:
        """Keep these shards as a placement's values, in place of those before or in addition to them."""
        if replace or key not in self.placements:
            self.placements[key] = Placed()
        self.placements[key].values.update(values)
        self.count(0)

    def count(self, working_bytes: int) -> None:
        """Enter the bytes of working values and buffers that are alive now.

        Raises
        ------
        CardMemoryError
            If they and the shards are more than the memory that was declared for a card.
        """
        self.working_bytes = working_bytes
        now = self.held_bytes + working_bytes
        self.peak_bytes = max(self.peak_bytes, now)
        if self._terms.card_bytes is not None and now > self._terms.card_bytes:
            raise self._too_much(now, "shards and working values")

    @property
    def held_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(placed.nbytes for placed in self.placements.values())

    def memory(self) -> CardMemory:
        """What this card holds and held."""
        private = None if self.in_process else max(self.private_peak - self._idle_private, 0)
        return CardMemory(self.rank, self.held_bytes, self.peak_bytes, private)

    @contextlib.contextmanager
    def _sampled(self) -> Iterator[None]:
        """Watch this process's private memory while a task works."""
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                self._look()
                time.sleep(0.005)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self._look()

    def _look(self) -> None:
        self._work_private = max(self._work_private, private_bytes())
        self.private_peak = max(self.private_peak, self._work_private)
        taken, limit = self._work_private - self._idle_private, self._terms.card_bytes
        if limit is not None and taken > limit + SLACK_BYTES:
            self._beyond = taken

    def private_of_work(self) -> int | None:
        """The most private memory since this work began, beyond the idle worker's; None for in-process cards."""
        if self.in_process:
            return None
        self._look()
        return max(self._work_private - self._idle_private, 0)


@functools.cache
def _process(pid: int) -> psutil.Process:
    """Made once: it is looked at 200 times a second, and the making takes four times the look."""
    return psutil.Process(pid)


def _give_back() -> None:
    """Let the C library hand what was freed to the system, where it can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def private_bytes() -> int:
    """Resident memory of this process that it shares with no file or other process, in bytes."""
    memory = _process(os.getpid()).memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def open_store(name: str) -> CardStore:
    """The store of a group on the worker that runs this task.

    Raises
    ------
    CardRestartedError
        If the worker has none: it is not, or not yet, a card of the group.
    """
    store = get_worker().plugins.get(name)
    if store is None:
        raise CardRestartedError(f"worker {get_worker().address} is not a card of this group (any more)")
    assert isinstance(store, CardStore)
    return store
