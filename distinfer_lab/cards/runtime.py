"""What drives the cards of a group: their cluster, the one thread that talks to it, and its end.

::

    open_runtime(...)   a cluster, embedded or given -> versions, workers -> every worker a card
    start(work)         work in the group's thread, one piece after another; returns a Run at once
    close()             work is stopped, the cards are released, an embedded cluster ends

What a script leaves open is closed when the interpreter ends.
"""

import atexit
import contextlib
import functools
import os
import uuid
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import TypeVar

from distributed import Client

from ..comm import Origin
from ..errors import CardError
from . import cluster, tasks
from .dask_logging import silent
from .gang import Gangs
from .membership import Membership
from .memory_check import MemoryCheck
from .private_folder import holds_sockets, private_folder
from .programs import Programs
from .records import GroupTerms
from .recovery import Recovery
from .run import Run
from .serial_executor import SerialExecutor
from .serving import Server

__all__ = ["CardRuntime", "open_runtime"]

T = TypeVar("T")

_still_open: "weakref.WeakSet[CardRuntime]" = weakref.WeakSet()


class CardRuntime:
    """The cards of one group and what drives them.

    `CardGroup`, `Resharding` and the functions of `health` hold one and work through it.

    Parameters
    ----------
    terms
        Of the group.
    client
        Of its cluster.
    membership
        The workers behind the cards.
    until_closed
        What ends with the group: its cluster, its client, its folder.

    Attributes
    ----------
    membership, gangs, recovery, programs, memory_check, server
        The workers; tasks on all of them at once; the placements through losses; the programs that the cards
        keep; the check of their memory; what this process sends them of files that none of them sees.
    closed
        Whether the group was closed.
    """

    def __init__(
        self, terms: GroupTerms, client: Client, membership: Membership, until_closed: contextlib.ExitStack
    ) -> None:
        self.terms, self.membership = terms, membership
        self.gangs = Gangs(client, terms, membership, self._mark_lost)
        self.recovery = Recovery(self.gangs)
        self.programs = Programs(membership, terms.name)
        self.memory_check = MemoryCheck(terms.card_bytes, self.recovery.placements, membership.given_workers)
        self.server = Server(client)
        self.closed = False
        self._client, self._until_closed = client, until_closed
        self._origin = Origin("card group")
        self._thread = SerialExecutor()
        self._at_work: Run[object] = Run()
        until_closed.callback(self.gangs.close)
        until_closed.callback(self.server.close)
        until_closed.callback(self._thread.close)
        _still_open.add(self)

    def __len__(self) -> int:
        return len(self.membership.addresses)

    @property
    def client(self) -> Client:
        """The Dask client behind the group.

        Raises
        ------
        CardError
            In a child made by fork.
        """
        self._origin.check()
        return self._client

    def check_open(self) -> None:
        """Refuse a group that was closed.

        Raises
        ------
        CardError
            If it was.
        """
        if self.closed:
            raise CardError("the card group is closed; make a new one")

    def close(self) -> None:
        """Stop all work and release the cards. May be called twice.

        In a child made by fork it does nothing: the group is its parent's.
        """
        if self.closed or not self._origin.is_here:
            return
        self.closed = self._at_work.cancelled = True
        self.gangs.leave()
        _still_open.discard(self)
        self._until_closed.close()

    def start(self, work: Callable[[Run[object]], T]) -> Run[T]:
        """Begin work in the group's thread; returns a handle at once."""
        self._origin.check()
        self.check_open()
        run: Run[T] = Run()
        run.bind(self._thread.submit(self._carry_out, run, work))
        return run

    def _carry_out(self, run: Run[T], work: Callable[[Run[object]], T]) -> T:
        self._at_work = run
        return run.carry_out(work)

    def wait_for(self, work: Callable[[Run[object]], T]) -> T:
        """Do work in the group's thread and wait for it; an interrupt cancels it."""
        if self._thread.is_here:
            return work(self._at_work)
        return self.start(work).result()

    def repeated(self, work: Callable[[Run[object]], T]) -> T:
        """Do work that may be done twice; if a card is lost on the way, it is done again."""
        return self.wait_for(lambda run: self.recovery.repeat(lambda: work(run), run))

    def seen(self, paths: Iterable[str]) -> list[set[str]]:
        """For each card which of these files it sees as this process does; part of work that is repeated."""
        asked = tuple(dict.fromkeys(paths))
        here = tasks.sees(asked)
        there = self.membership.ask(tasks.sees, asked)
        return [
            {path for path in asked if here[path] is not None and seen[path] == here[path]} for seen in there
        ]

    def _mark_lost(self, ranks: list[int]) -> None:
        """These cards restarted: they hold nothing of any placement, and no program."""
        self.recovery.mark_lost(ranks)
        self.programs.clear()


def open_runtime(
    given: cluster.Given,
    cards: int | None,
    *,
    processes: bool,
    card_bytes: int | None,
    replace_seconds: float,
) -> CardRuntime:
    """Make the workers of a cluster cards: of the given one, or of a new one.

    Parameters
    ----------
    cards
        How many; None for all workers of a given cluster.
    processes, card_bytes, replace_seconds
        See `CardGroup`.

    Raises
    ------
    CardError
        If the cluster cannot be had or is too small, or naming the worker or scheduler that is lost meanwhile.
    """
    _first_use().check()
    with contextlib.ExitStack() as stack:
        client, folder = _attached(given, stack) if given else _embedded(cards or 1, processes, stack)
        terms = GroupTerms(
            f"distinfer-{uuid.uuid4().hex[:12]}",
            (os.uname().nodename, os.getpid()),
            not given,
            processes or bool(given),
            replace_seconds,
            card_bytes,
            folder,
        )
        runtime = CardRuntime(terms, client, _membership(client, terms, cards), stack.pop_all())
    try:
        runtime.repeated(lambda run: None if runtime.gangs.epoch else runtime.gangs.join(run))
    except BaseException:
        runtime.close()
        raise
    return runtime


@functools.cache
def _first_use() -> Origin:
    """The process that made the first group: a fork of it has none of the threads that Dask has for all clusters."""
    return Origin("copy of Dask")


def _attached(given: cluster.Given, stack: contextlib.ExitStack) -> tuple[Client, None]:
    """A client of a given cluster; what is to be closed at the end goes on the stack."""
    client = cluster.attach(given)
    if given.client is None:
        stack.callback(client.close)
    cluster.warn_if_open(client)
    return client, None


def _embedded(cards: int, processes: bool, stack: contextlib.ExitStack) -> tuple[Client, str | None]:
    """A client of a new cluster, and the folder of its cards' sockets; their ends go on the stack."""
    stack.enter_context(silent())
    folder = stack.enter_context(private_folder())
    client = cluster.embed(cards, processes, folder)
    stack.callback(client.cluster.close)
    stack.callback(client.close)
    return client, str(folder) if processes and holds_sockets(folder) else None


def _membership(client: Client, terms: GroupTerms, cards: int | None) -> Membership:
    """The workers that will be cards, in rank order; all of them run what the controller runs."""
    address = client.scheduler.address
    try:
        with contextlib.suppress(TimeoutError):  # too few of them have an error of their own
            client.wait_for_workers(cards or 1, timeout=60 if terms.embedded else 5)
        addresses = cluster.ranked_addresses(client, cards)
        cluster.check_versions(client, addresses)
        return Membership(client, terms, addresses)
    except (OSError, TimeoutError, RuntimeError, ValueError, futures.CancelledError) as err:
        if isinstance(err, CardError):
            raise
        raise CardError(
            f"the scheduler at {address} was lost while the card group opened ({type(err).__name__}: {err}); "
            "start it again, and make a new CardGroup",
            of=err,
        ) from err


def _close_all() -> None:
    """Close what a script left open, before Dask closes the clusters under it."""
    for runtime in list(_still_open):
        runtime.close()


atexit.register(_close_all)
