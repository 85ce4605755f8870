"""Tensors that are planned as one: equal in shape, dtype and layouts, up to the rank they begin at.

A model of 60,000 tensors has some 40 classes. A class is planned once; its tensors are at places
(the stage or the group of experts), many tensors at each::

    class       boxes, pieces, who may send each            once
    places      first source rank, first destination rank   a few hundred
    members     the tensors at each place                   thousands
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..layout import Boxes, Matches, Regions, expand_ranges, volumes
from ..layout.senders import Groups, boundaries, first_members

__all__ = ["Holding", "Pieces", "TensorClass", "interned", "numbered"]

Rows = NDArray[np.int64]

MOST_AT_ONCE = 1 << 22
"""Counts (place x piece x holder) that are worked on at one time."""


class Holding(Protocol):
    """What a plan needs to know of a layout."""

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """Where its mesh begins."""
        ...

    def regions(self, shape: Sequence[int]) -> Regions:
        """Who holds which boxes of a tensor of this shape."""
        ...

    @property
    def pattern(self) -> Hashable:
        """What two holdings have in common that differ in the rank at which they begin."""
        ...


class Pieces(NamedTuple):
    """Pieces of tensors of one class, one per row."""

    tensor: Rows
    """The number of the tensor, int64, shape (n,)."""
    src_rank: Rows
    """int64, shape (n,)."""
    dst_rank: Rows
    """int64, shape (n,)."""
    boxes: Boxes
    """In the coordinates of the whole tensor, int64, shape (n, ndim, 2)."""
    src_at: Rows
    """Where the piece begins in the shard of the source rank, int64, shape (n, ndim)."""
    dst_at: Rows
    """Where the piece begins in the shard of the destination rank, int64, shape (n, ndim)."""


class Flow(NamedTuple):
    """What ranks send to ranks, one piece of equal tensors per row."""

    src_rank: Rows
    """int64, shape (n,)."""
    dst_rank: Rows
    """int64, shape (n,)."""
    piece: Rows
    """Which of the class's pieces, int64, shape (n,)."""
    row: Rows
    """Which of the source boxes it is part of, int64, shape (n,)."""
    members: Rows
    """Of how many tensors, int64, shape (n,)."""


def numbered(items: Iterable[Hashable]) -> Rows:
    """The number of each item: equal ones have one number, in the order of their first appearance."""
    listed = list(items)
    distinct = dict.fromkeys(listed)
    numbers = dict(zip(distinct, range(len(distinct)), strict=True))
    return np.fromiter(map(numbers.__getitem__, listed), np.int64, len(listed))


def interned(items: Sequence[Any], key: Callable[[Any], Hashable]) -> tuple[Rows, list[Any]]:
    """For each item the number of its key, and the first item of each key.

    The key of one object is computed once, so that many names of few layouts cost little.
    """
    of_id = numbered(map(id, items))
    _, first = np.unique(of_id, return_index=True)
    numbers: dict[Hashable, int] = {}
    distinct: list[Any] = []
    of_key = np.empty(len(first), np.int64)
    for place, index in enumerate(first.tolist()):
        number = of_key[place] = numbers.setdefault(key(items[index]), len(distinct))
        if number == len(distinct):
            distinct.append(items[index])
    return of_key[of_id], distinct


@dataclass(eq=False)
class TensorClass:
    """Tensors that are planned as one (see above). Ranks are counted from the place's first ones."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    src: Regions
    dst: Regions
    found: Matches
    groups: Groups
    places: Rows
    """First source and first destination rank of each place, int64, shape (places, 2)."""
    tensors: Rows
    """The numbers of the tensors, place by place, int64."""
    counts: Rows
    """Tensors at each place, int64, shape (places,)."""
    cuts: Rows = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))
    """Ends of the holders' runs in the row of each group, in bytes, int64, shape (places, groups, holders)."""

    @cached_property
    def sizes(self) -> Rows:
        """Bytes of each piece, int64, shape (pieces,)."""
        return volumes(self.found.boxes) * self.dtype.itemsize

    @cached_property
    def asked(self) -> Rows:
        """The pieces that another card sends, int64."""
        return np.flatnonzero(self.groups.group >= 0)

    @property
    def firsts(self) -> Rows:
        """Where the tensors of each place begin in `tensors`, int64, shape (places,)."""
        out: Rows = np.cumsum(self.counts) - self.counts
        return out

    @property
    def asked_bytes(self) -> int:
        """Bytes that other cards send, of all tensors."""
        return int(self.groups.total.sum()) * self.dtype.itemsize * int(self.counts.sum())

    def choose(self, loads: Rows) -> None:
        """Choose who sends what, and add it to the loads (bytes by source rank), in place."""
        if not len(self.asked):
            return
        holders, itemsize = self.groups.holders, self.dtype.itemsize
        ranks = self.src.ranks[holders]
        demand = self.counts[:, None] * (self.groups.total * itemsize)
        heights = loads[self.places[:, 0, None, None] + ranks]
        self.cuts = boundaries(heights, holders, demand)[1]
        for rows, given in self.given():
            sent = given * self.sizes[self.asked][:, None]
            who = np.broadcast_to(
                self.places[rows, 0, None, None] + ranks[self.groups.group[self.asked]], sent.shape
            )
            loads += np.bincount(who.ravel(), sent.ravel(), len(loads)).astype(np.int64)

    def given(self) -> Iterator[tuple[slice, Rows]]:
        """Of how many tensors each holder sends each asked piece: (places, asked, holders), in parts."""
        step = max(MOST_AT_ONCE // max(len(self.asked) * self.groups.holders.shape[1], 1), 1)
        for first in range(0, len(self.counts) if len(self.asked) else 0, step):
            rows = slice(first, first + step)
            stops = self._stops(
                np.arange(first, min(first + step, len(self.counts)))[:, None], self.asked[None]
            )
            yield rows, np.diff(stops, axis=-1, prepend=0)

    def _stops(self, place: Rows, piece: Rows) -> Rows:
        """From which tensor of its place on each holder no longer sends a piece, (..., holders)."""
        group, itemsize = self.groups.group[piece], self.dtype.itemsize
        return first_members(
            self.cuts[place, group],
            self.groups.before[piece] * itemsize,
            self.sizes[piece],
            self.groups.total[group] * itemsize,
            self.counts[place],
        )

    def flows(self) -> Iterator[Flow]:
        """Everything that one rank sends another, counted, in parts."""
        groups, dst_rank = self.groups, self.dst.ranks[self.found.dst_row]
        for rows, given in self.given():
            place, asked, holder = np.nonzero(given)
            piece = self.asked[asked]
            row = groups.holders[groups.group[piece], holder]
            src = self.places[rows, 0][place] + self.src.ranks[row]
            dst = self.places[rows, 1][place] + dst_rank[piece]
            yield Flow(src, dst, piece, row, given[place, asked, holder])
        own = np.flatnonzero(groups.group < 0)
        src = self.places[:, 0, None] + self.src.ranks[groups.own_row[own]]
        dst = self.places[:, 1, None] + dst_rank[own]
        piece = np.broadcast_to(own, src.shape).ravel()
        count = np.broadcast_to(self.counts[:, None], src.shape).ravel()
        yield Flow(src.ravel(), dst.ravel(), piece, groups.own_row[piece], count)

    def runs(self, piece: Rows, row: Rows) -> Rows:
        """Of how many runs of bytes in the shard of source box `row` a piece is made up, int64, shape (n,)."""
        extent = self.found.boxes[piece, :, 1] - self.found.boxes[piece, :, 0]
        held = self.src.shard_shapes(int(self.src.ranks.max(initial=0)) + 1)[self.src.ranks[row]]
        out = np.ones(len(piece), np.int64)
        inside = np.zeros(
            len(piece), bool
        )  # a dim further in is not taken whole: each index is a run of its own
        for dim in reversed(range(len(self.shape))):
            out *= np.where(inside, extent[:, dim], 1)
            inside |= extent[:, dim] != held[:, dim]
        return out

    def pieces(self, place: Rows, piece: Rows, member: Rows) -> Pieces:
        """The pieces of some tensors; each row is a place, a piece and a tensor of the place."""
        groups = self.groups
        row = groups.own_row[piece].copy()
        asked = np.flatnonzero(row < 0)
        if len(asked):
            stops = self._stops(place[asked], piece[asked])
            holder = (stops <= member[asked, None]).sum(axis=-1)
            row[asked] = groups.holders[groups.group[piece[asked]], holder]
        start = self.found.boxes[piece, :, 0]
        dst_row = self.found.dst_row[piece]
        return Pieces(
            self.tensors[self.firsts[place] + member],
            self.places[place, 0] + self.src.ranks[row],
            self.places[place, 1] + self.dst.ranks[dst_row],
            self.found.boxes[piece],
            start - self.src.boxes[row, :, 0] + self.src.starts[row],
            start - self.dst.boxes[dst_row, :, 0] + self.dst.starts[dst_row],
        )

    def shards_of_rank(self, rank: int) -> tuple[Rows, Rows]:
        """The tensors that a destination rank gets a shard of, and the shards' shapes, (n,) and (n, ndim)."""
        inside = rank - self.places[:, 1]
        place = np.flatnonzero(np.isin(inside, self.dst.ranks))
        which, member = expand_ranges(self.firsts[place], self.counts[place])
        shapes = self.dst.shard_shapes(int(self.dst.ranks.max(initial=0)) + 1)
        return self.tensors[member], shapes[inside[place][which]]

    def holders_for(self, rank: int) -> set[frozenset[int]]:
        """For each piece that a destination rank needs from others, the source ranks that may send it."""
        dst_rank = self.dst.ranks[self.found.dst_row]
        place, piece = np.nonzero((self.places[:, 1, None] + dst_rank == rank) & (self.groups.group >= 0))
        rows = self.groups.holders[self.groups.group[piece]]
        ranks = np.where(rows >= 0, self.places[place, 0, None] + self.src.ranks[rows], -1)
        return {frozenset(found) - {-1} for found in ranks.tolist()}

    def pieces_of_rank(self, rank: int) -> Pieces:
        """Everything that one destination rank reads of these tensors, tensor by tensor."""
        dst_rank = self.dst.ranks[self.found.dst_row]
        place, piece = np.nonzero(self.places[:, 1, None] + dst_rank == rank)
        which, member = expand_ranges(np.zeros_like(place), self.counts[place])
        found = self.pieces(place[which], piece[which], member)
        order = np.argsort(found.tensor, kind="stable")
        return Pieces(*(column[order] for column in found))
