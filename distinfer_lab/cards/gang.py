"""Gangs: one task on each of some cards, at once; they all succeed, or the first real error is raised.

::

    join()   a new epoch: who is there, and where each listens        after a loss, again
    run()    lease -> one task per card -> watch, wait -> results     on failure: stop all, join again

One controller runs one gang at a time. On a cluster that others use too it first takes a lease
on every worker: two half-started gangs on workers of one thread would wait for each other.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, wait
from threadpoolctl import ThreadpoolController

from ..comm import ChannelClosedError, Epoch, Peer
from ..errors import CardError
from ..reshard import Topology
from . import tasks
from .leases import Leases
from .membership import Membership, lost
from .records import GroupTerms, Ticket
from .run import Run
from .store import CancelledError, CardRestartedError

__all__ = ["Gangs", "Work"]

LOOK_SECONDS = 0.25
"""How often a waiting controller looks whether all cards are still there."""
SETTLE_SECONDS = 10.0
"""How long the cards of a failed gang may take to stop."""
STOPPING_SECONDS = 0.05
"""How often a controller looks which of them have."""

Work = Mapping[int, tuple[Any, ...]]
"""Rank -> the arguments of its task, after the ticket."""


class Gangs:
    """The cards of one group, and the work that they are given together.

    Parameters
    ----------
    client
        Of the cluster.
    terms
        Of the group.
    membership
        The workers behind the cards.
    on_loss
        Called, when the cards join again, with the ranks that hold nothing now: their workers are others.
    """

    def __init__(
        self, client: Client, terms: GroupTerms, membership: Membership, on_loss: Callable[[list[int]], None]
    ) -> None:
        self._membership = membership
        self.epoch: Epoch | None = None
        self._client, self._terms, self._on_loss = client, terms, on_loss
        self._peers: tuple[Peer, ...] = ()
        self._numbers = itertools.count(1)
        self._leases = Leases(client)
        self._blas = ThreadpoolController()
        self._leaving = threading.Event()

    @property
    def topology(self) -> Topology:
        """The hosts of the cards, as they were when the cards last joined."""
        return Topology(tuple(peer.address.host for peer in self._peers))

    def join(self, run: Run[object]) -> None:
        """Begin a new epoch, with other workers in the places of those that are lost.

        Raises
        ------
        CardError
            If a card is gone for good.
        """
        peers = self._membership.renew(run.check)
        changed = [r for r, (a, b) in enumerate(zip(self._peers, peers, strict=False)) if a != b]
        if changed:
            self._on_loss(changed)
        most_on_a_host = max(sum(p.address.host == peer.address.host for p in peers) for peer in peers)
        threads = max((os.cpu_count() or 1) // most_on_a_host, 1)
        epoch = Epoch(next(self._numbers), os.urandom(32), peers, threads)
        self._peers = peers
        ranks = {address: rank for rank, address in enumerate(self._membership.addresses)}
        self._membership.ask(tasks.begin_epoch, self._terms.name, epoch, ranks)
        self.epoch = epoch

    def joined(self, run: Run[object]) -> Epoch:
        """The epoch at hand; a new one where a card was lost."""
        if self.epoch is None:
            self.join(run)
        assert self.epoch is not None
        return self.epoch

    def run(
        self,
        task: Callable[..., Any],
        work: Work,
        run: Run[object] | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> dict[int, Any]:
        """Do the work; returns the results by rank (see `run_numbered`)."""
        return self.run_numbered(task, work, run, look)[1]

    def run_numbered(
        self,
        task: Callable[..., Any],
        work: Work,
        run: Run[object] | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> tuple[int, dict[int, Any]]:
        """Do the work; returns the number of the run and the results by rank.

        Parameters
        ----------
        look
            Called now and then while it goes on; what it raises stops the work.

        Raises
        ------
        Exception
            The error that was the cause, of whichever card; the other cards are stopped.
        """
        run = run or Run()
        self.joined(run)
        number = next(self._numbers)
        lease = (
            contextlib.nullcontext()
            if self._terms.embedded
            else self._leases.held(self._membership.addresses, run.check)
        )
        with self._client.as_current(), lease, self._few_threads():
            run.check()
            futures = self._submit(task, number, work)
            try:
                self._await(futures, run, look)
                return number, dict(zip(futures.values(), self._fetch(futures, run, look), strict=True))
            except BaseException as err:
                self.epoch = None
                raise self._stop(futures, number, err) from None

    def _lease(self, run: Run[object]) -> contextlib.AbstractContextManager[None]:
        if self._terms.embedded:
            return contextlib.nullcontext()
        return self._leases.held(self._membership.addresses, run.check)

    def _submit(self, task: Callable[..., Any], number: int, work: Work) -> dict[Any, int]:
        """A pinned task for each card, in one message: one by one, all but the first would wait for 10 ms."""
        assert self.epoch is not None
        name = self._terms.name
        layers = {}
        for rank, args in work.items():
            ticket = Ticket(name, rank, self.epoch.number, self.epoch.peers[rank].incarnation, number)
            pin: dict[str, Any] = {
                "workers": [self._membership.addresses[rank]],
                "allow_other_workers": False,
            }
            if self._terms.embedded:
                pin = {"resources": {f"card{rank}": 1}}
            key = f"{task.__name__}-{name}-{number}-{rank}"
            # As a call without arguments: of those Dask would look for keys in every list and tuple.
            layers[key] = MaterializedLayer({key: (functools.partial(task, ticket, *args),)}, pin)
        graph = HighLevelGraph(layers, {key: set() for key in layers})
        return dict(zip(self._client.get(graph, list(layers), sync=False), work, strict=True))

    def _await(self, futures: Mapping[Any, int], run: Run[object], look: Callable[[], None]) -> None:
        pending = set(futures)
        while pending:
            try:
                done, pending = wait(pending, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._look(run, look)
                continue
            for future in done:
                if future.status in ("error", "cancelled"):
                    future.result()
                if future.status != "finished":  # its card was lost meanwhile, and the result with it
                    pending.add(future)
            run.advance(len(futures) - len(pending), len(futures))

    def _fetch(self, futures: Mapping[Any, int], run: Run[object], look: Callable[[], None]) -> list[Any]:
        """What the tasks gave, from all cards at once; one that is lost by now takes its result along."""

        async def fetch() -> list[Any]:
            direct = self._terms.embedded or None
            found: list[Any] = await self._client.gather(list(futures), direct=direct, asynchronous=True)
            return found

        fetching = asyncio.run_coroutine_threadsafe(fetch(), self._client.loop.asyncio_loop)
        try:
            while not concurrent.futures.wait([fetching], LOOK_SECONDS).done:
                self._look(run, look)
            return fetching.result()
        finally:
            fetching.cancel()

    def _look(self, run: Run[object], look: Callable[[], None]) -> None:
        """What a waiting controller does now and then."""
        run.check()
        self._membership.watch()
        look()

    def _stop(self, futures: Mapping[Any, int], number: int, err: BaseException) -> BaseException:
        """Stop what is left of a failed gang; returns the error that was the cause."""
        try:
            self._membership.tell(tasks.cancel, self._terms.name, number)
            gone = self._settle(futures)
        except CardError as unreachable:
            return unreachable
        errors = [f.exception() for f in futures if f.status == "error"]
        self._client.cancel(list(futures), force=True)
        causes = [e for e in errors if not isinstance(e, ChannelClosedError | CancelledError)]
        restarted = [e for e in causes if isinstance(e, CardRestartedError)]
        others = [e for e in causes if not isinstance(e, CardRestartedError)]
        told = err if isinstance(err, CancelledError) and not others else None
        return told or next(iter([*others, *gone, *restarted]), err)

    def _settle(self, futures: Mapping[Any, int]) -> list[CardRestartedError]:
        """Wait until the cards that are there have stopped; returns the errors of those that are lost."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            gone = self._membership.missing()
            left = [f for f, rank in futures.items() if rank not in gone and not f.done()]
            if not left or self._leaving.is_set() or time.monotonic() > deadline:
                return [lost(rank, self._membership.addresses[rank]) for rank in gone]
            with contextlib.suppress(TimeoutError):
                wait(left, timeout=STOPPING_SECONDS)

    @contextlib.contextmanager
    def _few_threads(self) -> Iterator[None]:
        """In-process cards share this process's BLAS threads; the same number as process cards have."""
        if self._terms.processes or self.epoch is None:
            yield
            return
        with self._blas.limit(limits=self.epoch.threads):
            yield

    def leave(self) -> None:
        """The group is about to close: where the cards' processes end with it, a stopped gang is not waited for."""
        if self._terms.embedded and self._terms.processes:
            self._leaving.set()

    def close(self) -> None:
        """Let the cards go."""
        self._leases.close()
        self._membership.dismiss()
