"""One card's channels to the others of its group: what programs and reshards call."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CardError
from . import collectives
from .in_process import InProcessTransport
from .listener import Dialer, Listener, all_here
from .peers import Epoch
from .sockets import SocketTransport

__all__ = ["Channels", "Counted"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Shaped = tuple[Shape, np.dtype[Any]]


class Counted(NamedTuple):
    """What one kind of call has come to."""

    calls: int
    sent_bytes: int
    """To other cards, without the heads of frames."""


class _Counting:
    """Around each call of one kind: counts it, and the bytes that it sends, if it ends well."""

    def __init__(self, transport: "InProcessTransport | SocketTransport") -> None:
        self.so_far = Counted(0, 0)
        self._transport, self._before = transport, 0

    def __enter__(self) -> None:
        self._before = self._transport.sent_bytes

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None:
            calls, nbytes = self.so_far
            self.so_far = Counted(calls + 1, nbytes + self._transport.sent_bytes - self._before)


class Channels:
    """One card's channels to the others, for one epoch of its group.

    All cards of a group call the same with the same group at the same place of their work. An array that
    was sent is not written to any more while a receiver may look at it, for cards of one process hand over
    views: so what is received may be an array that cannot be written to. A sum, and what was received in
    place, is the card's own.

    Parameters
    ----------
    rank
        This card.
    epoch
        The group.
    listener
        This card's endpoint.
    check
        Raises when the run was cancelled; called at least every 50 ms while this card waits.

    Notes
    -----
    Each of these raises CardError if a card goes away (then it is a ChannelClosedError, which names the
    card) or sends something else than this card expects.
    """

    def __init__(
        self, rank: int, epoch: Epoch, listener: Listener | Dialer, check: Callable[[], None]
    ) -> None:
        self.rank, self.epoch = rank, epoch
        self._sockets = SocketTransport(rank, epoch, listener, check)
        here = not listener.sockets_only and all_here(epoch)
        self._transport = InProcessTransport(rank, epoch, check) if here else self._sockets
        self._counting: defaultdict[str, _Counting] = defaultdict(lambda: _Counting(self._transport))
        self._ascending: dict[Sequence[int], list[int]] = {}

    @property
    def sent_bytes(self) -> int:
        """Bytes that this card has sent to others so far."""
        return self._sockets.sent_bytes + (
            0 if self._transport is self._sockets else self._transport.sent_bytes
        )

    @property
    def waited_seconds(self) -> float:
        """How long this card has waited for others so far."""
        return self._sockets.waited_seconds + (
            0 if self._transport is self._sockets else self._transport.waited_seconds
        )

    def counted(self) -> dict[str, Counted]:
        """What each kind of call has come to so far: "all_reduce" -> calls and bytes sent, and so on.

        "exchange" is both kinds of it; feeds are in no count but `sent_bytes`.
        """
        return {kind: found.so_far for kind, found in self._counting.items() if found.so_far.calls}

    def all_reduce(self, array: Array, group: Sequence[int]) -> Array:
        """The sum of the arrays of a group of cards, added in rank order on every element."""
        with self._counting["all_reduce"]:
            return collectives.all_reduce(self._transport, array, self._in_order(group))

    def all_gather(self, array: Array, group: Sequence[int], shapes: Sequence[Shape]) -> list[Array]:
        """The arrays of all of a group, in the group's order.

        Parameters
        ----------
        shapes
            Of everyone's array, in the group's order; they may differ.
        """
        members = self._members(group)
        with self._counting["all_gather"]:
            found = collectives.all_to_all(
                self._transport, dict.fromkeys(members, array), dict(zip(members, shapes, strict=True))
            )
        return [found[rank] for rank in members]

    def reduce_scatter(self, parts: Sequence[Array], group: Sequence[int]) -> Array:
        """The sum, in rank order, of everyone's part for this card; `parts[i]` is for `group[i]`."""
        members = self._members(group)
        with self._counting["reduce_scatter"]:
            return collectives.reduce_scatter(
                self._transport, dict(zip(members, parts, strict=True)), self._in_order(group)
            )

    def all_to_all(
        self, parts: Sequence[Array], group: Sequence[int], shapes: Sequence[Shape]
    ) -> list[Array]:
        """Everyone's part for this card, in the group's order.

        Parameters
        ----------
        parts
            `parts[i]` goes to `group[i]`; all of one dtype.
        shapes
            `group[i]` sends this card an array of `shapes[i]`.
        """
        members = self._members(group)
        with self._counting["all_to_all"]:
            found = collectives.all_to_all(
                self._transport,
                dict(zip(members, parts, strict=True)),
                dict(zip(members, shapes, strict=True)),
            )
        return [found[rank] for rank in members]

    def broadcast(
        self, array: Array | None, root: int, group: Sequence[int], shape: Shape, dtype: np.dtype[Any]
    ) -> Array:
        """The array of rank `root`, on all of a group; the others give None."""
        members = self._members(group)
        with self._counting["broadcast"]:
            return collectives.broadcast(self._transport, array, root, members, (shape, dtype))

    def send(self, array: Array, peer: int) -> None:
        """Send an array to a card, which takes it by `recv`."""
        with self._counting["send"]:
            self._transport.exchange({peer: array}, {})

    def recv(self, peer: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """What a card sends by `send`."""
        with self._counting["recv"]:
            return self._transport.exchange({}, {peer: (shape, dtype)})[peer]

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once.

        Parameters
        ----------
        sends
            Rank -> array. The receiver must expect exactly its bytes.
        receives
            Rank -> (shape, dtype) of what it sends.
        """
        with self._counting["exchange"]:
            return self._transport.exchange(sends, receives)

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same, in place: what comes is put into `outs`.

        Arrays on both sides may be parts of larger ones; what is not contiguous is copied in pieces of at most 4 MiB.
        """
        with self._counting["exchange"]:
            self._transport.exchange_into(sends, outs)

    def feed(self, peer: int, arrays: Iterator[Array]) -> None:
        """Send arrays to a card one after another, each made when the one before it has left.

        They go whenever this card waits for others, or calls `serve`; so what is in flight is one
        array and what the system buffers, however many there are.
        """
        self._sockets.feed(peer, arrays)

    def receive(self, peer: int, out: Array) -> None:
        """Take the next array of a card's feed into `out`; what this card feeds to others goes meanwhile."""
        self._sockets.receive(peer, out)

    def serve(self) -> None:
        """Send of all feeds what goes without waiting."""
        self._sockets.serve()

    def drain(self) -> None:
        """Wait until all feeds have been sent."""
        self._sockets.drain()

    def close(self) -> None:
        """Close all channels; cards that wait at the other end get a ChannelClosedError."""
        self._transport.close()
        self._sockets.close()

    def _members(self, group: Sequence[int]) -> list[int]:
        members = list(group)
        if self.rank not in members or len(set(members)) != len(members):
            raise CardError(
                f"card {self.rank} cannot take part in a collective of group {tuple(members)}: a group has every "
                "card once, this one too",
                rank=self.rank,
            )
        return members

    def _in_order(self, group: Sequence[int]) -> list[int]:
        """The members of a group, ascending."""
        if isinstance(group, list):
            return sorted(self._members(group))
        found = self._ascending.get(group)
        if found is None:
            found = self._ascending[group] = sorted(self._members(group))
        return found
