"""Where a card is reached, and by whom: the three kinds of endpoint.

::

    InProcessEndpoint   socket pairs; nothing listens       cards that are threads of one process
    UnixEndpoint        a socket in a private folder        cards that are processes of one user on one host
    TcpEndpoint         a port, under TLS where there is    cards of a given cluster, and where the system
                                                        cannot tell which user is at the other end

An endpoint passes each new connection on at once; the receiver of it finds out whether a card is at
the other end (see `listener`). Neither side of a Unix connection sends a byte before it knows that the other
belongs to the same user.
"""

import abc
import contextlib
import itertools
import os
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .peers import Address

__all__ = ["Endpoint", "InProcessEndpoint", "TcpEndpoint", "UnixEndpoint", "can_check_users", "connect_to"]

Arrived = Callable[[socket.socket], None]
"""Gets each new connection; returns without waiting for the other end."""

BACKLOG = 1024
PAUSE_SECONDS = 0.05
"""After a failed accept, as of a process that has no file descriptor left."""
CREDENTIALS = struct.Struct("3i")
"""SO_PEERCRED: process, user and group."""

_arrivals: dict[tuple[int, Address], Arrived] = {}
"""The endpoints of this process. The first number keeps a forked child from taking its parent's for its own."""


def can_check_users() -> bool:
    """Whether this system tells which user is at the other end of a Unix socket."""
    return hasattr(socket, "AF_UNIX") and hasattr(socket, "SO_PEERCRED")


class Endpoint(abc.ABC):
    """Where one card is reached by others, and how it reaches them."""

    address: Address
    has_tls = False

    def open(self, arrived: Arrived) -> None:
        """Pass every new connection to `arrived` until the endpoint is closed."""
        _arrivals[os.getpid(), self.address] = arrived

    def close(self) -> None:
        """Accept no more connections."""
        _arrivals.pop((os.getpid(), self.address), None)

    @staticmethod
    def is_in_process(address: Address) -> bool:
        """Whether an open endpoint of this process has this address."""
        return (os.getpid(), address) in _arrivals

    @abc.abstractmethod
    def connect(self, address: Address, seconds: float) -> socket.socket:
        """A new connection to another card's endpoint of the same kind, which blocks for at most `seconds` a call.

        Raises
        ------
        OSError
            If nobody accepts it in time, or another user does.
        """

    def probe(self, address: Address, seconds: float) -> None:
        """Find out whether another card's endpoint is there.

        Raises
        ------
        OSError
            If it is not; TimeoutError or BlockingIOError if it may be.
        """
        self.connect(address, seconds).close()

    def do_handshake(self, sock: socket.socket) -> None:  # noqa: B027  # most endpoints have nothing to add
        """Complete a connection that arrived, before anything is read from it."""

    def is_local(self, address: Address) -> bool:
        """Whether the card at an address may share memory with this one."""
        return not self.has_tls and address.host == self.address.host


def connect_to(address: Address, seconds: float, client_side: ssl.SSLContext | None = None) -> socket.socket:
    """A new connection to a card's endpoint of any kind, for a process that has no endpoint itself.

    Parameters
    ----------
    seconds
        The most that a call may block.
    client_side
        The TLS context of the cluster, for an endpoint that is a port.

    Raises
    ------
    OSError
        If nobody accepts it in time, or another user does.
    """
    if address.path:
        return _connect_unix(address, seconds)
    if address.host == InProcessEndpoint.host:
        return _connect_in_process(address, seconds)
    return _connect_tcp(address, seconds, client_side)


def _connect_in_process(address: Address, seconds: float) -> socket.socket:
    arrived = _arrivals.get((os.getpid(), address))
    if arrived is None:
        raise ConnectionRefusedError("it is closed, or in another process")
    mine, theirs = socket.socketpair()
    mine.settimeout(seconds)
    arrived(theirs)
    return mine


def _connect_unix(address: Address, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        # By Python's own timeout a full backlog would be an error at once; by the system's it is waited for.
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.connect(address.path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        sock.settimeout(seconds)
        return _of_this_user(sock)
    except OSError:
        sock.close()
        raise


def _of_this_user(sock: socket.socket) -> socket.socket:
    user = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[1]
    if user != os.geteuid():
        raise PermissionError(f"user {user} is at the other end, not user {os.geteuid()}")
    return sock


def _connect_tcp(address: Address, seconds: float, client_side: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(address[:2], timeout=seconds)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if client_side is None else client_side.wrap_socket(sock, server_hostname=address.host)
    except OSError:
        sock.close()
        raise


class InProcessEndpoint(Endpoint):
    """The endpoint of a card that is a thread of this process, for others that are."""

    host = "this process"
    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self.address = Address(self.host, next(self._numbers))

    def connect(self, address: Address, seconds: float) -> socket.socket:
        """See `Endpoint`."""
        return _connect_in_process(address, seconds)

    def probe(self, address: Address, seconds: float) -> None:
        """See `Endpoint`."""
        if not self.is_in_process(address):
            raise ConnectionRefusedError("it is closed, or in another process")


class _ListeningEndpoint(Endpoint):
    """An endpoint with a socket that listens, served by a thread of its own."""

    _socket: socket.socket

    def open(self, arrived: Arrived) -> None:
        """See `Endpoint`."""
        super().open(arrived)
        self._closed = False
        self._thread = threading.Thread(
            target=self._accept, args=(arrived,), name=f"listen-{self.address}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """See `Endpoint`."""
        super().close()
        self._closed = True
        # Linux keeps a socket listening, and its thread waiting, that is closed and not shut down.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _accept(self, arrived: Arrived) -> None:
        while not self._closed:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                if not self._closed:
                    time.sleep(PAUSE_SECONDS)
                continue
            try:
                arrived(self._admitted(sock))
            except OSError:
                sock.close()

    def _admitted(self, sock: socket.socket) -> socket.socket:
        """A connection that may be passed on; never waits for the other end.

        Raises
        ------
        OSError
            If it may not.
        """
        return sock


class UnixEndpoint(_ListeningEndpoint):
    """A socket in a folder that only the user of this process may enter; other users are refused in any case.

    Parameters
    ----------
    folder
        Where all cards of the group have theirs (see `private_folder`).
    """

    def __init__(self, folder: str) -> None:
        path = Path(folder) / secrets.token_hex(4)
        self.address = Address("this host", path=str(path))
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.bind(str(path))
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """See `Endpoint`."""
        super().close()
        Path(self.address.path).unlink(missing_ok=True)

    def connect(self, address: Address, seconds: float) -> socket.socket:
        """See `Endpoint`."""
        return _connect_unix(address, seconds)

    def _admitted(self, sock: socket.socket) -> socket.socket:
        return _of_this_user(sock)


class TcpEndpoint(_ListeningEndpoint):
    """A port of the worker's interface.

    Parameters
    ----------
    host
        The interface.
    server_side, client_side
        The TLS contexts of the cluster, or None where it has no TLS. Each side checks the other's certificate.
    """

    def __init__(
        self,
        host: str,
        server_side: ssl.SSLContext | None = None,
        client_side: ssl.SSLContext | None = None,
    ) -> None:
        self.has_tls = server_side is not None
        self._server_side, self._client_side = server_side, client_side
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=BACKLOG)
        self.address = Address(host, self._socket.getsockname()[1])

    def connect(self, address: Address, seconds: float) -> socket.socket:
        """See `Endpoint`."""
        return _connect_tcp(address, seconds, self._client_side)

    def probe(self, address: Address, seconds: float) -> None:
        """See `Endpoint`."""
        socket.create_connection(address[:2], timeout=seconds).close()

    def _admitted(self, sock: socket.socket) -> socket.socket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._server_side is None:
            return sock
        return self._server_side.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def do_handshake(self, sock: socket.socket) -> None:
        """See `Endpoint`."""
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
