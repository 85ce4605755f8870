"""MindSpore's offline jobs by its names: a folder of slices in, a folder of other slices out."""

import os
import warnings
from collections.abc import Sequence

import numpy as np

from ..arguments import checked
from ..errors import LayoutError, Option, ReshardError
from ..formats import as_strategy
from ..layout import Layout, Strategy
from ..layout.senders import fewest_holders
from ..reshard import plan_reshard
from ..sizes import BUFFER_BYTES
from .conversion import ReshardResult
from .executors import Threads
from .opening import open_checkpoint

__all__ = ["rank_list_for_transform", "transform_checkpoints"]

Path = str | os.PathLike[str]


@checked
def transform_checkpoints(
    src_checkpoints_dir: Path,
    dst_checkpoints_dir: Path,
    ckpt_prefix: str,
    src_strategy_file: Path | Strategy | None = None,
    dst_strategy_file: Path | Strategy | None = None,
    process_num: int = 1,
    output_format: str = "ckpt",
    *,
    states: str = "follow",
    check_replicas: bool = True,
    overwrite: bool = False,
    buffer: int | str = BUFFER_BYTES,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    file: str | Sequence[str] | None = None,
    step: str | int | None = None,
    allow_missing: Sequence[str] = (),
) -> ReshardResult:
    """Cut a checkpoint another way, for any number of ranks on either side.

    Parameters
    ----------
    src_checkpoints_dir
        A folder of `rank_N` folders; or one file.
    dst_checkpoints_dir
        The folder to make, with `rank_N/<ckpt_prefix>N.<output_format>`.
    src_strategy_file, dst_strategy_file
        Strategy files (or Strategies). None: one whole file, in `rank_0`.
    process_num
        How many files are written at one time (by threads of this process).
    states
        "follow", "replicate" or "mindspore": what becomes of states that the destination does
        not name.
    check_replicas
        Compare slices that should be equal.
    overwrite, buffer
        See `Output`.
    dec_key, dec_mode
        For encrypted sources.
    file, step
        Which files of the folder, and which save, see `open_checkpoint`. What was chosen by itself, and what is
        not used, is warned of.
    allow_missing
        Patterns of tensors that a strategy names, and that the result may lack.

    Raises
    ------
    CheckpointError, CheckpointFileError, ReshardError, LayoutError
        As `open_checkpoint`, `Checkpoint.plan` and `Conversion.write`.
    """
    if process_num < 1:
        given = Option("process_num", process_num)
        raise ReshardError(f"{given} is below 1", given)
    dst = None if dst_strategy_file is None else as_strategy(dst_strategy_file)
    with open_checkpoint(
        src_checkpoints_dir, src_strategy_file, dec_key=dec_key, dec_mode=dec_mode, file=file, step=step
    ) as checkpoint:
        for note in checkpoint.notes:
            warnings.warn(note, stacklevel=3)
        return checkpoint.plan(dst, states=states, allow_missing=allow_missing).write(
            dst_checkpoints_dir,
            on=Threads(process_num),
            prefix=ckpt_prefix,
            format=output_format,
            verify_source=check_replicas,
            buffer=buffer,
            overwrite=overwrite,
        )


@checked
def rank_list_for_transform(
    rank_id: int,
    src_strategy_file: Path | Strategy | None = None,
    dst_strategy_file: Path | Strategy | None = None,
) -> list[int]:
    """The source ranks whose files one destination rank needs, ascending: no more than it does need.

    Raises
    ------
    ReshardError
        If there is no such destination rank, or the strategies have no parameter in common.
    """
    src = None if src_strategy_file is None else as_strategy(src_strategy_file)
    dst = None if dst_strategy_file is None else as_strategy(dst_strategy_file)
    count = 1 if dst is None else dst.ranks
    if not 0 <= rank_id < count:
        given = Option("rank_id", rank_id)
        raise ReshardError(f"{given}: the destination has ranks 0..{count - 1}", given)
    if src is None:
        return [0]
    names = [name for name in src if dst is None or name in dst]
    if not names:
        raise ReshardError("the two strategies have no parameter in common; are they of one net?")
    shapes = {name: _divisible_shape(src[name], None if dst is None else dst[name]) for name in names}
    plan = plan_reshard(Strategy({n: src[n] for n in names}, shapes, src.ranks), dst, same_cards=False)
    return fewest_holders(choice for kind in plan.classes for choice in kind.holders_for(rank_id))


def _divisible_shape(src: Layout, dst: Layout | None) -> tuple[int, ...]:
    """Any shape that both layouts can cut: the files may not know the true one, and need not."""
    if dst is not None and dst.ndim != src.ndim:
        raise LayoutError(f"layouts of {src.ndim} and {dst.ndim} dims for one parameter")
    both = (src,) if dst is None else (src, dst)
    out = []
    for dim in range(src.ndim):
        size = 1
        for layout in both:
            parts = layout.parts[dim] * (layout.optimizer_shards if dim == 0 else 1)
            size = int(np.lcm(size, parts))
        explicit = [sum(s) for la in both if la.sizes and (s := la.sizes[dim]) is not None]
        out.append(explicit[0] if explicit else size)
    return tuple(out)
