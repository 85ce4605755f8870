"""What cards hold, as SVG: one layout, a strategy.

Each function is pure: the same record gives the same string, byte for byte.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from ...display import counted
from ...layout import Layout, Strategy
from ..drawing import STORED_CARDS, Block, Pen, above, finish, heading, notes, shorten, side_by_side
from .holding import Holding, hold
from .tensor import tensor_block
from .tiles import MEDIUM_CARDS, tiles

__all__ = [
    "describe_sharding",
    "grouping",
    "layout_svg",
    "name_key",
    "plain_shape",
    "shards_svg",
    "strategy_svg",
]

FEW_CARDS = 16
LEGEND = "a box is a card; in it the tensor (not to scale), coloured where the card holds it"


def layout_svg(
    layout: Layout,
    shape: Sequence[int],
    *,
    title: str = "",
    ranks: int | None = None,
    max_cards: int = STORED_CARDS,
) -> str:
    """How a tensor is cut, and which of its boxes each card holds.

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
    grid = heading(
        tiles(holding, "card", f"cards of {name}", pen), "Its cards", grouping(holding, len(whole.cards))
    )
    sheet = tensor_block(layout, whole, pen)
    return finish(
        heading(
            side_by_side([sheet, grid]), shorten(name, 60), _lines(layout, holding, len(whole.cards))[:2]
        ),
        f"{name}: what each of {counted(len(whole.cards), 'card')} holds",
        pen,
    )


def shards_svg(layout: Layout, shape: Sequence[int], *, title: str = "") -> str:
    """Which boxes of a tensor each card holds, and nothing of how the layout says it.

    Parameters
    ----------
    layout, shape
        The layout and the tensor's full shape.
    title
        What the picture is called.

    Raises
    ------
    LayoutError
        If the layout cannot cut the shape.
    """
    holding = hold(layout, shape).grouped(STORED_CARDS)
    name = title or f"tensor {list(holding.shape)}"
    pen = Pen(f"{layout!r}{name}")
    return finish(heading(tiles(holding, "card", f"cards of {name}", pen), name, []), name, pen)


def strategy_svg(
    strategy: Strategy,
    *,
    max_layouts: int = 4,
    max_cards: int = STORED_CARDS,
    lost: Collection[int] = (),
) -> str:
    """One picture for each of the first few distinct layouts, of the first parameter that has it.

    Those that cut something come first; all that cut nothing count as one.

    Parameters
    ----------
    max_layouts
        How many layouts are drawn.
    max_cards
        Above so many in the whole picture, cards are grouped.
    lost
        Ranks whose shards are gone; their tiles say so.
    """
    firsts: dict[Hashable, str] = {}
    counts: Counter[Hashable] = Counter()
    for name, layout in strategy.items():
        key = _kind(layout, name in strategy.shapes)
        firsts.setdefault(key, name)
        counts[key] += 1
    size = f"{counted(len(strategy), 'parameter')} on {counted(strategy.ranks, 'card')}"
    label = f"{size}, {counted(len(firsts), 'different layout')}"
    pen = Pen("".join(firsts.values()))
    # Rather fewer layouts than groups of a few cards.
    drawn = max(min(max_layouts, max_cards // min(strategy.ranks, FEW_CARDS)), 1)
    shown = sorted(firsts.items(), key=lambda item: not _is_cut(strategy[item[1]]))[:drawn]
    parts = [_hold_parameter(strategy, name, lost).grouped(max_cards // len(shown)) for _, name in shown]
    crowd = max(sum(len(part.cards) for part in parts), 33)
    blocks = []
    for (key, name), part in zip(shown, parts, strict=True):
        more = [f"and {counts[key] - 1:,} more like it"] if counts[key] > 1 else []
        block = tiles(part, name_key(name), f"cards of {name}", pen, crowd=crowd)
        lines = _lines(strategy[name], part, strategy.ranks, lost)
        blocks.append(heading(block, shorten(name, 40), [*lines, *more]))
    if not blocks:
        return finish(heading(Block(0, 0, ""), "no parameters", []), label, pen)
    said = [LEGEND] if crowd <= MEDIUM_CARDS else []
    rest = sum(counts[key] for key in firsts) - sum(counts[key] for key, _ in shown)
    if rest:
        ways = counted(len(firsts) - len(shown), "other way")
        said.append(f"not drawn: {counted(rest, 'tensor')} that lie in {ways}")
    return finish(above([side_by_side(blocks), notes(said)], 8) if said else side_by_side(blocks), label, pen)


def _is_cut(layout: Layout) -> bool:
    return any(layout.dims) or layout.optimizer_shards > 1


def _kind(layout: Layout, known: bool) -> Hashable:
    """What is equal in layouts that one picture shows; `known` tells whether a shape is."""
    return (layout, known) if _is_cut(layout) else (layout.replicas, layout.first_ranks)


def _hold_parameter(strategy: Strategy, name: str, lost: Collection[int]) -> Holding:
    layout = strategy[name]
    return hold(layout, strategy.shapes.get(name, plain_shape(layout)), strategy.ranks).without(lost)


def name_key(name: str) -> str:
    """A parameter's name as the start of a key: letters, digits, '.', '-' and '_' only."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def plain_shape(layout: Layout) -> tuple[int, ...]:
    """The smallest shape that an even layout can cut; uneven and fused dims have the sizes they name."""
    shape = [parts * (layout.optimizer_shards if dim == 0 else 1) for dim, parts in enumerate(layout.parts)]
    for given in (layout.sizes, layout.fused):
        for dim, sizes in enumerate(given):
            shape[dim] = shape[dim] if sizes is None else sum(sizes)
    return tuple(shape)


def grouping(holding: Holding, cards: int) -> list[str]:
    """What to say of a picture in which cards are grouped; nothing where each is there by itself."""
    if holding.group == 1:
        return []
    return [f"{counted(cards, 'card')}, drawn in {len(holding.cards)} groups of {holding.group}"]


def _lines(layout: Layout, holding: Holding, cards: int, lost: Collection[int] = ()) -> list[str]:
    if _is_cut(layout):
        copies = f"{layout.replicas} copies" if layout.replicas > 1 else "one copy"
        words = [f"{layout.mesh!r}: {describe_sharding(layout)}", f"{copies} of each shard"]
    else:
        each = "each of " * (len(layout.ranks) > 1)
        words = [f"nothing is cut: {each}{counted(len(layout.ranks), 'card')} holds all of it"]
    if lost and np.isin(layout.ranks, list(lost)).any():
        numbers = layout.shard_numbers()
        left = np.bincount(numbers[~np.isin(layout.ranks, list(lost))], minlength=int(numbers.max()) + 1)
        words[1:] = [f"{left.min()} of {layout.replicas} copies left of the shard that lost most"]
    return [*words, *grouping(holding, cards)]


def describe_sharding(layout: Layout) -> str:
    """The dims that each axis shards, as text.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> describe_sharding(Layout(Mesh(tp=4), "- tp"))
    'columns cut by tp'
    """
    names = ("rows", "columns") if layout.ndim == 2 else tuple(f"dim {d}" for d in range(layout.ndim))
    words = [
        f"{name} cut by {' and '.join(axes)}" for name, axes in zip(names, layout.dims, strict=True) if axes
    ]
    if layout.optimizer_shards > 1:
        words.append(f"rows cut in {layout.optimizer_shards} more among copies")
    if layout.fused and words:
        parts = max(len(sizes) for sizes in layout.fused if sizes)
        words.append(f"each of its {parts} fused parts by itself")
    return ", ".join(words) or "nothing is cut"
