"""A reshard as data: for every destination box the pieces of source boxes that fill it.

::

    plan = plan_reshard(src, dst)
    plan["w"]                  the pieces of one tensor
    plan.pieces_of(rank)       the pieces of all tensors that one destination rank reads
    plan.traffic               bytes from each source rank to each destination rank
    plan.moved_bytes           what leaves its card; plan.bound_bytes what at least must

The plan knows no files; `serial.execute` says what carrying it out means. It is kept by classes of
equal tensors (see `classes.py`), so that one of a million pieces costs no more than what is asked.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Saved, counted
from ..layout import Regions, Transfers, volumes
from .bounds import held_elements, least_load
from .classes import Pieces, TensorClass

__all__ = ["CardPieces", "ReshardPlan", "TensorPlan"]

Rows = NDArray[np.int64]


class TensorPlan(NamedTuple):
    """One tensor's part of a plan: who holds and who is to hold it, and its pieces, one per row."""

    name: str
    shape: tuple[int, ...]
    """The full shape."""
    dtype: np.dtype[Any]
    src: Regions
    dst: Regions
    pieces: Pieces
    """By destination rank, ascending."""

    @property
    def transfers(self) -> Transfers:
        """Who sends what to whom."""
        return Transfers(self.pieces.src_rank, self.pieces.dst_rank, self.pieces.boxes)

    @property
    def nbytes(self) -> Rows:
        """Bytes of each piece, int64, shape (n,)."""
        return volumes(self.pieces.boxes) * self.dtype.itemsize


class CardPieces(NamedTuple):
    """What one destination rank reads, one piece per row, tensor by tensor."""

    tensor: Rows
    """Which of the plan's tensors, in its order, int64, shape (n,)."""
    src_rank: Rows
    """int64, shape (n,)."""
    boxes: NDArray[np.int64]
    """In the coordinates of the whole tensor, int64, shape (n, most dims, 2); [0, 1) beyond a tensor's dims."""
    src_at: Rows
    """Where the piece begins in the source rank's shard, int64, shape (n, most dims)."""
    dst_at: Rows
    """Where the piece begins in this rank's shard, int64, shape (n, most dims)."""


@dataclass(frozen=True, repr=False, eq=False)
class ReshardPlan(Mapping[str, TensorPlan], Saved):
    """Tensor -> its plan, with the sums that matter, all in bytes (see `plan_reshard`).

    Attributes
    ----------
    names : tuple of str
        The tensors.
    src_count, dst_count : int
        The number of source and of destination ranks.
    placement : tuple of int, or None
        The card of every destination rank, where card r is the one that holds source rank r;
        None where the two sides are different cards.
    sent_bytes : int64, shape (src_count,)
        Bytes that each source rank sends to other cards.
    """

    names: tuple[str, ...]
    classes: tuple[TensorClass, ...]
    src_count: int
    dst_count: int
    placement: tuple[int, ...] | None
    sent_bytes: Rows
    class_of: Rows
    """The class of each tensor, int64."""
    place_in: Rows
    """Where each tensor stands among those of its class, int64."""

    @property
    def same_cards(self) -> bool:
        """Whether destination ranks live on cards of the source."""
        return self.placement is not None

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __getitem__(self, name: str) -> TensorPlan:
        kind, at = self.class_named(name), int(self.place_in[self._numbers[name]])
        place = int(np.searchsorted(kind.firsts, at, side="right")) - 1
        piece = np.arange(len(kind.sizes))
        first_src, first_dst = kind.places[place].tolist()
        src = kind.src._replace(ranks=kind.src.ranks + first_src)
        dst = kind.dst._replace(ranks=kind.dst.ranks + first_dst)
        member = at - int(kind.firsts[place])
        pieces = kind.pieces(np.full_like(piece, place), piece, np.full_like(piece, member))
        return TensorPlan(name, kind.shape, kind.dtype, src, dst, pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def pieces_of(self, rank: int) -> CardPieces:
        """Everything that one destination rank reads, tensor by tensor."""
        ndim = max((len(kind.shape) for kind in self.classes), default=0)
        found = [kind.pieces_of_rank(rank) for kind in self.classes]
        tensor = np.concatenate([f.tensor for f in found]) if found else np.zeros(0, np.int64)
        order = np.argsort(tensor, kind="stable")
        boxes = np.zeros((len(order), ndim, 2), np.int64)
        boxes[..., 1] = 1
        src_at, dst_at = np.zeros((2, len(order), ndim), np.int64)
        row = 0
        for part in found:
            rows, dims = slice(row, row + len(part.tensor)), part.boxes.shape[1]
            boxes[rows, :dims], src_at[rows, :dims], dst_at[rows, :dims] = (
                part.boxes,
                part.src_at,
                part.dst_at,
            )
            row += len(part.tensor)
        src_rank = np.concatenate([f.src_rank for f in found]) if found else tensor
        return CardPieces(tensor[order], src_rank[order], boxes[order], src_at[order], dst_at[order])

    def shards_of(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The shape of the shard of every tensor that one destination rank gets, in the order of the plan."""
        found: list[tuple[int, tuple[int, ...]]] = []
        for kind in self.classes:
            tensors, shapes = kind.shards_of_rank(rank)
            found += zip(tensors.tolist(), map(tuple, shapes.tolist()), strict=True)
        return {self.names[number]: shape for number, shape in sorted(found)}

    def class_named(self, name: str) -> TensorClass:
        """What a tensor has in common with others: shape, dtype, boxes."""
        return self.classes[int(self.class_of[self._numbers[name]])]

    @cached_property
    def traffic(self) -> Rows:
        """Bytes from each source rank to each destination rank, int64, shape (src_count, dst_count).

        What a card keeps is in the row of that card.
        """
        out = np.zeros(self.src_count * self.dst_count, np.int64)
        for kind in self.classes:
            for flow in kind.flows():
                where = flow.src_rank * self.dst_count + flow.dst_rank
                nbytes = flow.members * kind.sizes[flow.piece]
                out += np.bincount(where, nbytes, len(out)).astype(np.int64)
        return out.reshape(self.src_count, self.dst_count)

    @cached_property
    def needed_bytes(self) -> Rows:
        """Bytes that each destination rank ends with, int64, shape (dst_count,)."""
        return self._by_destination(lambda kind: np.arange(len(kind.sizes)))

    @cached_property
    def held_bytes(self) -> Rows:
        """Bytes that each source rank holds, int64, shape (src_count,)."""
        out = np.zeros(self.src_count, np.int64)
        for kind in self.classes:
            rank = kind.places[:, 0, None] + kind.src.ranks
            nbytes = kind.counts[:, None] * volumes(kind.src.boxes) * kind.dtype.itemsize
            out += np.bincount(rank.ravel(), nbytes.ravel(), self.src_count).astype(np.int64)
        return out

    @cached_property
    def kept_bytes(self) -> Rows:
        """Bytes that each destination rank reads from its own card, int64, shape (dst_count,)."""
        return self._by_destination(lambda kind: np.flatnonzero(kind.groups.group < 0))

    def _by_destination(self, chosen: Callable[[TensorClass], Rows]) -> Rows:
        out = np.zeros(self.dst_count, np.int64)
        for kind in self.classes:
            piece = chosen(kind)
            rank = kind.places[:, 1, None] + kind.dst.ranks[kind.found.dst_row[piece]]
            nbytes = kind.counts[:, None] * kind.sizes[piece]
            out += np.bincount(rank.ravel(), nbytes.ravel(), self.dst_count).astype(np.int64)
        return out

    @property
    def received_bytes(self) -> Rows:
        """Bytes that each destination rank gets from other cards, int64, shape (dst_count,)."""
        out: Rows = self.needed_bytes - self.kept_bytes
        return out

    @property
    def moved_bytes(self) -> int:
        """Bytes that go from one card to another."""
        return int(self.received_bytes.sum())

    @cached_property
    def bound_bytes(self) -> int:
        """The least that any plan must move: what each destination needs and its card does not hold.

        Computed from the boxes alone, apart from the pieces.
        """
        bound = 0
        for kind in self.classes:
            needed, held = int(volumes(kind.dst.boxes).sum()), 0
            if self.placement is not None:
                # What is on one card is the same at every place of a class.
                first_src, first_dst = kind.places[0]
                cards = np.array(self.placement, np.int64)[kind.dst.ranks + first_dst]
                held = held_elements(kind.src.boxes, kind.src.ranks + first_src, kind.dst.boxes, cards)
            bound += (needed - held) * kind.dtype.itemsize * int(kind.counts.sum())
        return bound

    @cached_property
    def least_sent_bytes(self) -> float:
        """The least that the busiest card could send, by a linear program that may split pieces at will.

        Raises
        ------
        ReshardError
            If the plan has too many choices for it.
        """
        return least_load(self.classes, self.src_count)

    @cached_property
    def runs(self) -> Rows:
        """Runs of bytes of each source rank's shards that are read, int64, shape (src_count,).

        A shard of columns has a run of each row.
        """
        out = np.zeros(self.src_count, np.int64)
        for kind in self.classes:
            for flow in kind.flows():
                count = flow.members * kind.runs(flow.piece, flow.row)
                out += np.bincount(flow.src_rank, count, len(out)).astype(np.int64)
        return out

    @property
    def pieces(self) -> int:
        """The number of pieces of all tensors."""
        return sum(len(kind.sizes) * int(kind.counts.sum()) for kind in self.classes)

    def __repr__(self) -> str:
        moved, bound = self.moved_bytes, self.bound_bytes
        ratio = f" ({moved / bound:.2f})" if bound else ""
        cards = f"{self.src_count} -> {counted(self.dst_count, 'card')}"
        lines = [
            f"ReshardPlan of {counted(len(self), 'tensor')}, {cards}, {counted(self.pieces, 'piece')}",
            f"  moved / bound  {moved} / {bound} bytes{ratio}",
            f"  a card sends at most {int(self.sent_bytes.max(initial=0))} bytes, "
            f"and ends with at most {int(self.needed_bytes.max(initial=0))}",
        ]
        return "\n".join(lines)
