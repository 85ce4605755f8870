"""A net on a card group: its layout on the cards, and where its values came from.

A net may be placed on several groups; each placement is its own. What was loaded or trained on
a group stays in force for that net on that group until something else is loaded.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards import CardGroup, Placement
from ..errors import ContextError
from ..layout import Box, Strategy
from ..net import ArrayValues, Cell, InitialBox, InitialShard, InitialShards, Parameter, Region, ValueSource
from ..parallel.shards import LaidBox, shard_map

__all__ = ["PlacedNet", "place_initial", "placed_net", "remember", "with_new_values"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PlacedNet:
    """A net's values on a group."""

    group: CardGroup
    placement: Placement
    strategy: Strategy
    """Their layouts, optimizer states included."""
    loaded: bool = False
    """Whether they came from a checkpoint rather than from the net's initial values."""
    states: Mapping[str, Parameter] = field(default_factory=dict)
    """The optimizer's states."""

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """The dtype of a value, asked of the first card that holds it."""
        rank = int(self.strategy[name].ranks[0])
        dtype: np.dtype[Any] = self.group.dtypes(self.placement, rank)[name]
        return dtype

    def gather(self, name: str, region: Region) -> Array:
        """Fetch a region of a parameter from the cards, each element from one of them."""
        layout = self.strategy[name]
        held = shard_map(layout, self.strategy.shapes[name]).boxes
        wanted = Box(tuple(a for a, _ in region), tuple(b for _, b in region))
        ranks = layout.ranks[layout.replica_ids() == 0].tolist()
        taken = {rank: [laid for laid in held[rank] if laid.whole.common(wanted)] for rank in ranks}
        found = self.group.pull(self.placement, {rank: [name] for rank, boxes in taken.items() if boxes})
        dtype = next((shards[name].dtype for shards in found.values()), np.dtype(np.float32))
        out = np.empty(wanted.shape, dtype)
        for rank, shards in found.items():
            for laid in taken[rank]:
                common = laid.whole.common(wanted)
                assert common is not None
                there = common.within(laid.whole).moved(laid.shard.start)
                common.within(wanted).of(out)[...] = there.of(shards[name])
        return out


@dataclass(frozen=True)
class OnCards:
    """Values of a placed parameter, fetched when they are read."""

    net: PlacedNet
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def region(self, region: Region, name: str = "") -> Array:
        """The elements of a region, gathered."""
        return self.net.gather(name, region)


_placed: "weakref.WeakKeyDictionary[Cell, weakref.WeakKeyDictionary[CardGroup, PlacedNet]]" = (
    weakref.WeakKeyDictionary()
)


def placed_net(net: Cell, group: CardGroup) -> PlacedNet | None:
    """The placement of a net on a group; None if it is not there."""
    groups = _placed.get(net)
    found = None if groups is None else groups.get(group)
    return None if found is None or found.placement.key not in group.placement_keys else found


def remember(net: Cell, placed: PlacedNet) -> None:
    """Put a placement in force for its net on its group; one before it is freed."""
    before = placed_net(net, placed.group)
    if before is not None and before.placement is not placed.placement:
        placed.group.drop(before.placement)
    _placed.setdefault(net, weakref.WeakKeyDictionary())[placed.group] = placed
    for name, param in {**net.parameters_dict(), **placed.states}.items():
        if name in placed.strategy:
            param.source = OnCards(placed, np.dtype(param.dtype), param.shape)


def with_new_values(net: Cell, placed: PlacedNet, states: Mapping[str, Parameter] | None = None) -> PlacedNet:
    """Send the cards what was set since a net was placed: by `set_data`, or the states of another optimizer.

    Parameters
    ----------
    states
        The states that the cards should hold, where an optimizer is about to train the net.
    """
    states = placed.states if states is None else states
    params = {**net.parameters_dict(), **states}
    new = [
        name for name in placed.strategy if name in params and not isinstance(params[name].source, OnCards)
    ]
    if not new:
        return placed
    for name in new:
        before = placed.states.get(name)
        if before is not None and before is not params[name]:
            before.set_data(before.asnumpy())  # the optimizer before keeps its states
    layouts = Strategy(
        {name: placed.strategy[name] for name in new},
        {name: placed.strategy.shapes[name] for name in new},
        placed.strategy.ranks,
    )
    renewed = place_initial(placed.group, params, layouts, replace(placed, states=states))
    remember(net, renewed)
    return renewed


def place_initial(
    group: CardGroup, params: Mapping[str, Parameter], strategy: Strategy, into: PlacedNet | None = None
) -> PlacedNet:
    """Let every card make, or be sent, its shards of initial values; in addition to those of `into`, if given.

    Raises
    ------
    ContextError
        If the net was loaded or trained on another group: its initial values are not the ones to use.
    """
    for name in strategy:
        _refuse_elsewhere(name, params[name], group)
    parts: list[list[InitialShard]] = [[] for _ in range(strategy.ranks)]
    for name, layout in strategy.items():
        held = shard_map(layout, strategy.shapes[name])
        for rank, boxes in held.boxes.items():
            initial = tuple(_initial_box(name, params[name].initial, laid) for laid in boxes)
            parts[rank].append(InitialShard(name, held.shapes[rank], initial))
    shares = [InitialShards(tuple(p)) for p in parts]
    if into is None:
        return PlacedNet(group, group.place(shares, strategy), strategy)
    group.extend(into.placement, shares, strategy)
    both = Strategy(
        {**into.strategy, **strategy},
        {**into.strategy.shapes, **strategy.shapes},
        max(into.strategy.ranks, strategy.ranks),
    )
    return replace(into, strategy=both)


def _refuse_elsewhere(name: str, param: Parameter, group: CardGroup) -> None:
    source = param.source
    if isinstance(source, OnCards) and source.net.group is not group:
        placed = source.net
        if placed.loaded or placed.placement.trained:
            raise ContextError(
                f"{name} was {'loaded' if placed.loaded else 'trained'} on {placed.group!r}, and {group!r} holds "
                "nothing of it; load its checkpoint here with load_distributed_checkpoint",
                parameter=name,
            )


def _initial_box(name: str, source: ValueSource, laid: LaidBox) -> InitialBox:
    """A box of an initial value; of a user's array, only that region."""
    whole, shard = (tuple(zip(box.start, box.stop, strict=True)) for box in (laid.whole, laid.shard))
    if isinstance(source, ArrayValues):
        source = ArrayValues(source.region(whole, name), laid.whole.start)
    return InitialBox(whole, shard, source)
