"""Writing what the cards hold: each card its own slices, or the controller one merged file."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointFileError
from ..formats import SliceWriter, TensorSpec, save_slice
from ..layout import Box
from .placing import PlacedNet

__all__ = ["save_merged", "save_slices"]


def save_slices(placed: PlacedNet, directory: Path, name: str, file_options: Mapping[str, Any]) -> list[Path]:
    """Let each card write `rank_<r>_ckpt/<name>`; gives the paths in rank order.

    Raises
    ------
    CheckpointFileError
        If a file cannot be written, or this process does not see what a card wrote.
    """
    folder = directory.absolute()
    paths = {rank: folder / f"rank_{rank}_ckpt" / name for rank in range(placed.strategy.ranks)}
    write = functools.partial(save_slice, **file_options)
    placed.group.save(placed.placement, {rank: os.fspath(path) for rank, path in paths.items()}, write)
    for rank, path in paths.items():
        if not path.exists():
            raise CheckpointFileError(
                f"{path}: card {rank} wrote it, but it is not to be seen here; save to a folder that all share"
            )
    return list(paths.values())


def save_merged(placed: PlacedNet, path: Path, file_options: Mapping[str, Any]) -> Path:
    """Write every tensor whole; one tensor at a time passes through this process."""
    strategy = placed.strategy
    dtypes = {name: placed.dtype_of(name) for name in strategy}
    specs = [TensorSpec(name, dtypes[name], strategy.shapes[name]) for name in strategy]
    with SliceWriter(path, specs, **file_options) as writer:
        for spec in specs:
            whole = placed.gather(spec.name, tuple((0, n) for n in spec.shape))
            writer.write(spec.name, Box.whole(spec.shape), np.asarray(whole))
    return path
