"""What the controller and the cards say to each other, and what they report; all frozen, all small."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted, show

__all__ = ["CardMemory", "GroupMemory", "GroupTerms", "Ticket"]


@dataclass(frozen=True)
class GroupTerms:
    """What a group of cards agrees on when it is made."""

    name: str
    """Its own name; its stores are known by it."""
    controller: tuple[str, int]
    """Host and process of the controller, to tell in-process cards from others."""
    embedded: bool
    """The cluster is the group's alone."""
    processes: bool
    """The workers are processes of their own."""
    replace_seconds: float
    """How long to wait for a worker in place of one that was lost."""
    card_bytes: int | None
    """The memory of each card for shards, working values and buffers; None where none is declared."""
    folder: str | None = None
    """Where cards that are processes of one host have their Unix sockets; None where they have none."""


class Ticket(NamedTuple):
    """What a task must show before it may touch a card's store."""

    store: str
    """The name under which the card keeps this group's store."""
    rank: int
    epoch: int
    incarnation: str
    run: int
    """The number of the gang that the task belongs to; cancelling names it."""


class CardMemory(NamedTuple):
    """What one card holds, and the most that it held."""

    rank: int
    held_bytes: int
    """Bytes of the shards in the card's store now."""
    peak_bytes: int
    """The most bytes of shards, working values and buffers that were counted at one time."""
    private_bytes: int | None
    """Most bytes of private memory above the idle worker; None for in-process cards, which share it."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return show(self)


@dataclass(frozen=True, repr=False)
class GroupMemory(Displayed):
    """The memory of every card, in bytes."""

    cards: tuple[CardMemory, ...]

    @property
    def held_bytes(self) -> NDArray[np.int64]:
        """Bytes of shards per card, int64, shape (cards,)."""
        return np.array([card.held_bytes for card in self.cards], np.int64)

    @property
    def peak_bytes(self) -> NDArray[np.int64]:
        """The most counted bytes per card, int64, shape (cards,)."""
        return np.array([card.peak_bytes for card in self.cards], np.int64)

    def __getitem__(self, rank: int) -> CardMemory:
        return self.cards[rank]

    def __len__(self) -> int:
        return len(self.cards)

    def __repr__(self) -> str:
        lines = [f"GroupMemory of {counted(len(self.cards), 'card')}, in bytes"]
        for card in self.cards:
            private = "" if card.private_bytes is None else f"  private peak {card.private_bytes}"
            lines.append(f"  card {card.rank}  held {card.held_bytes}  peak {card.peak_bytes}{private}")
        return "\n".join(lines)

    def __iter__(self) -> Any:
        return iter(self.cards)
