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
from ..layout import Box, box_at
from .plan import ReshardPlan, TensorPlan

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
    tensors = []
    used: set[int] = set()
    for source, (name, dtype) in (names or {n: (n, t.dtype) for n, t in plan.items()}).items():
        tensor = _share_tensor(plan[source], rank, name, dtype)
        if tensor is not None:
            tensors.append(tensor)
            used.update(part.src_rank for part in tensor.parts)
    paths = {r: checkpoint.files[r].path for r in sorted(used)}
    return Share(rank, paths, tuple(tensors), dec_key, dec_mode)


def shares_of(plan: ReshardPlan, checkpoint: Checkpoint, **options: Any) -> list[Share]:
    """The share of every destination rank, in order.

    Parameters
    ----------
    options
        `names`: entry in the files -> (name, dtype) of the shard; by default the same. And
        `dec_key`, `dec_mode`.
    """
    return [share_of(plan, checkpoint, rank, **options) for rank in range(plan.dst_count)]


def _share_tensor(plan: TensorPlan, rank: int, name: str, dtype: np.dtype[Any]) -> ShareTensor | None:
    row = plan.dst_box(rank)
    if row is None:
        return None
    inner = box_at(row[None], 0)
    pieces = plan.transfers
    first, last = np.searchsorted(pieces.dst_rank, [rank, rank + 1])
    parts = []
    for i in range(int(first), int(last)):
        giver = int(pieces.src_rank[i])
        box = box_at(pieces.boxes, i)
        outer = box_at(plan.src_box(giver)[None], 0)
        parts.append(Part(giver, box.within(outer), box.within(inner)))
    return ShareTensor(name, plan.name, inner.shape, dtype, tuple(parts))
