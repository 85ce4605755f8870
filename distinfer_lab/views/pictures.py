"""Meshes, layouts, pairs of layouts and strategies as SVG.

Each function is pure: the same record gives the same string, byte for byte.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..layout import Box, Layout, Mesh, Strategy, nonempty_boxes
from ..layout import intersect_boxes as intersect
from .holding import Holding, group_pair, hold
from .svg import STORED_CARDS, Pen, document, shorten
from .tiles import Block, Piece, beside, heading, tiles

__all__ = ["layout_pair_svg", "layout_svg", "mesh_svg", "plain_shape", "strategy_svg"]

PAD = 12
MAX_PIECES = 160


def layout_svg(
    layout: Layout,
    shape: Sequence[int],
    *,
    title: str = "",
    ranks: int | None = None,
    max_cards: int = STORED_CARDS,
) -> str:
    """Which box of a tensor each card holds.

    Parameters
    ----------
    layout, shape
        The layout and the tensor's full shape.
    title
        What the tensor is called.
    ranks
        The number of cards of the group, where some hold nothing of this tensor.
    max_cards
        Above so many, cards are grouped.

    Raises
    ------
    LayoutError
        If the layout cannot cut the shape.
    """
    whole = hold(layout, shape, ranks)
    holding = whole.grouped(max_cards)
    name = title or f"tensor {list(whole.shape)}"
    pen = Pen(f"{layout!r}{name}")
    block = tiles(holding, "card", f"cards of {name}", pen)
    return _finish(
        heading(block, shorten(name, 60), _lines(layout, holding, len(whole.cards))),
        f"{name}: what each of {_cards(len(whole.cards))} holds",
        pen,
    )


def layout_pair_svg(
    train: Layout,
    infer: Layout,
    shape: Sequence[int],
    *,
    name: str = "",
    ranks: tuple[int | None, int | None] = (None, None),
    max_cards: int = STORED_CARDS,
) -> str:
    """The same tensor on the training cards and on the inference cards.

    A training card has the colour of its shard; an inference card is pieced together in the
    colours of the shards that its bytes come from. Keys are "train:3" and "infer:1".

    Parameters
    ----------
    train, infer, shape
        Both layouts and the tensor's full shape.
    name
        The tensor's name.
    ranks
        The number of cards of both groups.
    max_cards
        Above so many on both sides together, cards are grouped.

    Raises
    ------
    LayoutError
        If a layout cannot cut the shape.
    """
    every = hold(train, shape, ranks[0]), hold(infer, shape, ranks[1])
    src, dst = group_pair(*every, max_cards)
    crowd = len(src.cards) + len(dst.cards)
    pen = Pen(f"{train!r}{infer!r}{shape!r}{name}")
    left = tiles(src, "train", "training cards", pen, crowd=crowd)
    right = tiles(dst, "infer", "inference cards", pen, pieces=_pieces(src, dst), crowd=crowd)
    counts = len(every[0].cards), len(every[1].cards)
    tensor = f"{name or 'tensor'} {list(every[0].shape)}"
    block = beside(
        [
            heading(left, f"Training: {_cards(counts[0])}", _lines(train, src, counts[0])),
            heading(right, f"Inference: {_cards(counts[1])}", _lines(infer, dst, counts[1])),
        ]
    )
    alt = f"{tensor}: what {_cards(counts[0])} held in training and {_cards(counts[1])} need for inference"
    return _finish(heading(block, shorten(tensor, 80), []), alt, pen)


def _pieces(src: Holding, dst: Holding) -> list[list[Piece]] | None:
    """What each card of `dst` takes from each distinct shard of `src`; None if that is too much to draw."""
    first = {s: i for i, s in reversed(list(enumerate(src.shards.tolist()))) if s >= 0}
    numbers = sorted(first)
    boxes = src.boxes[[first[n] for n in numbers]]
    common = intersect(dst.boxes[:, None], boxes[None])
    takes = nonempty_boxes(common) & dst.held[:, None]
    if takes.sum() > max(MAX_PIECES, len(dst.cards)):
        return [[]] * len(dst.cards)
    return [
        [
            Piece(Box(tuple(common[i, j, :, 0].tolist()), tuple(common[i, j, :, 1].tolist())), numbers[j])
            for j in np.flatnonzero(takes[i])
        ]
        for i in range(len(dst.cards))
    ]


def mesh_svg(mesh: Mesh, *, max_cards: int = STORED_CARDS) -> str:
    """The ranks of a mesh: its last axis across, the others down."""
    whole = hold(Layout(mesh, ()), ())
    holding = whole.grouped(max_cards)
    pen = Pen(repr(mesh))
    plain: list[list[Piece]] = [[]] * len(holding.cards)
    block = tiles(holding, "card", f"ranks of {mesh!r}", pen, pieces=plain, crowd=65)
    lines = [f"{mesh.axis_names[-1]} runs across, rank by rank"] if mesh.axis_names else []
    return _finish(
        heading(block, shorten(f"{mesh!r}: {_cards(mesh.size)}", 80), lines + _grouping(holding, mesh.size)),
        f"{mesh!r}: {_cards(mesh.size)}",
        pen,
    )


def strategy_svg(strategy: Strategy, *, max_layouts: int = 4, max_cards: int = STORED_CARDS) -> str:
    """One picture for each of the first few distinct layouts, of the first parameter that has it."""
    firsts: dict[tuple[Layout, bool], str] = {}
    for name, layout in strategy.items():
        firsts.setdefault((layout, name in strategy.shapes), name)
    pen = Pen("".join(firsts.values()))
    shown = list(firsts.values())[:max_layouts]
    parts = [_hold_parameter(strategy, name).grouped(max_cards // len(shown)) for name in shown]
    crowd = max(sum(len(part.cards) for part in parts), 33)
    blocks = []
    for name, part in zip(shown, parts, strict=True):
        like = sum(other == strategy[name] for other in strategy.values()) - 1
        more = [f"and {like} more cut alike"] if like else []
        block = tiles(part, name_key(name), f"cards of {name}", pen, crowd=crowd)
        lines = _lines(strategy[name], part, strategy.ranks)
        blocks.append(heading(block, shorten(name, 40), [*lines, *more]))
    label = f"{len(strategy)} parameters on {_cards(strategy.ranks)}, {len(firsts)} different layouts"
    if not blocks:
        return _finish(heading(Block(0, 0, ""), "no parameters", []), label, pen)
    return _finish(beside(blocks), label, pen)


def _hold_parameter(strategy: Strategy, name: str) -> Holding:
    layout = strategy[name]
    return hold(layout, strategy.shapes.get(name, plain_shape(layout)), strategy.ranks)


def name_key(name: str) -> str:
    """A parameter's name as the start of a key: letters, digits, '.', '-' and '_' only."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def plain_shape(layout: Layout) -> tuple[int, ...]:
    """The smallest shape that an even layout can cut; uneven dims have the sizes they name."""
    sizes = layout.sizes or (None,) * layout.ndim
    return tuple(
        sum(explicit) if explicit else parts * (layout.optimizer_shards if dim == 0 else 1)
        for dim, (parts, explicit) in enumerate(zip(layout.parts, sizes, strict=True))
    )


def _cards(count: int) -> str:
    return f"{count:,} card" if count == 1 else f"{count:,} cards"


def _lines(layout: Layout, holding: Holding, cards: int) -> list[str]:
    cut = f"{layout.mesh!r}  cut: {layout.describe_cut() or 'whole'}"
    copies = f"{layout.replicas} copies of each shard" if layout.replicas > 1 else "one copy of each shard"
    return [shorten(cut, 70), copies, *_grouping(holding, cards)]


def _grouping(holding: Holding, cards: int) -> list[str]:
    if holding.group == 1:
        return []
    return [f"{_cards(cards)}, drawn in {len(holding.cards)} groups of {holding.group}"]


def _finish(block: Block, label: str, pen: Pen) -> str:
    width = math.ceil(block.width) + 2 * PAD
    height = math.ceil(block.height) + 2 * PAD
    return document(
        width, height, label, [pen.defs(), f'<g transform="translate({PAD} {PAD})">{block.body}</g>']
    )
