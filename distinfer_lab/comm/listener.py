"""Who comes in at a card's door: who has the group's nonce is let in, and the two agree how they will talk.

::

    higher rank                                            lower rank
    hello: magic, nonce, epoch, rank | its outbox   ---->  checks, opens the outbox
    opens the outbox                                <----  "ok" | its own outbox, if it could
    whether it could                                ---->

Outboxes (see `outbox`) are for cards of one host without TLS; they are used if both sides could
open the other's.
"""

import contextlib
import hmac
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import CardError
from .endpoints import Door
from .origin import Origin
from .peers import Epoch
from .shared_memory import OFFER_BYTES, Neighbour, Offer, Outbox, make_outbox

__all__ = ["HELLO", "MAGIC", "WAIT_SECONDS", "ChannelClosedError", "Line", "Listener", "all_here"]

MAGIC = b"dlab"
HELLO = struct.Struct("<4s32sQI")
WAIT_SECONDS = 0.05
"""How often a waiting card looks whether its run was cancelled."""
PROBE_SECONDS = 0.25
"""How often a card that waits for a peer to come looks whether the peer is there at all."""
KNOCK_SECONDS = 1.0
HELLO_SECONDS = 10.0
"""The most that a greeting may take altogether."""
SLOW_CONNECTIONS = 64
"""How many connections may wait to be greeted beyond those that the cards of the group make."""
WELCOME = b"ok"
CAN, CANNOT = b"\1", b"\0"


class ChannelClosedError(CardError):
    """The card at the other end went away; why, it knows itself."""


def all_here(epoch: Epoch) -> bool:
    """Whether all cards are of this process, and may hand each other arrays."""
    return all(Door.is_in_process(peer.address) for peer in epoch.peers)


class Line(NamedTuple):
    """A connection to another card."""

    connection: socket.socket
    neighbour: Neighbour | None
    """The other card's outbox, if both share memory."""


class _Greetings:
    """Connections whose other end has not shown yet that it is a card: bounded in number and in time.

    Slow ones keep no card out: when there are too many the oldest is closed, and none is waited for longer
    than HELLO_SECONDS altogether.

    Parameters
    ----------
    greet
        greet(connection, deadline) raises OSError or ValueError where no card is at the other end.
    """

    def __init__(self, greet: Callable[[socket.socket, float], None]) -> None:
        self.cards = 0
        """How many may come at once, and be none of the slow ones."""
        self._greet = greet
        self._pending: list[socket.socket] = []
        self._lock = threading.Lock()

    def begin(self, connection: socket.socket) -> None:
        """Greet a connection in a thread of its own.

        Raises
        ------
        OSError
            If there is none.
        """
        with self._lock:
            self._pending.append(connection)
            surplus = len(self._pending) - self.cards - SLOW_CONNECTIONS
            oldest = self._pending[: max(surplus, 0)]
            del self._pending[: len(oldest)]
        for one in oldest:
            _hang_up(one)
        try:
            threading.Thread(target=self._carry_out, args=(connection,), daemon=True).start()
        except RuntimeError as err:  # the system gives no thread more
            self.end(connection)
            raise ConnectionAbortedError(str(err)) from err

    def _carry_out(self, connection: socket.socket) -> None:
        try:
            self._greet(connection, time.monotonic() + HELLO_SECONDS)
        except (OSError, ValueError):
            connection.close()
        finally:
            self.end(connection)

    def end(self, connection: socket.socket) -> None:
        """From here on the connection is a card's, or nobody's."""
        with self._lock, contextlib.suppress(ValueError):
            self._pending.remove(connection)

    def close(self) -> None:
        """Hang up on all whose greeting has not ended."""
        with self._lock:
            for connection in self._pending:
                _hang_up(connection)


class Listener:
    """The door of a card, and whom it lets in.

    Parameters
    ----------
    door
        Where this card is reached; the listener opens it, and closes it.
    sockets_only
        Use neither references within the process nor shared memory; so it is under TLS anyway.
    """

    def __init__(self, door: Door, *, sockets_only: bool = False) -> None:
        self.address = door.address
        self.has_tls = door.has_tls
        self.sockets_only = sockets_only or door.has_tls
        self.outbox: Outbox | None = None
        self._door = door
        self._origin = Origin("listener")
        self._epoch: Epoch | None = None
        self._rank = -1
        self._arrived: dict[tuple[int, int], Line] = {}
        self._changed = threading.Condition()
        self._greetings = _Greetings(self._greet)
        door.open(self._greetings.begin)

    def admit(self, epoch: Epoch) -> None:
        """From now on let in the members of this epoch only."""
        self._origin.check()
        with self._changed:
            self._epoch = epoch
            self._rank = [peer.address for peer in epoch.peers].index(self.address)
            self._greetings.cards = len(epoch.peers)
            self._renew(make_outbox(self._rank, len(epoch.peers)) if self._has_neighbours(epoch) else None)
            stale = [key for key in self._arrived if key[0] != epoch.number]
            for key in stale:
                self._arrived.pop(key).connection.close()

    def _has_neighbours(self, epoch: Epoch) -> bool:
        return not self.sockets_only and sum(self._door.is_near(peer.address) for peer in epoch.peers) > 1

    def _renew(self, outbox: Outbox | None) -> None:
        if self.outbox is not None:
            self.outbox.close()
        self.outbox = outbox

    def arrival(self, peer: int, epoch: Epoch, check: Callable[[], None]) -> Line:
        """The line by which a card came in; waits for it, calling `check` meanwhile.

        Raises
        ------
        ChannelClosedError
            If the card's own door is gone, so that it will not come any more.
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

    def call(self, peer: int, epoch: Epoch) -> Line:
        """Knock at another card's door.

        Raises
        ------
        ChannelClosedError
            If it does not let this card in.
        """
        self._origin.check()
        address = epoch.peers[peer].address
        try:
            connection = self._door.connect(address, HELLO_SECONDS)
            try:
                return Line(connection, self._introduce(connection, epoch, peer))
            except BaseException:
                connection.close()
                raise
        except OSError as err:
            raise ChannelClosedError(
                f"card {peer} at {address} does not let card {self._rank} in: {err}"
            ) from err

    def _introduce(self, connection: socket.socket, epoch: Epoch, peer: int) -> Neighbour | None:
        deadline = time.monotonic() + HELLO_SECONDS
        hello = HELLO.pack(MAGIC, epoch.nonce, epoch.number, self._rank)
        connection.sendall(hello + self._offer_to(epoch, peer).pack())
        answer = _read_exactly(connection, len(WELCOME) + OFFER_BYTES, deadline)
        neighbour = self._open(Offer.unpack(answer[len(WELCOME) :]), epoch, peer)
        connection.sendall(CANNOT if neighbour is None else CAN)
        return neighbour

    def _probe(self, epoch: Epoch, peer: int) -> None:
        """Knock without a word: a process that is gone has no door."""
        address = epoch.peers[peer].address
        try:
            self._door.knock(address, KNOCK_SECONDS)
        except (TimeoutError, BlockingIOError):
            return  # slow, which is not gone
        except OSError as err:
            raise ChannelClosedError(f"card {peer} at {address} is gone: {err}") from err

    def close(self) -> None:
        """Let nobody in any more; in a child made by fork, leave the door to its parent."""
        if not self._origin.is_here:
            return
        self._door.close()
        self._greetings.close()
        with self._changed:
            for line in self._arrived.values():
                line.connection.close()
            self._arrived.clear()
            self._renew(None)

    def _offer_to(self, epoch: Epoch, peer: int) -> Offer:
        outbox = self._outbox_for(epoch, peer)
        return Offer() if outbox is None else outbox.offer

    def _open(self, offer: Offer, epoch: Epoch, peer: int) -> Neighbour | None:
        outbox = self._outbox_for(epoch, peer)
        return None if outbox is None else outbox.open(offer, peer)

    def _outbox_for(self, epoch: Epoch, peer: int) -> Outbox | None:
        return self.outbox if self._door.is_near(epoch.peers[peer].address) else None

    def _greet(self, connection: socket.socket, deadline: float) -> None:
        """Let a connection in, or raise what speaks against it."""
        connection.settimeout(HELLO_SECONDS)
        self._door.greet(connection)
        magic, nonce, number, rank = HELLO.unpack(_read_exactly(connection, HELLO.size, deadline))
        epoch = self._epoch
        if epoch is None or not _is_member(epoch, magic, nonce, number, rank):
            raise PermissionError("it is not a member of this epoch")
        self._greetings.end(connection)
        self._welcome(connection, epoch, rank, deadline)

    def _welcome(self, connection: socket.socket, epoch: Epoch, rank: int, deadline: float) -> None:
        offered = Offer.unpack(_read_exactly(connection, OFFER_BYTES, deadline))
        neighbour = self._open(offered, epoch, rank)
        offer = Offer() if neighbour is None else self._offer_to(epoch, rank)
        connection.sendall(WELCOME + offer.pack())
        if _read_exactly(connection, 1, deadline) != CAN:
            neighbour = None
        with self._changed:
            if self._epoch is not epoch:
                raise PermissionError("the group has moved on to another epoch")
            self._arrived[(epoch.number, rank)] = Line(connection, neighbour)
            self._changed.notify_all()


def _is_member(epoch: Epoch, magic: bytes, nonce: bytes, number: int, rank: int) -> bool:
    known = hmac.compare_digest(nonce, epoch.nonce)
    return known and magic == MAGIC and number == epoch.number and rank < len(epoch.peers)


def _read_exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    """So many bytes, all of them before the deadline, however they trickle in."""
    out = bytearray()
    while len(out) < count:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = connection.recv(count - len(out))
        if not chunk:
            raise ConnectionResetError("closed")
        out += chunk
    return bytes(out)


def _hang_up(connection: socket.socket) -> None:
    """End a connection under whoever waits for it, who then closes it."""
    with contextlib.suppress(OSError):
        # Not as of TLS, which would take its state from the thread that is about to read.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
