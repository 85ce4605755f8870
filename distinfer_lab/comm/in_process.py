"""The way within one process: cards are threads, and hand each other arrays without copying them.

A large array goes as a view that cannot be written to, a small one as a copy, which costs less than
keeping its owner from changing it. An exchange in place ends when the others have taken what this
card gave, so both sides may write to their arrays at once.
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

__all__ = ["HandOver", "Table"]

T = TypeVar("T")
Array = NDArray[Any]
Shaped = tuple[tuple[int, ...], np.dtype[Any]]

COPIED_BYTES = 32 << 10


class _Handed(NamedTuple):
    """What lies on the table."""

    array: Array
    taken: "queue.SimpleQueue[int] | None"
    """Where the giver waits to hear that it was taken; None if it does not wait."""


class Table:
    """Where the cards of one epoch lay down what they give each other."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], queue.SimpleQueue[_Handed]] = {}
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, ...], dict[int, Array]] = {}
        self._answers: dict[int, queue.SimpleQueue[Array | CardError]] = {}
        self.gone: set[int] = set()
        """Cards that closed their channels."""

    def add_up(self, rank: int, array: Array, ranks: tuple[int, ...]) -> None:
        """Lay down a term of a sum of a group; who comes last adds for all, while they wait at `answer`.

        numpy lets go of the interpreter when it adds; were the others awake, each would take it in turn.
        """
        with self._lock:
            terms = self._sums.setdefault(ranks, {})
            terms[rank] = array
            if len(terms) < len(ranks):
                return
            del self._sums[ranks]
        for one, answer in zip(ranks, _totals(terms, ranks), strict=True):
            self.answer(one).put(answer)

    def answer(self, rank: int) -> "queue.SimpleQueue[Array | CardError]":
        """Where a card gets its sum."""
        found = self._answers.get(rank)
        return found or self._answers.setdefault(rank, queue.SimpleQueue())

    def place(self, giver: int, taker: int) -> "queue.SimpleQueue[_Handed]":
        """Where one card lays down what another takes."""
        found = self._places.get((giver, taker))
        return found or self._places.setdefault((giver, taker), queue.SimpleQueue())


def _totals(terms: Mapping[int, Array], ranks: tuple[int, ...]) -> Sequence[Array | CardError]:
    """For each card the sum, as an array of its own."""
    first = terms[ranks[0]]
    for rank in ranks:
        if (terms[rank].shape, terms[rank].dtype) != (first.shape, first.dtype):
            text = (
                f"card {rank} adds {terms[rank].dtype} of shape {terms[rank].shape} to {first.dtype} of shape "
                f"{first.shape} of card {ranks[0]}: the cards run different programs"
            )
            return [CardError(text) for _ in ranks]
    total = sum_in_order([terms[rank] for rank in ranks], np.empty(first.shape, first.dtype))
    return [total, *(total.copy() for _ in ranks[1:])]


_tables: WeakValueDictionary[Epoch, Table] = WeakValueDictionary()
_setting = threading.Lock()


def _table_of(epoch: Epoch) -> Table:
    """The table of an epoch; it is there as long as a card sits at it."""
    with _setting:
        table = _tables.get(epoch)
        if table is None:
            table = _tables[epoch] = Table()
        return table


class HandOver:
    """One card's way to the other cards of this process; parameters as of `Sockets`."""

    window_bytes = sys.maxsize
    """Nothing is gained by pieces where nothing is copied."""

    def __init__(self, rank: int, epoch: Epoch, check: Callable[[], None]) -> None:
        self.rank = rank
        self.sent_bytes, self.waited_seconds = 0, 0.0
        self._table, self._check = _table_of(epoch), check

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once."""
        self._give(sends, None)
        out = {}
        for peer, (shape, dtype) in receives.items():
            array, taken = self._take(peer, shape, dtype)
            if taken is not None:
                array = array.copy()
                taken.put(self.rank)
            out[peer] = array
        return out

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same, in place."""
        taken: queue.SimpleQueue[int] = queue.SimpleQueue()
        waiting = self._give(sends, taken)
        for peer, out in outs.items():
            array, told = self._take(peer, out.shape, out.dtype)
            out[...] = array
            if told is not None:
                told.put(self.rank)
        while waiting:
            waiting.remove(self._next(taken, waiting))

    def sum_small(self, array: Array, ranks: Sequence[int]) -> Array:
        """The sum of the arrays of all, added in the order of `ranks`."""
        self.sent_bytes += array.nbytes * (len(ranks) - 1)
        self._table.add_up(self.rank, array, tuple(ranks))
        answer = self._next(self._table.answer(self.rank), ranks)
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
        """Leave the table; whoever waits for this card is told."""
        self._table.gone.add(self.rank)

    def _give(self, sends: Mapping[int, Array], taken: "queue.SimpleQueue[int] | None") -> set[int]:
        """Lay arrays down; gives the cards that will tell by `taken` that they took them."""
        copies: dict[int, Array] = {}
        waiting = set()
        for peer, array in sends.items():
            if peer in self._table.gone:
                raise self._gone(peer)
            large = array.nbytes > COPIED_BYTES
            if id(array) not in copies:
                copies[id(array)] = array.view() if large else array.copy()
                copies[id(array)].flags.writeable = False
            if large and taken is not None:
                waiting.add(peer)
            self.sent_bytes += array.nbytes
            self._table.place(self.rank, peer).put(_Handed(copies[id(array)], taken if large else None))
        return waiting

    def _take(self, peer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Handed:
        array, taken = self._next(self._table.place(peer, self.rank), {peer})
        nbytes = math.prod(shape) * dtype.itemsize
        if array.nbytes != nbytes:
            raise CardError(
                f"card {peer} hands over {array.nbytes} bytes; card {self.rank} expects {nbytes} bytes: "
                "the cards run different programs"
            )
        if (array.shape, array.dtype) != (shape, dtype):
            array = bytes_of(np.ascontiguousarray(array)).view(dtype).reshape(shape)
        return _Handed(array, taken)

    def _next(self, place: "queue.SimpleQueue[T]", peers: Iterable[int]) -> T:
        """What comes next at a place where some cards lay things down."""
        began = time.perf_counter()
        while True:
            try:
                found = place.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                self._check()
                gone = self._table.gone.intersection(peers)
                if gone and place.empty():
                    raise self._gone(min(gone)) from None
            else:
                self.waited_seconds += time.perf_counter() - began
                return found

    def _gone(self, peer: int) -> ChannelClosedError:
        gone = [f"card {rank}" for rank in sorted(self._table.gone)]
        return ChannelClosedError(f"card {peer} closed its channel; gone by now: {listed(gone)}")
