"""What a plan costs, by card, by file and by kind of tensor, compared with the lower bound.

::

    bytes to destinations 1.5 MiB, of them moved 1.1 MiB; least possible 1.1 MiB (1.00)
    card 0  needs 192 KiB: kept 48 KiB, received 144 KiB; sends 96 KiB; peak 32.4 MiB
    layers.0.w and 11 more: [96, 16] float32, 8 slices [12, 16] -> 4 slices [96, 4]; moved 1.1 MiB of 1.5 MiB
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arguments import checked_on_error
from ..display import Saved, counted, format_bytes
from ..dtypes import dtype_name
from ..errors import ReshardError
from ..layout import Regions
from ..sizes import BUFFER_BYTES, size_of
from ..text import printable, shown
from .bounds import MOST_CHOICES, choices
from .classes import TensorClass
from .plan import ReshardPlan

__all__ = ["CardCost", "Explanation", "FileCost", "TensorCost", "card_costs", "explain"]

MOST_ROWS = 16
"""Rows of a table that are printed; `to_json` has all."""


class CardCost(NamedTuple):
    """What a plan asks of one card, in bytes."""

    card: int
    held: int
    """Of the source, before."""
    needed: int
    """What its destination rank ends with."""
    read: int
    """From files."""
    kept: int
    """Of what it needs, what it holds already."""
    received: int
    """From other cards."""
    sent: int
    """To other cards."""
    peak: int
    """The most that it holds at one time, buffer included; of who writes a file the buffer alone."""


class FileCost(NamedTuple):
    """What a plan reads of one file."""

    rank: int
    path: str
    read: int
    """Bytes."""
    seeks: int
    """Runs of bytes that lie apart; neighbouring ones of one destination may be read as one."""
    readers: int
    """Destination ranks that read from it."""


class TensorCost(NamedTuple):
    """What a plan does with all tensors of one kind: those equal in shape, dtype and cuts."""

    name: str
    """The first of them."""
    tensors: int
    """How many they are."""
    shape: tuple[int, ...]
    dtype: str
    src: str
    """How the source holds each of them, as text."""
    dst: str
    """How the destination does."""
    needed: int
    """Bytes of all of them that destinations end with, replicas counted each."""
    moved: int
    """Of these, what goes from card to card."""

    @property
    def common(self) -> tuple[Any, ...]:
        """What all of them have in common."""
        return self.shape, self.dtype, self.src, self.dst


@dataclass(frozen=True, repr=False)
class Explanation(Saved):
    """The costs of a plan (see `explain`); sizes in bytes."""

    tensors: int
    pieces: int
    src_ranks: int
    dst_ranks: int
    needed_bytes: int
    moved_bytes: int
    """From card to card."""
    bound_bytes: int
    """The least that any plan must move, computed from the boxes alone."""
    most_sent_bytes: int
    """By one card."""
    least_sent_bytes: float | None
    """The least that the busiest card could send (a linear program); None if that is too large to solve."""
    buffer_bytes: int
    """What each card may use in addition to its shards."""
    cards: tuple[CardCost, ...]
    files: tuple[FileCost, ...]
    """The source files; none where the source is on cards."""
    kinds: tuple[TensorCost, ...] = ()
    """The tensors, equal ones as one; those with the most bytes first."""
    notes: tuple[str, ...] = ()
    """Further remarks, one sentence each."""

    @property
    def peak_bytes(self) -> int:
        """The most that one card holds."""
        return max((card.peak for card in self.cards), default=0)

    @property
    def load_gap(self) -> float | None:
        """How much more than the least possible the busiest card sends: 0.05 is 5 %."""
        if not self.least_sent_bytes:
            return None if self.least_sent_bytes is None else 0.0
        return self.most_sent_bytes / self.least_sent_bytes - 1

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON can say them."""
        out = asdict(self)
        out["cards"] = [card._asdict() for card in self.cards]
        out["files"] = [file._asdict() for file in self.files]
        out["kinds"] = [kind._asdict() for kind in self.kinds]
        return out | {"peak_bytes": self.peak_bytes, "load_gap": self.load_gap}

    def __repr__(self) -> str:
        words = format_bytes
        ranks = f"{self.src_ranks:,} -> {counted(self.dst_ranks, 'rank')}"
        lines = [f"{counted(self.tensors, 'tensor')}, {ranks}, {counted(self.pieces, 'piece')}"]
        if self.files:
            read = sum(file.read for file in self.files)
            lines += [
                f"  the ranks' files hold {words(self.needed_bytes)}; writing one takes a buffer of at most "
                f"{words(self.buffer_bytes)} of memory",
                f"  {words(read)} of {counted(len(self.files), 'file')} are needed, what several ranks need counted "
                "for each; gaps between short runs may be read as well",
            ]
            rows = [
                f"  {printable(file.path)}: {words(file.read)} in {counted(file.seeks, 'run')}, "
                f"read by {file.readers}"
                for file in self.files
            ]
            return "\n".join(lines + self._noted() + _some(rows) + self._by_kind())
        times = f" ({self.moved_bytes / self.bound_bytes:.2f})" if self.bound_bytes else ""
        lines.append(
            f"  destinations hold {words(self.needed_bytes)}; "
            f"a card holds at most {words(self.peak_bytes)}, the buffer of {words(self.buffer_bytes)} included"
        )
        lines.append(f"  moved {self.moved_bytes} bytes, least possible {self.bound_bytes}{times}")
        least = self.least_sent_bytes
        best = "" if least is None else f"; {words(round(least))} would do ({self.load_gap:.1%} more)"
        lines.append(f"  the busiest card sends {words(self.most_sent_bytes)}{best}")
        rows = [
            f"  card {c.card}: needs {words(c.needed)}, keeps {words(c.kept)}, receives {words(c.received)}, "
            f"sends {words(c.sent)}; peak {words(c.peak)}"
            for c in self.cards
        ]
        return "\n".join(lines + self._noted() + _some(rows) + self._by_kind())

    def _noted(self) -> list[str]:
        return [f"  {printable(note)}" for note in self.notes]

    def _by_kind(self) -> list[str]:
        words = format_bytes
        rows = [
            f"  {printable(kind.name)}{f' and {kind.tensors - 1} more' if kind.tensors > 1 else ''}: "
            f"{list(kind.shape)} {kind.dtype}, {kind.src} -> {kind.dst}; "
            + (
                f"{words(kind.needed)} read"
                if self.files
                else f"moved {words(kind.moved)} of {words(kind.needed)}"
            )
            for kind in self.kinds
        ]
        return ["tensors, those with the most bytes first:", *_some(rows)] if rows else []


def _some(rows: Sequence[str]) -> list[str]:
    more = [f"  ... and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else []
    return [*rows[:MOST_ROWS], *more]


@checked_on_error
def explain(
    plan: ReshardPlan, buffer: int | str = BUFFER_BYTES, paths: Sequence[str] | None = None
) -> Explanation:
    """The costs of a plan, card by card or file by file; nothing is read.

    Parameters
    ----------
    buffer
        The memory for data of each worker, in bytes or as "64 MiB".
    paths
        The file of each source rank, if every destination reads them by itself and writes its own file.

    Raises
    ------
    ReshardError
        If there are more paths than source ranks, or fewer.
    """
    if paths is not None and len(paths) != plan.src_count:
        raise ReshardError(
            f"paths={shown(paths)}: the plan has {counted(plan.src_count, 'source rank')}; give a path for each"
        )
    buffer_bytes = size_of(buffer, "buffer")
    solved = choices(plan.classes) <= MOST_CHOICES
    return Explanation(
        tensors=len(plan),
        pieces=plan.pieces,
        src_ranks=plan.src_count,
        dst_ranks=plan.dst_count,
        needed_bytes=int(plan.needed_bytes.sum()),
        moved_bytes=plan.moved_bytes if paths is None else 0,
        bound_bytes=plan.bound_bytes if paths is None else 0,
        most_sent_bytes=int(plan.sent_bytes.max(initial=0)) if paths is None else 0,
        least_sent_bytes=plan.least_sent_bytes if paths is None and solved else None,
        buffer_bytes=buffer_bytes,
        cards=card_costs(plan, buffer_bytes) if paths is None else _readers(plan, buffer_bytes),
        files=() if paths is None else _files(plan, paths),
        kinds=_kinds(plan, paths is None),
    )


def _kinds(plan: ReshardPlan, moves: bool) -> tuple[TensorCost, ...]:
    found: dict[tuple[Any, ...], TensorCost] = {}
    for kind in sorted(plan.classes, key=lambda kind: int(kind.tensors.min())):
        one = _kind(plan, kind, moves)
        known = found.setdefault(one.common, one)
        if known is not one:
            tensors, needed = known.tensors + one.tensors, known.needed + one.needed
            found[one.common] = known._replace(tensors=tensors, needed=needed, moved=known.moved + one.moved)
    return tuple(sorted(found.values(), key=lambda cost: -cost.needed))


def _kind(plan: ReshardPlan, kind: TensorClass, moves: bool) -> TensorCost:
    return TensorCost(
        name=plan.names[int(kind.tensors.min())],
        tensors=len(kind.tensors),
        shape=kind.shape,
        dtype=dtype_name(kind.dtype),
        src=_describe_held(kind.src),
        dst=_describe_held(kind.dst),
        needed=int(kind.sizes.sum()) * len(kind.tensors),
        moved=kind.asked_bytes if moves else 0,
    )


def _describe_held(held: Regions) -> str:
    """Into how many different slices a tensor is cut, their shape, and how many ranks have them."""
    order = np.argsort(held.ranks, kind="stable")
    ranks, first = np.unique(held.ranks[order], return_index=True)
    slices = len({boxes.tobytes() for boxes in np.split(held.boxes[order], first[1:])})
    shapes = np.unique(held.shard_shapes(int(ranks.max()) + 1)[ranks], axis=0)
    size = f"{'' if len(shapes) == 1 else 'of at most '}{shapes.max(axis=0).tolist()}"
    words = "whole" if slices == 1 else f"{slices} slices {size}"
    return words if len(ranks) == slices else f"{words} on {len(ranks)} ranks"


def _readers(plan: ReshardPlan, buffer_bytes: int) -> tuple[CardCost, ...]:
    needed = plan.needed_bytes.tolist()
    return tuple(CardCost(rank, 0, n, n, 0, 0, 0, buffer_bytes) for rank, n in enumerate(needed))


def _files(plan: ReshardPlan, paths: Sequence[str]) -> tuple[FileCost, ...]:
    read, readers = plan.traffic.sum(axis=1), (plan.traffic > 0).sum(axis=1)
    columns = zip(paths, read.tolist(), plan.runs.tolist(), readers.tolist(), strict=True)
    return tuple(FileCost(rank, *row) for rank, row in enumerate(columns))


def card_costs(plan: ReshardPlan, buffer_bytes: int) -> tuple[CardCost, ...]:
    """What a plan asks of each card, in the order of the cards.

    Where the two sides are different cards, those of the destination come after those of the source.
    """
    place = plan.placement or range(plan.src_count, plan.src_count + plan.dst_count)
    count = max(plan.src_count, *(card + 1 for card in place), 1)
    held, needed, kept, sent = np.zeros((4, count), np.int64)
    needed[list(place)], kept[list(place)] = plan.needed_bytes, plan.kept_bytes
    held[: plan.src_count], sent[: plan.src_count] = plan.held_bytes, plan.sent_bytes
    peak = needed + held + buffer_bytes
    columns = np.stack([held, needed, 0 * needed, kept, needed - kept, sent, peak], axis=1)
    return tuple(CardCost(card, *row) for card, row in enumerate(columns.tolist()))
