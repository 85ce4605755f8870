"""The serial interpreter: all cards of a program in one process, one step of all after another.

It is what a program means; cards that run on Dask must equal it bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..comm import Communicator
from .card import CardStep, view_of, wrong_shard
from .program import AllReduce, Compute, Instruction, Program, Redistribute, ReduceScatter
from .shards import Shards, shard_map
from .steps import Slice, SumPart

__all__ = ["run_serial"]

Array = NDArray[Any]
Results = Mapping[int, Array | None]


def run_serial(
    program: Program, params: Sequence[Mapping[str, Array]], inputs: Sequence[Mapping[str, Array]]
) -> tuple[list[Shards], list[Shards]]:
    """Run all cards in lockstep: shards of outputs and of updates, per rank, from those of parameters and inputs.

    Raises
    ------
    GraphError
        If an operator is wrong.
    """
    steps: list[dict[int, CardStep]] = [{} for _ in program.instructions]
    for rank in range(program.ranks):
        for step in view_of(program, rank).steps:
            steps[step.number][rank] = step
    values: list[Shards] = [{**params[rank], **inputs[rank]} for rank in range(program.ranks)]
    for instruction, of_ranks in zip(program.instructions, steps, strict=True):
        for rank, result in _results(program, instruction, of_ranks, values).items():
            if result is not None:
                values[rank][instruction.output] = result
                _check(program, rank, {instruction.output: result})
        for rank, step in of_ranks.items():
            for name in step.frees:
                values[rank].pop(name, None)
    outputs = [{n: v[n] for n in program.outputs if n in v} for v in values]
    updates = [{p: v[n] for p, n in program.updates.items() if n in v} for v in values]
    return outputs, updates


def _check(program: Program, rank: int, shards: Shards) -> None:
    reason = wrong_shard(program, rank, shards)
    if reason is not None:
        raise reason


class _Alone:
    """For steps that need no other card."""


def _results(
    program: Program, instruction: Instruction, steps: Mapping[int, CardStep], values: Sequence[Shards]
) -> Results:
    if isinstance(instruction, Compute):
        return {rank: _alone(step, values[rank]) for rank, step in steps.items()}
    if isinstance(instruction, Redistribute):
        slices = {r: _alone(step, values[r]) for r, step in steps.items() if isinstance(step.work, Slice)}
        return {**_moved(program, instruction, values), **slices}
    sums = {rank: _summed(program, instruction, rank, values) for rank in steps}
    works = {rank: step.work for rank, step in steps.items()}
    return {
        rank: total[work.parts[work.group.index(rank)]].copy() if isinstance(work, SumPart) else total
        for (rank, work), total in zip(works.items(), sums.values(), strict=True)
    }


def _alone(step: CardStep, values: Shards) -> Array | None:
    return step.work.run(values, cast(Communicator, _Alone()))


def _summed(
    program: Program, instruction: AllReduce | ReduceScatter, rank: int, values: Sequence[Shards]
) -> Array:
    (name,) = instruction.inputs
    group = instruction.group(program.values[name], rank)
    total: Array = values[group[0]][name].copy()
    for other in group[1:]:
        total += values[other][name]
    return total


def _moved(program: Program, instruction: Redistribute, values: Sequence[Shards]) -> dict[int, Array | None]:
    spec, layout = program.values[instruction.output]
    shapes = shard_map(layout, spec.shape).shapes
    out: dict[int, Array | None] = {rank: np.empty(shape, spec.dtype) for rank, shape in shapes.items()}
    for piece in program.pieces(instruction):
        new = out[piece.receiver]
        assert new is not None
        new[piece.dst] = values[piece.sender][instruction.inputs[0]][piece.src]
    return out
