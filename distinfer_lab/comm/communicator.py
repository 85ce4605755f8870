"""What connects the cards that run one program: collectives over groups of ranks, and messages."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Communicator"]

Array = NDArray[Any]
Shape = tuple[int, ...]


class Communicator(Protocol):
    """What connects a card to the others.

    All cards of a group call the same collective with the same group at the same place of their
    programs. An array that was sent is not written to any more, for cards of one process hand over views;
    so what is received may be an array that cannot be written to.
    """

    sent_bytes: int
    """Bytes that this card has sent to others so far."""
    waited_seconds: float
    """How long this card has waited for others so far."""

    def all_reduce(self, array: Array, group: Sequence[int]) -> Array:
        """The sum over the ranks of `group`, added in rank order on every element."""

    def all_gather(self, array: Array, group: Sequence[int], shapes: Sequence[Shape]) -> list[Array]:
        """The arrays of all of `group`, in the group's order; `shapes` are theirs, and may differ."""

    def reduce_scatter(self, parts: Sequence[Array], group: Sequence[int]) -> Array:
        """The sum, in rank order, of everyone's part for this card; `parts[i]` is for `group[i]`."""

    def all_to_all(
        self, parts: Sequence[Array], group: Sequence[int], shapes: Sequence[Shape]
    ) -> list[Array]:
        """Everyone's part for this card; `parts[i]` goes to `group[i]`, which sends `shapes[i]`."""

    def broadcast(
        self, array: Array | None, root: int, group: Sequence[int], shape: Shape, dtype: np.dtype[Any]
    ) -> Array:
        """The array of rank `root`, on all of `group`; only the root passes one."""

    def send(self, array: Array, peer: int) -> None:
        """Send an array to a card, which receives it by `recv`."""

    def recv(self, peer: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """What a card sends by `send`."""

    def exchange(
        self, sends: Mapping[int, Array], receives: Mapping[int, tuple[Shape, np.dtype[Any]]]
    ) -> Mapping[int, Array]:
        """Send an array to each of some ranks, receive one of known shape and dtype from each of some."""

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """Send an array to each of some ranks, receive one from each of some into `outs`, in place.

        Arrays on both sides may be parts of larger ones; what is not contiguous is copied in bounded pieces.
        """
