"""Which of several holders sends a piece: the destination itself, else one on its host, else the least busy.

`least_busy` says what that means, piece by piece. For the millions of pieces of a whole model there is
a closed form. Pieces with the same holders form a group. All tensors of a class and place (`reshard.classes`)
ask each group for the same bytes, one tensor after the other, in one long row::

    tensor 0                 tensor 1                 tensor 2
    |piece 0 |piece 1      |piece 0 |piece 1      |piece 0 |piece 1      |
    |---- holder 4 ------------|--- holder 12 -----------|- holder 20 ---|

How much each holder sends is found by filling water into vessels of the heights that their
loads have; the row is then cut at those amounts, and the holder in whose run a piece has its middle sends it.
So the senders of a million pieces are a few numbers, and each is found by itself when asked for.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .box import volumes
from .matches import Matches, expand_ranges
from .split import Regions

__all__ = [
    "Groups",
    "boundaries",
    "fewest_holders",
    "first_members",
    "group_pieces",
    "least_busy",
    "water_fill",
]

Rows = NDArray[np.int64]

NOBODY = 2**48
"""The load of a place in `Groups.holders` that no holder fills: higher than any real one, in bytes."""


class Groups(NamedTuple):
    """Pieces by the holders that may send them."""

    group: Rows
    """The group of each piece, int64, shape (pieces,); -1 where the destination holds it itself."""
    own_row: Rows
    """The source row of the destination itself where it holds the piece, else -1; shape (pieces,)."""
    holders: Rows
    """Source rows of each group, int64, shape (groups, most holders); -1 beyond the last."""
    before: Rows
    """Elements of the pieces of the same group before each piece, int64, shape (pieces,)."""
    total: Rows
    """Elements of all pieces of each group, int64, shape (groups,)."""


def least_busy(sizes: Rows, group: Rows, holders: Rows, loads: Rows) -> Rows:
    """The sender of each piece, the largest first: of those that hold it the one with least to send so far.

    Parameters
    ----------
    sizes, group
        Of each piece, int64, shape (pieces,).
    holders
        The cards that hold the pieces of each group, int64, shape (groups, most holders); -1 beyond the last.
    loads
        What each card has to send already, int64, shape (cards,). The pieces are added, in place.

    Returns
    -------
    Cards, int64, shape (pieces,).

    Examples
    --------
    >>> loads = np.array([5, 0, 0])
    >>> least_busy(np.array([2, 4, 3]), np.array([0, 0, 0]), np.array([[0, 1, 2]]), loads)
    array([2, 1, 2])
    >>> loads
    array([5, 4, 5])

    References
    ----------
    Graham, "Bounds on multiprocessing timing anomalies", 1969: of n equal holders none sends more than 4/3 of
    the least possible.
    """
    senders = np.empty(len(sizes), np.int64)
    for piece in np.argsort(-sizes, kind="stable").tolist():
        cards = holders[group[piece]]
        sender = cards[np.argmin(np.where(cards >= 0, loads[cards], NOBODY))]
        senders[piece] = sender
        loads[sender] += sizes[piece]
    return senders


def fewest_holders(choices: Iterable[frozenset[int]]) -> list[int]:
    """Few holders, ascending, such that each piece is held by one: the one that holds most of what is left, in turn.

    Parameters
    ----------
    choices
        The holders of each piece.

    Examples
    --------
    >>> fewest_holders([frozenset({0, 1}), frozenset({1, 2}), frozenset({3})])
    [1, 3]
    """
    left, found = set(choices), []
    while left:
        counts = Counter(holder for choice in left for holder in choice)
        alone = {min(choice) for choice in left if len(choice) == 1}
        best = min(alone) if alone else min(counts, key=lambda holder: (-counts[holder], holder))
        found.append(best)
        left = {choice for choice in left if best not in choice}
    return sorted(found)


def group_pieces(
    found: Matches, src: Regions, src_cards: Rows, dst_cards: Rows, hosts: Rows | None
) -> Groups:
    """Sort pieces by who may send them.

    Parameters
    ----------
    found
        The pieces.
    src
        The source.
    src_cards
        The card of each source row.
    dst_cards
        The card of the destination of each piece; -1 where it is not one of the source's.
    hosts
        The host of every card; None where none is near to another.
    """
    order = np.lexsort((src.ranks, found.shard_of))
    order = order[found.shard_of[order] >= 0]
    shard, card = found.shard_of[order], src_cards[order]
    own_row = _own_rows(found.shard, shard, card, dst_cards, order)
    # A group is a shard, and a host if the destination's host has a holder of the shard.
    near = np.full(len(found.shard), -1, np.int64)
    holder_host = np.full(len(order), -1, np.int64)
    if hosts is not None:
        holder_host = hosts[card]
        dst_host = np.where(dst_cards >= 0, hosts[dst_cards], -1)
        width = int(hosts.max(initial=0)) + 2
        reachable = np.isin(found.shard * width + dst_host, shard * width + holder_host)
        near = np.where(reachable, dst_host, -1)
    width = int(near.max(initial=0)) + 2
    asked = own_row < 0
    keys, group_of = np.unique(found.shard[asked] * width + near[asked] + 1, return_inverse=True)
    group = np.full(len(found.shard), -1, np.int64)
    group[asked] = group_of
    holders = _holders(keys // width, keys % width - 1, shard, holder_host, order)
    sizes = volumes(found.boxes)
    before = np.zeros(len(sizes), np.int64)
    by_group = np.flatnonzero(asked)[np.argsort(group[asked], kind="stable")]
    ahead = np.cumsum(sizes[by_group]) - sizes[by_group]
    total = np.bincount(group[asked], sizes[asked], len(keys)).astype(np.int64)
    before[by_group] = ahead - (np.cumsum(total) - total)[group[by_group]]
    return Groups(group, own_row, holders, before, total)


def _own_rows(wanted: Rows, shard: Rows, card: Rows, dst_cards: Rows, rows: Rows) -> Rows:
    """The source row of (shard, card of the destination), or -1."""
    width = int(max(card.max(initial=0), dst_cards.max(initial=0))) + 1
    held = shard * width + card
    order = np.argsort(held, kind="stable")
    asked = np.where(dst_cards >= 0, wanted * width + dst_cards, -1)
    place = np.minimum(np.searchsorted(held[order], asked), len(held) - 1)
    hit = held[order][place] == asked
    return np.where(hit, rows[order][place], -1)


def _holders(group_shard: Rows, group_host: Rows, shard: Rows, host: Rows, rows: Rows) -> Rows:
    """The source rows of each group, padded by -1. `shard` ascends."""
    first = np.searchsorted(shard, group_shard, side="left")
    last = np.searchsorted(shard, group_shard, side="right")
    group, item = expand_ranges(first, last - first)
    fits = (group_host[group] < 0) | (group_host[group] == host[item])
    group, item = group[fits], item[fits]
    counts = np.bincount(group, minlength=len(group_shard))
    out = np.full((len(group_shard), int(counts.max(initial=0))), -1, np.int64)
    out[group, expand_ranges(np.zeros_like(counts), counts)[1]] = rows[item]
    return out


def water_fill(loads: Rows, demand: Rows) -> Rows:
    """Spread demands so that the highest load of the holders that get some is as low as it can be.

    Parameters
    ----------
    loads
        What each holder has to send already, shape (..., holders).
    demand
        What is to be spread, shape (...).

    Returns
    -------
    int64, shape (..., holders); adds up to the demand.

    Examples
    --------
    >>> water_fill(np.array([5, 0, 2]), np.array(4)).tolist()
    [0, 3, 1]
    """
    order = np.argsort(loads, axis=-1, kind="stable")
    low = np.take_along_axis(loads, order, axis=-1)
    count = np.arange(1, loads.shape[-1] + 1)
    # The water covers the k lowest if it reaches the k-th before it runs out.
    needed = count * low - np.cumsum(low, axis=-1)
    covered = np.maximum((needed < demand[..., None]).sum(axis=-1), 1)
    below = np.take_along_axis(np.cumsum(low, axis=-1), covered[..., None] - 1, axis=-1)[..., 0]
    level, rest = np.divmod(demand + below, covered)
    place = np.arange(loads.shape[-1])
    filled = np.where(place < covered[..., None], level[..., None] - low, 0)
    filled += (place < np.minimum(rest, covered)[..., None]).astype(np.int64)
    out = np.empty_like(filled)
    np.put_along_axis(out, order, filled, axis=-1)
    return out


def boundaries(loads: Rows, holders: Rows, demand: Rows) -> tuple[Rows, Rows]:
    """What each holder is to send, and where the row of a group is cut, both (..., groups, holders)."""
    heights = np.where(holders >= 0, loads, NOBODY)
    amounts = water_fill(heights, demand)
    return amounts, np.cumsum(amounts, axis=-1)


def first_members(cuts: Rows, before: Rows, sizes: Rows, total: Rows, members: Rows) -> Rows:
    """From which tensor on each holder no longer sends a piece, by the middle of the piece.

    Parameters
    ----------
    cuts
        Ends of the holders' runs, int64, shape (..., holders).
    before, sizes, total
        Of each piece: what lies before it, its size, and the size of its group; shape (...).
    members
        The number of tensors, shape (...).
    """
    ahead = 2 * cuts - 2 * before[..., None] - sizes[..., None]
    stop = -((-ahead) // (2 * total[..., None]))
    out: Rows = np.clip(stop, 0, members[..., None])
    # Where the row ends no piece is left, whatever rounding says.
    out[..., -1] = members
    return out
