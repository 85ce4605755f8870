"""One array on its way through one socket: what bytes to send, or where to put those that come.

    small       head and body at once
    large       head | body                                     by socket
    large       head | token, token ...                         the body in slots of the sender's outbox

A head is a serial number and a byte count. The receiver knows from its program how many bytes must
come, and refuses any other number before it takes them; nothing is unpickled. A token says in which
slot the next bytes are, or that they follow it. Both sides are generators of buffers, so that one loop
can serve many of them.
"""

import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CardError
from .listener import ChannelClosedError
from .outbox import SLOT_BYTES, SLOTS, Neighbour
from .windows import bytes_of, pieces_to_fill, pieces_to_send

__all__ = ["FRAME", "Half", "incoming", "outgoing"]

Array = NDArray[Any]

FRAME = struct.Struct("<QQ")
TOKEN = struct.Struct("<II")
FOLLOWS = 0xFFFFFFFF
"""In a token's place for a slot: the bytes follow."""
JOINED_BYTES = 64 << 10
"""Up to here a body is copied behind its head: one message, which wakes its receiver once."""
SHARED_BYTES = 128 << 10
"""From here on a body goes through shared memory where there is some."""


def outgoing(
    array: Array, serial: int, window_bytes: int, neighbour: Neighbour | None, key: int
) -> Iterator[memoryview]:
    """The buffers to send for an array, one after another.

    Parameters
    ----------
    window_bytes
        The most that is copied of an array whose elements lie apart, at one time.
    neighbour
        The receiver, if it can take bytes from this card's outbox.
    key
        By which the outbox knows the array.
    """
    head = FRAME.pack(serial, array.nbytes)
    if array.nbytes <= JOINED_BYTES:
        yield memoryview(head + bytes_of(np.ascontiguousarray(array)).tobytes())
        return
    yield memoryview(head)
    if neighbour is None or array.nbytes < SHARED_BYTES:
        yield from pieces_to_send(array, window_bytes)
        return
    sent = 0
    for piece in pieces_to_send(array, window_bytes):
        for first in range(0, len(piece), SLOT_BYTES):
            part = piece[first : first + SLOT_BYTES]
            slot = neighbour.lay_out(np.frombuffer(part, np.uint8), (key, sent))
            yield memoryview(TOKEN.pack(FOLLOWS if slot is None else slot, len(part)))
            if slot is None:
                yield part
            sent += len(part)


def incoming(
    out: Array,
    check: Callable[[int, int], None],
    window_bytes: int,
    neighbour: Neighbour | None,
) -> Iterator[memoryview]:
    """The buffers to fill for an array, one after another.

    Parameters
    ----------
    check
        Called with the serial number and byte count that are announced; raises if they are wrong.
    """
    head = bytearray(FRAME.size)
    yield memoryview(head)
    check(*FRAME.unpack(head))
    if neighbour is None or out.nbytes < SHARED_BYTES:
        yield from pieces_to_fill(out, window_bytes)
    else:
        yield from _from_slots(out, window_bytes, neighbour)


def _from_slots(out: Array, window_bytes: int, neighbour: Neighbour) -> Iterator[memoryview]:
    """Fill an array by tokens; the bytes of a token may lie in several pieces of it, and the other way round."""
    token = bytearray(TOKEN.size)
    slot = left = at = 0
    rest = out.nbytes
    for piece in pieces_to_fill(out, window_bytes):
        filled = 0
        while filled < len(piece):
            if not left:
                yield memoryview(token)
                slot, left = _checked(token, rest, neighbour.rank)
                at, rest = 0, rest - left
            count = min(left, len(piece) - filled)
            part = piece[filled : filled + count]
            if slot == FOLLOWS:
                yield part
            else:
                np.frombuffer(part, np.uint8)[:] = neighbour.slots[slot, at : at + count]
            filled, at, left = filled + count, at + count, left - count
            if not left and slot != FOLLOWS:
                neighbour.took()


def _checked(token: bytearray, rest: int, peer: int) -> tuple[int, int]:
    slot, count = TOKEN.unpack(token)
    if not 0 < count <= min(SLOT_BYTES, rest) or (slot >= SLOTS and slot != FOLLOWS):
        raise CardError(
            f"card {peer} announces {count} bytes in slot {slot}, with {rest} bytes to come in slots of "
            f"{SLOT_BYTES}: it speaks another protocol; install the same distinfer_lab on every worker"
        )
    return slot, count


class Half:
    """What is still to be sent to, or received from, one peer.

    Parameters
    ----------
    buffers
        What is to be sent next, or filled next, whenever the one before it is done.
    """

    def __init__(self, peer: int, connection: socket.socket, buffers: Iterator[memoryview]) -> None:
        self.peer, self.connection = peer, connection
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
                count = self.connection.send(self._view) if sending else self.connection.recv_into(self._view)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as err:
                raise ChannelClosedError(f"the channel to card {self.peer} broke: {err}") from err
            if not count:
                raise ChannelClosedError(f"card {self.peer} closed its channel")
            self._view = self._view[count:]
