"""How a value gets another layout: by one collective, by a few in a row, or piece by piece.

::

    normal form    slices          nothing moves; shards get smaller
                   all-to-alls,    shards keep their size
                   permutes
                   all-gather      shards grow to their last size
    straight       each card fetches what it lacks from a card that holds it

Neither ever holds more than the shard before and the shard after. Straight, a card receives
the fewest bytes possible; the normal form may need fewer messages, as each of its steps stays within
small groups. `route` chooses what `exchange_seconds` estimates to be faster.

References
----------
Rink, Paszke, Vytiniotis and Schmid, "Memory-efficient array redistribution through portable
collective communication", 2021: the normal form, and that it never needs more memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import Layout, Mesh, Transfers, box_at, plan_transfers, volumes
from .shards import Index, shard_map

__all__ = [
    "BYTES_PER_SECOND",
    "MESSAGE_SECONDS",
    "ROUND_SECONDS",
    "Hop",
    "Piece",
    "exchange_seconds",
    "kind_of",
    "normal_form",
    "on_one_mesh",
    "pieces",
    "route",
    "transfers",
]

Rows = NDArray[np.int64]
Dims = tuple[tuple[str, ...], ...]
Shape = tuple[int, ...]

ROUND_SECONDS = 50e-6
"""What a card waits for the others at each step that sends anything."""
MESSAGE_SECONDS = 20e-6
"""What a message costs its receiver, however short it is."""
BYTES_PER_SECOND = 1e9
"""How fast a card in a process of its own receives long ones."""


class Hop(NamedTuple):
    """One step of a redistribution."""

    kind: str
    """Slice, AllToAll, Permute or AllGather."""
    layout: Layout
    """Of the value after it."""


class Piece(NamedTuple):
    """What one card sends another, or keeps, in a redistribution."""

    sender: int
    receiver: int
    src: Index
    """Where it is in the sender's shard of the old value."""
    dst: Index
    """Where it goes in the receiver's shard of the new one."""


def on_one_mesh(src: Layout, dst: Layout) -> tuple[Layout, Layout] | None:
    """The same two layouts on one mesh, whose axes are as fine as either's; None if there is none.

    Examples
    --------
    >>> a = Layout(Mesh(x=8), "x -")
    >>> b = Layout(Mesh(m=2, n=4), "n m")
    >>> on_one_mesh(a, b)
    (Layout(Mesh(axis0=2, axis1=4), "axis0+axis1 -"), Layout(Mesh(axis0=2, axis1=4), "axis1 axis0"))
    """
    plain = all(
        layout.split == "even" and not (layout.sizes or layout.fused or layout.strides)
        for layout in (src, dst)
    )
    if not plain or src.first_ranks != dst.first_ranks or src.mesh.size != dst.mesh.size:
        return None
    if src.optimizer_shards * dst.optimizer_shards > 1:
        return None
    # Row-major axes end at products of sizes from the right; the finer mesh has the ends of both.
    ends = sorted({1, *_ends(src.mesh), *_ends(dst.mesh)}, reverse=True)
    if any(a % b for a, b in pairwise(ends)):
        return None
    mesh = Mesh(**{f"axis{i}": a // b for i, (a, b) in enumerate(pairwise(ends))})
    return _refined(src, mesh, ends), _refined(dst, mesh, ends)


def _ends(mesh: Mesh) -> list[int]:
    sizes = mesh.axis_sizes
    return [math.prod(sizes[i:]) for i in range(len(sizes))]


def _refined(layout: Layout, mesh: Mesh, ends: Sequence[int]) -> Layout:
    finer: dict[str, tuple[str, ...]] = {}
    firsts = _ends(layout.mesh)
    for name, first, size in zip(layout.mesh.axis_names, firsts, layout.mesh.axis_sizes, strict=True):
        last = first // size
        finer[name] = tuple(f"axis{i}" for i, (a, b) in enumerate(pairwise(ends)) if a <= first and b >= last)
    dims = tuple(tuple(part for axis in dim for part in finer[axis]) for dim in layout.dims)
    return Layout(mesh, dims, first_ranks=layout.first_ranks)


def normal_form(src: Layout, dst: Layout, shape: Shape) -> tuple[Hop, ...] | None:
    """The steps of a redistribution: slices, then all-to-alls and permutes, then an all-gather.

    Parameters
    ----------
    src, dst
        Layouts on the same ranks, whose meshes are, or can be made, one.

    Returns
    -------
    At most one Slice and one AllGather, and what is between them; the last layout holds the same
    boxes as `dst`. None if the meshes do not go together, a layout is uneven, fused or cut by
    optimizer shards, or a dim cannot be shared evenly on the way.

    Examples
    --------
    >>> mesh = Mesh(x=4, y=2)
    >>> hops = normal_form(Layout(mesh, "x -"), Layout(mesh, "- y"), (8, 8))
    >>> [(hop.kind, hop.layout.describe_cut()) for hop in hops]
    [('Slice', 'axis0 axis1'), ('AllGather', '- axis1')]
    """
    common = on_one_mesh(src, dst)
    if common is None:
        return None
    here, there = common
    sliced: Dims = tuple(
        dim + tuple(a for a in wanted if a not in here.axes)
        for dim, wanted in zip(here.dims, there.dims, strict=True)
    )
    # What is to be gathered stays in its dim, as the minor axes, so that one gather ends it.
    spread: Dims = tuple(
        wanted + tuple(a for a in dim if a not in there.axes)
        for dim, wanted in zip(here.dims, there.dims, strict=True)
    )
    steps = [("Slice", sliced), *_moves(sliced, spread, here.mesh), ("AllGather", there.dims)]
    hops, dims = [], here.dims
    for kind, wanted_dims in steps:
        if wanted_dims == dims:
            continue
        dims = wanted_dims
        hops.append(Hop(kind, replace(here, dims=dims)))
        if any(n % parts for n, parts in zip(shape, hops[-1].layout.parts, strict=True)):
            return None
    return tuple(hops)


def _moves(dims: Dims, target: Dims, mesh: Mesh) -> Iterator[tuple[str, Dims]]:
    """All-to-alls and permutes between two ways to shard by the same axes."""
    while dims != target:
        if _parts(dims, mesh) == _parts(target, mesh):
            dims = target
            yield "Permute", dims
            continue
        moved = _minor_moved(dims, target)
        if moved is None:
            # Every axis that must leave its dim is above one that stays: swap their order.
            dims = tuple(_leaving_last(dim, i, target) for i, dim in enumerate(dims))
            yield "Permute", dims
        else:
            dims = moved
            yield "AllToAll", dims


def _parts(dims: Dims, mesh: Mesh) -> list[int]:
    return [math.prod(mesh.axis_size(a) for a in dim) for dim in dims]


def _minor_moved(dims: Dims, target: Dims) -> Dims | None:
    """The minor axis of a dim is put where it belongs; if it can be, one that is in its final place there.

    One axis at a time: groups stay small, and so do the numbers of messages.
    """
    place = {axis: j for j, wanted in enumerate(target) for axis in wanted}
    found: list[tuple[bool, Dims]] = []
    for i, dim in enumerate(dims):
        j = place[dim[-1]] if dim else i
        if j != i:
            out = list(dims)
            out[i], out[j] = dim[:-1], (*dims[j], dim[-1])
            found.append((out[j] != target[j][: len(out[j])], tuple(out)))
    return min(found, key=lambda candidate: candidate[0])[1] if found else None


def _leaving_last(dim: tuple[str, ...], i: int, target: Dims) -> tuple[str, ...]:
    place = {axis: j for j, wanted in enumerate(target) for axis in wanted}
    return tuple(sorted(dim, key=lambda axis: (place[axis] != i, place[axis])))


@lru_cache(maxsize=4096)
def transfers(src: Layout, dst: Layout, shape: Shape) -> Transfers:
    """Who sends which piece to whom: a card keeps what it holds, and receives the rest.

    Of several holders of a piece the one of the destination's replica sends it, so that groups do not mix;
    if a card would then send more than if the least busy did, the least busy does (`plan_transfers`).
    """
    replica = np.zeros(max(src.last_rank, dst.last_rank) + 1, np.int64)
    for layout in (dst, src):
        replica[layout.ranks] = layout.replica_ids()
    return plan_transfers(src.regions(shape), dst.regions(shape), replica)


@lru_cache(maxsize=4096)
def pieces(src: Layout, dst: Layout, shape: Shape) -> tuple[Piece, ...]:
    """The same, as parts of shards."""
    old, new = shard_map(src, shape), shard_map(dst, shape)
    found = transfers(src, dst, shape)
    rows = zip(found.src_rank.tolist(), found.dst_rank.tolist(), strict=True)
    boxes = (box_at(found.boxes, i) for i in range(len(found.boxes)))
    return tuple(
        Piece(a, b, old.place(a, box), new.place(b, box)) for (a, b), box in zip(rows, boxes, strict=True)
    )


def _per_rank(ranks: Rows, counts: NDArray[Any]) -> Rows:
    return np.bincount(ranks, counts, 1).astype(np.int64)


def kind_of(src: Layout, dst: Layout, shape: Shape, pieces: Transfers) -> str:
    """The kind of collective that a redistribution is, by its pieces.

    Returns
    -------
    Slice (nothing moves), Permute (whole shards, from one card to one), Broadcast (from one to
    several), AllGather (every card of a group sends its whole shard to all others), AllToAll
    (every card of a group sends something to all others), or Exchange.
    """
    moved = pieces.moved > 0
    sender, receiver = pieces.src_rank[moved], pieces.dst_rank[moved]
    if not len(sender):
        return "Slice"
    size = pieces.sizes[moved]
    whole_sent = bool((size == _shard_sizes(src, shape)[sender]).all())
    if bool((size == _shard_sizes(dst, shape)[receiver]).all()):
        return "Permute" if len(np.unique(sender)) == len(sender) else "Broadcast"
    if not _in_groups(sender, receiver):
        return "Exchange"
    return "AllGather" if whole_sent else "AllToAll"


def _shard_sizes(layout: Layout, shape: Shape) -> Rows:
    regions = layout.regions(shape)
    return _per_rank(regions.ranks, volumes(regions.boxes))


def _in_groups(sender: Rows, receiver: Rows) -> bool:
    """Whether the cards fall into groups in each of which all send to all others."""
    peers: dict[int, set[int]] = {}
    for a, b in zip(sender.tolist(), receiver.tolist(), strict=True):
        peers.setdefault(a, {a}).add(b)
    return all(peers.get(peer) == group for group in peers.values() for peer in group)


def exchange_seconds(src: Layout, dst: Layout, shape: Shape, itemsize: int) -> float:
    """The estimated time of one step: a round, its messages, its bytes; of the card that has most of each.

    0 where nothing moves.
    """
    pieces = transfers(src, dst, shape)
    moved = pieces.moved
    if not moved.any():
        return 0.0
    messages = max(int(_per_rank(ranks, moved > 0).max()) for ranks in (pieces.src_rank, pieces.dst_rank))
    elements = max(int(_per_rank(ranks, moved).max()) for ranks in (pieces.src_rank, pieces.dst_rank))
    return ROUND_SECONDS + messages * MESSAGE_SECONDS + elements * itemsize / BYTES_PER_SECOND


@lru_cache(maxsize=4096)
def route(src: Layout, dst: Layout, shape: Shape, itemsize: int) -> tuple[tuple[Layout, ...], float]:
    """The layouts that a value goes through, `dst` the last, and the estimated seconds.

    Straight, unless the normal form is faster.
    """
    straight = exchange_seconds(src, dst, shape, itemsize)
    hops = normal_form(src, dst, shape) or ()
    if len(hops) < 2:
        return (dst,), straight
    stops = (*(hop.layout for hop in hops[:-1]), dst)
    steps = zip((src, *stops[:-1]), stops, strict=True)
    seconds = sum(exchange_seconds(a, b, shape, itemsize) for a, b in steps)
    return (stops, seconds) if seconds < straight else ((dst,), straight)
