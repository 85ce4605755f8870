"""Which mesh axes shard the logical axes of a transformer: batch, heads, kv_heads, mlp and vocab.

Data parallel over `dp`, tensor parallel, as Megatron has it, over the axes that begin with `tp`.
16 query heads that share 4 KV heads, by 8 cards (tp=4, tp_group=2)::

    heads        tp, tp_group     8 shards
    kv_heads     tp               4 shards, each on two cards, whose query heads differ
    mlp, vocab   tp, tp_group     8 shards

With more cards than query heads, a third axis tp_repeat shards mlp and vocab only.
"""

import math
from typing import NamedTuple

from ...errors import Option, ShardingError
from ...layout.notation import parse_dims
from ..graph import AxisStrategy

__all__ = ["UNSPECIFIED", "LogicalAxes", "logical_axes"]


class LogicalAxes(NamedTuple):
    """A mesh, and for each logical axis the mesh axes that shard it; made by `logical_axes`."""

    mesh: tuple[tuple[str, int], ...] = ()
    """Name and size of each mesh axis, slowest first. Empty: the net asks for nothing, propagation decides."""
    sharded_by: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Logical axis -> the mesh axes that shard it."""

    def shards(self, axis: str) -> int:
        """How many shards a logical axis has."""
        sizes = dict(self.mesh)
        return math.prod(sizes[name] for name in dict(self.sharded_by).get(axis, ()))

    def for_batch(self, size: int) -> "LogicalAxes":
        """The same; but a batch that its mesh axes do not divide is replicated."""
        if size % self.shards("batch") == 0:
            return self
        return self._replace(sharded_by=tuple(pair for pair in self.sharded_by if pair[0] != "batch"))

    def __call__(self, *operands: str) -> AxisStrategy | None:
        """The strategy of an operator: for each operand the logical axes that shard its dims.

        They are text in the notation of `layout/notation.py`, ``"batch - mlp"``.

        Examples
        --------
        >>> logical_axes(dp=2, tp=4, heads=8, kv_heads=8)("batch -", "- mlp")
        AxisStrategy(axis_names=('dp', 'tp'), axis_sizes=(2, 4), inputs=((('dp',), ()), ((), ('tp',))),
                     split='gspmd_ceil')
        """
        if not self.mesh:
            return None
        known = dict(self.sharded_by)
        inputs = tuple(
            tuple(
                tuple(name for axis in axes for name in known.get(axis, ())) for axes in parse_dims(operand)
            )
            for operand in operands
        )
        names, sizes = zip(*self.mesh, strict=True)
        # Several axes count as one of their product: the vocabulary is shared as by one axis of all cards.
        return AxisStrategy(names, sizes, inputs, "gspmd_ceil")


UNSPECIFIED = LogicalAxes()


def logical_axes(dp: int, tp: int, heads: int, kv_heads: int) -> LogicalAxes:
    """The logical axes of a net on `dp` groups of `tp` cards.

    Raises
    ------
    ShardingError
        If the cards of a group cannot share the heads.
    """
    if min(dp, tp) < 1:
        raise ShardingError(f"dp={dp}, tp={tp}: both must be 1 or more", Option("dp", dp), Option("tp", tp))
    for what, count in (("KV heads", kv_heads), ("query heads", heads)):
        if count % tp and tp % count:
            near = max(n for n in range(1, tp) if count % n == 0)
            given, fitting = Option("tp", tp), Option("tp", near)
            raise ShardingError(
                f"{given}: {count} {what} cannot be shared evenly by {tp} cards, nor replicated evenly on them; "
                f"use {fitting}",
                given,
                fitting,
            )
    by_kv_head, by_head = math.gcd(tp, kv_heads), math.gcd(tp, heads)
    sizes = {"dp": dp, "tp": by_kv_head, "tp_group": by_head // by_kv_head, "tp_repeat": tp // by_head}
    mesh = tuple((name, n) for name, n in sizes.items() if n > 1 or name == "tp")
    names = [name for name, _ in mesh]

    def among(*wanted: str) -> tuple[str, ...]:
        return tuple(name for name in wanted if name in names)

    every = among("tp", "tp_group", "tp_repeat")
    return LogicalAxes(
        mesh,
        (
            ("batch", among("dp")),
            ("kv_heads", among("tp")),
            ("heads", among("tp", "tp_group")),
            ("mlp", every),
            ("vocab", every),
        ),
    )
