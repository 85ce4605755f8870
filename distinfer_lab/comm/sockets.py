"""The transport between processes: one open socket per pair of cards, all served by one loop.

So two cards that send each other more than the system buffers cannot block each other. Where the cards
of a host share memory, large bodies go through it (see `frames`), and the sockets say what is where.
"""

import contextlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import listed
from .collectives import gather_by_messages, sum_in_order
from .frames import (
    FRAME,
    Expected,
    FrameStream,
    broken,
    check_head,
    closed,
    incoming,
    is_small,
    message_of,
    outgoing,
)
from .listener import WAIT_SECONDS, ChannelClosedError, Dialer, Listener
from .peers import Epoch
from .shared_memory import LocalPeer
from .windows import bytes_of

__all__ = ["SocketTransport"]

Array = NDArray[Any]
Shaped = tuple[tuple[int, ...], np.dtype[Any]]

WINDOW_BYTES = 4 << 20
"""The most that an exchange copies, at one time, of arrays that are not contiguous."""


class SendQueue:
    """Arrays that go to one card one after another."""

    def __init__(self, begin: Callable[[Array], FrameStream], arrays: Iterator[Array]) -> None:
        self._begin, self._arrays = begin, arrays
        self._stream: FrameStream | None = None

    @property
    def sock(self) -> socket.socket | None:
        """The socket of the array on its way; None between two arrays."""
        return None if self._stream is None else self._stream.sock

    def advance(self) -> bool:
        """Send what goes without waiting, at most one array; True when all are sent."""
        if self._stream is None:
            array = next(self._arrays, None)
            if array is None:
                return True
            self._stream = self._begin(array)
        if self._stream.advance(sending=True):
            self._stream = None
        return False


@dataclass(eq=False)
class _Peer:
    """An open connection to another card, and how many arrays went through it."""

    rank: int
    sock: socket.socket
    local_peer: LocalPeer | None
    sent: int = 0
    received: int = 0


class _Naming:
    """Around work with sockets: the error of a closed one names all that are closed by now.

    Whoever meets a closed channel closes its own, so one that died is seldom the only one.
    """

    def __init__(self, peers: Mapping[int, _Peer]) -> None:
        self._peers = peers

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, err: BaseException | None, *trace: object) -> None:
        if isinstance(err, ChannelClosedError):
            gone = [f"card {rank}" for rank, peer in self._peers.items() if _is_closed(peer.sock)]
            raise ChannelClosedError(f"{err}; no longer connected: {listed(gone)}") from err


class SocketTransport:
    """One card's transport by sockets, to cards of other processes and hosts.

    Parameters
    ----------
    rank
        This card.
    epoch
        The group.
    listener
        This card's endpoint.
    check
        Raises when the run was cancelled; called whenever this card waits.
    """

    window_bytes = 2 << 20
    """The size of pieces in which a collective is fastest: what is added is still in the processor's cache."""

    def __init__(
        self, rank: int, epoch: Epoch, listener: Listener | Dialer, check: Callable[[], None]
    ) -> None:
        self.rank, self.epoch = rank, epoch
        self.sent_bytes, self.waited_seconds = 0, 0.0
        self._listener, self._check = listener, check
        self._peers: dict[int, _Peer] = {}
        self._naming = _Naming(self._peers)
        self._queues: dict[int, SendQueue] = {}
        self._fed = itertools.count(-1, -1)

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once."""
        outs = {peer: np.empty(*shaped) for peer, shaped in receives.items()}
        self.exchange_into(sends, outs)
        return outs

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same, in place."""
        if self._goes_straight(sends, outs):
            self._swap(sends, outs)
            return
        self._exchange(sends, [self._expected(peer, out.shape, out.dtype, out) for peer, out in outs.items()])

    def sum_small(self, array: Array, ranks: Sequence[int]) -> Array:
        """The sum of the arrays of all, added in the order of `ranks`."""
        return sum_in_order(gather_by_messages(self, array, ranks), np.empty(array.shape, array.dtype))

    @contextlib.contextmanager
    def borrow(
        self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]
    ) -> Iterator[dict[int, Array]]:
        """The same, but what is received is there within the context only."""
        expected = [self._expected(peer, *shaped) for peer, shaped in receives.items()]
        self._exchange(sends, expected)
        yield {one.peer: one.array for one in expected if one.array is not None}
        for one in expected:
            one.release()

    def _exchange(self, sends: Mapping[int, Array], receives: Sequence[Expected]) -> None:
        outs = [one.array for one in receives if one.array is not None]
        apart = sum(not array.flags.c_contiguous for array in (*sends.values(), *outs))
        window = WINDOW_BYTES // max(apart, 1)
        if self._listener.outbox is not None:
            self._listener.outbox.begin()
        self._serve(
            [self._outgoing(peer, array, window, id(array)) for peer, array in sends.items()],
            [self._incoming(expected, window) for expected in receives],
        )

    def _goes_straight(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> bool:
        """Whether small messages are all that is to be sent and received."""
        if self._queues or self._listener.has_tls:
            return False
        for array in sends.values():
            if not is_small(array.nbytes):
                return False
        return all(is_small(out.nbytes) and out.flags.c_contiguous for out in outs.values())

    def _swap(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same for small messages: one call of the system for each, which wakes its receiver once."""
        left = []
        with self._naming:
            for rank, array in sends.items():
                peer = self._peer(rank)
                message = message_of(array, peer.sent)
                peer.sent += 1
                self.sent_bytes += array.nbytes
                count = _send_now(peer, message)
                if count < len(message):
                    left.append(FrameStream(rank, peer.sock, iter([memoryview(message)[count:]])))
        if left:  # the system's buffer is full, and who is to empty it may wait for this card in turn
            self._serve(left, [])
        began = time.perf_counter()
        with self._naming:
            for rank, out in outs.items():
                self._fetch(self._peer(rank), out)
        self.waited_seconds += time.perf_counter() - began

    def _fetch(self, peer: _Peer, out: Array) -> None:
        """Wait for a small message."""
        head, body = bytearray(FRAME.size), bytes_of(out).data
        serial, got = peer.received, 0
        peer.received += 1
        while got < FRAME.size + len(body):
            try:
                count = peer.sock.recvmsg_into(
                    [memoryview(head)[got:], body[max(got - FRAME.size, 0) :]] if got else [head, body]
                )[0]
            except BlockingIOError:  # nothing came for WAIT_SECONDS
                self._check()
                continue
            except OSError as err:
                raise broken(peer.rank, err) from err
            if not count:
                raise closed(peer.rank)
            got += count
            if got >= FRAME.size:
                check_head(head, serial, len(body), peer.rank, self.rank)

    def feed(self, peer: int, arrays: Iterator[Array]) -> None:
        """Send arrays to a card one after another, each made when the one before it has left."""

        def begin(array: Array) -> FrameStream:
            # Fed arrays come and go, so their identity says nothing; a number of their own does.
            return self._outgoing(peer, array, WINDOW_BYTES, next(self._fed))

        self._queues[peer] = SendQueue(begin, arrays)

    def receive(self, peer: int, out: Array) -> None:
        """Take the next array of a card's feed into `out`; what this card feeds to others goes meanwhile."""
        self._serve([], [self._incoming(self._expected(peer, out.shape, out.dtype, out), WINDOW_BYTES)])

    def serve(self) -> None:
        """Send of all feeds what goes without waiting."""
        for peer, feed in list(self._queues.items()):
            if feed.advance():
                del self._queues[peer]

    def drain(self) -> None:
        """Wait until all feeds have been sent."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self._naming:
            while self._queues:
                self.serve()
                deadline = self._wait(list(self._queues.values()), [], deadline)

    def close(self) -> None:
        """Close all sockets; cards that wait at the other end get a ChannelClosedError."""
        for peer in self._peers.values():
            peer.sock.close()
        self._peers.clear()
        self._queues.clear()

    def _outgoing(self, peer: int, array: Array, window_bytes: int, key: int) -> FrameStream:
        self.sent_bytes += array.nbytes
        to = self._peer(peer)
        frame = outgoing(array, to.sent, window_bytes, to.local_peer, key)
        to.sent += 1
        return FrameStream(peer, to.sock, frame)

    def _expected(
        self, peer: int, shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None = None
    ) -> Expected:
        source = self._peer(peer)
        source.received += 1
        return Expected(peer, self.rank, source.received - 1, shape, dtype, out)

    def _incoming(self, expected: Expected, window_bytes: int) -> FrameStream:
        peer = self._peer(expected.peer)
        return FrameStream(expected.peer, peer.sock, incoming(expected, window_bytes, peer.local_peer))

    def _serve(self, writing: list[FrameStream], reading: list[FrameStream]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        with self._naming:
            while True:
                writing = [stream for stream in writing if not stream.advance(sending=True)]
                reading = [stream for stream in reading if not stream.advance(sending=False)]
                if not writing and not reading:
                    return
                self.serve()
                deadline = self._wait([*writing, *self._queues.values()], reading, deadline)

    def _wait(
        self, writing: Sequence[FrameStream | SendQueue], reading: Sequence[FrameStream], deadline: float
    ) -> float:
        """Wait for a socket; returns when to look next whether the run was cancelled."""
        began = time.monotonic()
        _wait(writing, reading)
        now = time.monotonic()
        self.waited_seconds += now - began
        if now <= deadline:
            return deadline
        self._check()
        return now + WAIT_SECONDS

    def _peer(self, rank: int) -> _Peer:
        found = self._peers.get(rank)
        if found is None:
            connection = (
                self._listener.connect(rank, self.epoch)
                if rank < self.rank
                else self._listener.accept(rank, self.epoch, self._check)
            )
            if self._listener.has_tls:
                connection.sock.setblocking(False)
            else:
                # Who waits for a small message waits in the call that takes it; all other calls say that they do not.
                connection.sock.setblocking(True)
                connection.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(WAIT_SECONDS * 1e6))
                )
            found = self._peers[rank] = _Peer(rank, *connection)
        return found


def _send_now(peer: _Peer, message: bytes) -> int:
    """Send what goes without waiting; returns how many bytes that was."""
    try:
        return peer.sock.send(message, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError as err:
        raise broken(peer.rank, err) from err


def _is_closed(sock: socket.socket) -> bool:
    """Whether the other end is closed, as far as the system knows."""
    try:
        # Around TLS, which does not let one look without taking.
        return not socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _wait(writing: Sequence[FrameStream | SendQueue], reading: Sequence[FrameStream]) -> None:
    """Wait until some socket is ready, or a moment has passed; not at all if a feed has its next array to begin."""
    events: dict[int, int] = {}
    timeout = WAIT_SECONDS
    for stream in writing:
        if stream.sock is None:
            timeout = 0
        else:
            events[stream.sock.fileno()] = select.POLLOUT
    for stream in reading:
        number = stream.sock.fileno()
        events[number] = events.get(number, 0) | select.POLLIN
    if -1 in events:
        return  # closed meanwhile, as its next use will find
    waiting = select.poll()
    for number, mask in events.items():
        waiting.register(number, mask)
    waiting.poll(timeout * 1000)
