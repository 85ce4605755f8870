"""The tensors that a training and an inference strategy have in common, ready to be drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ArgumentTypeError, LayoutError, listed
from ...layout import Layout, Strategy
from ...layout.dialects.mindspore import strategy_from_tuples
from ...views import Drawing, Links, cutmap_svg, link_cards, stored

__all__ = ["LIVE_CARDS", "LayoutPair", "Strategies", "pair_layouts"]

LIVE_CARDS = 2048
"""How many cards a live picture has at most that can be hovered, both sides together."""

Strategies = Layout | Strategy | Mapping[str, Sequence[Any]]
"""One layout, a strategy, or MindSpore's layout tuples by parameter name."""


@dataclass(frozen=True)
class LayoutPair:
    """One tensor's layout in training and in inference.

    Parameters
    ----------
    name
        The tensor's name; may be empty.
    train, infer, shape
        Both layouts and the full shape.
    ranks
        The number of cards of both groups; None counts those that hold something.
    """

    name: str
    train: Layout
    infer: Layout
    shape: tuple[int, ...]
    ranks: tuple[int | None, int | None] = (None, None)

    def live(self) -> Drawing:
        """The picture for a page with a kernel: each card is an element, up to `LIVE_CARDS`."""
        return self._drawing(self._svg(LIVE_CARDS // 2))

    def still(self) -> Drawing:
        """The picture as it is stored in a notebook, and small."""
        return self._drawing(stored(self._svg))

    def links(self) -> Links:
        """Who needs whose elements, in the keys of the live picture."""
        return link_cards(self.train, self.infer, self.shape, ranks=self.ranks, max_cards=LIVE_CARDS)

    def describe(self) -> str:
        """The tensor and its sharding on both sides, as text."""
        sides = zip((self.train, self.infer), self.ranks, strict=True)
        train, infer = (
            f"{ranks or int(layout.ranks.max()) + 1} ({layout.describe_cut()})" for layout, ranks in sides
        )
        return (
            f"{self.name or 'tensor'} {list(self.shape)}, training cards {train} -> inference cards {infer}"
        )

    def _svg(self, max_tiles: int) -> str:
        return cutmap_svg(
            self.train, self.infer, self.shape, name=self.name, ranks=self.ranks, max_tiles=max_tiles
        )

    def _drawing(self, svg: str) -> Drawing:
        return Drawing(svg, self.describe())


def pair_layouts(
    train: Strategies,
    infer: Strategies | None,
    shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> dict[str, LayoutPair]:
    """Pair the layouts of every tensor that both sides name, in the order of training.

    Parameters
    ----------
    train, infer
        Two layouts, or two strategies. No inference strategy means one card that holds all.
    shape
        The tensor's full shape, or a mapping by parameter name for those that neither
        strategy knows.

    Raises
    ------
    ArgumentTypeError
        If one side is a layout and the other is not, or a side is something else.
    LayoutError
        If no tensor is in both, a shape is not known, or a layout cannot cut it.
    """
    if isinstance(train, Layout):
        return {"": _pair_of_layouts(train, infer, shape)}
    src = _strategy(train, "train")
    dst = _one_card(src) if infer is None else _strategy(infer, "infer")
    names = [name for name in src if name in dst]
    if not names:
        raise LayoutError(
            f"training names {listed(src)}, inference names {listed(dst)}: no parameter is in both; "
            "give strategies of the same net"
        )
    shapes = {**src.shapes, **dst.shapes, **_shapes_by_name(shape, names)}
    fits: set[tuple[Layout, tuple[int, ...]]] = set()
    return {name: _pair(name, src, dst, shapes, fits) for name in names}


def _pair_of_layouts(train: Layout, infer: Strategies | None, shape: Any) -> LayoutPair:
    other = Layout.replicated(1, train.ndim) if infer is None else infer
    if not isinstance(other, Layout):
        raise ArgumentTypeError(
            f"train is a Layout, but infer is a {type(infer).__name__}; give two layouts or two strategies"
        )
    if shape is None or isinstance(shape, Mapping):
        raise LayoutError(f"{train!r}: a layout alone has no shape; give shape=(...)")
    return LayoutPair("", train, other, tuple(int(n) for n in shape))


def _strategy(value: Any, side: str) -> Strategy:
    if isinstance(value, Strategy):
        return value
    if isinstance(value, Layout) or not isinstance(value, Mapping):
        raise ArgumentTypeError(
            f"{side} is a {type(value).__name__}; give a Strategy, a mapping of layout tuples, "
            "or Layouts on both sides"
        )
    return strategy_from_tuples(value)


def _one_card(src: Strategy) -> Strategy:
    whole = {name: Layout.replicated(1, layout.ndim) for name, layout in src.items()}
    return Strategy(whole, src.shapes)


def _shapes_by_name(shape: Any, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if shape is None:
        return {}
    if isinstance(shape, Mapping):
        return {name: tuple(int(n) for n in value) for name, value in shape.items()}
    if len(names) > 1:
        raise LayoutError(
            f"shape={tuple(shape)} for {len(names)} parameters; give a mapping of name to shape"
        )
    return {names[0]: tuple(int(n) for n in shape)}


def _pair(
    name: str,
    src: Strategy,
    dst: Strategy,
    shapes: Mapping[str, tuple[int, ...]],
    fits: set[tuple[Layout, tuple[int, ...]]],
) -> LayoutPair:
    """The pair of one tensor; `fits` takes up what has been looked at, for layers repeat."""
    if name not in shapes:
        raise LayoutError(
            f"{name}: neither strategy has its shape; give shape={{{name!r}: (...)}}", parameter=name
        )
    for strategy in (src, dst):
        cut = (strategy[name], shapes[name])
        if cut in fits:
            continue
        try:
            strategy[name].regions(shapes[name])
        except LayoutError as err:
            raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
        fits.add(cut)
    return LayoutPair(name, src[name], dst[name], shapes[name], (src.ranks, dst.ranks))
