"""Which slice goes to which card, and which copy sends it: what a cut map says of two layouts of one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layout import Layout, Strategy, Transfers
from ...reshard import plan_reshard
from .holding import Holding, hold, needed_volumes

__all__ = ["Flows", "Part", "Piece", "flows_of"]

NAMED = 3


class Piece(NamedTuple):
    """What one distinct inference shard takes out of one slice."""

    box: NDArray[np.int64]
    """int64, shape (ndim, 2)."""
    slice: int
    senders: tuple[int, ...]
    """The training cards that send it to some card."""
    stays: bool
    """Whether a card keeps it."""

    @property
    def words(self) -> tuple[str, ...]:
        """What to say of it, the longest first."""
        if self.stays and not self.senders:
            return ("stays", "")
        named = ", ".join(map(str, self.senders[:NAMED])) + "…" * (len(self.senders) > NAMED)
        start = "stays, else " if self.stays else ""
        return (f"{start}from {named}", f"from {named}", named, str(self.senders[0]) if self.senders else "")


class Part(NamedTuple):
    """A part of what one card holds: whose it is, and how much."""

    number: int
    """Of a training card: the shard of inference that needs it. Of an inference card: the slice that it was."""
    elements: int
    moves: bool
    """Of a training card: whether it sends it. Of an inference card: whether it comes from another."""


@dataclass(frozen=True, eq=False)
class Flows:
    """Two layouts of one tensor and the bytes between them.

    Parameters
    ----------
    train, infer
        What cards hold.
    transfers
        Who sends what to whom.
    same_cards
        Whether rank r of both sides is one card.
    """

    train: Holding
    infer: Holding
    transfers: Transfers
    same_cards: bool

    @cached_property
    def slices(self) -> int:
        """The number of distinct slices."""
        return int(self.train.shards.max(initial=-1)) + 1

    @cached_property
    def parts(self) -> int:
        """Of how many parts of slices the shards of all inference cards are pieced together."""
        numbers, first = np.unique(self.train.shards, return_index=True)
        return int((self.needed[first[numbers >= 0]] > 0).sum())

    @cached_property
    def sent(self) -> NDArray[np.int64]:
        """Elements that each training card sends to each inference card, int64, what it keeps included."""
        out = np.zeros((len(self.train.cards), len(self.infer.cards)), np.int64)
        np.add.at(out, (self.transfers.src_rank, self.transfers.dst_rank), self.transfers.sizes)
        return out

    @cached_property
    def needed(self) -> NDArray[np.int64]:
        """Elements that each training card holds and each inference card needs, int64."""
        return needed_volumes(self.train, self.infer)

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        """Elements that each inference card has already, int64."""
        out = np.zeros(len(self.infer.cards), np.int64)
        if self.same_cards:
            both = min(self.sent.shape)
            out[:both] = np.diagonal(self.sent)[:both]
        return out

    @cached_property
    def received(self) -> NDArray[np.int64]:
        """Elements that each inference card receives from others, int64."""
        return np.asarray(self.sent.sum(axis=0) - self.kept)

    def parts_of_training(self, rank: int) -> list[Part]:
        """What a training card holds, by the inference shards that need it."""
        shards = self.infer.shards
        out = []
        for number in np.unique(shards[(self.needed[rank] > 0)]).tolist():
            members = shards == number
            first = int(np.flatnonzero(members)[0])
            sends = bool(self.sent[rank, members].any())
            out.append(Part(number, int(self.needed[rank, first]), sends))
        return out

    def parts_of_inference(self, rank: int) -> list[Part]:
        """What an inference card needs, by the slices that it was."""
        shards = self.train.shards
        out = []
        for number in np.unique(shards[self.needed[:, rank] > 0]).tolist():
            members = shards == number
            first = int(np.flatnonzero(members)[0])
            keeps = self.same_cards and rank < len(shards) and bool(members[rank])
            out.append(Part(number, int(self.needed[first, rank]), not keeps))
        return out

    @cached_property
    def pieces(self) -> list[Piece]:
        """What each distinct inference shard takes out of each slice, in the order of the tensor."""
        found: dict[bytes, tuple[NDArray[np.int64], int, set[int], bool]] = {}
        moved = self.transfers.src_rank != self.transfers.dst_rank
        moved |= not self.same_cards
        slices = self.train.shards[self.transfers.src_rank]
        rows = zip(self.transfers.src_rank.tolist(), slices.tolist(), moved.tolist(), strict=True)
        for box, (sender, number, moves) in zip(self.transfers.boxes, rows, strict=True):
            _, _, senders, stays = found.get(box.tobytes(), (box, number, set(), False))
            if moves:
                senders.add(sender)
            found[box.tobytes()] = (box, number, senders, stays or not moves)
        return [Piece(box, n, tuple(sorted(senders)), stays) for box, n, senders, stays in found.values()]


def flows_of(
    train: Layout,
    infer: Layout,
    shape: Sequence[int],
    ranks: tuple[int | None, int | None] = (None, None),
    transfers: Transfers | None = None,
    same_cards: bool = True,
) -> Flows:
    """Two layouts of one tensor, by default with the transfers of a plan of this tensor alone."""
    if transfers is None:
        src, dst = (Strategy({"": layout}, {"": tuple(shape)}) for layout in (train, infer))
        transfers = plan_reshard(src, dst, same_cards=same_cards)[""].transfers
    return Flows(hold(train, shape, ranks[0]), hold(infer, shape, ranks[1]), transfers, same_cards)
