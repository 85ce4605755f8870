"""One card's part of an instruction, made concrete: the operator, the pieces, the peers.

::

    Apply      an operator on shards
    Sum        partial values, added up over a group
    SumPart    the same, of which this card keeps one part
    Slice      a part of a shard, as a view or a copy
    Exchange   pieces to and from other cards

All are made once, when a card first sees a program; a run then only executes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..comm import Communicator
from ..net import Operator, call_forward
from .shards import Index

__all__ = ["Apply", "Exchange", "Round", "Slice", "Sum", "SumPart", "Work"]

Array = NDArray[Any]
Shards = Mapping[str, Array]


class Work(Protocol):
    """What a card does for one instruction."""

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        """The resulting shard; None if this card ends with nothing."""


@dataclass(frozen=True)
class Apply:
    """An operator on shards."""

    op: Operator
    inputs: tuple[str, ...]
    output: str

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        return call_forward(self.op, [values[name] for name in self.inputs], self.output)


@dataclass(frozen=True)
class Sum:
    """A sum over the cards of a group, in rank order."""

    value: str
    group: tuple[int, ...]

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        return channels.all_reduce(values[self.value], self.group)


@dataclass(frozen=True)
class SumPart:
    """A sum over the cards of a group, in rank order, of which each keeps a part."""

    value: str
    group: tuple[int, ...]
    parts: tuple[Index, ...]
    """What each of the group keeps."""

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        mine = values[self.value]
        return channels.reduce_scatter([mine[part] for part in self.parts], self.group)


@dataclass(frozen=True)
class Slice:
    """A part of a shard."""

    value: str
    part: Index
    copied: bool
    """False: a view, of a value that stays in memory anyway."""

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        found = values[self.value][self.part]
        return found.copy() if self.copied else found


@dataclass(frozen=True)
class Round:
    """At most one piece to, and one from, each of some cards."""

    sends: tuple[tuple[int, Index], ...]
    """Card, and where the piece is in the old shard."""
    receives: tuple[tuple[int, Index], ...]
    """Card, and where the piece goes in the new shard."""


@dataclass(frozen=True)
class Exchange:
    """One card's part of a redistribution; what it receives is written straight to its place."""

    value: str
    reads_old: bool
    """Whether any of the old shard is needed."""
    shape: tuple[int, ...] | None
    """Of the shard that this card ends with; None if it ends with nothing."""
    dtype: np.dtype[Any]
    own: tuple[tuple[Index, Index], ...]
    """What stays: where it is in the old shard, and in the new one."""
    rounds: tuple[Round, ...]
    handed: bool
    """Nothing is assembled here: what this card ends with, if anything, comes whole from one card."""

    def run(self, values: Shards, channels: Communicator) -> Array | None:
        if self.handed:
            return self._hand(values, channels)
        new = np.empty(self.shape or (), self.dtype)
        old = values[self.value] if self.reads_old else new
        for here, there in self.own:
            new[there] = old[here]
        for step in self.rounds:
            channels.exchange_into(
                {peer: old[part] for peer, part in step.sends},
                {peer: new[part] for peer, part in step.receives},
            )
        return None if self.shape is None else new

    def _hand(self, values: Shards, channels: Communicator) -> Array | None:
        """Without a copy, and without waiting for the receivers, where the channels can."""
        (step,) = self.rounds
        # An array's memory order decides in which order numpy adds it up: all transports deliver C order.
        sends = {peer: np.asarray(values[self.value][part], order="C") for peer, part in step.sends}
        if self.shape is None:
            channels.exchange(sends, {})
            return None
        ((peer, _),) = step.receives
        return channels.exchange(sends, {peer: (self.shape, self.dtype)})[peer]
