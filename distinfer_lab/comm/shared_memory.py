"""Memory that the cards of one host share: a sender lays bytes out once, and all who need them take them.

::

    an outbox      token | taken: one count per card | slot | slot | slot ...
    written by     its own card                        read by the others

It has no name in any file system, so it is gone when the processes that use it are, however they
end. A peer opens it by way of the owner's process, and knows it by its token. In which slot bytes lie
goes by socket. A receiver counts in its OWN outbox what it has taken; by these counts the sender
knows which slots are free. With none free the bytes go by socket too: nobody waits for a slot.
"""

import fcntl
import hmac
import mmap
import os
import secrets
import stat
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["OFFER_BYTES", "SLOTS", "SLOT_BYTES", "Neighbour", "Offer", "Outbox", "make_outbox"]

SLOT_BYTES = 2 << 20
SLOTS = 16
TOKEN_BYTES = 16
OFFER = struct.Struct("<IIQ16s")
OFFER_BYTES = OFFER.size

Bytes = NDArray[np.uint8]
Key = tuple[int, int]
"""What a piece is: a number of its array, and the first byte."""


class Offer(NamedTuple):
    """How a peer finds an outbox."""

    pid: int = 0
    fd: int = 0
    nbytes: int = 0
    """0: there is none."""
    token: bytes = bytes(TOKEN_BYTES)

    def pack(self) -> bytes:
        """As bytes of a greeting."""
        return OFFER.pack(*self)

    @classmethod
    def unpack(cls, given: bytes) -> "Offer":
        """From `OFFER_BYTES` bytes of a greeting."""
        return cls(*OFFER.unpack(given))


class Neighbour(NamedTuple):
    """Another card of this host, and its outbox, which this card can read but not write."""

    rank: int
    slots: Bytes
    """Shape (SLOTS, SLOT_BYTES)."""
    taken: NDArray[np.uint64]
    """How many slots that card took from this one, shape (1,)."""
    own: "Outbox"
    """Of this card."""

    def lay_out(self, piece: Bytes, key: Key) -> int | None:
        """Put at most a slot of bytes where this neighbour finds them; see `Outbox.lay_out`."""
        return self.own.lay_out(piece, key, self)

    def took(self) -> None:
        """Tell this neighbour that one more of its slots has been taken."""
        self.own.taken[self.rank] += 1


class Outbox:
    """What one card lays out for others; of a fixed size, of which untouched pages cost nothing.

    Parameters
    ----------
    rank
        This card.
    cards
        How many the group has.
    """

    def __init__(self, rank: int, cards: int) -> None:
        self._rank, self._cards = rank, cards
        self._quota = max(SLOTS // max(cards - 1, 1), 2)
        self._first = -(-(TOKEN_BYTES + 8 * cards) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._nbytes = self._first + SLOTS * SLOT_BYTES
        self._fd = os.memfd_create("distinfer-outbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(self._fd, 0o600)  # a peer opens it by its owner's process, by the mode of the file
        os.ftruncate(self._fd, self._nbytes)
        # A file that can shrink would kill those who read it.
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        whole = np.frombuffer(mmap.mmap(self._fd, self._nbytes), np.uint8)
        token = secrets.token_bytes(TOKEN_BYTES)
        whole[:TOKEN_BYTES] = np.frombuffer(token, np.uint8)
        self.offer = Offer(os.getpid(), self._fd, self._nbytes, token)
        self.taken = self._counts(whole)
        self._slots = self._slots_of(whole)
        self._until: list[dict[int, tuple[Neighbour, int]]] = [{} for _ in range(SLOTS)]
        """For each slot who shall take it, and what they will have counted when they have."""
        self._given = [0] * cards
        self._laid: dict[Key, int] = {}

    def _counts(self, whole: Bytes) -> NDArray[np.uint64]:
        return whole[TOKEN_BYTES : TOKEN_BYTES + 8 * self._cards].view(np.uint64)

    def _slots_of(self, whole: Bytes) -> Bytes:
        return whole[self._first :].reshape(SLOTS, SLOT_BYTES)

    def open(self, offer: Offer, rank: int) -> Neighbour | None:
        """Another card's outbox; None if it cannot be had: another host, no such memory, no permission."""
        whole = _mapped(offer) if offer.nbytes == self._nbytes else None
        if whole is None or not hmac.compare_digest(whole[:TOKEN_BYTES].tobytes(), offer.token):
            return None
        mine = self._counts(whole)[self._rank : self._rank + 1]
        return Neighbour(rank, self._slots_of(whole), mine, self)

    def begin(self) -> None:
        """Forget which piece lies where: from now on keys mean something else."""
        self._laid.clear()

    def lay_out(self, piece: Bytes, key: Key, neighbour: Neighbour) -> int | None:
        """Put at most a slot of bytes where a neighbour finds them.

        Parameters
        ----------
        key
            Of these bytes; a piece that lies there already is not laid out again.

        Returns
        -------
        The slot; None if none is free for this neighbour.
        """
        if self._given[neighbour.rank] - int(neighbour.taken[0]) >= self._quota:
            return None
        slot = self._laid.get(key)
        if slot is None:
            slot = next((i for i, until in enumerate(self._until) if _is_free(until)), None)
            if slot is None:
                return None
            self._slots[slot, : piece.size] = piece
            self._until[slot] = {}
            self._laid = {k: s for k, s in self._laid.items() if s != slot} | {key: slot}
        self._given[neighbour.rank] += 1
        self._until[slot][neighbour.rank] = (neighbour, self._given[neighbour.rank])
        return slot

    def close(self) -> None:
        """Let nobody open it any more; the memory goes when nobody uses it."""
        self._until, self._laid = [], {}  # neighbours know this outbox, and it them
        os.close(self._fd)


def make_outbox(rank: int, cards: int) -> Outbox | None:
    """An outbox; None where the system has no nameless shared memory."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return Outbox(rank, cards)
    except OSError:
        return None


def _is_free(until: dict[int, tuple[Neighbour, int]]) -> bool:
    return all(int(neighbour.taken[0]) >= count for neighbour, count in until.values())


def _mapped(offer: Offer) -> Bytes | None:
    """A peer's outbox as it lies in memory, to be read only."""
    try:
        fd = os.open(f"/proc/{offer.pid}/fd/{offer.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != offer.nbytes:
            return None
        return np.frombuffer(mmap.mmap(fd, offer.nbytes, prot=mmap.PROT_READ), np.uint8)
    except OSError:
        return None
    finally:
        os.close(fd)
