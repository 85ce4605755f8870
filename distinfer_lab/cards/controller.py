"""The controller of a card group: its cluster, its one thread that talks to it, and its end.

::

    CardGroup(...)   a cluster, embedded or given -> versions, workers -> every worker a card
    start(work)      in the owner thread, one after another; a Run at once
    close()          work is stopped, the cards are let go, an embedded cluster ends

What a script leaves open is closed when the interpreter ends.
"""

import atexit
import contextlib
import dataclasses
import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

from distributed import Client

from ..comm import Origin
from ..display import Displayed, counted
from ..errors import ArgumentTypeError, CardError, ContextError
from ..sizes import size_of
from . import cluster, tasks
from .dask_patches import leave_to_parent
from .gang import Gangs
from .owner import Owner
from .private_folder import holds_sockets, private_folder
from .quiet import silent
from .records import GroupMemory, GroupTerms
from .recovery import Recovery
from .room import Room
from .run import Run
from .store import CardRestartedError

__all__ = ["Controller"]

_used_dask: list[Origin] = []
"""The process that made the first group: a fork of it has none of the threads that Dask keeps for all clusters."""
_still_open: "weakref.WeakSet[Controller]" = weakref.WeakSet()


class Controller(Displayed):
    """What drives the cards of a group (see `CardGroup` for the parameters)."""

    def __init__(
        self,
        cards: int | None = None,
        *,
        processes: bool = False,
        address: str | None = None,
        client: Client | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
        security: Any = None,
        card_memory: int | str | None = None,
        replace_seconds: float = 60.0,
    ) -> None:
        self._origin = Origin("card group")
        _used_dask.append(Origin("copy of Dask"))
        _used_dask[0].check()
        del _used_dask[1:]
        given = cluster.Given(address, client, scheduler_file, security)
        _check_arguments(cards, processes, given)
        self.embedded = not given
        self.processes = processes or not self.embedded
        self._terms = GroupTerms(
            f"distinfer-{uuid.uuid4().hex[:12]}",
            (os.uname().nodename, os.getpid()),
            self.embedded,
            self.processes,
            _seconds(replace_seconds),
            None if card_memory is None else size_of(card_memory, "card_memory"),
        )
        self._owns_client = client is None
        with contextlib.ExitStack() as stack:
            self._client = cluster.attach(given) if given else self._embed(cards or 1, processes, stack)
            self._until_closed = stack.pop_all()
        self._owner = Owner()
        self._at_work = Run()
        self._programs: dict[str, Any] = {}
        self._closed = self._opened = False
        _still_open.add(self)
        try:
            self._open(cards)
        except BaseException:
            self.close()
            raise

    def _embed(self, cards: int, processes: bool, stack: contextlib.ExitStack) -> Client:
        """A client of a new cluster; what is to be left at its end goes on the stack."""
        stack.enter_context(silent())
        folder = stack.enter_context(private_folder())
        if processes and holds_sockets(folder):
            self._terms = dataclasses.replace(self._terms, folder=str(folder))
        return cluster.embed(cards, processes, folder)

    def _open(self, cards: int | None) -> None:
        """Make the workers cards.

        Raises
        ------
        CardError
            That names the worker or scheduler which is lost meanwhile.
        """
        address = self._client.scheduler.address
        try:
            if not self.embedded:
                cluster.warn_if_open(self._client)
            with contextlib.suppress(TimeoutError):  # too few of them have a text of their own
                self._client.wait_for_workers(cards or 1, timeout=60 if self.embedded else 5)
            addresses = cluster.ranked_addresses(self._client, cards)
            cluster.check_versions(self._client, addresses)
            self._gangs = Gangs(self._client, self._terms, addresses, self._mark_lost)
        except (OSError, TimeoutError, RuntimeError, ValueError, futures.CancelledError) as err:
            if isinstance(err, CardError):
                raise
            raise CardError(
                f"the scheduler at {address} was lost while the card group opened ({type(err).__name__}: {err}); "
                "start it again, and make a new CardGroup"
            ) from err
        self._recovery = Recovery(self._gangs)
        self._room = Room(self._terms.card_bytes, self._recovery.placements, self._given_workers)
        self._opened = True
        self.repeated(lambda run: None if self._gangs.epoch else self._gangs.join(run))

    def __len__(self) -> int:
        return len(self._gangs.addresses)

    def __repr__(self) -> str:
        if self._closed:
            return "CardGroup(closed)"
        where = "in processes" if self.processes else "in this process"
        if not self.embedded:
            where = "of a given cluster"
        return f"CardGroup({counted(len(self), 'card')} {where})"

    @property
    def client(self) -> Client:
        """The Dask client behind the group.

        Another client of an embedded cluster of processes needs this one's certificate:
        `Client(cards.client.scheduler.address, security=cards.client.security)`.
        """
        self._origin.check()
        return self._client

    @property
    def placement_keys(self) -> frozenset[str]:
        """The placements that are on the cards."""
        return frozenset() if self._closed else frozenset(self._recovery.placements)

    def close(self) -> None:
        """Forget all shards, and end the cluster if it is an embedded one. May be called twice.

        In a child made by fork it does nothing: the group is its parent's.
        """
        if self._closed or not self._origin.is_here:
            return
        self._closed = self._at_work.cancelled = True
        _still_open.discard(self)
        self._owner.close()
        if self._opened:
            self._gangs.close()
        if self.embedded:
            owned = self._client.cluster
            self._client.close()
            owned.close()
        elif self._owns_client:
            self._client.close()
        self._until_closed.close()

    def start(self, work: Callable[[Run], Any]) -> Run:
        """Begin work in the owner thread; gives a handle at once."""
        self._origin.check()
        if self._closed:
            raise CardError("the card group is closed; make a new one")
        run = Run()
        run.bind(self._owner.submit(self._carry_out, run, work))
        return run

    def _carry_out(self, run: Run, work: Callable[[Run], Any]) -> Any:
        self._at_work = run
        return run.carry_out(work)

    def wait_for(self, work: Callable[[Run], Any]) -> Any:
        """Do work in the owner thread and wait for it; an interrupt cancels it."""
        if self._owner.is_here:
            return work(self._at_work)
        return self.start(work).result()

    def repeated(self, work: Callable[[Run], Any]) -> Any:
        """Do work that may be done twice, in the owner thread; when a card was lost on the way, once more."""
        return self.wait_for(lambda run: self._recovery.repeat(lambda: work(run), run))

    def memory(self) -> GroupMemory:
        """What every card holds, and the most it held, in bytes."""
        members = self._gangs.members
        try:
            found = members.ask(tasks.memory, self._terms.name)
        except CardRestartedError:
            found = self.repeated(lambda run: members.ask(tasks.memory, self._terms.name))
        return GroupMemory(tuple(found))

    def sees(self, paths: Sequence[str]) -> bool:
        """Whether every card sees the same files under these paths as this process does."""
        found: list[set[str]] = self.repeated(lambda run: self._seen(paths))
        return all(len(seen) == len(set(paths)) for seen in found)

    def _seen(self, paths: Iterable[str]) -> list[set[str]]:
        """For each card which of these files it sees as this process does; part of work that is repeated."""
        asked = tuple(dict.fromkeys(paths))
        here = tasks.sees(asked)
        there = self._gangs.members.ask(tasks.sees, asked)
        return [
            {path for path in asked if here[path] is not None and seen[path] == here[path]} for seen in there
        ]

    def _given_workers(self) -> list[Mapping[str, Any]]:
        """What the scheduler of a given cluster knows of each card's worker."""
        there = {} if self.embedded else self._gangs.members.workers()
        return [there.get(address, {}) for address in self._gangs.addresses] if there else []

    def _mark_lost(self, ranks: list[int]) -> None:
        """These cards restarted: they hold nothing of any placement, and no program."""
        self._recovery.mark_lost(ranks)
        self._programs.clear()


def _check_arguments(cards: int | None, processes: bool, given: cluster.Given) -> None:
    if cards is not None and (not isinstance(cards, int) or isinstance(cards, bool)):
        raise ArgumentTypeError(f"cards is a number of cards, not {cards!r}")
    if cards is not None and cards < 1:
        raise ContextError(f"cards={cards}: a group has at least 1 card")
    given.check()
    if processes and given:
        raise ContextError(
            "processes=True is for an embedded cluster; a given one has the workers that it has"
        )
    if cards is None and not given:
        raise ContextError("how many cards? Write CardGroup(8), or give the address of a Dask scheduler")


def _seconds(value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ArgumentTypeError(f"replace_seconds is a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ContextError(f"replace_seconds={value!r} is not 0 or more seconds, and finite")
    return float(value)


def _close_all() -> None:
    """Close what a script left open, before Dask closes the clusters under it."""
    for group in list(_still_open):
        group.close()


atexit.register(_close_all)


def _leave_all_to_parent() -> None:
    for group in list(_still_open):
        if group.embedded:
            leave_to_parent(group._client.cluster)
    _still_open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
