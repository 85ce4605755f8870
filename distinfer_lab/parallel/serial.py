"""The serial interpreter: all cards of a program in one process, one step of all after another.

It is what a program means; cards that run on Dask must equal it bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..net import Operator
from .card import Channels, Exchange, Shards, run_step, shard_of, view_of
from .program import Program

__all__ = ["assemble", "cut", "run_serial"]

Array = NDArray[Any]


def cut(program: Program, values: Mapping[str, Array]) -> list[Shards]:
    """Whole values as shards, one mapping per rank."""
    out: list[Shards] = []
    for rank in range(program.ranks):
        shards = {name: shard_of(program, name, whole, rank) for name, whole in values.items()}
        out.append({name: shard for name, shard in shards.items() if shard is not None})
    return out


def assemble(program: Program, name: str, shards: Sequence[Mapping[str, Array]]) -> Array:
    """The whole value from the shards of the ranks that hold it first (`primary_ranks`)."""
    spec, layout = program.values[name]
    whole = np.empty(spec.shape, spec.dtype)
    boxes = layout.boxes(spec.shape).tolist()
    for rank in program.primary_ranks(name):
        box = boxes[layout.row_of(rank)]
        whole[tuple(slice(a, b) for a, b in box)] = shards[rank][name]
    return whole


def run_serial(
    program: Program, params: Sequence[Mapping[str, Array]], inputs: Sequence[Mapping[str, Array]]
) -> tuple[list[Shards], list[Shards]]:
    """Run all cards in lockstep; shards in, shards of outputs and of updates out, per rank."""
    views = [view_of(program, rank) for rank in range(program.ranks)]
    values: list[Shards] = [{**params[rank], **inputs[rank]} for rank in range(program.ranks)]
    for number, instruction in enumerate(program.instructions):
        steps = [view.steps[number] for view in views]
        held = program.values[instruction.output]
        if isinstance(steps[0].work, Operator):
            results = [
                run_step(step, values[rank], cast(Channels, _Alone()), held)
                for rank, step in enumerate(steps)
            ]
        elif isinstance(steps[0].work, Exchange):
            given = [values[rank].get(step.inputs[0]) for rank, step in enumerate(steps)]
            results = [_exchanged(rank, steps, given, held.spec.dtype) for rank in range(program.ranks)]
        else:
            results = [_summed(step.work, step.inputs[0], values) for step in steps]
        for rank, result in enumerate(results):
            if result is not None:
                values[rank][instruction.output] = result
            for name in instruction.frees:
                values[rank].pop(name, None)
    outputs = [{n: v[n] for n in program.outputs if n in v} for v in values]
    updates = [{p: v[n] for p, n in program.updates.items() if n in v} for v in values]
    return outputs, updates


class _Alone:
    """For steps that need no other card."""


def _summed(group: Any, name: str, values: Sequence[Shards]) -> Array:
    total: Array = values[group[0]][name].copy()
    for rank in group[1:]:
        total += values[rank][name]
    return total


def _exchanged(rank: int, steps: Sequence[Any], given: Sequence[Array | None], dtype: Any) -> Array | None:
    work = steps[rank].work
    if work.shape is None:
        return None
    new: Array = np.empty(work.shape, dtype)
    for peer, slices in work.receives:
        there = next(s for taker, s in steps[peer].work.sends if taker == rank)
        source = given[peer]
        assert source is not None
        new[slices] = source[there]
    own = given[rank]
    if work.own is not None and own is not None:
        new[work.own[1]] = own[work.own[0]]
    return new
