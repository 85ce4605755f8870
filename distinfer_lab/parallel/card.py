"""One card's view of a program, and how a card runs it.

The cards differ only in what `Channels` connects them by: sockets between Dask workers, or, in
the serial interpreter, plain hand-over in one process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError
from ..net import Operator, Region
from .program import AllReduce, Compute, Held, Program, Redistribute, piece_slices, regions

__all__ = [
    "CardProgram",
    "CardStep",
    "CardView",
    "Channels",
    "Exchange",
    "Shards",
    "run_card",
    "run_step",
    "shard_of",
    "view_of",
]

Array = NDArray[Any]
Shape = tuple[int, ...]
Slices = tuple[slice, ...]
Shards = dict[str, Array]


class Channels(Protocol):
    """What connects a card to the others.

    All cards of a group call the same collective with the same group at the same place of their
    programs. An array that was sent is not written to any more, for cards of one process hand over views;
    so what is received may be an array that cannot be written to.
    """

    def all_reduce(self, array: Array, group: Sequence[int]) -> Array:
        """The sum over the ranks of `group`, added in rank order on every element."""

    def all_gather(self, array: Array, group: Sequence[int], shapes: Sequence[Shape]) -> list[Array]:
        """The arrays of all of `group`, in the group's order; `shapes` are theirs, and may differ."""

    def reduce_scatter(self, parts: Sequence[Array], group: Sequence[int]) -> Array:
        """The sum, in rank order, of everyone's part for this card; `parts[i]` is for `group[i]`."""

    def all_to_all(
        self, parts: Sequence[Array], group: Sequence[int], shapes: Sequence[Shape]
    ) -> list[Array]:
        """Everyone's part for this card; `parts[i]` goes to `group[i]`, which sends `shapes[i]`."""

    def broadcast(
        self, array: Array | None, root: int, group: Sequence[int], shape: Shape, dtype: np.dtype[Any]
    ) -> Array:
        """The array of rank `root`, on all of `group`; only the root gives one."""

    def send(self, array: Array, peer: int) -> None:
        """Send an array to a card, which receives it by `recv`."""

    def recv(self, peer: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """What a card sends by `send`."""

    def exchange(
        self, sends: Mapping[int, Array], receives: Mapping[int, tuple[Shape, np.dtype[Any]]]
    ) -> Mapping[int, Array]:
        """Send an array to each of some ranks, receive one of known shape and dtype from each of some."""

    def exchange_into(self, sends: Mapping[int, Array], outs: Mapping[int, Array]) -> None:
        """Send an array to each of some ranks, receive one from each of some into `outs`, in place.

        Arrays on both sides may be parts of larger ones; what lies apart passes through a bounded window.
        """


@dataclass(frozen=True)
class Exchange:
    """One card's part of a redistribution."""

    shape: tuple[int, ...] | None
    """Of the shard that this card ends with; None if it ends with nothing."""
    sends: tuple[tuple[int, Slices], ...]
    receives: tuple[tuple[int, Slices], ...]
    own: tuple[Slices, Slices] | None
    """What stays: where it is in the old shard, and in the new one."""


@dataclass(frozen=True)
class CardStep:
    """One instruction as one card does it."""

    output: str
    inputs: tuple[str, ...]
    frees: tuple[str, ...]
    work: Operator | Exchange | tuple[int, ...]
    """An operator on shards; an exchange; or the group of an all-reduce."""


@dataclass(frozen=True)
class CardView:
    """What one card does."""

    rank: int
    steps: tuple[CardStep, ...]


def view_of(program: Program, rank: int) -> CardView:
    """Make one card's view."""
    return CardView(rank, tuple(_step(program, instruction, rank) for instruction in program.instructions))


def _step(program: Program, instruction: Compute | AllReduce | Redistribute, rank: int) -> CardStep:
    work: Operator | Exchange | tuple[int, ...]
    if isinstance(instruction, Compute):
        helds = [program.values[name] for name in instruction.inputs]
        work = instruction.op.local(
            [held.spec for held in helds],
            [_region(held, rank) for held in helds],
            _region(program.values[instruction.output], rank),
        )
    elif isinstance(instruction, AllReduce):
        work = instruction.group(program.values[instruction.output], rank)
    else:
        work = _exchange(program, instruction, rank)
    return CardStep(instruction.output, instruction.inputs, instruction.frees, work)


def _region(held: Held, rank: int) -> Region:
    row = held.layout.boxes(held.spec.shape)[held.layout.row_of(rank)]
    return tuple((a, b) for a, b in row.tolist())


def _exchange(program: Program, instruction: Redistribute, rank: int) -> Exchange:
    src, dst = program.values[instruction.inputs[0]], program.values[instruction.output]
    old, new = regions(src, program.ranks)[rank], regions(dst, program.ranks)[rank]
    pieces = program.transfers(instruction)
    sends, receives, own = [], [], None
    for giver, taker, box in zip(
        pieces.src_rank.tolist(), pieces.dst_rank.tolist(), pieces.boxes, strict=True
    ):
        if giver == taker == rank:
            assert old is not None
            assert new is not None
            own = (piece_slices(old, box), piece_slices(new, box))
        elif giver == rank:
            assert old is not None
            sends.append((taker, piece_slices(old, box)))
        elif taker == rank:
            assert new is not None
            receives.append((giver, piece_slices(new, box)))
    shape = None if new is None else tuple(b - a for a, b in new)
    return Exchange(shape, tuple(sends), tuple(receives), own)


def shard_of(program: Program, name: str, whole: Array, rank: int) -> Array | None:
    """A card's shard of a whole value; None if it holds nothing of it."""
    region = regions(program.values[name], program.ranks)[rank]
    if region is None:
        return None
    return np.array(whole[tuple(slice(a, b) for a, b in region)], order="C")


class CardProgram:
    """A program that cards can be sent: called on each with its rank (see `cards.tasks.run`)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        # One view per rank: in-process cards may share this object.
        self._views: dict[int, CardView] = {}

    def __call__(
        self, rank: int, values: Mapping[str, Array], inputs: Mapping[str, Array], card: Any
    ) -> tuple[Shards, Shards]:
        if rank not in self._views:
            self._views[rank] = view_of(self.program, rank)
        return run_card(
            self.program, self._views[rank], values, inputs, card.channels, card.check, card.count
        )


def run_card(
    program: Program,
    view: CardView,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    channels: Channels,
    check: Callable[[], None] = lambda: None,
    count: Callable[[int], None] = lambda nbytes: None,
) -> tuple[Shards, Shards]:
    """Run one card's steps.

    Parameters
    ----------
    params, inputs
        This card's shards.
    channels
        Connects to the other cards, which run the same program at the same time.
    check
        Called before each step; raises to stop.
    count
        Told the bytes of working values that are alive, after each step.

    Returns
    -------
    The shards of the outputs, and the new shards of the updated parameters.
    """
    values: Shards = {**{name: params[name] for name in program.params if name in params}, **inputs}
    given = {id(value) for value in params.values()}
    for step in view.steps:
        check()
        result = run_step(step, values, channels, program.values[step.output])
        if result is not None:
            values[step.output] = result
        count(sum(v.nbytes for v in values.values() if id(v) not in given))
        for name in step.frees:
            values.pop(name, None)
    outputs = {name: values[name] for name in program.outputs if name in values}
    updates = {param: values[name] for param, name in program.updates.items() if name in values}
    return outputs, updates


def run_step(step: CardStep, values: Mapping[str, Array], channels: Channels, held: Held) -> Array | None:
    """The shard that a step gives; None if this card ends with nothing."""
    if isinstance(step.work, Operator):
        return np.asarray(step.work.forward(*(_given(values, name) for name in step.inputs)))
    if isinstance(step.work, Exchange):
        return _run_exchange(step.work, values.get(step.inputs[0]), channels, held)
    return channels.all_reduce(_given(values, step.inputs[0]), step.work)


def _given(values: Mapping[str, Array], name: str) -> Array:
    if name not in values:
        raise GraphError(f"this card holds no shard of {name!r}; load the net's parameters first")
    return values[name]


def _run_exchange(work: Exchange, old: Array | None, channels: Channels, held: Held) -> Array | None:
    sends = {} if old is None else {peer: old[slices] for peer, slices in work.sends}
    new = None if work.shape is None else np.empty(work.shape, held.spec.dtype)
    shapes = {peer: _shape(slices) for peer, slices in work.receives}
    got = channels.exchange(sends, {peer: (shape, held.spec.dtype) for peer, shape in shapes.items()})
    if new is None:
        return None
    for peer, slices in work.receives:
        new[slices] = got[peer]
    if work.own is not None and old is not None:
        new[work.own[1]] = old[work.own[0]]
    return new


def _shape(slices: Slices) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in slices)
