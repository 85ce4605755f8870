"""The cards of a group as they know each other: where each is reached, and one epoch of their membership."""

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Address", "Epoch", "Peer"]


class Address(NamedTuple):
    """Where a card is reached by the others."""

    host: str
    """A worker's interface, "this host" or "this process"; equal where cards may share memory."""
    port: int = 0
    """Or a number within this process."""
    path: str = ""
    """Of a Unix socket."""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class Peer(NamedTuple):
    """A card as the others of its group know it."""

    address: Address
    incarnation: str
    """A word that a card makes up when it starts: a restarted card is another card."""


@dataclass(frozen=True)
class Epoch:
    """One membership of the group: who is who, until a card is lost."""

    number: int
    nonce: bytes = field(repr=False)
    """32 random bytes that every channel opens with."""
    peers: tuple[Peer, ...]
    threads: int
    """BLAS threads of each card."""
