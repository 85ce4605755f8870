"""Writing what the cards hold: each card its own slices, or the controller one merged file."""

import functools
import os
from pathlib import Path
from typing import Unpack

import numpy as np

from ..cards import CardGroup
from ..checkpoint import FileOptions
from ..errors import CheckpointFileError, ContextError
from ..formats import SliceWriter, TensorSpec, save_slice
from ..layout import Box
from ..net import Cell
from ..secret import secret_key
from .placing import PlacedNet, placed_net

__all__ = ["SaveOptions", "save_merged", "save_net", "save_slices"]


class SaveOptions(FileOptions, total=False):
    """How the files of `Model.save` are written."""

    format: str | None
    """"ckpt" or "safetensors"; None: by the suffix of the name."""


def save_net(
    net: Cell,
    cards: CardGroup,
    directory: Path,
    name: str,
    *,
    integrated: bool,
    **file_options: Unpack[SaveOptions],
) -> list[Path]:
    """Write what the cards hold of a net, merged or in slices; gives the paths, in rank order.

    Raises
    ------
    ContextError
        If the net is on no card yet.
    CheckpointFileError
        If a file cannot be written.
    """
    placed = placed_net(net, cards)
    if placed is None:
        raise ContextError("the net is on no card yet; train it or load a checkpoint first")
    if "enc_key" in file_options:  # the repr of a task must not show it
        file_options["enc_key"] = secret_key(file_options["enc_key"])
    if integrated:
        return [save_merged(placed, directory / name, file_options)]
    return save_slices(placed, directory, name, file_options)


def save_slices(placed: PlacedNet, directory: Path, name: str, file_options: SaveOptions) -> list[Path]:
    """Let each card write `rank_<r>_ckpt/<name>`; gives the paths in rank order.

    Raises
    ------
    CheckpointFileError
        If a file cannot be written, or this process cannot see what a card wrote.
    """
    folder = directory.absolute()
    paths = {rank: folder / f"rank_{rank}_ckpt" / name for rank in range(placed.strategy.ranks)}
    write = functools.partial(save_slice, **file_options)
    placed.group.save(placed.placement, {rank: os.fspath(path) for rank, path in paths.items()}, write)
    for rank, path in paths.items():
        if not path.exists():
            raise CheckpointFileError(
                f"{path}: card {rank} wrote it, but it is not visible here; save to a shared folder",
                file=path,
                rank=rank,
            )
    return list(paths.values())


def save_merged(placed: PlacedNet, path: Path, file_options: SaveOptions) -> Path:
    """Write every tensor whole; one tensor at a time passes through this process."""
    strategy = placed.strategy
    dtypes = {name: placed.dtype_of(name) for name in strategy}
    specs = [TensorSpec(name, dtypes[name], strategy.shapes[name]) for name in strategy]
    with SliceWriter(path, specs, **file_options) as writer:
        for spec in specs:
            whole = placed.gather(spec.name, tuple((0, n) for n in spec.shape))
            writer.write(spec.name, Box.whole(spec.shape), np.asarray(whole))
    return path
