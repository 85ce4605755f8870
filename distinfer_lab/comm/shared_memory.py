"""Memory shared by the cards of one host: a source publishes bytes once, and all destinations copy them.

::

    an outbox      token | taken: one count per card | slot | slot | slot ...
    written by     its own card                        read by the others

It has no name in any file system, so it is gone when the processes that use it are, however they
end. A peer opens it through the owner's process, and knows it by its token. The number of a slot
is sent by socket. A receiver counts in its OWN outbox what it has taken; by these counts the source
knows which slots are free. If none is, the bytes are sent by socket too: nobody waits for a slot.
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

__all__ = ["OFFER_BYTES", "SLOTS", "SLOT_BYTES", "LocalPeer", "Offer", "SharedOutbox", "make_outbox"]

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
        """As bytes of a handshake."""
        return OFFER.pack(*self)

    @classmethod
    def unpack(cls, given: bytes) -> "Offer":
        """From `OFFER_BYTES` bytes of a handshake."""
        return cls(*OFFER.unpack(given))


class LocalPeer(NamedTuple):
    """Another card of this host, and its outbox, which this card can read but not write."""

    rank: int
    slots: Bytes
    """Shape (SLOTS, SLOT_BYTES)."""
    taken: NDArray[np.uint64]
    """How many slots that card has taken from this one, shape (1,)."""
    own: "SharedOutbox"
    """Of this card."""

    def publish(self, piece: Bytes, key: Key) -> int | None:
        """Put at most a slot of bytes where this peer can read them; see `SharedOutbox.publish`."""
        return self.own.publish(piece, key, self)

    def acknowledge(self) -> None:
        """Count one more slot of this peer as taken."""
        self.own.taken[self.rank] += 1


class SharedOutbox:
    """What one card publishes for others; of a fixed size, of which untouched pages cost nothing.

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
        self._until: list[dict[int, tuple[LocalPeer, int]]] = [{} for _ in range(SLOTS)]
        """For each slot the peers that should take it, and what they will have counted when they have."""
        self._given = [0] * cards
        self._published: dict[Key, int] = {}

    def _counts(self, whole: Bytes) -> NDArray[np.uint64]:
        return whole[TOKEN_BYTES : TOKEN_BYTES + 8 * self._cards].view(np.uint64)

    def _slots_of(self, whole: Bytes) -> Bytes:
        return whole[self._first :].reshape(SLOTS, SLOT_BYTES)

    def open(self, offer: Offer, rank: int) -> LocalPeer | None:
        """Another card's outbox; None if it cannot be had: another host, no such memory, no permission."""
        whole = _mapped(offer) if offer.nbytes == self._nbytes else None
        if whole is None or not hmac.compare_digest(whole[:TOKEN_BYTES].tobytes(), offer.token):
            return None
        mine = self._counts(whole)[self._rank : self._rank + 1]
        return LocalPeer(rank, self._slots_of(whole), mine, self)

    def begin(self) -> None:
        """Forget which piece is in which slot: from now on keys mean something else."""
        self._published.clear()

    def publish(self, piece: Bytes, key: Key, peer: LocalPeer) -> int | None:
        """Put at most a slot of bytes where a peer can read them.

        Parameters
        ----------
        key
            Of these bytes; a piece that is there already is not copied again.

        Returns
        -------
        The slot; None if none is free for this peer.
        """
        if self._given[peer.rank] - int(peer.taken[0]) >= self._quota:
            return None
        slot = self._published.get(key)
        if slot is None:
            slot = next((i for i, until in enumerate(self._until) if _is_free(until)), None)
            if slot is None:
                return None
            self._slots[slot, : piece.size] = piece
            self._until[slot] = {}
            self._published = {k: s for k, s in self._published.items() if s != slot} | {key: slot}
        self._given[peer.rank] += 1
        self._until[slot][peer.rank] = (peer, self._given[peer.rank])
        return slot

    def close(self) -> None:
        """Let nobody open it any more; the memory goes when nobody uses it."""
        self._until, self._published = [], {}  # peers refer to this outbox, and it to them
        os.close(self._fd)


def make_outbox(rank: int, cards: int) -> SharedOutbox | None:
    """An outbox; None where the system has no nameless shared memory."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return SharedOutbox(rank, cards)
    except OSError:
        return None


def _is_free(until: dict[int, tuple[LocalPeer, int]]) -> bool:
    return all(int(peer.taken[0]) >= count for peer, count in until.values())


def _mapped(offer: Offer) -> Bytes | None:
    """A peer's outbox, mapped to be read only."""
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
