"""A card's door: who knocks with the group's nonce is let in, and the two agree how they will talk.

    higher rank                                            lower rank
    hello: magic, nonce, epoch, rank | its outbox   ---->  checks, opens the outbox
    opens the outbox                                <----  "ok" | its own outbox, if it could
    whether it could                                ---->

Outboxes (see `outbox`) are for cards of one host without TLS; they are used if both sides could
open the other's.
"""

import hmac
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

from ...errors import CardError
from ..records import Epoch
from .outbox import OFFER_BYTES, Neighbour, Offer, Outbox, make_outbox

__all__ = ["HELLO", "MAGIC", "WAIT_SECONDS", "ChannelClosedError", "Line", "Listener", "all_here"]

MAGIC = b"dlab"
HELLO = struct.Struct("<4s32sQI")
WAIT_SECONDS = 0.05
"""How often a waiting card looks whether its run was cancelled."""
PROBE_SECONDS = 0.25
"""How often a card that waits for a peer to come looks whether the peer is there at all."""
HELLO_SECONDS = 10.0
WELCOME = b"ok"
CAN, CANNOT = b"\1", b"\0"


class ChannelClosedError(CardError):
    """The card at the other end went away; why, it knows itself."""


def all_here(epoch: Epoch) -> bool:
    """Whether all cards are of this process, and may hand each other arrays."""
    return all((os.getpid(), peer.host, peer.port) in _doors for peer in epoch.peers)


class Line(NamedTuple):
    """A connection to another card."""

    connection: socket.socket
    neighbour: Neighbour | None
    """The other card's outbox, if both share memory."""


class Listener:
    """The door at which a card lets its peers in.

    Parameters
    ----------
    host
        The worker's own interface.
    server_side, client_side
        The TLS contexts of the cluster, or None where it has no TLS.
    sockets_only
        Use neither references within the process nor shared memory; so it is under TLS anyway.
    """

    def __init__(
        self,
        host: str,
        server_side: ssl.SSLContext | None = None,
        client_side: ssl.SSLContext | None = None,
        *,
        sockets_only: bool = False,
    ) -> None:
        self.host = host
        self.has_tls = server_side is not None
        self.sockets_only = sockets_only or self.has_tls
        self.outbox: Outbox | None = None
        self._server_side, self._client_side = server_side, client_side
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=self._family, backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._epoch: Epoch | None = None
        self._rank = -1
        self._arrived: dict[tuple[int, int], Line] = {}
        self._changed = threading.Condition()
        self._handshakes = threading.Semaphore(64)
        if not self.sockets_only:
            _doors[os.getpid(), host, self.port] = self
        threading.Thread(target=self._accept, name=f"listen-{self.port}", daemon=True).start()

    def admit(self, epoch: Epoch) -> None:
        """From now on let in the members of this epoch only."""
        with self._changed:
            self._epoch = epoch
            doors = [(peer.host, peer.port) for peer in epoch.peers]
            self._rank = doors.index((self.host, self.port))
            self._renew(make_outbox(self._rank, len(epoch.peers)) if self._has_neighbours(epoch) else None)
            stale = [key for key in self._arrived if key[0] != epoch.number]
            for key in stale:
                self._arrived.pop(key).connection.close()

    def _has_neighbours(self, epoch: Epoch) -> bool:
        return not self.sockets_only and sum(peer.host == self.host for peer in epoch.peers) > 1

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
        probed = time.monotonic()
        while True:
            check()
            with self._changed:
                if (epoch.number, peer) in self._arrived:
                    return self._arrived.pop((epoch.number, peer))
                self._changed.wait(WAIT_SECONDS)
            if time.monotonic() > probed + PROBE_SECONDS:
                _probe(epoch, peer)
                probed = time.monotonic()

    def call(self, peer: int, epoch: Epoch) -> Line:
        """Knock at another card's door.

        Raises
        ------
        ChannelClosedError
            If it does not let this card in.
        """
        host, port, _ = epoch.peers[peer]
        try:
            connection = socket.create_connection((host, port), timeout=HELLO_SECONDS)
            if self._client_side is not None:
                connection = self._client_side.wrap_socket(connection, server_hostname=host)
            hello = HELLO.pack(MAGIC, epoch.nonce, epoch.number, self._rank)
            connection.sendall(hello + self._offer_to(epoch, peer).pack())
            answer = _read_exactly(connection, len(WELCOME) + OFFER_BYTES)
            neighbour = self._open(Offer.unpack(answer[len(WELCOME) :]), epoch, peer)
            connection.sendall(CANNOT if neighbour is None else CAN)
        except OSError as err:
            raise ChannelClosedError(
                f"card {peer} at {host}:{port} does not let card {self._rank} in: {err}"
            ) from err
        return Line(connection, neighbour)

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()
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
        return self.outbox if epoch.peers[peer].host == self.host else None

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
            epoch = self._epoch
            if epoch is None or not _is_member(epoch, magic, nonce, number, rank):
                connection.close()
                return
            self._welcome(connection, epoch, rank)
        except (OSError, struct.error):
            connection.close()
        finally:
            self._handshakes.release()

    def _welcome(self, connection: socket.socket, epoch: Epoch, rank: int) -> None:
        neighbour = self._open(Offer.unpack(_read_exactly(connection, OFFER_BYTES)), epoch, rank)
        offer = Offer() if neighbour is None else self._offer_to(epoch, rank)
        connection.sendall(WELCOME + offer.pack())
        if _read_exactly(connection, 1) != CAN:
            neighbour = None
        with self._changed:
            if self._epoch is not epoch:
                connection.close()
                return
            self._arrived[(epoch.number, rank)] = Line(connection, neighbour)
            self._changed.notify_all()


_doors: WeakValueDictionary[tuple[int, str, int], Listener] = WeakValueDictionary()
"""Of this process, and, by the first number, not of the one that it was forked from."""


def _is_member(epoch: Epoch, magic: bytes, nonce: bytes, number: int, rank: int) -> bool:
    known = hmac.compare_digest(nonce, epoch.nonce)
    return known and magic == MAGIC and number == epoch.number and rank < len(epoch.peers)


def _probe(epoch: Epoch, peer: int) -> None:
    """Knock without a word: a process that is gone has no door."""
    host, port, _ = epoch.peers[peer]
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except TimeoutError:
        return  # slow, which is not gone
    except OSError as err:
        raise ChannelClosedError(f"card {peer} at {host}:{port} is gone: {err}") from err


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        chunk = connection.recv(count - len(out))
        if not chunk:
            raise ConnectionResetError("closed")
        out += chunk
    return bytes(out)
