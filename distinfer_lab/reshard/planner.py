"""From the layouts of both sides to a plan: tensors that are alike are planned once."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked_on_error
from ..errors import LayoutError, ReshardError, in_lines
from ..layout import Layout, Matches, Regions, Strategy, match_regions
from ..layout.senders import group_pieces
from .classes import Holding, TensorClass, interned, numbered
from .plan import ReshardPlan
from .topology import Topology

__all__ = ["plan_holdings", "plan_reshard"]

Rows = NDArray[np.int64]

FLOAT32 = np.dtype(np.float32)


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
                f"{err.args[0]}: the destination strategy has no layout for it; add one, or leave the tensor out",
                parameter=err.args[0],
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
    for tensors in _group_equal(dtypes, (shape_of, src_pattern, dst_pattern, relation), src_first, dst_first):
        first = int(tensors.min())
        alike = (int(shape_of[first]), int(src_pattern[first]), int(dst_pattern[first]))
        try:
            if alike not in matched:
                matched[alike] = _matched(shapes[first], src[first], dst[first])
        except (LayoutError, ReshardError) as err:
            others = f" (and {len(tensors) - 1} more like it)" if len(tensors) > 1 else ""
            problems.append(err.restated(f"{names[first]}{others}: {err}", parameter=names[first]))
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
        raise problems[0].restated(in_lines(map(str, problems)))
    return out


def _relation(src_first: Rows, dst_first: Rows, cards: Rows | None, hosts: Rows | None) -> Rows:
    """A number for what is on one card and who is near to whom, as far as first ranks determine it."""
    if cards is None:
        return np.zeros_like(src_first)
    if hosts is None and (cards == np.arange(len(cards))).all():
        # Tensors whose ranks begin elsewhere meet the same cards if both sides are shifted alike.
        return src_first - dst_first - int((src_first - dst_first).min())
    return src_first * (int(dst_first.max()) + 1) + dst_first


def _group_equal(
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
