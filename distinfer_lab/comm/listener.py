"""Accepting connections at a card's endpoint: the peer shows the group's nonce, and both agree on shared memory.

::

    higher rank                                            lower rank
    hello: magic, nonce, epoch, rank | its outbox   ---->  checks, opens the outbox
    opens the outbox                                <----  "ok" | its own outbox, if it could
    whether it could                                ---->

Outboxes (see `shared_memory`) are for cards of one host without TLS; they are used if both sides could
open the other's.
"""

import contextlib
import hmac
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import CardError
from .endpoints import Endpoint, connect_to
from .origin import Origin
from .peers import Epoch
from .shared_memory import OFFER_BYTES, LocalPeer, Offer, SharedOutbox, make_outbox

__all__ = [
    "HELLO",
    "MAGIC",
    "WAIT_SECONDS",
    "ChannelClosedError",
    "Connection",
    "Dialer",
    "Listener",
    "all_here",
]

MAGIC = b"dlab"
HELLO = struct.Struct("<4s32sQI")
WAIT_SECONDS = 0.05
"""How often a waiting card looks whether its run was cancelled."""
PROBE_SECONDS = 0.25
"""How often a card that waits for a peer to come looks whether the peer is there at all."""
CONNECT_SECONDS = 1.0
HELLO_SECONDS = 10.0
"""The most that a handshake may take altogether."""
SLOW_CONNECTIONS = 64
"""How many handshakes may be on their way beyond those of the cards of the group."""
WELCOME = b"ok"
CAN, CANNOT = b"\1", b"\0"


class ChannelClosedError(CardError):
    """The card at the other end closed its channel, or its process ended."""


def all_here(epoch: Epoch) -> bool:
    """Whether all cards are of this process, and may hand each other arrays."""
    return all(Endpoint.is_in_process(peer.address) for peer in epoch.peers)


class Connection(NamedTuple):
    """A connection to another card."""

    sock: socket.socket
    local_peer: LocalPeer | None
    """The other card's outbox, if both share memory."""


class _Handshakes:
    """Connections whose other end has not shown yet that it is a card: bounded in number and in time.

    Slow ones keep no card out: when there are too many the oldest is closed, and none is waited for longer
    than HELLO_SECONDS altogether.

    Parameters
    ----------
    do_handshake
        do_handshake(sock, deadline) raises OSError or ValueError where no card is at the other end.
    """

    def __init__(self, do_handshake: Callable[[socket.socket, float], None]) -> None:
        self.cards = 0
        """How many may come at once, and be none of the slow ones."""
        self._do_handshake = do_handshake
        self._pending: list[socket.socket] = []
        self._lock = threading.Lock()

    def begin(self, sock: socket.socket) -> None:
        """Do the handshake of a new connection in a thread of its own.

        Raises
        ------
        OSError
            If there is none.
        """
        with self._lock:
            self._pending.append(sock)
            surplus = len(self._pending) - self.cards - SLOW_CONNECTIONS
            oldest = self._pending[: max(surplus, 0)]
            del self._pending[: len(oldest)]
        for one in oldest:
            _hang_up(one)
        try:
            threading.Thread(target=self._carry_out, args=(sock,), daemon=True).start()
        except RuntimeError as err:  # the system gives no thread more
            self.end(sock)
            raise ConnectionAbortedError(str(err)) from err

    def _carry_out(self, sock: socket.socket) -> None:
        try:
            self._do_handshake(sock, time.monotonic() + HELLO_SECONDS)
        except (OSError, ValueError):
            sock.close()
        finally:
            self.end(sock)

    def end(self, sock: socket.socket) -> None:
        """From here on the connection is a card's, or nobody's."""
        with self._lock, contextlib.suppress(ValueError):
            self._pending.remove(sock)

    def close(self) -> None:
        """Hang up on all whose handshake has not ended."""
        with self._lock:
            for sock in self._pending:
                _hang_up(sock)


class Listener:
    """Accepts connections at a card's endpoint, from members of its epoch only, and makes those to others.

    Parameters
    ----------
    endpoint
        Where this card is reached; the listener opens it, and closes it.
    sockets_only
        Use neither references within the process nor shared memory; so it is under TLS anyway.
    """

    def __init__(self, endpoint: Endpoint, *, sockets_only: bool = False) -> None:
        self.address = endpoint.address
        self.has_tls = endpoint.has_tls
        self.sockets_only = sockets_only or endpoint.has_tls
        self.outbox: SharedOutbox | None = None
        self._endpoint = endpoint
        self._origin = Origin("listener")
        self._epoch: Epoch | None = None
        self._rank = -1
        self._arrived: dict[tuple[int, int], Connection] = {}
        self._changed = threading.Condition()
        self._handshakes = _Handshakes(self._do_handshake)
        endpoint.open(self._handshakes.begin)

    def admit(self, epoch: Epoch) -> None:
        """From now on accept the members of this epoch only."""
        self._origin.check()
        with self._changed:
            self._epoch = epoch
            self._rank = [peer.address for peer in epoch.peers].index(self.address)
            self._handshakes.cards = len(epoch.peers)
            self._renew(make_outbox(self._rank, len(epoch.peers)) if self._has_local_peers(epoch) else None)
            stale = [key for key in self._arrived if key[0] != epoch.number]
            for key in stale:
                self._arrived.pop(key).sock.close()

    def _has_local_peers(self, epoch: Epoch) -> bool:
        return (
            not self.sockets_only and sum(self._endpoint.is_local(peer.address) for peer in epoch.peers) > 1
        )

    def _renew(self, outbox: SharedOutbox | None) -> None:
        if self.outbox is not None:
            self.outbox.close()
        self.outbox = outbox

    def accept(self, peer: int, epoch: Epoch, check: Callable[[], None]) -> Connection:
        """The connection that a card of higher rank makes; waits for it, calling `check` meanwhile.

        Raises
        ------
        ChannelClosedError
            If the card's own endpoint is gone, so that it will not come any more.
        """
        self._origin.check()
        probed = time.monotonic()
        while True:
            check()
            with self._changed:
                if (epoch.number, peer) in self._arrived:
                    return self._arrived.pop((epoch.number, peer))
                self._changed.wait(WAIT_SECONDS)
            if time.monotonic() > probed + PROBE_SECONDS:
                self._probe(epoch, peer)
                probed = time.monotonic()

    def connect(self, peer: int, epoch: Epoch) -> Connection:
        """Connect to a card of lower rank.

        Raises
        ------
        ChannelClosedError
            If it does not accept this card.
        """
        self._origin.check()
        address = epoch.peers[peer].address
        try:
            sock = self._endpoint.connect(address, HELLO_SECONDS)
            try:
                return Connection(sock, self._introduce(sock, epoch, peer))
            except BaseException:
                sock.close()
                raise
        except OSError as err:
            raise ChannelClosedError(
                f"card {peer} at {address} rejects card {self._rank}: {err}", of=err, rank=peer
            ) from err

    def _introduce(self, sock: socket.socket, epoch: Epoch, peer: int) -> LocalPeer | None:
        deadline = time.monotonic() + HELLO_SECONDS
        hello = HELLO.pack(MAGIC, epoch.nonce, epoch.number, self._rank)
        sock.sendall(hello + self._offer_to(epoch, peer).pack())
        answer = _read_exactly(sock, len(WELCOME) + OFFER_BYTES, deadline)
        local_peer = self._open(Offer.unpack(answer[len(WELCOME) :]), epoch, peer)
        sock.sendall(CANNOT if local_peer is None else CAN)
        return local_peer

    def _probe(self, epoch: Epoch, peer: int) -> None:
        """Connect and hang up: a process that is gone has no endpoint."""
        if peer == len(epoch.peers):  # the controller, see `Dialer`: without it the work is cancelled
            return
        address = epoch.peers[peer].address
        try:
            self._endpoint.probe(address, CONNECT_SECONDS)
        except (TimeoutError, BlockingIOError):
            return  # slow, which is not gone
        except OSError as err:
            raise ChannelClosedError(f"card {peer} at {address} is gone: {err}", of=err, rank=peer) from err

    def close(self) -> None:
        """Accept no more connections; in a child made by fork, leave the endpoint to its parent."""
        if not self._origin.is_here:
            return
        self._endpoint.close()
        self._handshakes.close()
        with self._changed:
            for connection in self._arrived.values():
                connection.sock.close()
            self._arrived.clear()
            self._renew(None)

    def _offer_to(self, epoch: Epoch, peer: int) -> Offer:
        outbox = self._outbox_for(epoch, peer)
        return Offer() if outbox is None else outbox.offer

    def _open(self, offer: Offer, epoch: Epoch, peer: int) -> LocalPeer | None:
        outbox = self._outbox_for(epoch, peer)
        return None if outbox is None else outbox.open(offer, peer)

    def _outbox_for(self, epoch: Epoch, peer: int) -> SharedOutbox | None:
        if peer == len(epoch.peers):  # the controller, see `Dialer`
            return None
        return self.outbox if self._endpoint.is_local(epoch.peers[peer].address) else None

    def _do_handshake(self, sock: socket.socket, deadline: float) -> None:
        """Accept a connection, or raise why not."""
        sock.settimeout(HELLO_SECONDS)
        self._endpoint.do_handshake(sock)
        magic, nonce, number, rank = HELLO.unpack(_read_exactly(sock, HELLO.size, deadline))
        epoch = self._epoch
        if epoch is None or not _is_member(epoch, magic, nonce, number, rank):
            raise PermissionError("it is not a member of this epoch")
        self._handshakes.end(sock)
        self._welcome(sock, epoch, rank, deadline)

    def _welcome(self, sock: socket.socket, epoch: Epoch, rank: int, deadline: float) -> None:
        offered = Offer.unpack(_read_exactly(sock, OFFER_BYTES, deadline))
        local_peer = self._open(offered, epoch, rank)
        offer = Offer() if local_peer is None else self._offer_to(epoch, rank)
        sock.sendall(WELCOME + offer.pack())
        if _read_exactly(sock, 1, deadline) != CAN:
            local_peer = None
        with self._changed:
            if self._epoch is not epoch:
                raise PermissionError("the group has moved on to another epoch")
            self._arrived[(epoch.number, rank)] = Connection(sock, local_peer)
            self._changed.notify_all()


class Dialer:
    """Makes connections to all cards of an epoch, and accepts none: for the controller, which is not a card.

    Its rank is the number of the cards, so it is the one that connects. It shares no memory with any card.

    Parameters
    ----------
    client_side
        The TLS context of the cluster, where cards are reached by ports with TLS.
    """

    sockets_only = False
    outbox = None

    def __init__(self, client_side: ssl.SSLContext | None = None) -> None:
        self.has_tls = client_side is not None
        self._client_side = client_side

    def connect(self, peer: int, epoch: Epoch) -> Connection:
        """Connect to a card.

        Raises
        ------
        ChannelClosedError
            If it does not accept the controller.
        """
        address = epoch.peers[peer].address
        deadline = time.monotonic() + HELLO_SECONDS
        try:
            sock = connect_to(address, HELLO_SECONDS, self._client_side)
            try:
                hello = HELLO.pack(MAGIC, epoch.nonce, epoch.number, len(epoch.peers))
                sock.sendall(hello + Offer().pack())
                _read_exactly(sock, len(WELCOME) + OFFER_BYTES, deadline)
                sock.sendall(CANNOT)
                return Connection(sock, None)
            except BaseException:
                sock.close()
                raise
        except OSError as err:
            raise ChannelClosedError(
                f"card {peer} at {address} rejects the controller: {err}", of=err, rank=peer
            ) from err

    def accept(self, peer: int, epoch: Epoch, check: Callable[[], None]) -> Connection:
        """Nobody connects to the controller.

        Raises
        ------
        CardError
            Always.
        """
        raise CardError(f"card {peer} is not a card of this group of {len(epoch.peers)}", rank=peer)


def _is_member(epoch: Epoch, magic: bytes, nonce: bytes, number: int, rank: int) -> bool:
    known = hmac.compare_digest(nonce, epoch.nonce)
    return known and magic == MAGIC and number == epoch.number and rank <= len(epoch.peers)


def _read_exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    """`count` bytes, all of them before the deadline, however slowly they arrive."""
    out = bytearray()
    while len(out) < count:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = sock.recv(count - len(out))
        if not chunk:
            raise ConnectionResetError("closed")
        out += chunk
    return bytes(out)


def _hang_up(sock: socket.socket) -> None:
    """End a connection that another thread reads from; that one then closes it."""
    with contextlib.suppress(OSError):
        # Not as of TLS, which would take its state from the thread that is about to read.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
