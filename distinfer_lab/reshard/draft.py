"""A destination strategy in the making: a mesh, and cuts by name or by pattern.

::

    draft = Draft(Mesh.parse("dp=2,tp=4")).cut("*.weight", "- tp").cut("head.weight", "tp -")
    found = draft.assess(src)
    found.problems        tensor -> why it cannot be cut so
    found.strategy        where there are none; and found.plan, with its bytes

Of the cuts that fit a name the last one counts; what none fits is whole on every card. A pattern speaks
of tensors with as many dims as its cut has, and fits whole parts of names, as in rules (`rules/patterns.py`);
a cut of one name must have the tensor's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import LayoutError
from ..layout import Layout, Mesh, Strategy
from ..layout.notation import Sharding, format_dims, format_sharding, parse_sharding
from ..rules import name_fits
from ..sizes import BUFFER_BYTES
from .explain import card_costs
from .plan import ReshardPlan
from .planner import plan_reshard

__all__ = ["Assessment", "Cut", "Draft"]

WILD = frozenset("*?[")


@dataclass(frozen=True)
class Cut:
    """How the tensors of some names are cut.

    Parameters
    ----------
    match
        A name, or a pattern with stars.
    dims
        How their dims are sharded, as text: ``"- tp"``, uneven, fused and optimizer shards too (see
        `layout/notation.py`).
    """

    match: str
    dims: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", format_sharding(self.sharding))

    @cached_property
    def sharding(self) -> Sharding:
        """What the text says of each dim."""
        return parse_sharding(self.dims)

    @property
    def is_pattern(self) -> bool:
        """Whether it may speak of several tensors."""
        return not WILD.isdisjoint(self.match)

    def fits(self, name: str) -> bool:
        """Whether it may speak of a tensor of this name."""
        return name == self.match or (self.is_pattern and name_fits(self.match, name))


@dataclass(frozen=True)
class Draft:
    """A mesh and cuts (see above); methods give new drafts.

    Parameters
    ----------
    mesh
        The grid of destination ranks.
    cuts
        In the order in which they were made.
    """

    mesh: Mesh
    cuts: tuple[Cut, ...] = ()

    @classmethod
    def like(cls, strategy: Strategy) -> "Draft":
        """A draft that cuts as a strategy does, where all that it cuts has one mesh of all ranks; else all is whole.

        Examples
        --------
        >>> tp = Mesh(tp=4)
        >>> Draft.like(Strategy({"w": Layout(tp, "- tp"), "b": Layout(tp, "-")}))
        Draft(mesh=Mesh(tp=4), cuts=(Cut(match='w', dims='- tp'),))
        """
        cuts = tuple(
            Cut(name, layout.sharding)
            for name, layout in strategy.items()
            if layout.sharding != _whole(layout.ndim)
        )
        meshes = {strategy[name].mesh for name in ((cut.match for cut in cuts) if cuts else strategy)}
        plain = all(
            layout == Layout(layout.mesh, layout.sharding) and layout.mesh.size == strategy.ranks
            for layout in strategy.values()
        )
        if len(meshes) != 1 or not plain:
            return cls(Mesh(cards=strategy.ranks))
        return cls(meshes.pop(), cuts)

    def on(self, mesh: Mesh) -> "Draft":
        """The same cuts on another mesh."""
        return replace(self, mesh=mesh)

    def cut(self, match: str, dims: str) -> "Draft":
        """With one more cut; one for the same name or pattern is replaced."""
        others = tuple(cut for cut in self.cuts if cut.match != match)
        return replace(self, cuts=(*others, Cut(match, dims)))

    def without(self, match: str) -> "Draft":
        """Without the cut for a name or a pattern."""
        return replace(self, cuts=tuple(cut for cut in self.cuts if cut.match != match))

    def cut_of(self, name: str, ndim: int) -> Cut | None:
        """The cut that counts for a tensor of so many dims; None where it is whole."""
        place = self._places.get(name, -1)
        for at, cut in self._patterns:
            if at > place and len(cut.sharding.dims) == ndim and name_fits(cut.match, name):
                return cut
        return self.cuts[place] if place >= 0 else None

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {cut.match: at for at, cut in enumerate(self.cuts)}

    @cached_property
    def _patterns(self) -> Sequence[tuple[int, Cut]]:
        """The last first."""
        return [(at, cut) for at, cut in reversed(list(enumerate(self.cuts))) if cut.is_pattern]

    def assess(
        self,
        src: Strategy,
        *,
        dtypes: Mapping[str, np.dtype[Any]] | None = None,
        same_cards: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        limit_bytes: int | None = None,
    ) -> "Assessment":
        """What the draft means for tensors that lie as `src` says, and why it may not be possible.

        Parameters
        ----------
        src
            Who holds what, with full shapes.
        dtypes, same_cards
            See `plan_reshard`.
        buffer_bytes
            The memory that each card may use in addition to its shards.
        limit_bytes
            The memory of a card; None: no limit.

        Raises
        ------
        LayoutError
            If the shape of a tensor is not known.
        """
        layouts: dict[str, Layout] = {}
        problems: dict[str, str] = {}
        known: dict[tuple[str, tuple[int, ...]], Layout | str] = {}
        for name in src:
            if name not in src.shapes:
                raise LayoutError(
                    f"{name}: the strategy does not know its shape; give it one", parameter=name
                )
            shape = src.shapes[name]
            found = self.cut_of(name, len(shape))
            dims = _whole(len(shape)) if found is None else found.dims
            if (dims, shape) not in known:
                known[dims, shape] = self._layout(dims, shape)
            layout = known[dims, shape]
            if isinstance(layout, Layout):
                layouts[name] = layout
            else:
                problems[name] = layout
        if problems:
            return Assessment(self, problems, None, None, buffer_bytes)
        strategy = Strategy(layouts, src.shapes, self.mesh.size)
        plan = plan_reshard(src, strategy, dtypes=dtypes, same_cards=same_cards)
        out = Assessment(self, {}, strategy, plan, buffer_bytes)
        return replace(out, problems=out.above(limit_bytes)) if limit_bytes is not None else out

    def _layout(self, dims: str, shape: tuple[int, ...]) -> Layout | str:
        """The layout, or why it cannot be."""
        try:
            layout = Layout(self.mesh, dims)
            layout.regions(shape)
        except LayoutError as err:
            return str(err)
        return layout


def _whole(ndim: int) -> str:
    """The sharding that shards no dim."""
    return format_dims(((),) * ndim)


@dataclass(frozen=True)
class Assessment:
    """What a draft comes to."""

    draft: Draft
    problems: Mapping[str, str]
    """Tensor, or "card 3", -> why not; empty if it can be done."""
    strategy: Strategy | None
    """None if a tensor cannot be cut."""
    plan: ReshardPlan | None
    buffer_bytes: int

    @cached_property
    def peak_bytes(self) -> tuple[int, ...]:
        """The most that each destination rank's card holds at one time, buffer included; empty without a plan."""
        if self.plan is None:
            return ()
        costs = card_costs(self.plan, self.buffer_bytes)
        place = self.plan.placement or range(self.plan.src_count, len(costs))
        return tuple(costs[card].peak for card in place)

    def above(self, limit_bytes: int) -> dict[str, str]:
        """The cards whose peak is above a limit, and what would help."""
        return {
            f"card {rank}": (
                f"it needs {peak} bytes at its peak, above the limit of {limit_bytes}; "
                "cut larger tensors, use more cards, or a smaller buffer"
            )
            for rank, peak in enumerate(self.peak_bytes)
            if peak > limit_bytes
        }
