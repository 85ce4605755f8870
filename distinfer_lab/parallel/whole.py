"""Whole values as shards, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .program import Program
from .shards import Shards, shard_map

__all__ = ["shard_inputs", "shard_of", "unshard"]

Array = NDArray[Any]


def shard_of(program: Program, name: str, whole: Array, rank: int) -> Array | None:
    """A card's shard of a whole value; None if it holds nothing of it."""
    held = program.values[name]
    found = shard_map(held.layout, held.spec.shape)
    if rank not in found.shapes:
        return None
    shard = np.empty(found.shapes[rank], whole.dtype)
    for laid in found.boxes[rank]:
        laid.shard.of(shard)[...] = laid.whole.of(whole)
    return shard


def shard_inputs(program: Program, values: Mapping[str, Array]) -> list[Shards]:
    """Whole values as shards, one mapping per rank."""
    out: list[Shards] = []
    for rank in range(program.ranks):
        shards = {name: shard_of(program, name, whole, rank) for name, whole in values.items()}
        out.append({name: shard for name, shard in shards.items() if shard is not None})
    return out


def unshard(program: Program, name: str, shards: Sequence[Mapping[str, Array]]) -> Array:
    """The whole value, from the shards of one replica (`Program.primary_ranks`)."""
    spec, layout = program.values[name]
    whole = np.empty(spec.shape, spec.dtype)
    found = shard_map(layout, spec.shape)
    for rank in program.primary_ranks(name):
        for laid in found.boxes[rank]:
            laid.whole.of(whole)[...] = laid.shard.of(shards[rank][name])
    return whole
