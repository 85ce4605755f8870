"""Step 3: load a sliced checkpoint into a net on the cards; each card reads only its own shards."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import checked
from ..cards import CardGroup, current_group
from ..checkpoint import check_places, open_checkpoint, plan_targets
from ..display import Displayed, counted
from ..errors import CheckpointError, ContextError, Option, listed
from ..formats import as_strategy, format_named
from ..layout import Strategy
from ..layout.dialects.mindspore import strategy_from_tuples
from ..net import Cell, Parameter
from ..reshard import ReshardPlan
from ..text import printable
from .context import parallel_context
from .matching import Matching
from .placing import PlacedNet, remember
from .predict_layout import PredictLayout

__all__ = ["LoadResult", "Saved", "load_distributed_checkpoint", "load_saved"]

PathLike = str | os.PathLike[str]
Files = PathLike | Sequence[PathLike] | Mapping[int, PathLike]


@dataclass(frozen=True, repr=False)
class LoadResult(Displayed):
    """What was loaded, and how."""

    plan: ReshardPlan
    """Which card reads what from which source slice."""
    strategy: Strategy
    """The layout of the parameters on the cards now."""
    renamed: Mapping[str, str]
    """Parameter of the net -> entry of the files, where the names differ."""
    converted: Mapping[str, str]
    """Parameter -> the dtype that it was converted from."""
    unused: tuple[str, ...]
    """Entries of the files that the net does not have (optimizer states, counters)."""
    missing: tuple[str, ...]
    """Parameters without an entry, which the caller allowed."""
    held_bytes: tuple[int, ...]
    """Bytes that each card holds of the net."""

    def __repr__(self) -> str:
        lines = [
            f"LoadResult: {counted(len(self.plan), 'parameter')} on {counted(len(self.held_bytes), 'card')}, "
            f"at most {max(self.held_bytes, default=0)} bytes a card"
        ]
        lines += [
            f"  {printable(name)} was loaded from {printable(entry)}" for name, entry in self.renamed.items()
        ]
        lines += [f"  {printable(name)} was converted from {dtype}" for name, dtype in self.converted.items()]
        if self.unused:
            lines.append(f"  not in the net: {', '.join(self.unused)}")
        if self.missing:
            lines.append(f"  not in the files: {', '.join(self.missing)}")
        return "\n".join(lines)


@checked
def load_distributed_checkpoint(
    network: Cell,
    checkpoint_filenames: Files,
    predict_strategy: PredictLayout | Strategy | Mapping[str, Sequence[object]] | PathLike | None = None,
    train_strategy_filename: PathLike | Strategy | None = None,
    strict_load: bool = False,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    format: str = "ckpt",
    *,
    name_map: Mapping[str, str] | None = None,
    cards: CardGroup | None = None,
    allow_missing: Sequence[str] = (),
    check_replicas: bool = True,
    file: str | Sequence[str] | None = None,
    step: str | int | None = None,
) -> LoadResult:
    """Load a sliced checkpoint into a net on the cards; each card reads only its own shards.

    Parameters
    ----------
    network
        The net.
    checkpoint_filenames
        The slice files in rank order; or a folder of `rank_N` folders, or one merged file.
    predict_strategy
        What `infer_predict_layout` gave, a mapping of its tuples (4 to 12 items), a Strategy,
        or a strategy file. None: one card, which gets everything.
    train_strategy_filename
        The strategy that the files were saved with; by default that of
        `set_auto_parallel_context(strategy_ckpt_load_file=...)`. With neither, every file
        must be a full copy.
    strict_load
        Names and dtypes must be equal. Otherwise float and integer dtypes are converted
        within their kind, and a parameter without an entry of its name takes one that differs
        by a prefix or a suffix, if there is just one; the result lists these.
    dec_key, dec_mode
        For encrypted files.
    format
        Accepted for MindSpore's scripts; the format follows from a file's name.
    name_map
        Entry of the files -> parameter of the net.
    cards
        The group; by default the current one.
    allow_missing
        Patterns ("head.*") of parameters that may be left as they are.
    check_replicas
        Compare slices that should be equal, which reads all files twice.
    file, step
        Which files of a folder, and which save, see `open_checkpoint`. Automatic choices and unused files are
        reported as warnings.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If files are missing, damaged, out of order, or disagree with the strategy or the net.
    LayoutError, ReshardError
        If a strategy does not fit.
    CardError, ContextError
        If there are too few cards, or none.
    """
    if format_named(format) is None:
        given = Option("format", format)
        raise ContextError(f"{given} is not 'ckpt' or 'safetensors'", given)
    group = current_group() if cards is None else cards
    train = train_strategy_filename or parallel_context().strategy_ckpt_load_file or None
    params = network.parameters_dict()
    try:
        opened = open_checkpoint(
            checkpoint_filenames, train, dec_key=dec_key, dec_mode=dec_mode, file=file, step=step
        )
    except CheckpointError as err:
        if train and not train_strategy_filename:
            err.add_note(
                f"The strategy is {train}, set by set_auto_parallel_context(strategy_ckpt_load_file=...). For other "
                "files give train_strategy_filename=, or call reset_auto_parallel_context() first."
            )
        raise
    with opened as checkpoint:
        for note in checkpoint.notes:
            warnings.warn(note, stacklevel=3)
        matching = Matching(params, checkpoint, strict_load, name_map or {}, allow_missing)
        check_places(checkpoint)
        if check_replicas:
            checkpoint.check_replicas(list(matching.entries.values()))
        dst = _predict_strategy(predict_strategy, params, list(matching.entries))
        targets = {entry: (name, np.dtype(params[name].dtype)) for name, entry in matching.entries.items()}
        conversion = plan_targets(checkpoint, dst, targets)
        placement, _ = group.load(conversion)
    strategy = conversion.strategy
    remember(network, PlacedNet(group, placement, strategy, loaded=True))
    return LoadResult(
        conversion.plan,
        strategy,
        matching.renamed,
        matching.converted,
        matching.unused,
        matching.missing,
        placement.nbytes,
    )


def _predict_strategy(given: Any, params: Mapping[str, Parameter], names: Sequence[str]) -> Strategy | None:
    """The destination, checked against the net."""
    if given is None:
        return None
    if isinstance(given, PredictLayout):
        strategy = given.strategy
    elif isinstance(given, Strategy | str | os.PathLike):
        strategy = as_strategy(given)
    else:
        strategy = strategy_from_tuples(given)
    for name in names:
        if name not in strategy:
            raise CheckpointError(
                f"{name}: the predict strategy has no layout for this parameter of the net; it names "
                f"{listed(strategy)}. Infer it again with model.infer_predict_layout",
                parameter=name,
            )
        known = strategy.shapes.get(name)
        if known is not None and known != params[name].shape:
            raise CheckpointError(
                f"{name}: the predict strategy is for shape {list(known)}, but the net has "
                f"{list(params[name].shape)}; infer it again with model.infer_predict_layout",
                parameter=name,
            )
    return strategy


class Saved(NamedTuple):
    """A checkpoint that was saved while training, and how to read it again."""

    epoch: int
    """Epochs done."""
    step: int
    """Steps done in the next."""
    paths: list[Path]
    """A file for each card, or a single one that holds everything."""
    integrated: bool
    key: bytes | None
    mode: str


def load_saved(placed: PlacedNet, saved: Saved) -> None:
    """Restore saved values on the cards."""
    files = [os.fspath(path) for path in saved.paths]
    strategy = None if saved.integrated else placed.strategy
    with open_checkpoint(
        files[0] if saved.integrated else files, strategy, dec_key=saved.key, dec_mode=saved.mode
    ) as checkpoint:
        targets = {name: (name, record.dtype) for name, record in checkpoint.tensors.items()}
        placed.group.load(plan_targets(checkpoint, placed.strategy, targets), into=placed.placement)
