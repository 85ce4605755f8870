"""The transport within one process: cards are threads, and arrays are passed by reference.

A large array is passed as a read-only view. A small one is copied, which costs less than waiting until its
owner may change it. An exchange in place returns once the others have copied what this card posted, so both
sides may then write to their arrays.
"""

import contextlib
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ..errors import CardError, listed
from .collectives import sum_in_order
from .listener import WAIT_SECONDS, ChannelClosedError
from .peers import Epoch
from .windows import bytes_of

__all__ = ["InProcessTransport", "Mailboxes"]

T = TypeVar("T")
Array = NDArray[Any]
Shaped = tuple[tuple[int, ...], np.dtype[Any]]

COPIED_BYTES = 32 << 10


class _Message(NamedTuple):
    """An array in a mailbox."""

    array: Array
    done: "queue.SimpleQueue[int] | None"
    """Where the source waits for the destination's rank, put there once the array is copied; None: nobody waits."""


class Mailboxes:
    """The arrays on their way between the cards of one epoch: one mailbox for each source and destination."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, int], queue.SimpleQueue[_Message]] = {}
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, ...], dict[int, Array]] = {}
        self._totals: dict[int, queue.SimpleQueue[Array | CardError]] = {}
        self.gone: set[int] = set()
        """Cards that closed their channels."""

    def add(self, rank: int, array: Array, ranks: tuple[int, ...]) -> None:
        """Post a term of a group's sum. The last card to do so adds for all, while the others wait at `sum_for`.

        numpy releases the interpreter's lock while it adds: cards that were awake would take it in turns.
        """
        with self._lock:
            terms = self._sums.setdefault(ranks, {})
            terms[rank] = array
            if len(terms) < len(ranks):
                return
            del self._sums[ranks]
        for one, total in zip(ranks, _totals(terms, ranks), strict=True):
            self.sum_for(one).put(total)

    def sum_for(self, rank: int) -> "queue.SimpleQueue[Array | CardError]":
        """Where a card gets its sum, or the error of it."""
        found = self._totals.get(rank)
        return found or self._totals.setdefault(rank, queue.SimpleQueue())

    def box(self, source: int, destination: int) -> "queue.SimpleQueue[_Message]":
        """The mailbox from one card to another."""
        found = self._boxes.get((source, destination))
        return found or self._boxes.setdefault((source, destination), queue.SimpleQueue())


def _totals(terms: Mapping[int, Array], ranks: tuple[int, ...]) -> Sequence[Array | CardError]:
    """For each card the sum, as an array of its own."""
    first = terms[ranks[0]]
    for rank in ranks:
        if (terms[rank].shape, terms[rank].dtype) != (first.shape, first.dtype):
            text = (
                f"card {rank} adds {terms[rank].dtype} of shape {terms[rank].shape} to {first.dtype} of shape "
                f"{first.shape} of card {ranks[0]}: the cards run different programs"
            )
            return [CardError(text, rank=rank) for _ in ranks]
    total = sum_in_order([terms[rank] for rank in ranks], np.empty(first.shape, first.dtype))
    return [total, *(total.copy() for _ in ranks[1:])]


_of_epochs: WeakValueDictionary[Epoch, Mailboxes] = WeakValueDictionary()
"""The mailboxes of the epochs whose cards are of this process."""
_of_epochs_lock = threading.Lock()


def mailboxes_of(epoch: Epoch) -> Mailboxes:
    """The mailboxes of an epoch, which all its cards share; dropped when no card uses them."""
    with _of_epochs_lock:
        mailboxes = _of_epochs.get(epoch)
        if mailboxes is None:
            mailboxes = _of_epochs[epoch] = Mailboxes()
        return mailboxes


class InProcessTransport:
    """One card's transport to the other cards of this process; parameters as of `SocketTransport`."""

    window_bytes = sys.maxsize
    """Nothing is gained by pieces where nothing is copied."""

    def __init__(self, rank: int, epoch: Epoch, check: Callable[[], None]) -> None:
        self.rank = rank
        self.sent_bytes, self.waited_seconds = 0, 0.0
        self._mailboxes, self._check = mailboxes_of(epoch), check

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once."""
        self._post(sends, None)
        out = {}
        for peer, (shape, dtype) in receives.items():
            array, done = self._fetch(peer, shape, dtype)
            if done is not None:
                array = array.copy()
                done.put(self.rank)
            out[peer] = array
        return out

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same, in place."""
        copied: queue.SimpleQueue[int] = queue.SimpleQueue()
        waiting = self._post(sends, copied)
        for peer, out in outs.items():
            array, done = self._fetch(peer, out.shape, out.dtype)
            out[...] = array
            if done is not None:
                done.put(self.rank)
        while waiting:
            waiting.remove(self._next(copied, waiting))

    def sum_small(self, array: Array, ranks: Sequence[int]) -> Array:
        """The sum of the arrays of all, added in the order of `ranks`."""
        self.sent_bytes += array.nbytes * (len(ranks) - 1)
        self._mailboxes.add(self.rank, array, tuple(ranks))
        answer = self._next(self._mailboxes.sum_for(self.rank), ranks)
        if isinstance(answer, CardError):
            raise answer
        return answer

    @contextlib.contextmanager
    def borrow(
        self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]
    ) -> Iterator[dict[int, Array]]:
        """As `exchange`, but what is received may be looked at within the context only."""
        yield self.exchange(sends, receives)

    def close(self) -> None:
        """Leave the mailboxes; cards that wait for this one get a ChannelClosedError."""
        self._mailboxes.gone.add(self.rank)

    def _post(self, sends: Mapping[int, Array], done: "queue.SimpleQueue[int] | None") -> set[int]:
        """Put arrays into mailboxes; returns the cards whose ranks will come through `done`."""
        copies: dict[int, Array] = {}
        waiting = set()
        for peer, array in sends.items():
            if peer in self._mailboxes.gone:
                raise self._gone(peer)
            large = array.nbytes > COPIED_BYTES
            if id(array) not in copies:
                copies[id(array)] = array.view() if large else array.copy()
                copies[id(array)].flags.writeable = False
            if large and done is not None:
                waiting.add(peer)
            self.sent_bytes += array.nbytes
            self._mailboxes.box(self.rank, peer).put(_Message(copies[id(array)], done if large else None))
        return waiting

    def _fetch(self, peer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Message:
        array, done = self._next(self._mailboxes.box(peer, self.rank), {peer})
        nbytes = math.prod(shape) * dtype.itemsize
        if array.nbytes != nbytes:
            raise CardError(
                f"card {peer} hands over {array.nbytes} bytes; card {self.rank} expects {nbytes} bytes: "
                "the cards run different programs",
                rank=peer,
            )
        if (array.shape, array.dtype) != (shape, dtype):
            array = bytes_of(np.ascontiguousarray(array)).view(dtype).reshape(shape)
        return _Message(array, done)

    def _next(self, box: "queue.SimpleQueue[T]", peers: Iterable[int]) -> T:
        """The next thing that some cards put into a queue."""
        began = time.perf_counter()
        while True:
            try:
                found = box.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                self._check()
                gone = self._mailboxes.gone.intersection(peers)
                if gone and box.empty():
                    raise self._gone(min(gone)) from None
            else:
                self.waited_seconds += time.perf_counter() - began
                return found

    def _gone(self, peer: int) -> ChannelClosedError:
        gone = [f"card {rank}" for rank in sorted(self._mailboxes.gone)]
        return ChannelClosedError(
            f"card {peer} closed its channel; no longer connected: {listed(gone)}", rank=peer
        )
