"""One destination rank's share of a plan, read from files: what a card takes into its memory.

A `Share` is small and can be pickled: paths and rows, no data. Reading it touches only the byte
ranges of its pieces; no slice and no tensor is ever whole, unless the share is.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint, SliceFile, open_slice
from ..layout import Box
from .plan import ReshardPlan

__all__ = ["Part", "Share", "ShareTensor", "read_part", "share_of", "shares_of"]

Array = NDArray[Any]


class Part(NamedTuple):
    """A piece of a shard: where it is in a source slice, and where in the shard."""

    src_rank: int
    src: Box
    dst: Box


class ShareTensor(NamedTuple):
    """One shard."""

    name: str
    source: str
    """The entry's name in the files."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """What the shard shall have; the file's may be another."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Share:
    """What one destination rank reads.

    Parameters
    ----------
    rank
        The destination rank.
    paths
        Source rank -> file.
    tensors
        The shards.
    dec_key, dec_mode
        For encrypted files.
    """

    rank: int
    paths: dict[int, str]
    tensors: tuple[ShareTensor, ...]
    dec_key: bytes | None = None
    dec_mode: str = "AES-GCM"

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        return sum(int(np.prod(t.shape, dtype=np.int64)) * t.dtype.itemsize for t in self.tensors)

    def read(self) -> dict[str, Array]:
        """The shards by name; each file is open only while it is read from."""
        with ExitStack() as stack:
            used = sorted({part.src_rank for tensor in self.tensors for part in tensor.parts})
            files = {
                rank: stack.enter_context(
                    open_slice(self.paths[rank], dec_key=self.dec_key, dec_mode=self.dec_mode)
                )
                for rank in used
            }
            return {tensor.name: _read_tensor(tensor, files) for tensor in self.tensors}


def _read_tensor(tensor: ShareTensor, files: dict[int, SliceFile]) -> Array:
    out = np.empty(tensor.shape, tensor.dtype)
    for part in tensor.parts:
        read_part(files[part.src_rank], tensor.source, part.src, part.dst.of(out))
    return out


def read_part(file: SliceFile, name: str, box: Box, out: Array) -> None:
    """Read a box of a slice into a view of its shape, converting the dtype if that differs."""
    if out.flags.c_contiguous and out.dtype == file.entry(name).dtype:
        file.read_into(name, box, out)
    else:
        out[...] = file.read(name, box)


def share_of(
    plan: ReshardPlan,
    checkpoint: Checkpoint,
    rank: int,
    *,
    names: dict[str, tuple[str, np.dtype[Any]]] | None = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
) -> Share:
    """The share of one destination rank (see `shares_of` for the names)."""
    given = {n: (n, plan.class_named(n).dtype) for n in plan} if names is None else names
    parts = _parts_of(plan, rank)
    tensors = tuple(
        ShareTensor(given[source][0], source, shape, given[source][1], parts.get(source, ()))
        for source, shape in plan.shards_of(rank).items()
        if source in given
    )
    used = sorted({part.src_rank for tensor in tensors for part in tensor.parts})
    return Share(rank, {r: checkpoint.files[r].path for r in used}, tensors, dec_key, dec_mode)


def _parts_of(plan: ReshardPlan, rank: int) -> dict[str, tuple[Part, ...]]:
    """The pieces that a destination rank takes, tensor by tensor."""
    found = plan.pieces_of(rank)
    extent = found.boxes[..., 1] - found.boxes[..., 0]
    starts = np.flatnonzero(np.diff(found.tensor, prepend=-1))
    stops = [*starts[1:].tolist(), len(found.tensor)]
    out: dict[str, tuple[Part, ...]] = {}
    columns = (found.src_rank, found.src_at, found.src_at + extent, found.dst_at, found.dst_at + extent)
    for first, stop in zip(starts.tolist(), stops, strict=True):
        name = plan.names[found.tensor[first]]
        ndim = len(plan.class_named(name).shape)
        giver, *corners = (column[first:stop] for column in columns)
        rows = [map(tuple, corner[:, :ndim].tolist()) for corner in corners]
        out[name] = tuple(
            Part(rank, Box(a, b), Box(c, d)) for rank, a, b, c, d in zip(giver.tolist(), *rows, strict=True)
        )
    return out


def shares_of(plan: ReshardPlan, checkpoint: Checkpoint, **options: Any) -> list[Share]:
    """The share of every destination rank, in order.

    Parameters
    ----------
    options
        `names`: entry in the files -> (name, dtype) of the shard; by default the same. And
        `dec_key`, `dec_mode`.
    """
    return [share_of(plan, checkpoint, rank, **options) for rank in range(plan.dst_count)]
