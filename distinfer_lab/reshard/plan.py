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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked_on_error
from ..display import Displayed, counted
from ..errors import LayoutError, ReshardError, in_lines
from ..layout import Layout, Matches, Regions, Strategy, Transfers, match_regions, volumes
from ..layout.senders import group_pieces
from .bounds import held_elements, least_load
from .classes import Holding, Pieces, TensorClass, interned, numbered
from .topology import Topology

__all__ = ["CardPieces", "ReshardPlan", "TensorPlan", "plan_holdings", "plan_reshard"]

Rows = NDArray[np.int64]

FLOAT32 = np.dtype(np.float32)


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
class ReshardPlan(Mapping[str, TensorPlan], Displayed):
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


@checked_on_error
def plan_reshard(
    src: Strategy,
    dst: Strategy | None,
    *,
    dtypes: Mapping[str, np.dtype[Any]] | None = None,
    same_cards: bool = True,
    placement: Sequence[int] | None = None,
    topology: Topology | None = None,
) -> ReshardPlan:
    """Plan the way from one strategy to another.

    Parameters
    ----------
    src
        Who holds what, with full shapes.
    dst
        Who is to hold what; it must name every tensor of `src`, and may name others, which
        are left out. None: rank 0 gets everything.
    dtypes
        Tensor -> dtype; float32 for those that are not named.
    same_cards
        The destination ranks live on the cards that hold the source ranks, by default rank r
        on card r. Otherwise nothing is kept, everything moves.
    placement
        The card of every destination rank, as `cheapest_placement` returns it.
    topology
        Which cards share a host; a holder on the same host sends before others.

    Raises
    ------
    ReshardError
        If `dst` lacks a tensor, source boxes leave a hole or overlap, or the placement or the
        topology does not fit.
    LayoutError
        If a layout does not fit its tensor.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> tp8, tp4 = Mesh(tp=8), Mesh(tp=4)
    >>> src = Strategy({"w": Layout(tp8, "- tp")}, {"w": (96, 16)})
    >>> plan_reshard(src, Strategy({"w": Layout(tp4, "tp -")}))
    ReshardPlan of 1 tensor, 8 -> 4 cards, 32 pieces
      moved / bound  5376 / 5376 bytes (1.00)
      a card sends at most 768 bytes, and ends with at most 1536
    """
    names = list(src)
    holdings = src.layouts_of(names)
    if dst is None:
        wholes: dict[int, Layout] = {}
        wanted = [wholes.setdefault(h.ndim, Layout.replicated(1, h.ndim)) for h in holdings]
    else:
        try:
            wanted = dst.layouts_of(names)
        except KeyError as err:
            raise ReshardError(
                f"{err.args[0]}: the destination strategy has no layout for it; add one, or leave the tensor out"
            ) from err
    count = 1 if dst is None else dst.ranks
    if placement is None and same_cards:
        placement = range(count)
    return plan_holdings(
        names,
        list(map(src.shapes.__getitem__, names)),
        [FLOAT32] * len(names) if dtypes is None else list(map(dtypes.get, names, repeat(FLOAT32))),
        holdings,
        wanted,
        src.ranks,
        count,
        placement=placement,
        topology=topology,
    )


def plan_holdings(
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[np.dtype[Any]],
    src: Sequence[Holding],
    dst: Sequence[Holding],
    src_count: int,
    dst_count: int,
    *,
    placement: Sequence[int] | None,
    topology: Topology | None = None,
) -> ReshardPlan:
    """Plan from columns, one entry per tensor (see `plan_reshard`)."""
    cards = _checked_placement(placement, dst_count)
    hosts = None
    if topology is not None and cards is not None:
        hosts = topology.host_numbers(max(src_count, int(cards.max(initial=-1)) + 1))
    classes = _classes(names, shapes, dtypes, src, dst, cards, hosts)
    # Those without a choice first; then those with the least, and of these the largest.
    loads = np.zeros(src_count, np.int64)
    for kind in sorted(classes, key=lambda c: (c.groups.holders.shape[1], -c.asked_bytes)):
        kind.choose(loads)
    class_of, place_in = np.zeros((2, len(names)), np.int64)
    for number, kind in enumerate(classes):
        class_of[kind.tensors], place_in[kind.tensors] = number, np.arange(len(kind.tensors))
    return ReshardPlan(
        names=tuple(names),
        classes=tuple(classes),
        src_count=src_count,
        dst_count=dst_count,
        placement=None if cards is None else tuple(cards.tolist()),
        sent_bytes=loads,
        class_of=class_of,
        place_in=place_in,
    )


def _checked_placement(placement: Sequence[int] | None, dst_count: int) -> Rows | None:
    if placement is None:
        return None
    cards = np.array(placement, np.int64)
    if len(cards) != dst_count or len(np.unique(cards)) != dst_count or cards.min(initial=0) < 0:
        raise ReshardError(
            f"placement={list(placement)!r:.80}: give a different card for each of the {dst_count} destination ranks"
        )
    return cards


def _classes(
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[np.dtype[Any]],
    src: Sequence[Holding],
    dst: Sequence[Holding],
    cards: Rows | None,
    hosts: Rows | None,
) -> list[TensorClass]:
    if not names:
        return []
    shape_of = numbered(shapes)
    src_pattern, src_first = _patterns(src)
    dst_pattern, dst_first = _patterns(dst)
    matched: dict[tuple[int, ...], tuple[Regions, Regions, Matches]] = {}
    out: list[TensorClass] = []
    problems: list[LayoutError | ReshardError] = []
    relation = _relation(src_first, dst_first, cards, hosts)
    for tensors in _alike(dtypes, (shape_of, src_pattern, dst_pattern, relation), src_first, dst_first):
        first = int(tensors.min())
        alike = (int(shape_of[first]), int(src_pattern[first]), int(dst_pattern[first]))
        try:
            if alike not in matched:
                matched[alike] = _matched(shapes[first], src[first], dst[first])
        except (LayoutError, ReshardError) as err:
            others = f" (and {len(tensors) - 1} more like it)" if len(tensors) > 1 else ""
            problems.append(type(err)(f"{names[first]}{others}: {err}"))
            continue
        held, wanted, found = matched[alike]
        dst_cards = np.full(len(found.dst_row), -1, np.int64)
        if cards is not None:
            dst_cards = cards[wanted.ranks[found.dst_row] + dst_first[first]]
        groups = group_pieces(found, held, held.ranks + src_first[first], dst_cards, hosts)
        places, counts = _places(np.stack([src_first[tensors], dst_first[tensors]], axis=1))
        out.append(
            TensorClass(shapes[first], dtypes[first], held, wanted, found, groups, places, tensors, counts)
        )
    if problems:
        raise type(problems[0])(in_lines(map(str, problems)))
    return out


def _relation(src_first: Rows, dst_first: Rows, cards: Rows | None, hosts: Rows | None) -> Rows:
    """A number for what is on one card and who is near to whom, as far as first ranks determine it."""
    if cards is None:
        return np.zeros_like(src_first)
    if hosts is None and (cards == np.arange(len(cards))).all():
        # Tensors whose ranks begin elsewhere meet the same cards if both sides are shifted alike.
        return src_first - dst_first - int((src_first - dst_first).min())
    return src_first * (int(dst_first.max()) + 1) + dst_first


def _alike(
    dtypes: Sequence[np.dtype[Any]], columns: Sequence[Rows], src_first: Rows, dst_first: Rows
) -> list[Rows]:
    """The tensors that have all columns and the dtype in common, each list sorted by first ranks."""
    keys, _ = interned(dtypes, lambda dtype: dtype)
    for column in columns:
        keys = keys * (int(column.max()) + 1) + column
    order = np.lexsort((dst_first, src_first, keys))
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return np.split(order, starts[1:])


def _matched(shape: tuple[int, ...], src: Holding, dst: Holding) -> tuple[Regions, Regions, Matches]:
    """The boxes of both sides and their pieces, ranks counted from the first ones."""
    held, wanted = src.regions(shape), dst.regions(shape)
    found = match_regions(held, wanted)
    held = held._replace(ranks=held.ranks - src.first_ranks[0])
    wanted = wanted._replace(ranks=wanted.ranks - dst.first_ranks[0])
    return held, wanted, found


def _patterns(side: Sequence[Holding]) -> tuple[Rows, Rows]:
    """The number of the pattern of each holding, and its first rank."""
    number, distinct = interned(side, lambda holding: (holding.pattern, holding.first_ranks[0]))
    patterns = numbered([holding.pattern for holding in distinct])
    first_of = np.array([holding.first_ranks[0] for holding in distinct], np.int64)
    return patterns[number], first_of[number]


def _places(firsts: Rows) -> tuple[Rows, Rows]:
    """The distinct rows of a sorted array, and how many there are of each."""
    new = np.flatnonzero((np.diff(firsts, axis=0, prepend=-1) != 0).any(axis=1))
    return firsts[new], np.diff(new, append=len(firsts))
