"""Collectives over groups of cards, on any transport that exchanges arrays.

::

    small all_reduce        every card gathers all arrays by recursive doubling
                            and adds them itself                                      log2 n rounds
    large all_reduce        reduce-scatter, then all-gather, window by window         2 rounds a window
    all_reduce of threads   the last card to arrive adds for all
    all others              each card sends each other what it needs                  1 round

Sums are added in the order of the ranks on every element, whatever the round, the window or the order
in which arrays arrive: so they are the same bits every time, and those of the serial interpreter.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .traffic import goes_at_once, runs
from .windows import blocks

__all__ = [
    "Transport",
    "all_reduce",
    "all_to_all",
    "broadcast",
    "gather_by_messages",
    "reduce_scatter",
    "sum_in_order",
]

T = TypeVar("T")
Array = NDArray[Any]
Shape = tuple[int, ...]
Shaped = tuple[Shape, np.dtype[Any]]


class Transport(Protocol):
    """Moves arrays from one card to others."""

    rank: int
    """This card."""
    window_bytes: int
    """The size of pieces in which a large collective is fastest."""

    def exchange(self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]) -> dict[int, Array]:
        """Send an array to each of some cards and receive one from each of some, all at once."""

    def sum_small(self, array: Array, ranks: Sequence[int]) -> Array:
        """The sum of the small arrays of all, added in the order of `ranks`."""

    def borrow(
        self, sends: Mapping[int, Array], receives: Mapping[int, Shaped]
    ) -> AbstractContextManager[dict[int, Array]]:
        """As `exchange`, but what is received may be read within the context only."""

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """The same, in place."""


def all_reduce(transport: Transport, array: Array, ranks: Sequence[int]) -> Array:
    """The sum of the arrays of all, of the shape of each; `ranks` ascend."""
    if goes_at_once(array.nbytes):
        return transport.sum_small(array, ranks)
    flat = np.ascontiguousarray(array).reshape(-1)
    total = np.empty_like(flat)
    cuts = runs(flat.size, len(ranks))
    others = [rank for rank in ranks if rank != transport.rank]
    step = max(transport.window_bytes // array.itemsize, 1)
    for first in range(0, max(b - a for a, b in cuts), step):
        windows = {
            rank: slice(min(a + first, b), min(a + first + step, b))
            for rank, (a, b) in zip(ranks, cuts, strict=True)
        }
        own = total[windows[transport.rank]]
        _add(transport, {rank: flat[window] for rank, window in windows.items()}, ranks, own)
        transport.exchange_into(dict.fromkeys(others, own), {rank: total[windows[rank]] for rank in others})
    return total.reshape(array.shape)


def gather_by_messages(transport: Transport, array: Array, ranks: Sequence[int]) -> list[Array]:
    """The arrays of all, in the order of `ranks`, by few messages; each round passes on all that a card has.

    Of 2, 4, 8 ... cards two that have different halves of a run exchange them; of others each takes what
    it lacks from the one so many places after it.
    """
    count, own = len(ranks), ranks.index(transport.rank)
    held = np.empty((count, *array.shape), array.dtype)
    if count & (count - 1):
        return _gather_around(transport, array, ranks, held)
    held[own] = array
    have = 1
    while have < count:
        first = own & -have  # this card has held[first : first + have]
        lacking = first ^ have
        peer = ranks[own ^ have]
        transport.exchange_into({peer: held[first : first + have]}, {peer: held[lacking : lacking + have]})
        have *= 2
    return list(held)


def _gather_around(transport: Transport, array: Array, ranks: Sequence[int], held: Array) -> list[Array]:
    """held[i]: of the card i places after this one."""
    count, own = len(ranks), ranks.index(transport.rank)
    held[0] = array
    have = 1
    while have < count:
        more = min(have, count - have)
        before, after = ranks[(own - have) % count], ranks[(own + have) % count]
        transport.exchange_into({before: held[:more]}, {after: held[have : have + more]})
        have += more
    return [held[(place - own) % count] for place in range(count)]


def reduce_scatter(transport: Transport, parts: Mapping[int, Array], ranks: Sequence[int]) -> Array:
    """The sum of everyone's part for this card; `ranks` ascend."""
    own = parts[transport.rank]
    total = np.empty(own.shape, own.dtype)
    cuts = {rank: list(blocks(p.shape, p.itemsize, transport.window_bytes)) for rank, p in parts.items()}
    for number in range(max(len(cut) for cut in cuts.values())):
        window = {rank: parts[rank][cut[number]] for rank, cut in cuts.items() if number < len(cut)}
        out = total[cuts[transport.rank][number]] if transport.rank in window else None
        _add(transport, window, ranks, out)
    return total


def _add(transport: Transport, parts: Mapping[int, Array], ranks: Sequence[int], total: Array | None) -> None:
    """Send the others their parts, and put the sum of everyone's part for this card into `total`.

    None: there is nothing for this card any more.
    """
    others = [rank for rank in ranks if rank != transport.rank]
    sends = {rank: parts[rank] for rank in others if rank in parts}
    if total is None:
        transport.exchange(sends, {})
        return
    with transport.borrow(sends, dict.fromkeys(others, (total.shape, total.dtype))) as found:
        terms = found | {transport.rank: parts[transport.rank]}
        sum_in_order([terms[rank] for rank in ranks], total)


def sum_in_order(terms: Sequence[Array], total: Array) -> Array:
    """Add from left to right, into `total`."""
    if len(terms) == 1:
        total[...] = terms[0]
        return total
    np.add(terms[0], terms[1], out=total)
    for term in terms[2:]:
        np.add(total, term, out=total)
    return total


def all_to_all(
    transport: Transport, parts: Mapping[int, Array], shapes: Mapping[int, Shape]
) -> dict[int, Array]:
    """Everyone's part for this card, by rank; `shapes` are those of what comes."""
    own = parts[transport.rank]
    found = transport.exchange(
        _others(transport, parts),
        {rank: (shape, own.dtype) for rank, shape in _others(transport, shapes).items()},
    )
    return found | {transport.rank: own}


def broadcast(
    transport: Transport, array: Array | None, root: int, ranks: Sequence[int], shaped: Shaped
) -> Array:
    """The array of the root, which alone passes one."""
    if transport.rank != root:
        return transport.exchange({}, {root: shaped})[root]
    assert array is not None
    transport.exchange({rank: array for rank in ranks if rank != root}, {})
    return array


def _others(transport: Transport, items: Mapping[int, T]) -> dict[int, T]:
    return {rank: item for rank, item in items.items() if rank != transport.rank}
