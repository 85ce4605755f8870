"""Opening a checkpoint: headers only.

The files are found and opened, cross-checked with the strategy (`reconciling.py`), and what lies beside them is said.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..arguments import checked
from ..errors import CheckpointError, CheckpointFileError, EncryptionError, Option, Remark
from ..formats import (
    EntryTable,
    NamedTensor,
    StrategyFile,
    as_strategy,
    config_problems,
    read_manifest,
    sibling_config,
)
from ..layout import Strategy
from .checkpoint import Checkpoint
from .ciphers import unlike_ciphers
from .places import marks_of
from .rank_files import Files, RankFiles, find_files
from .reconciling import Reconciliation
from .saves_choice import Choice
from .sources import FileSource, MissingFile, Slices
from .unopened import strategy_remark

__all__ = ["open_checkpoint"]


@checked
def open_checkpoint(
    files: Files,
    strategy: Strategy | StrategyFile | str | os.PathLike[str] | None = None,
    *,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
    rebuild: bool = False,
    without: Collection[int] = (),
    file: str | Sequence[str] | None = None,
    step: str | int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Open the slices of all ranks.

    Parameters
    ----------
    files
        Paths in rank order, a mapping of rank to path, a folder of `rank_N` folders or of files that carry
        ranks, a Hugging Face folder, or one file. Several files of one rank are parts of one save; of
        several saves the newest that all ranks have counts. `Checkpoint.notes` says what was chosen.
    strategy
        The training strategy, its file, or a folder with a file for each pipeline stage. None: that of the
        folder's manifest; where there is none, every file holds everything.
    dec_key, dec_mode, crc_check
        See `open_slice`.
    rebuild
        Go on without files that are missing or damaged, as far as other ranks hold the same slices. What
        is lost is in `lost` and `coverage`; a plan that needs it is refused.
    without
        Ranks whose files are not to be used, because they are known to be wrong; implies `rebuild`.
    file
        Patterns of file names, such as "net-9_*"; of a folder only the files that fit are used.
    step
        Which save, where a folder has several: "9_100" (epoch and step), or a step number.
    cancelled
        Asked before each file is opened; True ends it.

    Raises
    ------
    CheckpointFileError
        If a file is missing.
    CheckpointError
        If files are damaged, too many or too few, out of order, or disagree with the strategy; if it was
        cancelled.
    LayoutError
        If the strategy does not fit a tensor.
    """
    folder = os.fspath(files) if isinstance(files, str | os.PathLike) and Path(files).is_dir() else ""
    manifest = read_manifest(folder) if folder else None
    plain: tuple[str, ...] = ()
    if strategy is None and manifest is not None:
        strategy, plain = manifest.strategy, manifest.plain
    layouts = Strategy({}) if strategy is None else as_strategy(strategy)
    rebuild = rebuild or bool(without)
    if rebuild and strategy is None:
        raise CheckpointError(
            "nothing can be rebuilt without the strategy, which says who held what; give it"
        )
    ranks = 0 if strategy is None else layouts.ranks
    choice = Choice(_patterns(file), "" if step is None else str(step), ranks, rebuild, frozenset(without))
    paths, notes = _found(files, choice, stated=strategy is not None)
    with ExitStack() as stack:
        sources = [FileSource(path, dec_key, dec_mode) for path in paths]
        opened = _open_all(stack, sources, choice, crc_check, cancelled)
        beside = strategy_remark(folder) if folder and not layouts and paths != (folder,) else Remark("")
        found = Reconciliation(opened, layouts, plain, beside).checkpoint()
        notes = (
            *notes,
            *([Remark(f"{folder}: {beside}", of=beside)] if beside else []),
            *found.notes,
            *_config_notes(files, found),
        )
        chosen = bool(choice.file or choice.step)
        out = replace(
            found,
            sources=tuple(sources),
            folder="" if manifest is None else folder,
            marks={} if manifest is None or chosen else marks_of(manifest),
            notes=notes,
        )
        stack.pop_all()
        return out


def _config_notes(files: Files, checkpoint: Checkpoint) -> Iterator[str]:
    """What a config.json next to whole weights says that is not true of them."""
    if checkpoint.ranks != 1 or not isinstance(files, str | os.PathLike):
        return
    config = sibling_config(files)
    if not config:
        return
    tensors = {name: NamedTensor(r.shape, str(r.dtype)) for name, r in checkpoint.tensors.items()}
    for words in config_problems(config, tensors, are_equal=checkpoint.start_equal):
        yield Remark(f"{os.fspath(files)}: its config.json has {words}", of=words)


def _patterns(file: str | Sequence[str] | None) -> tuple[str, ...]:
    return (file,) if isinstance(file, str) else tuple(file or ())


def _found(files: Files, choice: Choice, *, stated: bool) -> RankFiles:
    """The files of all ranks, as many as the strategy says; `stated` tells whether there is one."""
    found = find_files(files, choice)
    count = len(found.paths)
    if not count:
        raise CheckpointError("no checkpoint files were given; give one per rank")
    if stated and choice.ranks != count:
        raise CheckpointError(
            f"the strategy is for {choice.ranks} ranks, but {count} files were given; "
            "give one file per rank, or the strategy that these were saved with"
        )
    if not choice.without <= set(range(count)):
        given = Option("without", sorted(choice.without))
        raise CheckpointError(f"{given}: the checkpoint has ranks 0..{count - 1}", given)
    return found


def _open_all(
    stack: ExitStack,
    sources: Sequence[FileSource],
    choice: Choice,
    crc_check: bool,
    cancelled: Callable[[], bool],
) -> tuple[Slices, ...]:
    """The files of all ranks, open until the stack is left."""
    opened: list[Slices] = []
    names: dict[tuple[int, str], dict[str, int]] = {}
    for rank, source in enumerate(sources):
        if cancelled():
            raise CheckpointError(
                f"cancelled: {len(opened)} of {len(sources)} files were opened, and are closed again"
            )
        if rank in choice.without:
            opened.append(MissingFile(source.path, f"{source.path} is not to be used"))
            continue
        try:
            opened.append(_open(source, choice.rebuild, crc_check))
        except EncryptionError as err:
            used = {r: other.files for r, other in enumerate(sources) if r not in choice.without}
            unlike = unlike_ciphers(used)
            raise EncryptionError(unlike or _other_key(err, opened), of=None if unlike else err) from err
        stack.callback(opened[-1].close)
        for file in opened[-1].files:
            if isinstance(file.entries, EntryTable):
                file.entries.share_names(names)
    return tuple(opened)


def _open(source: FileSource, rebuild: bool, crc_check: bool) -> Slices:
    """The files of one rank; if what is lost can be rebuilt, one that is missing or damaged says why."""
    try:
        file = source.open(crc_check=crc_check)
    except (CheckpointError, CheckpointFileError) as err:
        if not rebuild or isinstance(err, EncryptionError):
            raise
        return MissingFile(source.path, str(err))
    if rebuild and file.cut:
        file.close()
        return MissingFile(source.path, file.cut)
    return file


def _other_key(err: EncryptionError, opened: Sequence[Slices]) -> str:
    """An error of a key, and that this key opened other files."""
    first = next((file.path for file in opened if not file.is_lost), "")
    return f"{err}; the same key opened {first}, so the files may be of several saves" if first else str(err)
