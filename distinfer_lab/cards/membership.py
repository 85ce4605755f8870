"""The workers behind the cards of a group: which are there, which are lost, and which replace them.

::

    there()    are all cards' workers known to the scheduler?           else CardRestartedError
    ask()      a call outside the tasks, on every card, with an answer  else CardRestartedError
    renew()    fill the places of lost workers, make every worker a card; waits up to a limit

On an embedded cluster a lost worker is started again by its nanny, under the same name. On a given
one any worker that is not a card of the group yet may take the place.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from distributed import Client

from ..comm import Origin, Peer
from ..errors import CardError
from . import cluster, tasks
from .records import GroupTerms
from .store import CardRestartedError
from .worker_calls import ANSWER_SECONDS, NO_ANSWER, answers_of_each, answers_within, is_silent

__all__ = ["CardGoneError", "Membership"]

TELL_SECONDS = 1.0
"""How long to wait for workers that need not answer."""
PAUSE_SECONDS = 0.05
"""Between two looks for a worker that is awaited."""


class CardGoneError(CardError):
    """A worker left, and none took its place in time."""


class Membership:
    """The workers of one group, in rank order.

    Parameters
    ----------
    client
        Of the cluster.
    terms
        Of the group.
    addresses
        The first workers.
    """

    def __init__(self, client: Client, terms: GroupTerms, addresses: list[str]) -> None:
        self.addresses = addresses
        self._origin = Origin("card group")
        self._client, self._terms = client, terms
        self._where = f" at {client.scheduler.address}" if terms.processes else ""
        there = self.workers()
        self._names = [str(there.get(address, {}).get("name")) for address in addresses]
        self._anchors: dict[str, Any] = {}
        self._unfit: dict[str, str] = {}

    def workers(self) -> Mapping[str, Any]:
        """Address -> what the scheduler knows of the worker.

        Raises
        ------
        CardError
            If the scheduler does not answer, or this is a child made by fork.
        """
        self._origin.check()
        if self._client.status == "running":
            with contextlib.suppress(OSError, TimeoutError, RuntimeError, ValueError):
                return cluster.workers_of(self._client)
        raise CardError(
            f"the cluster's scheduler{self._where} can no longer be reached; start it again, and "
            "make a new CardGroup"
        )

    def given_workers(self) -> list[Mapping[str, Any]]:
        """What a given cluster's scheduler knows of each card's worker, in rank order; none of an embedded one's."""
        there = {} if self._terms.embedded else self.workers()
        return [there.get(address, {}) for address in self.addresses] if there else []

    def missing(self) -> list[int]:
        """The ranks whose worker is not there."""
        there = self.workers()
        return [rank for rank, address in enumerate(self.addresses) if address not in there]

    def watch(self) -> None:
        """Make sure that every card's worker is there and works: a task for one that is not would wait for ever.

        Raises
        ------
        CardRestartedError
            If one is lost.
        CardError
            If Dask has paused one.
        """
        there = self.workers()
        for rank, address in enumerate(self.addresses):
            if address not in there:
                raise lost(rank, address)
            if there[address].get("status") == "paused":
                raise CardError(
                    f"card {rank} ({address}) is paused by Dask, as its process is close to the worker's memory "
                    f"limit of {there[address].get('memory_limit')} bytes; start workers with --memory-limit 0, or "
                    "shard the net over more cards",
                    rank=rank,
                )

    def ask(self, task: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function on every card, outside its tasks; returns the answers in rank order.

        Raises
        ------
        CardRestartedError
            If a card's worker is not there, or does not answer.
        """
        self.watch()
        found = self.answers_of_each(task, *args, seconds=ANSWER_SECONDS)
        out = []
        for rank, address in enumerate(self.addresses):
            answer = found.get(address, NO_ANSWER)
            if is_silent(answer):
                raise lost(rank, address, answer)
            if isinstance(answer, BaseException):
                raise answer
            out.append(answer)
        return out

    def tell(self, task: Callable[..., Any], *args: Any) -> None:
        """Call a function on the cards that are there; what does not answer soon is left alone."""
        with contextlib.suppress(CardError):
            there = self.workers()
            mine = [a for a in self.addresses if a in there]
            self.answers(task, *args, seconds=TELL_SECONDS, addresses=mine)

    def answers(
        self, task: Callable[..., Any], *args: Any, seconds: float, addresses: list[str] | None = None
    ) -> dict[str, Any]:
        """What some cards, by default all, answer in time; see `worker_calls.answers_within`.

        Raises
        ------
        CardError
            In a child made by fork.
        """
        self._origin.check()
        workers = self.addresses if addresses is None else addresses
        return answers_within(self._client, task, args, seconds, workers)

    def answers_of_each(
        self, task: Callable[..., Any], *args: Any, seconds: float, addresses: list[str] | None = None
    ) -> dict[str, Any]:
        """What some cards, by default all, answer; those that do not answer in time are left out.

        Raises
        ------
        CardError
            In a child made by fork.
        """
        self._origin.check()
        workers = self.addresses if addresses is None else addresses
        return answers_of_each(self._client, task, args, seconds, workers)

    def renew(self, check: Callable[[], None]) -> tuple[Peer, ...]:
        """Let other workers take the places of lost ones, and make every worker a card.

        Parameters
        ----------
        check
            Called while this waits for a worker; what it raises ends the wait.

        Raises
        ------
        CardGoneError
            If no worker comes in time.
        """
        deadline = time.monotonic() + self._terms.replace_seconds
        pause = threading.Event()
        while True:
            check()
            try:
                vacant = self._fill_places()
                if vacant:
                    raise lost(vacant[0], self.addresses[vacant[0]])
                peers = tuple(self.ask(tasks.admit, self._terms))
            except CardRestartedError as err:
                if time.monotonic() > deadline:
                    raise self._gone(err) from None
                pause.wait(PAUSE_SECONDS)
            else:
                self._hold()
                return peers

    def _gone(self, err: CardRestartedError) -> CardGoneError:
        unfit = "".join(f". {text}" for text in self._unfit.values())
        return CardGoneError(
            f"{err}, and no worker took its place within {self._terms.replace_seconds:g} seconds; start a worker and "
            f"try again, or give CardGroup(..., replace_seconds=...) more time{unfit}"
        )

    def _fill_places(self) -> list[int]:
        """Put workers into the places of lost ones; returns the ranks that stay vacant."""
        there = self.workers()
        vacant = [rank for rank, address in enumerate(self.addresses) if address not in there]
        free = {
            address: str(info.get("name"))
            for address, info in there.items()
            if vacant and address not in self.addresses and info.get("status") == "running"
        }
        for rank in list(vacant):
            mine = [a for a, name in free.items() if name == self._names[rank]]
            for address in mine if self._terms.embedded else [*mine, *(a for a in free if a not in mine)]:
                if self._is_fit(address):
                    self.addresses[rank], self._names[rank] = address, free.pop(address)
                    vacant.remove(rank)
                    break
        return vacant

    def _is_fit(self, address: str) -> bool:
        if address not in self._unfit and not self._terms.embedded:
            try:
                cluster.check_versions(self._client, [address])
            except CardRestartedError:
                return False
            except CardError as err:
                self._unfit[address] = str(err)
            except OSError:
                return False
        return address not in self._unfit

    def _hold(self) -> None:
        """Have Dask keep a result on every card of a shared cluster, which it drops when this client is gone."""
        if self._terms.embedded:
            return
        self._anchors = {a: future for a, future in self._anchors.items() if a in self.addresses}
        for address in self.addresses:
            if address not in self._anchors:
                key = f"anchor-{self._terms.name}-{address}"
                self._anchors[address] = self._client.submit(
                    tasks.anchor, key=key, pure=False, workers=[address], allow_other_workers=False
                )

    def dismiss(self) -> None:
        """Let all workers go; what they hold for the group is forgotten."""
        self.tell(tasks.leave, self._terms.name)
        self._anchors.clear()


def lost(rank: int, address: str, why: object = "") -> CardRestartedError:
    """The error for a card whose worker is gone."""
    reason = f" ({why})" if str(why) else ""
    return CardRestartedError(f"card {rank} ({address}) was lost{reason}, and its shards with it", rank=rank)
