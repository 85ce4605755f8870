"""A program: one net sharded over a group of cards, as instructions that every card runs on its shards.

::

    x: rows of 8        Redistribute  x   (whole) -> (m, -)
    w: (-, n)           Compute       h = MatMul(x, w)
                        AllReduce     dw over m
                        ...

The program is the same for all cards; `card.view_of` makes one card's view of it, in which every
operator, piece and peer is concrete.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..comm import reduced_elements
from ..display import Displayed, counted
from ..layout import Layout, Strategy, Transfers, volumes
from ..net import Operator, Region, Spec
from .communication import Communication, Sent
from .redistribution import Piece, kind_of, pieces, transfers
from .shards import shard_map

__all__ = [
    "AllReduce",
    "Collective",
    "Compute",
    "Held",
    "Instruction",
    "Program",
    "Redistribute",
    "ReduceScatter",
]

Rows = NDArray[np.int64]


class Held(NamedTuple):
    """A value: its shape and dtype, and its layout."""

    spec: Spec
    layout: Layout

    def region(self, rank: int) -> Region:
        """What a rank holds of it; of a fused tensor a region that begins as its first box and has its shard's size.

        Raises
        ------
        KeyError
            If the rank holds nothing of it.
        """
        found = shard_map(self.layout, self.spec.shape)
        first = found.boxes[rank][0].whole.start
        return tuple((a, a + n) for a, n in zip(first, found.shapes[rank], strict=True))


@dataclass(frozen=True)
class Compute:
    """`output = op(*inputs)`, each card on its shards."""

    output: str
    op: Operator
    inputs: tuple[str, ...]
    frees: tuple[str, ...] = ()


@dataclass(frozen=True)
class _OverAxes:
    """An instruction in which cards that differ along some mesh axes only add up their values."""

    output: str
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    frees: tuple[str, ...] = ()

    def groups(self, held: Held) -> Rows:
        """The ranks that add up with each other, int64, shape (groups, ranks of each), ascending.

        Parameters
        ----------
        held
            The partial value.
        """
        mesh = held.layout.mesh
        grid = np.arange(mesh.size, dtype=np.int64).reshape(mesh.axis_sizes)
        summed = [i for i, name in enumerate(mesh.axis_names) if name in self.axes]
        size = math.prod(mesh.axis_sizes[i] for i in summed)
        # In mesh order the ranks of a group ascend: row-major numbers, and only some places vary.
        groups = np.moveaxis(grid, summed, range(-len(summed), 0)).reshape(-1, size)
        return np.concatenate([first + groups for first in held.layout.first_ranks])

    def group(self, held: Held, rank: int) -> tuple[int, ...]:
        """The ranks that add up with `rank`, ascending."""
        groups = self.groups(held)
        return tuple(groups[np.nonzero(groups == rank)[0][0]].tolist())


@dataclass(frozen=True)
class AllReduce(_OverAxes):
    """Add partial values over some mesh axes, in rank order; `output` replaces `inputs[0]`."""


@dataclass(frozen=True)
class ReduceScatter(_OverAxes):
    """The same, but each card keeps only what `output` puts on it, a part of what it had."""


@dataclass(frozen=True)
class Redistribute:
    """Change a value's layout; pieces go straight from card to card."""

    output: str
    inputs: tuple[str, ...]
    frees: tuple[str, ...] = ()


Instruction = Compute | AllReduce | ReduceScatter | Redistribute


class Collective(NamedTuple):
    """What one instruction sends between cards, in bytes."""

    kind: str
    value: str
    sent_bytes: Rows
    """int64, shape (ranks,)."""


@dataclass(frozen=True, repr=False)
class Program(Displayed):
    """Instructions, and the layout of every value that they read or compute."""

    ranks: int
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    outputs: tuple[str, ...]
    updates: Mapping[str, str]
    """Parameter -> the value that replaces it, which has the parameter's layout."""
    instructions: tuple[Instruction, ...]
    values: Mapping[str, Held]

    @property
    def strategy(self) -> Strategy:
        """The layouts of the parameters when the program begins, and ends."""
        layouts = {name: self.values[name].layout for name in self.params}
        return Strategy(layouts, {name: self.values[name].spec.shape for name in self.params}, self.ranks)

    def transfers(self, instruction: Redistribute) -> Transfers:
        """The pieces of a redistribution, as boxes of the whole value."""
        src, dst = self.values[instruction.inputs[0]], self.values[instruction.output]
        return transfers(src.layout, dst.layout, src.spec.shape)

    def pieces(self, instruction: Redistribute) -> tuple[Piece, ...]:
        """The pieces of a redistribution, as parts of shards."""
        src, dst = self.values[instruction.inputs[0]], self.values[instruction.output]
        return pieces(src.layout, dst.layout, src.spec.shape)

    @cached_property
    def collectives(self) -> tuple[Collective, ...]:
        """Every instruction that sends bytes between cards, in order."""
        return tuple(c for c in self._collectives() if c.sent_bytes.any())

    def communication(self) -> Communication:
        """Every collective that sends bytes between cards, as a record: predicted, for one run."""
        return self._communication

    @cached_property
    def _communication(self) -> Communication:
        rows = (
            Sent(c.value, self.operators[c.value], c.kind, 1, tuple(c.sent_bytes.tolist()))
            for c in self.collectives
        )
        return Communication(self.ranks, tuple(rows))

    @cached_property
    def operators(self) -> Mapping[str, str]:
        """For each value the operator that it comes from, such as "MatMul of 'w'"; else an input or a parameter."""
        made: dict[str, str] = {}
        for instruction in self.instructions:
            source = instruction.inputs[0] if instruction.inputs else ""
            if isinstance(instruction, Compute):
                named = next((name for name in instruction.inputs if name in self.params), None)
                made[instruction.output] = instruction.op.name + (f" of {named!r}" if named else "")
            else:
                made[instruction.output] = made.get(source, source)
        return made

    def _collectives(self) -> Iterator[Collective]:
        for instruction in self.instructions:
            if isinstance(instruction, AllReduce):
                yield Collective("AllReduce", instruction.output, self._reduced_bytes(instruction))
            elif isinstance(instruction, ReduceScatter):
                yield Collective("ReduceScatter", instruction.output, self._scattered_bytes(instruction))
            elif isinstance(instruction, Redistribute):
                yield self._moved(instruction)

    def _moved(self, instruction: Redistribute) -> Collective:
        src, dst = self.values[instruction.inputs[0]], self.values[instruction.output]
        found = self.transfers(instruction)
        sent = np.bincount(found.src_rank, found.moved, self.ranks).astype(np.int64)
        kind = kind_of(src.layout, dst.layout, src.spec.shape, found)
        return Collective(kind, instruction.output, sent * dst.spec.dtype.itemsize)

    def _reduced_bytes(self, instruction: AllReduce) -> Rows:
        held = self.values[instruction.output]
        groups, itemsize = instruction.groups(held), held.spec.dtype.itemsize
        out = np.zeros(self.ranks, np.int64)
        out[groups] = reduced_elements(self._elements(held)[groups], itemsize) * itemsize
        return out

    def _scattered_bytes(self, instruction: ReduceScatter) -> Rows:
        """Each card sends to every other of its group what that one keeps."""
        groups = instruction.groups(self.values[instruction.inputs[0]])
        kept = self._elements(self.values[instruction.output])[groups]
        out = np.zeros(self.ranks, np.int64)
        out[groups] = kept.sum(axis=1, keepdims=True) - kept
        return out * self.values[instruction.output].spec.dtype.itemsize

    def _elements(self, held: Held) -> Rows:
        """The elements that each card holds of a value, int64, shape (ranks,)."""
        regions = held.layout.regions(held.spec.shape)
        return np.bincount(regions.ranks, volumes(regions.boxes), self.ranks).astype(np.int64)

    @property
    def sent_bytes(self) -> Rows:
        """Bytes that each card sends to others in one run, int64, shape (ranks,)."""
        return sum((c.sent_bytes for c in self.collectives), np.zeros(self.ranks, np.int64))

    @property
    def resident_bytes(self) -> Rows:
        """Bytes of parameters that each card holds, int64, shape (ranks,)."""
        out = np.zeros(self.ranks, np.int64)
        for name in self.params:
            out += self._elements(self.values[name]) * self.values[name].spec.dtype.itemsize
        return out

    def primary_ranks(self, name: str) -> list[int]:
        """The ranks that together hold a value once: one of each set of replicas."""
        layout = self.values[name].layout
        return [int(r) for r in layout.ranks[layout.replica_ids() == 0]]

    def __repr__(self) -> str:
        lines = [
            f"Program for {counted(self.ranks, 'card')}: {counted(len(self.instructions), 'instruction')}"
        ]
        for instruction in self.instructions:
            held = self.values[instruction.output]
            kind = instruction.op.name if isinstance(instruction, Compute) else type(instruction).__name__
            cut = held.layout.describe_cut()
            lines.append(f"  {instruction.output} = {kind}({', '.join(instruction.inputs)})  {cut}")
        for collective in self.collectives:
            most = int(collective.sent_bytes.max())
            lines.append(f"  {collective.kind} of {collective.value}: at most {most} bytes from a card")
        return "\n".join(lines)
