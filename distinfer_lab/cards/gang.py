"""Gangs: one task on each of some cards, at once; they all succeed, or the first real error is told.

    join()   a new epoch: who is there, and where each listens        after a loss, again
    run()    lease -> one task per card -> watch, wait -> results     on failure: stop all, join anew

One controller runs one gang at a time. On a cluster that others use too it first takes a lease
on every worker: two half-started gangs on workers of one thread would wait for each other.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distributed import Client, Semaphore, wait
from threadpoolctl import ThreadpoolController

from ..errors import CardError
from . import cluster, tasks
from .channels import ChannelClosedError
from .records import Epoch, Peer, Ticket
from .run import Run
from .store import CancelledError, CardRestartedError

__all__ = ["Gangs", "Work"]

LOOK_SECONDS = 0.25
"""How often a waiting controller looks whether all cards are still there."""
SETTLE_SECONDS = 10.0
"""How long the cards of a failed gang may take to stop."""

Work = Mapping[int, tuple[Any, ...]]
"""Rank -> the arguments of its task, after the ticket."""


class CardGoneError(CardError):
    """A worker of a given cluster left, and will not come back under its address."""


class Gangs:
    """The cards of one group, and the work that they are given together.

    Parameters
    ----------
    client
        Of the cluster.
    name
        The group's own name; its stores are known by it.
    addresses
        The workers, in rank order.
    embedded
        The cluster is ours alone: no leases, and lost workers come back by themselves.
    processes
        The workers are processes of their own.
    on_loss
        Called, when the cards join again, with the ranks that restarted and hold nothing now.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        addresses: list[str],
        *,
        embedded: bool,
        processes: bool,
        on_loss: Callable[[list[int]], None],
    ) -> None:
        self.addresses = addresses
        self.epoch: Epoch | None = None
        self._client, self._name = client, name
        self._embedded, self._processes, self._on_loss = embedded, processes, on_loss
        self._peers: tuple[Peer, ...] = ()
        self._numbers = itertools.count(1)
        self._blas = ThreadpoolController()

    def join(self) -> None:
        """Begin a new epoch with the cards that are there.

        Raises
        ------
        CardError
            If a card is gone for good.
        """
        if self._embedded:
            self._client.wait_for_workers(len(self.addresses), timeout=60)
            self.addresses = cluster.ranked_addresses(self._client, len(self.addresses))
        self._watch()
        found: dict[str, Peer] = self._client.run(tasks.introduce, self._name, workers=self.addresses)
        for rank, address in enumerate(self.addresses):
            if found.get(address) is None:
                raise CardGoneError(f"card {rank} ({address}) has no store; make a new CardGroup")
        peers = tuple(found[address] for address in self.addresses)
        lost = [r for r, (a, b) in enumerate(zip(self._peers, peers, strict=False)) if a != b]
        if lost:
            self._on_loss(lost)
        most_on_a_host = max(sum(p.host == peer.host for p in peers) for peer in peers)
        threads = max((os.cpu_count() or 1) // most_on_a_host, 1)
        epoch = Epoch(next(self._numbers), os.urandom(32), peers, threads)
        ranks = {address: rank for rank, address in enumerate(self.addresses)}
        self._client.run(tasks.begin_epoch, self._name, epoch, ranks, workers=self.addresses)
        self.epoch, self._peers = epoch, peers

    def run(
        self,
        task: Callable[..., Any],
        work: Work,
        run: Run | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> dict[int, Any]:
        """Do the work; gives the results by rank (see `run_numbered`)."""
        return self.run_numbered(task, work, run, look)[1]

    def run_numbered(
        self,
        task: Callable[..., Any],
        work: Work,
        run: Run | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> tuple[int, dict[int, Any]]:
        """Do the work; gives the number of the run and the results by rank.

        Parameters
        ----------
        look
            Called now and then while it goes on; what it raises stops the work.

        Raises
        ------
        Exception
            The error that was the cause, of whichever card; the other cards are stopped.
        """
        if self.epoch is None:
            self.join()
        assert self.epoch is not None
        number = next(self._numbers)
        with self._client.as_current(), self._lease(), self._few_threads():
            futures = {self._submit(task, rank, number, args): rank for rank, args in work.items()}
            try:
                self._await(futures, run, look)
                return number, {rank: future.result() for future, rank in futures.items()}
            except BaseException as err:
                self.epoch = None
                raise self._stop(futures, number, err) from None

    def _submit(self, task: Callable[..., Any], rank: int, number: int, args: tuple[Any, ...]) -> Any:
        assert self.epoch is not None
        ticket = Ticket(self._name, rank, self.epoch.number, self.epoch.peers[rank].incarnation, number)
        pin: dict[str, Any] = {"workers": [self.addresses[rank]], "allow_other_workers": False}
        if self._embedded:
            pin = {"resources": {f"card{rank}": 1}}
        key = f"{task.__name__}-{self._name}-{number}-{rank}"
        return self._client.submit(task, ticket, *args, key=key, pure=False, retries=0, **pin)

    def _await(self, futures: Mapping[Any, int], run: Run | None, look: Callable[[], None]) -> None:
        pending = set(futures)
        while pending:
            try:
                done, pending = wait(pending, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._watch()
                look()
                continue
            for future in done:
                if future.status != "finished":
                    future.result()
            if run is not None:
                run.advance(len(futures) - len(pending), len(futures))

    def _watch(self) -> None:
        """Notice that a card's worker left: a task pinned to it would wait for ever."""
        if self._embedded:
            return
        there = self._client.scheduler_info(n_workers=-1)["workers"]
        for rank, address in enumerate(self.addresses):
            if address not in there:
                raise CardGoneError(f"card {rank} ({address}) left the cluster; make a new CardGroup")

    def _stop(self, futures: Mapping[Any, int], number: int, err: BaseException) -> BaseException:
        """Stop what is left of a failed gang; gives the error that was the cause."""
        if self._client.status != "running":
            return CardError(
                "the cluster's scheduler cannot be reached any more; start it again, and make a new CardGroup"
            )
        self.cancel(number)
        with contextlib.suppress(TimeoutError):
            # A task on a card that is gone never ends, and an interrupt should not be kept waiting.
            patient = isinstance(err, Exception) and not isinstance(err, CardGoneError)
            wait(list(futures), timeout=SETTLE_SECONDS if patient else 1.0)
        errors = [f.exception() for f in futures if f.status == "error"]
        self._client.cancel(list(futures), force=True)
        causes = [e for e in errors if not isinstance(e, ChannelClosedError | CancelledError)]
        restarted = [e for e in causes if isinstance(e, CardRestartedError)]
        others = [e for e in causes if not isinstance(e, CardRestartedError)]
        return next(iter([*others, *restarted]), err)

    def cancel(self, number: int | None = None) -> None:
        """Raise the flag that every card looks at; without a number, cancel whatever runs."""
        if number is None:
            number = next(self._numbers)
        with contextlib.suppress(OSError, TimeoutError):
            self._client.run(tasks.cancel, self._name, number, on_error="ignore")

    @contextlib.contextmanager
    def _lease(self) -> Iterator[None]:
        """Hold every worker of a shared cluster; always in one order, so that no two wait in a ring."""
        if self._embedded:
            yield
            return
        with contextlib.ExitStack() as stack:
            for address in sorted(self.addresses):
                lock = Semaphore(
                    1, f"distinfer-{address}", scheduler_rpc=self._client.scheduler, loop=self._client.loop
                )
                stack.enter_context(lock)
            yield

    @contextlib.contextmanager
    def _few_threads(self) -> Iterator[None]:
        """In-process cards share this process's BLAS threads; the same number as process cards have."""
        if self._processes or self.epoch is None:
            yield
            return
        with self._blas.limit(limits=self.epoch.threads):
            yield
