"""Who of several holders gives a piece: the card itself, else one on its host, else the least busy.

Pieces with the same choice form a group. All tensors of a class and place (`Run` below) ask each
group for the same bytes, one tensor after the other, in one long row::

    tensor 0                 tensor 1                 tensor 2
    |piece 0 |piece 1      |piece 0 |piece 1      |piece 0 |piece 1      |
    |---- holder 4 ------------|--- holder 12 -----------|- holder 20 ---|

How much each holder gives is found by filling water into vessels of the heights that their
loads have; the row is then cut at those amounts, and a piece goes to whose run its middle is in.
So the givers of a million pieces are a few numbers, and each is found by itself when asked for.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import Matches, Regions, expand_ranges, volumes

__all__ = ["Groups", "boundaries", "first_members", "group_pieces", "water_fill"]

Rows = NDArray[np.int64]

NOBODY = 2**48
"""The load of a place in `Groups.holders` that no holder fills: higher than any real one, in bytes."""


class Groups(NamedTuple):
    """Pieces by the holders that may give them."""

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


def group_pieces(
    found: Matches, src: Regions, src_cards: Rows, dst_cards: Rows, hosts: Rows | None
) -> Groups:
    """Sort pieces by who may give them.

    Parameters
    ----------
    found
        The pieces.
    src
        The source.
    src_cards
        The card of each source row.
    dst_cards
        The card of the destination of each piece; -1 where it is none of the source's.
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
    """Spread demands so that the highest load of those who take some is as low as it can be.

    Parameters
    ----------
    loads
        What each holder has to give already, shape (..., holders).
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
    """What each holder shall give, and where the row of a group is cut, both (..., groups, holders)."""
    heights = np.where(holders >= 0, loads, NOBODY)
    amounts = water_fill(heights, demand)
    return amounts, np.cumsum(amounts, axis=-1)


def first_members(cuts: Rows, before: Rows, sizes: Rows, total: Rows, members: Rows) -> Rows:
    """From which tensor on each holder has stopped to give a piece, by the middle of the piece.

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
