"""One destination rank's share of a plan, read from files: what a card takes into its memory.

A `RankReadPlan` is small and can be pickled: sources and rows, no data. Reading it touches only the byte
ranges of its pieces; no slice and no tensor is ever whole, unless the share is.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import Box, windows
from ..reshard import ReshardPlan
from .files import CheckpointFiles
from .sources import BoxReader, OpenSource, SliceSource

__all__ = ["RankReadPlan", "ReadItem", "TensorRead", "rank_read_plan"]

Array = NDArray[Any]

WINDOW_BYTES = 4 << 20


class ReadItem(NamedTuple):
    """A piece of a shard: where it is in a source slice, and where in the shard."""

    src_rank: int
    src: Box
    dst: Box


class TensorRead(NamedTuple):
    """One shard."""

    name: str
    source: str
    """The entry's name in the files."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """Of the shard."""
    source_dtype: np.dtype[Any]
    """What the files have."""
    parts: tuple[ReadItem, ...]
    """One object for all tensors with equal ones."""

    @property
    def nbytes(self) -> int:
        """Bytes of the shard."""
        return math.prod(self.shape) * self.dtype.itemsize

    def windows(self, nbytes: int) -> Iterator[Box]:
        """Runs of the shard, in the order of its bytes, that take so many bytes, converted values included."""
        converted = self.dtype.itemsize if self.dtype != self.source_dtype else 0
        return windows(self.shape, self.source_dtype.itemsize + converted, nbytes)

    def cuts(self, window: Box) -> Iterator[tuple[int, Box, Box]]:
        """What fills a window: source rank, the box of its slice, and the box within the window."""
        for part in self.parts:
            common = part.dst.common(window)
            if common is not None:
                there = common.moved([a - b for a, b in zip(part.src.start, part.dst.start, strict=True)])
                yield part.src_rank, there, common.within(window)

    def fill(self, window: Box, out: Array, sources: Mapping[int, BoxReader], buffer_bytes: int) -> int:
        """Read a window of the shard into `out`, in the files' dtype; gives the bytes that were read."""
        return sum(
            sources[rank].read_into(self.source, there, inner.of(out), buffer_bytes)
            for rank, there, inner in self.cuts(window)
        )


@dataclass(frozen=True)
class RankReadPlan:
    """What one destination rank reads.

    Parameters
    ----------
    rank
        The destination rank.
    sources
        Source rank -> where its slices are.
    tensors
        The shards.
    """

    rank: int
    sources: dict[int, SliceSource]
    tensors: tuple[TensorRead, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each shard."""
        return {tensor.name: tensor.nbytes for tensor in self.tensors}

    def only(self, names: Collection[str]) -> "RankReadPlan":
        """The same without all other shards."""
        return replace(self, tensors=tuple(tensor for tensor in self.tensors if tensor.name in names))

    def by_sender(self, homes: Mapping[int, int]) -> dict[int, "RankReadPlan"]:
        """What each sender has to send of it: the tensors with only its parts.

        Parameters
        ----------
        homes
            Source rank -> the sender that has it; ranks that are not named send nothing.
        """
        found: dict[int, list[TensorRead]] = {}
        divided: dict[int, dict[int, tuple[ReadItem, ...]]] = {}
        for tensor in self.tensors:
            if id(tensor.parts) not in divided:
                divided[id(tensor.parts)] = _by_sender(tensor.parts, homes)
            for sender, parts in divided[id(tensor.parts)].items():
                found.setdefault(sender, []).append(tensor._replace(parts=parts))
        return {
            sender: replace(
                self,
                tensors=tuple(tensors),
                sources={r: source for r, source in self.sources.items() if homes.get(r) == sender},
            )
            for sender, tensors in found.items()
        }

    def bytes_by_sender(self, homes: Mapping[int, int]) -> dict[int, int]:
        """The bytes that each sender has of it, in the sources' dtypes; `homes` as for `by_sender`."""
        out: dict[int, int] = {}
        for tensor in self.tensors:
            for part in tensor.parts:
                if part.src_rank in homes:
                    sender = homes[part.src_rank]
                    out[sender] = out.get(sender, 0) + part.src.size * tensor.source_dtype.itemsize
        return out

    def opened(self, stack: ExitStack) -> dict[int, OpenSource]:
        """The sources by rank, open until the stack is left."""
        out = {}
        for rank, source in self.sources.items():
            out[rank] = source.open()
            stack.callback(out[rank].close)
        return out

    def read(self) -> dict[str, Array]:
        """The shards by name; each file is open only while it is read from."""
        with ExitStack() as stack:
            return self.read_from(self.opened(stack), WINDOW_BYTES)

    def read_from(
        self,
        sources: Mapping[int, BoxReader],
        window_bytes: int,
        advance: Callable[[int], None] = lambda n: None,
    ) -> dict[str, Array]:
        """The shards by name, window by window; `advance` is called with the bytes of each."""
        out = {}
        for tensor in self.tensors:
            shard = out[tensor.name] = np.empty(tensor.shape, tensor.dtype)
            for window in tensor.windows(window_bytes):
                view = window.of(shard)
                if tensor.dtype == tensor.source_dtype:
                    tensor.fill(window, view, sources, window_bytes)
                else:
                    part = np.empty(window.shape, tensor.source_dtype)
                    tensor.fill(window, part, sources, window_bytes)
                    view[...] = part
                advance(view.nbytes)
        return out


def rank_read_plan(
    plan: ReshardPlan,
    checkpoint: CheckpointFiles,
    rank: int,
    *,
    names: Mapping[str, tuple[str, np.dtype[Any]]] | None = None,
) -> RankReadPlan:
    """What one destination rank reads.

    Parameters
    ----------
    names
        Entry in the files -> (name, dtype) of the shard; by default the same.
    """
    given = {n: (n, plan.class_named(n).dtype) for n in plan} if names is None else names
    parts = _parts_of(plan, rank)
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    tensors = tuple(
        TensorRead(
            given[source][0],
            source,
            shapes.setdefault(shape, shape),
            given[source][1],
            plan.class_named(source).dtype,
            parts.get(source, ()),
        )
        for source, shape in plan.shards_of(rank).items()
        if source in given
    )
    used = {part.src_rank for found in _distinct(tensors) for part in found}
    return RankReadPlan(rank, {r: checkpoint.sources[r] for r in sorted(used)}, tensors)


def _distinct(tensors: Sequence[TensorRead]) -> Iterable[tuple[ReadItem, ...]]:
    return {id(tensor.parts): tensor.parts for tensor in tensors}.values()


def _by_sender(parts: Sequence[ReadItem], homes: Mapping[int, int]) -> dict[int, tuple[ReadItem, ...]]:
    """The parts that each sender has."""
    found: dict[int, list[ReadItem]] = {}
    for part in parts:
        if part.src_rank in homes:
            found.setdefault(homes[part.src_rank], []).append(part)
    return {sender: tuple(given) for sender, given in found.items()}


def _parts_of(plan: ReshardPlan, rank: int) -> dict[str, tuple[ReadItem, ...]]:
    """The pieces that a destination rank takes, tensor by tensor."""
    found = plan.pieces_of(rank)
    ndim = found.src_at.shape[1]
    extent = found.boxes[..., 1] - found.boxes[..., 0]
    rows = np.column_stack(
        [found.src_rank, found.src_at, found.src_at + extent, found.dst_at, found.dst_at + extent]
    )
    edges = [*np.flatnonzero(np.diff(found.tensor, prepend=-1)).tolist(), len(found.tensor)]
    known: dict[tuple[int, bytes], tuple[ReadItem, ...]] = {}
    out: dict[str, tuple[ReadItem, ...]] = {}
    for number, (first, stop) in zip(found.tensor[edges[:-1]].tolist(), pairwise(edges), strict=True):
        name = plan.names[number]
        dims = len(plan.class_named(name).shape)
        key = dims, rows[first:stop].tobytes()
        if key not in known:
            known[key] = tuple(_item(row, ndim, dims) for row in rows[first:stop].tolist())
        out[name] = known[key]
    return out


def _item(row: Sequence[int], ndim: int, dims: int) -> ReadItem:
    """A piece whose four corners take `ndim` numbers each, of which the first `dims` count."""
    a, b, c, d = (tuple(row[1 + i * ndim :][:dims]) for i in range(4))
    return ReadItem(row[0], Box(a, b), Box(c, d))
