"""The state of the cards of a group, and the loss of a card on purpose, to see that it comes back.

::

    state_of(group)        who is there, at work, with how many bytes; waits for nobody long
    kill_card(group, 2)    its process ends, as by `kill -9`
    recover(group)         its place is taken and what it held is brought back, now and not at the next work
"""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..display import Displayed, counted, format_bytes
from ..errors import CardError
from . import tasks
from .group import CardGroup
from .records import CardMemory
from .recovery import ShardsLostError
from .run import Run
from .runtime import CardRuntime

__all__ = ["CardState", "GroupState", "kill_card", "recover", "state_of"]

ANSWER_SECONDS = 3.0
"""How long a card may take to answer before it counts as one that does not."""


class CardState(NamedTuple):
    """One card now."""

    rank: int
    there: bool
    """Whether its worker is known to the cluster, and is a card of the group."""
    busy: bool
    """Whether a task runs on it."""
    memory: CardMemory | None
    """What it holds, in bytes; None where it does not answer."""

    def __str__(self) -> str:
        if not self.there:
            return f"card {self.rank}: gone"
        doing = "at work" if self.busy else "idle"
        if self.memory is None:
            return f"card {self.rank}: {doing}, does not answer"
        held, peak = format_bytes(self.memory.held_bytes), format_bytes(self.memory.peak_bytes)
        return f"card {self.rank}: {doing}, holds {held}, held at most {peak}"


@dataclass(frozen=True, repr=False)
class GroupState(Displayed):
    """The cards of a group at one moment."""

    cards: tuple[CardState, ...]
    limit_bytes: int | None
    """The memory of a card, where the group was given one."""

    @property
    def gone(self) -> tuple[int, ...]:
        """The ranks whose card is not there."""
        return tuple(card.rank for card in self.cards if not card.there)

    def __repr__(self) -> str:
        return "\n".join(
            [f"GroupState of {counted(len(self.cards), 'card')}", *(f"  {card}" for card in self.cards)]
        )


def state_of(group: CardGroup) -> GroupState:
    """How the cards are now; does not wait for work that goes on, nor long for cards that are lost.

    Raises
    ------
    CardError
        If the group is closed, or the cluster's scheduler does not answer.
    """
    addresses = _addresses(group.runtime)
    cards = group.runtime
    there = cards.membership.workers()
    found = _answers(cards, tasks.memory, [a for a in addresses if a in there], cards.terms.name)
    processing: dict[str, object] = {}
    with contextlib.suppress(OSError, TimeoutError, RuntimeError, ValueError):
        processing = cards.client.processing()
    states = []
    for rank, address in enumerate(addresses):
        memory = found.get(address)
        is_card = address in there and not isinstance(memory, CardError)
        held = memory._replace(rank=rank) if isinstance(memory, CardMemory) else None
        states.append(CardState(rank, is_card, bool(processing.get(address)), held))
    return GroupState(tuple(states), cards.terms.card_bytes)


def kill_card(group: CardGroup, rank: int) -> None:
    """Lose a card on purpose: a process of its own is killed, an in-process one forgets all that it held.

    Raises
    ------
    CardError
        If the group has no such card, it is not there, or the cluster is a given one, whose workers are
        not ours to kill.
    """
    addresses = _addresses(group.runtime)
    if not 0 <= rank < len(addresses):
        raise CardError(f"card {rank}: the group has cards 0..{len(addresses) - 1}", rank=rank)
    if not group.embedded:
        raise CardError(
            f"card {rank} is a worker of a given cluster, which was not started by this group; stop it there",
            rank=rank,
        )
    if not group.processes:
        _answers(group.runtime, tasks.leave, [addresses[rank]], group.runtime.terms.name)
        return
    pid = _answers(group.runtime, os.getpid, [addresses[rank]]).get(addresses[rank])
    if not isinstance(pid, int):
        raise CardError(f"card {rank} does not answer; it is lost, or not replaced yet", rank=rank)
    os.kill(pid, signal.SIGKILL)


def recover(group: CardGroup, on_start: Callable[[Run[object]], None] = lambda run: None) -> None:
    """Fill the places of lost cards and bring back what they held, as the next work would.

    Parameters
    ----------
    on_start
        Called with the run, which can be cancelled.

    Raises
    ------
    CardError
        If no worker takes a place in time, what was lost cannot be had any more, or the run was cancelled.
    """
    cards = group.runtime
    cards.check_open()

    def work(run: Run[object]) -> None:
        cards.gangs.join(run)
        gone: list[ShardsLostError] = []
        for placement in list(cards.recovery.placements.values()):
            try:
                cards.recovery.ready(placement, run)
            except ShardsLostError as err:  # it does not keep the others from coming back
                gone.append(err)
        if gone:
            raise gone[0]

    run = cards.start(lambda run: cards.recovery.repeat(lambda: work(run), run))
    on_start(run)
    run.result()


def _addresses(cards: CardRuntime) -> list[str]:
    """The workers, in rank order."""
    cards.check_open()
    return list(cards.membership.addresses)


def _answers(
    cards: CardRuntime, task: Callable[..., Any], addresses: list[str], *args: Any
) -> dict[str, Any]:
    """What some workers answer, outside their tasks; those that do not answer soon are left out."""
    if not addresses:
        return {}
    return cards.membership.answers_of_each(task, *args, seconds=ANSWER_SECONDS, addresses=addresses)
