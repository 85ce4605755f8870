"""Opening a checkpoint: headers only.

The files and the strategy are put against each other, so that a file out of place, a rank without a
file and a slice of the wrong shape are found before a byte of data is read.
"""

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..arguments import checked
from ..errors import CheckpointError, CheckpointFileError, EncryptionError, LayoutError, listed
from ..formats import (
    Entry,
    FileIdentity,
    FileSet,
    NamedTensor,
    PartFiles,
    SliceFile,
    StrategyFile,
    as_strategy,
    config_beside,
    config_problems,
    open_files,
    paths_of,
    read_manifest,
)
from ..layout import Layout, Mesh, Regions, Strategy
from ..text import shown
from .beside import strategy_words
from .checkpoint import Checkpoint
from .ciphers import unlike_ciphers
from .holders import Holders
from .places import marks_of
from .rank_files import Files, RankFiles, find_files
from .record_table import RecordTable
from .records import MissingFile, TensorRecord, followed_parameter, is_state_of
from .saves_choice import Choice

__all__ = ["open_checkpoint"]

COUNTERS = (
    "global_step",
    "global_steps",
    "step",
    "step_num",
    "cur_step_num",
    "epoch",
    "epoch_num",
    "cur_epoch_num",
    "iteration",
)
"""Entries of one element that say when a file was saved; MindSpore writes several."""


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
        is lost is told by `lost` and `coverage`; a plan that needs it is refused.
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
        options = {"dec_key": dec_key, "dec_mode": dec_mode, "crc_check": crc_check}
        opened = _open_all(stack, paths, choice, options, cancelled)
        beside = strategy_words(folder) if folder and not layouts and paths != (folder,) else ""
        found = _Reconciliation(opened, layouts, plain, beside).checkpoint()
        notes = (
            *notes,
            *([f"{folder}: {beside}"] if beside else []),
            *found.notes,
            *_config_notes(files, found),
        )
        chosen = bool(choice.file or choice.step)
        out = replace(
            found,
            dec_key=dec_key,
            dec_mode=dec_mode,
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
    config = config_beside(files)
    if not config:
        return
    tensors = {name: NamedTensor(r.shape, str(r.dtype)) for name, r in checkpoint.tensors.items()}
    for words in config_problems(config, tensors, are_equal=checkpoint.begin_alike):
        yield f"{os.fspath(files)}: its config.json has {words}"


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
        raise CheckpointError(f"without={sorted(choice.without)}: the checkpoint has ranks 0..{count - 1}")
    return found


def _open_all(
    stack: ExitStack,
    paths: Sequence[str | PartFiles],
    choice: Choice,
    options: Mapping[str, Any],
    cancelled: Callable[[], bool],
) -> tuple[SliceFile | FileSet | MissingFile, ...]:
    """The files of all ranks, open until the stack is left."""
    opened: list[SliceFile | FileSet | MissingFile] = []
    for rank, path in enumerate(paths):
        if cancelled():
            raise CheckpointError(
                f"cancelled: {rank} of {len(paths)} files were opened, and are closed again"
            )
        if rank in choice.without:
            opened.append(MissingFile(os.fspath(path), f"{os.fspath(path)} is not to be used"))
            continue
        try:
            opened.append(_open(path, choice.rebuild, options))
        except EncryptionError as err:
            used = {r: paths_of(path) for r, path in enumerate(paths) if r not in choice.without}
            raise EncryptionError(unlike_ciphers(used) or _other_key(err, opened)) from err
        stack.callback(opened[-1].close)
    return tuple(opened)


def _open(
    path: str | PartFiles, rebuild: bool, options: Mapping[str, Any]
) -> SliceFile | FileSet | MissingFile:
    """The files of one rank; if what is lost can be rebuilt, one that is missing or damaged says why."""
    try:
        file = open_files(path, **options)
    except (CheckpointError, CheckpointFileError) as err:
        if not rebuild or isinstance(err, EncryptionError):
            raise
        return MissingFile(os.fspath(path), str(err))
    if rebuild and file.cut:
        file.close()
        return MissingFile(os.fspath(path), file.cut)
    return file


def _other_key(err: EncryptionError, opened: Sequence[SliceFile | FileSet | MissingFile]) -> str:
    """An error of a key, and that this key opened other files."""
    first = next((file.path for file in opened if not isinstance(file, MissingFile)), "")
    return f"{err}; the same key opened {first}, so the files may be of several saves" if first else str(err)


class _Reconciliation:
    """Puts files and strategy against each other.

    Parameters
    ----------
    plain
        Names of the strategy that are no parameters.
    beside
        Where a strategy lies that was not given, as a sentence; "" if none does.
    """

    def __init__(
        self,
        files: tuple[SliceFile | FileSet | MissingFile, ...],
        strategy: Strategy,
        plain: Collection[str],
        beside: str = "",
    ) -> None:
        self.beside = f"; {beside}" if beside else ""
        self.files, self.strategy, self.plain = files, strategy, plain
        self.lost = {rank for rank, file in enumerate(files) if isinstance(file, MissingFile)}
        self.holders = Holders(files)
        identities: dict[FileIdentity, list[int]] = {}
        for rank, file in enumerate(files):
            if isinstance(file, SliceFile):
                identities.setdefault(file.identity, []).append(rank)
        self.shared = [ranks for ranks in identities.values() if len(ranks) > 1]

    def checkpoint(self) -> Checkpoint:
        tensors = RecordTable()
        texts: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        for name, held in self.holders.items():
            broken = next((rank for rank, entry in held.items() if entry.problem), None)
            if broken is not None:
                unreadable[name] = f"{self._path(broken, name)}: {held[broken].problem}"
                continue
            if next(iter(held.values())).is_text:
                first, other = self._text(name, held)
                if other and name in COUNTERS:
                    raise CheckpointError(
                        f"{name}: {other}, so they are not of one save; choose files of one save"
                    )
                if other:  # such as a host's name: the tensors can be read all the same
                    unreadable[name] = other
                else:
                    texts[name] = first
                continue
            unlike = self._disagreement(name, held)
            if unlike:
                unreadable[name] = unlike
            else:
                tensors[name] = self._record(name, held)
        self._check_counters(tensors)
        sets = [file for file in self.files if isinstance(file, FileSet)]
        missing, states = self._missing(self.strategy)
        notes = [note for file in sets for note in file.notes]
        if states:
            notes.append(f"states that the strategy names, and no file holds: {listed(states)}")
        if missing:
            notes.append(f"tensors that the strategy names, and no file holds: {listed(missing)}")
        named = tuple(dict.fromkeys([*missing, *(name for file in sets for name in file.missing)]))
        return Checkpoint(
            self.files,
            MappingProxyType(tensors),
            MappingProxyType(texts),
            named,
            MappingProxyType(unreadable),
            notes=tuple(notes),
        )

    def _missing(self, named: Iterable[str]) -> tuple[list[str], list[str]]:
        """Names that no file holds; optimizer states apart, which are often left out when weights are passed on."""
        lacking = [name for name in named if name not in self.holders]
        states = {name for name in lacking if is_state_of(name, self.holders)}
        return [name for name in lacking if name not in states], sorted(states)

    def _check_counters(self, tensors: Mapping[str, TensorRecord]) -> None:
        """Files that count other steps are not of one save."""
        for name in COUNTERS:
            if name not in tensors or math.prod(tensors[name].shape) != 1:
                continue
            seen: dict[bytes, int] = {}
            for rank in self.holders[name]:
                seen.setdefault(self._file(rank).read(name).tobytes(), rank)
            if len(seen) > 1:
                one, other, *_ = seen.values()
                values = [self._file(rank).read(name).ravel()[0] for rank in (one, other)]
                raise CheckpointError(
                    f"{name} is {values[0]} in {self._path(one, name)} (rank {one}), but {values[1]} in "
                    f"{self._path(other, name)} (rank {other}): files of different steps are never one checkpoint; "
                    f"choose files of one step, or leave the wrong one out by without=[{one}] or without=[{other}], "
                    "if others hold the same"
                )

    def _path(self, rank: int, name: str) -> str:
        """Where a rank holds an entry."""
        return self._file(rank).path_of(name)

    def _file(self, rank: int) -> SliceFile | FileSet:
        file = self.files[rank]
        assert not isinstance(file, MissingFile)
        return file

    def _text(self, name: str, held: Mapping[int, Entry]) -> tuple[str, str]:
        """The first text of an entry, and how those of other ranks differ from it; "" if they are equal."""
        found = {rank: self._file(rank).text(name) if entry.is_text else "" for rank, entry in held.items()}
        first = next(iter(found))
        for rank, text in found.items():
            if text != found[first] or not held[rank].is_text:
                return found[first], (
                    f"its text differs between {self._path(first, name)} ({shown(found[first])}) and "
                    f"{self._path(rank, name)} ({shown(text)})"
                )
        return found[first], ""

    def _disagreement(self, name: str, held: Mapping[int, Entry]) -> str:
        """How ranks disagree on a tensor that the others can be read without, as a sentence; "" if they agree."""
        first, one = next(iter(held.items()))
        # Without a strategy slices are no exception: `_whole_shape` asks for one.
        alone = bool(self.strategy) and name not in self.strategy and self._followed(name) is None
        for rank, entry in held.items():
            other_dtype = entry.dtype != one.dtype or entry.is_text
            if not other_dtype and (entry.shape == one.shape or not alone):
                continue
            here, there = f"in {self._path(first, name)}", f"in {self._path(rank, name)}"
            if other_dtype:
                return f"its dtype differs: {one.type_name} {here}, but {entry.type_name} {there}"
            shapes = f"{list(one.shape)} {here}, but {list(entry.shape)} {there}"
            return f"the strategy has no layout for it, and its shape differs: {shapes}"
        return ""

    def _followed(self, name: str) -> str | None:
        """The parameter of the strategy that an entry is a state of, if the files have both."""
        followed = followed_parameter(name, self.strategy)
        return followed if followed is not None and followed in self.holders else None

    def _record(self, name: str, held: Mapping[int, Entry]) -> TensorRecord:
        dtype = next(iter(held.values())).dtype
        if name in self.strategy:
            layout = self.strategy[name]
            shape = self._full_shape(name, layout, held)
            self._check_slices(name, layout, shape, held)
            named = "parameter" if followed_parameter(name, self.strategy) is None else "state"
            return TensorRecord(name, dtype, shape, layout, "plain" if name in self.plain else named)
        followed = self._followed(name)
        if followed is not None:
            layout = self.strategy[followed]
            shape = self._full_shape(followed, layout, self.holders[followed])
            if not all(entry.shape == shape for entry in held.values()) or not layout.dims:
                self._check_slices(name, layout, shape, held)
                return TensorRecord(name, dtype, shape, layout, "state")
        return TensorRecord(name, dtype, self._whole_shape(name, held), _held_whole(held), "plain")

    def _full_shape(self, name: str, layout: Layout, held: Mapping[int, Entry]) -> tuple[int, ...]:
        known = self.strategy.shapes.get(name)
        if known is not None:
            return known
        try:
            return layout.full_shape({r: e.shape for r, e in held.items()})
        except LayoutError as err:
            raise CheckpointError(
                f"{self._path(next(iter(held)), name)}: {name}: {err}; the strategy is of another net"
            ) from err

    def _check_slices(
        self, name: str, layout: Layout, shape: tuple[int, ...], held: Mapping[int, Entry]
    ) -> None:
        try:
            regions = layout.regions(shape)
            shapes = regions.shard_shapes(self.strategy.ranks)
        except LayoutError as err:
            raise CheckpointError(f"{name}: {err}; the strategy is of another net") from err
        if self.shared:
            self._check_not_one_file(name, regions)
        wanted = {rank: shapes[rank].tolist() for rank in layout.ranks.tolist()}
        for rank, extent in wanted.items():
            if rank in self.lost:
                continue
            if rank not in held:
                raise CheckpointError(
                    f"{self.files[rank].path} (rank {rank}) has no {name}, though the strategy puts "
                    f"{extent} of it there; is it another rank's file?"
                )
            if list(held[rank].shape) != extent:
                raise CheckpointError(
                    f"{self._path(rank, name)}: {name} has shape {list(held[rank].shape)}, but the strategy gives "
                    f"rank {rank} {extent} of {list(shape)}; the file is out of place, or the strategy is another's"
                )
        extra = sorted(set(held) - set(wanted))
        if extra:
            raise CheckpointError(
                f"{self._path(extra[0], name)} (rank {extra[0]}) has {name}, though the strategy puts none of it "
                "there; is it another rank's file?"
            )

    def _check_not_one_file(self, name: str, regions: Regions) -> None:
        """Refuse one file, or links to one, for ranks that hold different boxes."""
        for ranks in self.shared:
            boxes = [regions.boxes[regions.ranks == rank].tolist() for rank in ranks]
            other = next((rank for rank, box in zip(ranks, boxes, strict=True) if box != boxes[0]), None)
            if other is not None:
                raise CheckpointError(
                    f"{self.files[ranks[0]].path} and {self.files[other].path} are one file, given for ranks "
                    f"{ranks[0]} and {other}, which hold different parts of {name}; give each its own"
                )

    def _whole_shape(self, name: str, held: Mapping[int, Entry]) -> tuple[int, ...]:
        first = next(iter(held))
        for rank, entry in held.items():
            if entry.shape != held[first].shape:
                raise CheckpointError(
                    f"{name} has shape {list(held[first].shape)} in {self._path(first, name)}, but "
                    f"{list(entry.shape)} in {self._path(rank, name)}; the strategy has no layout for it: "
                    f"give the strategy that the files were saved with{self.beside}"
                )
        return held[first].shape


def _held_whole(held: Mapping[int, Entry]) -> Layout:
    """Every rank that has the entry holds all of it."""
    return _whole(tuple(sorted(held)), len(next(iter(held.values())).shape))


@lru_cache(maxsize=256)
def _whole(ranks: tuple[int, ...], ndim: int) -> Layout:
    if list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))):
        return Layout(Mesh(repeat=len(ranks)), ((),) * ndim, first_ranks=(ranks[0],))
    return Layout(Mesh(repeat=1), ((),) * ndim, first_ranks=ranks)
