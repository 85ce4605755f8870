"""A reshard as data: for every destination box the pieces of source boxes that fill it.

    plan = plan_reshard(src, dst)
    plan["w"].transfers        src_rank, dst_rank, boxes: arrays, one row per piece
    plan.moved_bytes           what leaves its card; plan.bound_bytes what at least must

The plan knows no files and no cards; `serial.execute` says what carrying it out means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed
from ..errors import LayoutError, ReshardError
from ..layout import (
    Boxes,
    Layout,
    Strategy,
    Transfers,
    intersect_boxes,
    plan_transfers,
    volumes,
)

__all__ = ["ReshardPlan", "TensorPlan", "plan_reshard"]

Rows = NDArray[np.int64]


class TensorPlan(NamedTuple):
    """One tensor's part of a plan."""

    name: str
    shape: tuple[int, ...]
    """The full shape."""
    dtype: np.dtype[Any]
    src_ranks: Rows
    src_boxes: Boxes
    dst_ranks: Rows
    dst_boxes: Boxes
    transfers: Transfers

    def dst_box(self, rank: int) -> NDArray[np.int64] | None:
        """The box that a destination rank gets, int64, shape (ndim, 2); None if it gets none."""
        found = np.flatnonzero(self.dst_ranks == rank)
        return self.dst_boxes[found[0]] if len(found) else None

    def src_box(self, rank: int) -> NDArray[np.int64]:
        """The box that a source rank holds, int64, shape (ndim, 2)."""
        box: NDArray[np.int64] = self.src_boxes[np.flatnonzero(self.src_ranks == rank)[0]]
        return box


@dataclass(frozen=True, repr=False, eq=False)
class ReshardPlan(Mapping[str, TensorPlan], Displayed):
    """Tensor -> its plan, with the sums that matter, all in bytes.

    Parameters
    ----------
    tensors
        The plans.
    src_count, dst_count
        The number of source and of destination ranks.
    same_cards
        Rank r of both sides is one card, so what it holds need not move.
    """

    tensors: Mapping[str, TensorPlan]
    src_count: int
    dst_count: int
    same_cards: bool

    def __getitem__(self, name: str) -> TensorPlan:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @cached_property
    def traffic(self) -> Rows:
        """Bytes from each source rank to each destination rank, int64, shape (src_count, dst_count).

        What a card keeps is on the diagonal, where both sides are the same cards.
        """
        out = np.zeros((self.src_count, self.dst_count), np.int64)
        for tensor in self.tensors.values():
            pieces = tensor.transfers
            np.add.at(out, (pieces.src_rank, pieces.dst_rank), pieces.sizes * tensor.dtype.itemsize)
        return out

    @property
    def needed_bytes(self) -> Rows:
        """Bytes that each destination rank ends with, int64, shape (dst_count,)."""
        needed: Rows = self.traffic.sum(axis=0)
        return needed

    @property
    def moved_bytes(self) -> int:
        """Bytes that go from one card to another."""
        kept = np.trace(self.traffic) if self.same_cards else 0
        return int(self.traffic.sum() - kept)

    @cached_property
    def bound_bytes(self) -> int:
        """The least that any plan must move: what each destination needs and does not hold.

        Computed from the boxes alone, apart from the transfers.
        """
        return sum(_bound(tensor, self.same_cards) for tensor in self.tensors.values())

    @property
    def pieces(self) -> int:
        """The number of transfers."""
        return sum(len(tensor.transfers.src_rank) for tensor in self.tensors.values())

    def __repr__(self) -> str:
        moved, bound = self.moved_bytes, self.bound_bytes
        ratio = f" ({moved / bound:.2f})" if bound else ""
        lines = [
            f"ReshardPlan of {len(self)} tensors, {self.src_count} -> {self.dst_count} cards, {self.pieces} pieces",
            f"  moved / bound  {moved} / {bound} bytes{ratio}",
            f"  a card ends with at most {int(self.needed_bytes.max(initial=0))} bytes",
        ]
        return "\n".join(lines)


def _bound(tensor: TensorPlan, same_cards: bool) -> int:
    needed = int(volumes(tensor.dst_boxes).sum())
    held = 0
    if same_cards:
        _, src, dst = np.intersect1d(tensor.src_ranks, tensor.dst_ranks, return_indices=True)
        held = int(volumes(intersect_boxes(tensor.src_boxes[src], tensor.dst_boxes[dst])).sum())
    return (needed - held) * tensor.dtype.itemsize


def plan_reshard(
    src: Strategy,
    dst: Strategy | None,
    *,
    dtypes: Mapping[str, np.dtype[Any]] | None = None,
    same_cards: bool = True,
) -> ReshardPlan:
    """Plan the way from one strategy to another.

    Parameters
    ----------
    src
        Who holds what, with full shapes.
    dst
        Who shall hold what; it must name every tensor of `src`, and may name others, which
        are left out. None: rank 0 gets everything.
    dtypes
        Tensor -> dtype; float32 where it is not given.
    same_cards
        Rank r of both sides is one card.

    Raises
    ------
    ReshardError
        If `dst` lacks a tensor, or source boxes leave a hole or overlap.
    LayoutError
        If a layout does not fit its tensor.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> tp8, tp4 = Mesh(("tp",), (8,)), Mesh(("tp",), (4,))
    >>> src = Strategy({"w": Layout(tp8, ((), ("tp",)))}, {"w": (96, 16)})
    >>> plan_reshard(src, Strategy({"w": Layout(tp4, (("tp",), ()))}))
    ReshardPlan of 1 tensors, 8 -> 4 cards, 32 pieces
      moved / bound  5376 / 5376 bytes (1.00)
      a card ends with at most 1536 bytes
    """
    if dst is None:
        dst = Strategy({name: Layout.replicated(1, layout.ndim) for name, layout in src.items()}, src.shapes)
    cache: dict[Any, tuple[Any, ...]] = {}
    tensors: dict[str, TensorPlan] = {}
    for name, layout in src.items():
        if name not in dst:
            raise ReshardError(
                f"{name}: the destination strategy has no layout for it; add one, or leave the tensor out"
            )
        shape = src.shapes[name]
        # Tensors of equal shape and layouts share their arrays: a model has few such classes.
        key = (shape, layout, dst[name])
        try:
            if key not in cache:
                cache[key] = _planned(shape, layout, dst[name], same_cards)
        except (LayoutError, ReshardError) as err:
            raise type(err)(f"{name}: {err}") from err
        tensors[name] = TensorPlan(name, shape, (dtypes or {}).get(name, np.dtype(np.float32)), *cache[key])
    return ReshardPlan(tensors, src.ranks, dst.ranks, same_cards)


def _planned(shape: tuple[int, ...], src: Layout, dst: Layout, same_cards: bool) -> tuple[Any, ...]:
    src_boxes, dst_boxes = src.boxes(shape), dst.boxes(shape)
    transfers = plan_transfers(src_boxes, src.ranks, dst_boxes, dst.ranks, same_cards=same_cards)
    return src.ranks, src_boxes, dst.ranks, dst_boxes, transfers
