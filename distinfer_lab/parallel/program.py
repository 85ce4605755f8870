"""A program: one net cut for a group of cards, as instructions that every card runs on its shards.

    x: rows of 8        Redistribute  x   (whole) -> (m, -)
    w: (-, n)           Compute       h = MatMul(x, w)
                        AllReduce     dw over m
                        ...
The program is the same for all cards; `card(rank)` gives one card's view, in which every
operator, piece and peer is concrete.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed
from ..layout import Layout, Strategy, Transfers, box_at, plan_transfers, volumes
from ..net import Operator, Region, Spec

__all__ = [
    "AllReduce",
    "Collective",
    "Compute",
    "Held",
    "Instruction",
    "Program",
    "Redistribute",
    "piece_slices",
    "regions",
]

Rows = NDArray[np.int64]


class Held(NamedTuple):
    """A value: what it is, and how it lies on the cards."""

    spec: Spec
    layout: Layout


@dataclass(frozen=True)
class Compute:
    """`output = op(*inputs)`, each card on its shards."""

    output: str
    op: Operator
    inputs: tuple[str, ...]
    frees: tuple[str, ...] = ()


@dataclass(frozen=True)
class AllReduce:
    """Add partial values over some mesh axes, in rank order; `output` replaces `inputs[0]`."""

    output: str
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    frees: tuple[str, ...] = ()

    def groups(self, held: Held) -> Rows:
        """The ranks that add up with each other, int64, shape (groups, ranks of each), ascending."""
        mesh = held.layout.mesh
        grid = np.arange(mesh.size, dtype=np.int64).reshape(mesh.axis_sizes)
        summed = [i for i, name in enumerate(mesh.axis_names) if name in self.axes]
        size = math.prod(mesh.axis_sizes[i] for i in summed)
        # In mesh order the ranks of a group ascend: row-major numbers, and only some places vary.
        return np.moveaxis(grid, summed, range(-len(summed), 0)).reshape(-1, size)

    def group(self, held: Held, rank: int) -> tuple[int, ...]:
        """The ranks that add up with `rank`, ascending."""
        groups = self.groups(held)
        return tuple(groups[np.nonzero(groups == rank)[0][0]].tolist())


@dataclass(frozen=True)
class Redistribute:
    """Give a value another layout; pieces go straight from card to card."""

    output: str
    inputs: tuple[str, ...]
    frees: tuple[str, ...] = ()


Instruction = Compute | AllReduce | Redistribute


class Collective(NamedTuple):
    """What one instruction sends between cards, in bytes."""

    kind: str
    value: str
    sent_bytes: Rows
    """int64, shape (ranks,)."""


def regions(held: Held, ranks: int) -> list[Region | None]:
    """For each rank its region of a value; None where it holds nothing."""
    out: list[Region | None] = [None] * ranks
    boxes = held.layout.boxes(held.spec.shape).tolist()
    for rank, box in zip(held.layout.ranks.tolist(), boxes, strict=True):
        out[rank] = tuple((a, b) for a, b in box)
    return out


@dataclass(frozen=True, repr=False)
class Program(Displayed):
    """Instructions, and the layout of every value that they read or give."""

    ranks: int
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    outputs: tuple[str, ...]
    updates: Mapping[str, str]
    """Parameter -> the value that replaces it, which lies as the parameter does."""
    instructions: tuple[Instruction, ...]
    values: Mapping[str, Held]

    @property
    def strategy(self) -> Strategy:
        """How the parameters lie when the program begins, and ends."""
        layouts = {name: self.values[name].layout for name in self.params}
        return Strategy(layouts, {name: self.values[name].spec.shape for name in self.params}, self.ranks)

    def transfers(self, instruction: Redistribute) -> Transfers:
        """The pieces of a redistribution."""
        src, dst = self.values[instruction.inputs[0]], self.values[instruction.output]
        shape = src.spec.shape
        return plan_transfers(src.layout.regions(shape), dst.layout.regions(shape))

    @cached_property
    def collectives(self) -> tuple[Collective, ...]:
        """Every instruction that sends bytes between cards, in order."""
        return tuple(c for c in self._collectives() if c.sent_bytes.any())

    def _collectives(self) -> Iterator[Collective]:
        for instruction in self.instructions:
            if isinstance(instruction, AllReduce):
                yield Collective("AllReduce", instruction.output, self._reduced_bytes(instruction))
            elif isinstance(instruction, Redistribute):
                pieces = self.transfers(instruction)
                itemsize = self.values[instruction.output].spec.dtype.itemsize
                sent = np.bincount(pieces.src_rank, pieces.moved, self.ranks).astype(np.int64)
                yield Collective("Redistribute", instruction.output, sent * itemsize)

    def _reduced_bytes(self, instruction: AllReduce) -> Rows:
        """Each card sends the runs of the others, then the sum of its own run to each of them."""
        held = self.values[instruction.output]
        groups = instruction.groups(held)
        n, i = groups.shape[1], np.arange(groups.shape[1])
        sizes = volumes(held.layout.boxes(held.spec.shape))[groups]
        own = sizes * (i + 1) // n - sizes * i // n
        out = np.zeros(self.ranks, np.int64)
        out[groups] = (sizes - own + own * (n - 1)) * held.spec.dtype.itemsize
        return out

    @property
    def sent_bytes(self) -> Rows:
        """Bytes that each card sends to others in one run, int64, shape (ranks,)."""
        return sum((c.sent_bytes for c in self.collectives), np.zeros(self.ranks, np.int64))

    @property
    def resident_bytes(self) -> Rows:
        """Bytes of parameters that each card holds, int64, shape (ranks,)."""
        out = np.zeros(self.ranks, np.int64)
        for name in self.params:
            spec, layout = self.values[name]
            out[layout.ranks] += volumes(layout.boxes(spec.shape)) * spec.dtype.itemsize
        return out

    def primary_ranks(self, name: str) -> list[int]:
        """The ranks that together hold a value once: one of each set of replicas."""
        layout = self.values[name].layout
        return [int(r) for r in layout.ranks[layout.replica_ids() == 0]]

    def __repr__(self) -> str:
        lines = [f"Program for {self.ranks} cards: {len(self.instructions)} instructions"]
        for instruction in self.instructions:
            held = self.values[instruction.output]
            kind = instruction.op.name if isinstance(instruction, Compute) else type(instruction).__name__
            cut = held.layout.describe_cut() or "(no dims)"
            lines.append(f"  {instruction.output} = {kind}({', '.join(instruction.inputs)})  {cut}")
        for collective in self.collectives:
            most = int(collective.sent_bytes.max())
            lines.append(f"  {collective.kind} of {collective.value}: at most {most} bytes from a card")
        return "\n".join(lines)


def piece_slices(outer: Region, box_row: NDArray[np.int64]) -> tuple[slice, ...]:
    """A box of the whole tensor, as an index of a card's shard."""
    box = box_at(box_row[None], 0)
    return tuple(
        slice(a - first, b - first) for a, b, (first, _) in zip(box.start, box.stop, outer, strict=True)
    )
