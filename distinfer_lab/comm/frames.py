"""One array through one socket: the bytes to send, or where to put those that arrive.

::

    small       head and body at once
    large       head | body                                     by socket
    large       head | token, token ...                         the body in slots of the sender's outbox

A head is a serial number and a byte count. The receiver knows from its program how many bytes must
come, and refuses any other number before it takes them; nothing is unpickled. A token says in which
slot the next bytes are, or that they follow it. Both sides are generators of buffers, so that one loop
can serve many of them.
"""

import math
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CardError
from .listener import ChannelClosedError
from .shared_memory import SLOT_BYTES, SLOTS, LocalPeer
from .windows import pieces_to_fill, pieces_to_send

__all__ = [
    "FRAME",
    "Expected",
    "FrameStream",
    "broken",
    "check_head",
    "closed",
    "incoming",
    "is_small",
    "message_of",
    "outgoing",
]

Array = NDArray[Any]

FRAME = struct.Struct("<QQ")
TOKEN = struct.Struct("<II")
FOLLOWS = 0xFFFFFFFF
"""In a token's place for a slot: the bytes follow."""
SMALL_BYTES = 64 << 10
"""Below, a body is copied behind its head: one message, which wakes its receiver once.

From here on a body goes through shared memory where there is some.
"""


def check_head(head: bytes | bytearray, serial: int, nbytes: int, peer: int, rank: int) -> None:
    """Refuse another array than the one that is expected by card `rank` from card `peer`."""
    found = FRAME.unpack(head)
    if found != (serial, nbytes):
        raise CardError(
            f"card {peer} announces frame {found[0]} of {found[1]} bytes; card {rank} expects "
            f"{nbytes} bytes: the cards run different programs",
            rank=peer,
        )


def closed(peer: int) -> ChannelClosedError:
    """The error that a card closed its end."""
    return ChannelClosedError(f"card {peer} closed its channel", rank=peer)


def broken(peer: int, err: OSError) -> ChannelClosedError:
    """The error of a channel that the operating system reported."""
    return ChannelClosedError(f"the channel to card {peer} broke: {err}", rank=peer)


@dataclass
class Expected:
    """An array that is to come."""

    peer: int
    """From this card."""
    rank: int
    """To this card."""
    serial: int
    """How many came before it."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    array: Array | None = None
    """Where to put it. None: it may stay in a slot of its source until `release`."""
    lender: LocalPeer | None = None
    """In whose slot it is."""

    @property
    def nbytes(self) -> int:
        """Of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, head: bytes | bytearray) -> None:
        """Refuse another array than this one."""
        check_head(head, self.serial, self.nbytes, self.peer, self.rank)

    def release(self) -> None:
        """Look at the array no more."""
        if self.lender is not None:
            self.lender.acknowledge()


def is_small(nbytes: int) -> bool:
    """Whether a body of so many bytes goes with its head in one message."""
    return nbytes < SMALL_BYTES


def message_of(array: Array, serial: int) -> bytes:
    """A small array with its head."""
    return FRAME.pack(serial, array.nbytes) + array.tobytes()


def outgoing(
    array: Array, serial: int, window_bytes: int, local_peer: LocalPeer | None, key: int
) -> Iterator[memoryview]:
    """The buffers to send for an array, one after another.

    Parameters
    ----------
    window_bytes
        The most that is copied of an array that is not contiguous, at one time.
    local_peer
        The receiver, if it can take bytes from this card's outbox.
    key
        By which the outbox knows the array.
    """
    if is_small(array.nbytes):
        yield memoryview(message_of(array, serial))
        return
    head = FRAME.pack(serial, array.nbytes)
    if local_peer is None:
        yield memoryview(head)
        yield from pieces_to_send(array, window_bytes)
        return
    sent = 0
    for piece in pieces_to_send(array, window_bytes):
        for first in range(0, len(piece), SLOT_BYTES):
            part = piece[first : first + SLOT_BYTES]
            slot = local_peer.publish(np.frombuffer(part, np.uint8), (key, sent))
            yield memoryview(head + TOKEN.pack(FOLLOWS if slot is None else slot, len(part)))
            head = b""
            if slot is None:
                yield part
            sent += len(part)


def incoming(expected: Expected, window_bytes: int, local_peer: LocalPeer | None) -> Iterator[memoryview]:
    """The buffers to fill for an array, one after another; in the end it is `expected.array`."""
    head, token = bytearray(FRAME.size), bytearray(TOKEN.size)
    yield memoryview(head)
    expected.check(head)
    nbytes, slot, count = expected.nbytes, FOLLOWS, 0
    shared = local_peer is not None and not is_small(nbytes)
    if local_peer is not None and shared:
        yield memoryview(token)
        slot, count = _checked(token, nbytes, local_peer.rank)
        if count == nbytes and slot != FOLLOWS:
            whole = local_peer.slots[slot, :count].view(expected.dtype).reshape(expected.shape)
            if expected.array is None:
                expected.array, expected.lender = whole, local_peer
            else:
                expected.array[...] = whole
                local_peer.acknowledge()
            return
    if expected.array is None:
        expected.array = np.empty(expected.shape, expected.dtype)
    if local_peer is not None and shared:
        yield from _from_slots(expected.array, window_bytes, local_peer, slot, count)
    else:
        yield from pieces_to_fill(expected.array, window_bytes)


def _from_slots(
    out: Array, window_bytes: int, local_peer: LocalPeer, slot: int, left: int
) -> Iterator[memoryview]:
    """Fill an array by tokens; one token may have bytes for several pieces, and one piece those of several tokens.

    Parameters
    ----------
    slot, left
        Of the first token, which has been read already.
    """
    token = bytearray(TOKEN.size)
    at, rest = 0, out.nbytes - left
    for piece in pieces_to_fill(out, window_bytes):
        filled = 0
        while filled < len(piece):
            if not left:
                yield memoryview(token)
                slot, left = _checked(token, rest, local_peer.rank)
                at, rest = 0, rest - left
            count = min(left, len(piece) - filled)
            part = piece[filled : filled + count]
            if slot == FOLLOWS:
                yield part
            else:
                np.frombuffer(part, np.uint8)[:] = local_peer.slots[slot, at : at + count]
            filled, at, left = filled + count, at + count, left - count
            if not left and slot != FOLLOWS:
                local_peer.acknowledge()


def _checked(token: bytearray, rest: int, peer: int) -> tuple[int, int]:
    slot, count = TOKEN.unpack(token)
    if not 0 < count <= min(SLOT_BYTES, rest) or (slot >= SLOTS and slot != FOLLOWS):
        raise CardError(
            f"card {peer} announces {count} bytes in slot {slot}, with {rest} bytes to come in slots of "
            f"{SLOT_BYTES}: it uses another protocol; install the same distinfer_lab on every worker",
            rank=peer,
        )
    return slot, count


class FrameStream:
    """What is still to be sent to, or received from, one peer.

    Parameters
    ----------
    buffers
        What is to be sent next, or filled next, whenever the one before it is done.
    """

    def __init__(self, peer: int, sock: socket.socket, buffers: Iterator[memoryview]) -> None:
        self.peer, self.sock = peer, sock
        # TLS knows no such flag; its sockets never wait.
        self._flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_DONTWAIT
        self._buffers, self._view = buffers, memoryview(b"")

    def advance(self, sending: bool) -> bool:
        """Move what goes without waiting; True when all is done."""
        while True:
            while not self._view:
                view = next(self._buffers, None)
                if view is None:
                    return True
                self._view = view
            try:
                count = (
                    self.sock.send(self._view, self._flags)
                    if sending
                    else self.sock.recv_into(self._view, len(self._view), self._flags)
                )
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as err:
                raise broken(self.peer, err) from err
            if not count:
                raise closed(self.peer)
            self._view = self._view[count:]
