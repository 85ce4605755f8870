"""Direct channels between cards: one open socket per pair, no scheduler between them.

    lower rank    listens   <---- hello: magic, nonce, epoch, rank ----    higher rank connects
    either        frame: serial number, byte count | the bytes             either

A frame is announced by 16 bytes. The receiver knows from its program how many bytes must come,
and refuses any other number before it reads them; nothing is unpickled. All sockets of one
exchange are served by one loop, so two cards that send each other more than the system buffers
cannot block each other.
"""

import hmac
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CardError
from .records import Epoch

__all__ = ["ChannelClosedError", "Channels", "Listener"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Shaped = tuple[Shape, np.dtype[Any]]

MAGIC = b"dlab"
HELLO = struct.Struct("<4s32sQI")
FRAME = struct.Struct("<QQ")
WAIT_SECONDS = 0.05
"""How often a waiting card looks whether its run was cancelled."""
HELLO_SECONDS = 10.0
WELCOME = b"ok"


class ChannelClosedError(CardError):
    """The card at the other end went away; why, it knows itself."""


class Listener:
    """The door at which a card lets its peers in.

    Parameters
    ----------
    host
        The worker's own interface.
    server_side, client_side
        The TLS contexts of the cluster, or None where it has no TLS.
    """

    def __init__(
        self,
        host: str,
        server_side: ssl.SSLContext | None = None,
        client_side: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self._server_side, self.client_side = server_side, client_side
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=self._family, backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._epoch: Epoch | None = None
        self._arrived: dict[tuple[int, int], socket.socket] = {}
        self._changed = threading.Condition()
        self._handshakes = threading.Semaphore(64)
        threading.Thread(target=self._accept, name=f"listen-{self.port}", daemon=True).start()

    def admit(self, epoch: Epoch) -> None:
        """From now on let in the members of this epoch only."""
        with self._changed:
            self._epoch = epoch
            stale = [key for key in self._arrived if key[0] != epoch.number]
            for key in stale:
                self._arrived.pop(key).close()

    def arrival(self, epoch: int, rank: int, check: Callable[[], None]) -> socket.socket:
        """The socket by which `rank` came in; waits for it, calling `check` meanwhile."""
        while True:
            check()
            with self._changed:
                if (epoch, rank) in self._arrived:
                    return self._arrived.pop((epoch, rank))
                self._changed.wait(WAIT_SECONDS)

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()
        with self._changed:
            for arrived in self._arrived.values():
                arrived.close()
            self._arrived.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._handshakes.acquire()
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(HELLO_SECONDS)
            if self._server_side is not None:
                connection = self._server_side.wrap_socket(connection, server_side=True)
            magic, nonce, number, rank = HELLO.unpack(_read_exactly(connection, HELLO.size))
            with self._changed:
                epoch = self._epoch
                if epoch is None or not _is_member(epoch, magic, nonce, number, rank):
                    connection.close()
                    return
                connection.sendall(WELCOME)
                self._arrived[(number, rank)] = connection
                self._changed.notify_all()
        except (OSError, struct.error):
            connection.close()
        finally:
            self._handshakes.release()


def _is_member(epoch: Epoch, magic: bytes, nonce: bytes, number: int, rank: int) -> bool:
    known = hmac.compare_digest(nonce, epoch.nonce)
    return known and magic == MAGIC and number == epoch.number and rank < len(epoch.peers)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        chunk = connection.recv(count - len(out))
        if not chunk:
            raise ConnectionResetError("closed")
        out += chunk
    return bytes(out)


class _Half:
    """What is still to be sent to, or received from, one peer in one exchange."""

    def __init__(self, peer: int, connection: socket.socket, buffers: Iterable[Any]) -> None:
        self.peer, self.connection = peer, connection
        self.buffers = [view for view in map(_bytes_of, buffers) if len(view)]

    def advance(self, sending: bool) -> bool:
        """Move what goes without waiting; True when all is done."""
        while self.buffers:
            view = self.buffers[0]
            try:
                count = self.connection.send(view) if sending else self.connection.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as err:
                raise ChannelClosedError(f"the channel to card {self.peer} broke: {err}") from err
            if not count:
                raise ChannelClosedError(f"card {self.peer} closed its channel")
            self.buffers[0] = view[count:]
            if count == len(view):
                del self.buffers[0]
        return True


class _Feed:
    """Arrays that go to one card one after another."""

    def __init__(self, begin: Callable[[Array], _Half], arrays: Iterator[Array]) -> None:
        self._begin, self._arrays = begin, arrays
        self._half: _Half | None = None

    @property
    def connection(self) -> socket.socket | None:
        """What the array on its way goes through; None between two arrays."""
        return None if self._half is None else self._half.connection

    def advance(self) -> bool:
        """Send what goes without waiting, at most one array; True when all are sent."""
        if self._half is None:
            array = next(self._arrays, None)
            if array is None:
                return True
            self._half = self._begin(array)
        if self._half.advance(sending=True):
            self._half = None
        return False


def _bytes_of(buffer: Any) -> memoryview:
    if isinstance(buffer, np.ndarray):
        # numpy's own view: dtypes that the buffer protocol does not know (bfloat16) pass too.
        return buffer.reshape(-1).view(np.uint8).data
    return memoryview(buffer)


class Channels:
    """One card's channels to the others, for one epoch of its group.

    Parameters
    ----------
    rank
        This card.
    epoch
        The group.
    listener
        This card's door.
    check
        Raises when the run was cancelled; called whenever this card waits.
    """

    def __init__(self, rank: int, epoch: Epoch, listener: Listener, check: Callable[[], None]) -> None:
        self.rank, self.epoch = rank, epoch
        self.sent_bytes = 0
        self._listener, self._check = listener, check
        self._sockets: dict[int, socket.socket] = {}
        self._serials: dict[tuple[int, bool], int] = {}
        self._feeds: dict[int, _Feed] = {}

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once.

        Parameters
        ----------
        sends
            Rank -> array. The receiver must expect exactly its bytes.
        receives
            Rank -> (shape, dtype) of what it sends.

        Raises
        ------
        CardError
            If a card goes away or sends something else.
        """
        out = {peer: np.empty(*shaped) for peer, shaped in receives.items()}
        heads = {peer: bytearray(FRAME.size) for peer in out}
        writing = [self._outgoing(peer, array) for peer, array in sends.items()]
        reading = [_Half(peer, self._socket(peer), [head]) for peer, head in heads.items()]
        self._serve(writing, reading, heads, out)
        return out

    def feed(self, peer: int, arrays: Iterator[Array]) -> None:
        """Send arrays to a card one after another, each made when the one before it has left.

        They go whenever this card waits for others, or calls `serve`; so what is in flight is one
        array and what the system buffers, however many there are.
        """
        self._feeds[peer] = _Feed(lambda array: self._outgoing(peer, array), arrays)

    def receive(self, peer: int, out: Array) -> None:
        """Take the next array of a card's feed into `out`; what this card feeds to others goes meanwhile.

        Raises
        ------
        CardError
            If the card goes away or sends something else.
        """
        body = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        heads = {peer: bytearray(FRAME.size)}
        self._serve([], [_Half(peer, self._socket(peer), [heads[peer]])], heads, {peer: body})
        if body is not out:
            out[...] = body

    def serve(self) -> None:
        """Send of all feeds what goes without waiting."""
        for peer, feed in list(self._feeds.items()):
            if feed.advance():
                del self._feeds[peer]

    def drain(self) -> None:
        """Wait until all feeds have been sent."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self._feeds:
            self.serve()
            _wait(list(self._feeds.values()), [])
            if time.monotonic() > deadline:
                self._check()
                deadline = time.monotonic() + WAIT_SECONDS

    def all_reduce(self, array: Array, group: Sequence[int]) -> Array:
        """The sum of the arrays of a group of cards, added in rank order on every element.

        Each card adds one run of the elements of all, then the sums are handed round: a card
        sends 2 * (n - 1) / n of the array's bytes.
        """
        ranks = sorted(group)
        flat = np.ascontiguousarray(array).reshape(-1)
        cuts = [flat.size * i // len(ranks) for i in range(len(ranks) + 1)]
        runs = {rank: slice(cuts[i], cuts[i + 1]) for i, rank in enumerate(ranks)}
        others = [rank for rank in ranks if rank != self.rank]
        mine = flat[runs[self.rank]]
        parts = self.exchange(
            {rank: flat[runs[rank]] for rank in others}, dict.fromkeys(others, (mine.shape, mine.dtype))
        )
        parts[self.rank] = mine
        total = parts[ranks[0]].copy()
        for rank in ranks[1:]:
            total += parts[rank]
        out = np.empty_like(flat)
        out[runs[self.rank]] = total
        sums = self.exchange(
            dict.fromkeys(others, total), {rank: (flat[runs[rank]].shape, flat.dtype) for rank in others}
        )
        for rank, part in sums.items():
            out[runs[rank]] = part
        return out.reshape(array.shape)

    def all_gather(self, array: Array, group: Sequence[int], shapes: Sequence[Shape]) -> list[Array]:
        """The arrays of all of a group, in the group's order."""
        return self.all_to_all([array] * len(group), group, shapes)

    def reduce_scatter(self, parts: Sequence[Array], group: Sequence[int]) -> Array:
        """The sum, in rank order, of everyone's part for this card."""
        own = parts[list(group).index(self.rank)]
        found = dict(zip(group, self.all_to_all(parts, group, [own.shape] * len(group)), strict=True))
        total: Array = found[min(group)].copy()
        for rank in sorted(group)[1:]:
            total += found[rank]
        return total

    def all_to_all(
        self, parts: Sequence[Array], group: Sequence[int], shapes: Sequence[Shape]
    ) -> list[Array]:
        """Everyone's part for this card; `parts[i]` goes to `group[i]`, which sends `shapes[i]`."""
        dtype = parts[0].dtype
        found = {self.rank: parts[list(group).index(self.rank)]}
        sends = {rank: part for rank, part in zip(group, parts, strict=True) if rank != self.rank}
        shaped = {rank: (shape, dtype) for rank, shape in zip(group, shapes, strict=True) if rank in sends}
        found |= self.exchange(sends, shaped)
        return [found[rank] for rank in group]

    def broadcast(
        self, array: Array | None, root: int, group: Sequence[int], shape: Shape, dtype: np.dtype[Any]
    ) -> Array:
        """The array of rank `root`, on all of a group."""
        if array is None:
            return self.recv(root, shape, dtype)
        self.exchange({rank: array for rank in group if rank != root}, {})
        return array

    def send(self, array: Array, peer: int) -> None:
        """Send an array to a card."""
        self.exchange({peer: array}, {})

    def recv(self, peer: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """What a card sends by `send`."""
        return self.exchange({}, {peer: (shape, dtype)})[peer]

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """Send an array to each of some cards, receive one from each of some in place."""
        for peer, array in self.exchange(
            sends, {p: (out.shape, out.dtype) for p, out in outs.items()}
        ).items():
            outs[peer][...] = array

    def close(self) -> None:
        """Close all channels; whoever waits at the other end is told."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()
        self._feeds.clear()

    def _outgoing(self, peer: int, array: Array) -> _Half:
        body = np.ascontiguousarray(array)
        self.sent_bytes += body.nbytes
        return _Half(peer, self._socket(peer), [FRAME.pack(self._serial(peer, True), body.nbytes), body])

    def _serial(self, peer: int, sending: bool) -> int:
        number = self._serials.get((peer, sending), 0)
        self._serials[(peer, sending)] = number + 1
        return number

    def _serve(
        self,
        writing: list[_Half],
        reading: list[_Half],
        heads: dict[int, bytearray],
        out: dict[int, Array],
    ) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            writing = [half for half in writing if not half.advance(sending=True)]
            reading = [half for half in reading if not self._received(half, heads, out)]
            if not writing and not reading:
                return
            self.serve()
            _wait([*writing, *self._feeds.values()], reading)
            if time.monotonic() > deadline:
                self._check()
                deadline = time.monotonic() + WAIT_SECONDS

    def _received(self, half: _Half, heads: dict[int, bytearray], out: dict[int, Array]) -> bool:
        """Advance a receiving half; once its head is whole, check it and go on with the body."""
        if not half.advance(sending=False):
            return False
        head = heads.pop(half.peer, None)
        if head is None:
            return True
        serial, nbytes = FRAME.unpack(head)
        body = out[half.peer]
        if (serial, nbytes) != (self._serial(half.peer, False), body.nbytes):
            raise CardError(
                f"card {half.peer} announces frame {serial} of {nbytes} bytes; card {self.rank} expects "
                f"{body.nbytes} bytes: the cards run different programs"
            )
        half.buffers = [_bytes_of(body)] if body.nbytes else []
        return half.advance(sending=False)

    def _socket(self, peer: int) -> socket.socket:
        if peer not in self._sockets:
            connection = self._connect(peer) if peer < self.rank else self._await(peer)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._sockets[peer] = connection
        return self._sockets[peer]

    def _await(self, peer: int) -> socket.socket:
        return self._listener.arrival(self.epoch.number, peer, self._check)

    def _connect(self, peer: int) -> socket.socket:
        host, port, _ = self.epoch.peers[peer]
        try:
            connection = socket.create_connection((host, port), timeout=HELLO_SECONDS)
            if self._listener.client_side is not None:
                connection = self._listener.client_side.wrap_socket(connection, server_hostname=host)
            connection.sendall(HELLO.pack(MAGIC, self.epoch.nonce, self.epoch.number, self.rank))
            _read_exactly(connection, len(WELCOME))
        except OSError as err:
            raise ChannelClosedError(
                f"card {peer} at {host}:{port} does not let card {self.rank} in: {err}"
            ) from err
        return connection


def _wait(writing: Sequence[_Half | _Feed], reading: Sequence[_Half]) -> None:
    """Wait until some socket is ready, or a moment has passed; not at all if a feed has its next array to begin."""
    events: dict[socket.socket, int] = {}
    timeout = WAIT_SECONDS
    for half in writing:
        if half.connection is None:
            timeout = 0
        else:
            events[half.connection] = selectors.EVENT_WRITE
    for half in reading:
        events[half.connection] = events.get(half.connection, 0) | selectors.EVENT_READ
    with selectors.DefaultSelector() as selector:
        for connection, mask in events.items():
            selector.register(connection, mask)
        selector.select(timeout)
