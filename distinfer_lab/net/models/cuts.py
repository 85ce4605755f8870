"""How a transformer is cut: data parallel over one axis, its heads, hidden units and words over others.

::

    16 query heads that share 4 key heads, tp=8:      axes  tp 4 (keys)   tp_group 2
    query heads    tp, tp_group     8 parts               card 0 and 1 hold the same key head,
    key heads      tp               4 parts, each twice   and different query heads
    hidden units   tp, tp_group     8 parts

With more cards than query heads, a third axis tp_repeat cuts hidden units and words only.
"""

import math
from typing import NamedTuple

from ...errors import ShardingError
from ..graph import AxisStrategy

__all__ = ["UNCUT", "Cuts", "cuts_of"]


class Cuts(NamedTuple):
    """The mesh of a transformer, and what each axis cuts; made by `cuts_of`."""

    axes: tuple[tuple[str, int], ...] = ()
    """Name and size of each axis, slowest first. None: the net says nothing, propagation decides."""
    dims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What may be cut (rows, heads, keys, all) -> the axes that cut it."""

    @property
    def parts(self) -> int:
        """Into how many runs the words of the vocabulary are cut."""
        sizes = dict(self.axes)
        return math.prod(sizes[axis] for axis in dict(self.dims).get("all", ()))

    def for_batch(self, rows: int) -> "Cuts":
        """The same; but a batch that its axes cannot share evenly is whole on every card."""
        sizes = dict(self.axes)
        by = math.prod(sizes[axis] for axis in dict(self.dims).get("rows", ()))
        return (
            self if rows % by == 0 else self._replace(dims=tuple((n, a) for n, a in self.dims if n != "rows"))
        )

    def __call__(self, *operands: str) -> AxisStrategy | None:
        """The strategy of an operator: for each operand a text with a word per dim, "-" for a whole one.

        Examples
        --------
        >>> cuts_of(dp=2, tp=4, heads=8, key_heads=8)("rows -", "- all")
        AxisStrategy(axis_names=('dp', 'tp'), axis_sizes=(2, 4), inputs=((('dp',), ()), ((), ('tp',))),
                     split='gspmd_ceil')
        """
        if not self.axes:
            return None
        known = dict(self.dims)
        inputs = tuple(tuple(known.get(word, ()) for word in operand.split()) for operand in operands)
        names, sizes = zip(*self.axes, strict=True)
        # Several axes count as one of their product: the words lie as on one axis of all cards.
        return AxisStrategy(names, sizes, inputs, "gspmd_ceil")


UNCUT = Cuts()


def cuts_of(dp: int, tp: int, heads: int, key_heads: int) -> Cuts:
    """The cuts for `dp` groups of `tp` cards.

    Raises
    ------
    ShardingError
        If the cards of a group cannot share the heads.
    """
    if min(dp, tp) < 1:
        raise ShardingError(f"dp={dp}, tp={tp}: both are 1 or more")
    for what, count in (("key heads", key_heads), ("query heads", heads)):
        if count % tp and tp % count:
            near = max(n for n in range(1, tp) if count % n == 0)
            raise ShardingError(
                f"tp={tp}: {count} {what} cannot be shared by {tp} cards, nor be held by several alike; use tp={near}"
            )
    by_key, by_head = math.gcd(tp, key_heads), math.gcd(tp, heads)
    sizes = {"dp": dp, "tp": by_key, "tp_group": by_head // by_key, "tp_repeat": tp // by_head}
    axes = tuple((name, n) for name, n in sizes.items() if n > 1 or name == "tp")
    there = [name for name, _ in axes]

    def among(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if name in there)

    return Cuts(
        axes,
        (
            ("rows", among("dp")),
            ("keys", among("tp")),
            ("heads", among("tp", "tp_group")),
            ("all", among("tp", "tp_group", "tp_repeat")),
        ),
    )
