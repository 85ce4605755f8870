"""Opening a checkpoint: headers only.

The files and the strategy are put against each other, so that a file out of place, a rank without a
file and a slice of the wrong shape are found before a byte of data is read.
"""

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, CheckpointFileError, EncryptionError, LayoutError
from ..layout import Layout, Mesh, Strategy
from .checkpoint import Checkpoint, NoFile, TensorRecord, followed_parameter
from .entry import Entry
from .hub import FileSet, open_files
from .manifest import read_manifest
from .rank_files import Files, rank_files
from .slice_file import SliceFile
from .strategy_file import StrategyFile, as_strategy

__all__ = ["open_checkpoint"]


def open_checkpoint(
    files: Files,
    strategy: Strategy | StrategyFile | str | os.PathLike[str] | None = None,
    *,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
    rebuild: bool = False,
    without: Collection[int] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Open the slices of all ranks.

    Parameters
    ----------
    files
        Paths in rank order, a mapping of rank to path, a folder of `rank_N` folders, a Hugging
        Face folder, or one file.
    strategy
        The training strategy, or its file. None: that of the folder's manifest; where there is
        none, every file holds everything.
    dec_key, dec_mode, crc_check
        See `open_slice`.
    rebuild
        Go on without files that are missing or damaged, as far as other ranks hold the same slices. What
        is lost is told by `lost` and `coverage`; a plan that needs it is refused.
    without
        Ranks whose files are not to be used, because they are known to be wrong; implies `rebuild`.
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
    paths = rank_files(files, layouts.ranks if rebuild else None)
    if not paths:
        raise CheckpointError("no checkpoint files were given; give one per rank")
    if strategy is not None and layouts.ranks != len(paths):
        raise CheckpointError(
            f"the strategy is for {layouts.ranks} ranks, but {len(paths)} files were given; give one file per rank, "
            "or the strategy that these were saved with"
        )
    if not set(without) <= set(range(len(paths))):
        raise CheckpointError(f"without={sorted(without)}: the checkpoint has ranks 0..{len(paths) - 1}")
    options: dict[str, Any] = {"dec_key": dec_key, "dec_mode": dec_mode, "crc_check": crc_check}
    with ExitStack() as stack:
        opened: list[SliceFile | FileSet | NoFile] = []
        for rank, path in enumerate(paths):
            if cancelled():
                raise CheckpointError(
                    f"cancelled: {rank} of {len(paths)} files were opened, and are closed again"
                )
            if rank in without:
                opened.append(NoFile(path, f"{path} is not to be used"))
                continue
            opened.append(_open(path, rebuild, options))
            stack.callback(opened[-1].close)
        found = _Reconciliation(tuple(opened), layouts, plain).checkpoint()
        out = replace(found, dec_key=dec_key, dec_mode=dec_mode, folder="" if manifest is None else folder)
        stack.pop_all()
        return out


def _open(path: str, rebuild: bool, options: Mapping[str, Any]) -> SliceFile | FileSet | NoFile:
    """The files of one rank; if what is lost can be rebuilt, one that is missing or damaged says why."""
    try:
        return open_files(path, **options)
    except (CheckpointError, CheckpointFileError) as err:
        if not rebuild or isinstance(err, EncryptionError):
            raise
        return NoFile(path, str(err))


class _Reconciliation:
    """Puts files and strategy against each other; `plain` are names of it that are no parameters."""

    def __init__(
        self, files: tuple[SliceFile | FileSet | NoFile, ...], strategy: Strategy, plain: Collection[str]
    ) -> None:
        self.files, self.strategy, self.plain = files, strategy, plain
        self.lost = {rank for rank, file in enumerate(files) if isinstance(file, NoFile)}
        self.holders: dict[str, dict[int, Entry]] = {}
        for rank, file in enumerate(files):
            for name, entry in file.entries.items():
                self.holders.setdefault(name, {})[rank] = entry

    def checkpoint(self) -> Checkpoint:
        tensors: dict[str, TensorRecord] = {}
        texts: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        for name, held in self.holders.items():
            broken = next((rank for rank, entry in held.items() if entry.problem), None)
            if broken is not None:
                unreadable[name] = f"{self.files[broken].path}: {held[broken].problem}"
                continue
            if next(iter(held.values())).is_text:
                texts[name] = self._text(name, held)
                continue
            self._check_dtypes(name, held)
            tensors[name] = self._record(name, held)
        missing = tuple(name for name in self.strategy if name not in self.holders)
        return Checkpoint(
            self.files,
            MappingProxyType(tensors),
            MappingProxyType(texts),
            missing,
            MappingProxyType(unreadable),
        )

    def _file(self, rank: int) -> SliceFile | FileSet:
        file = self.files[rank]
        assert not isinstance(file, NoFile)
        return file

    def _text(self, name: str, held: Mapping[int, Entry]) -> str:
        found = {rank: self._file(rank).text(name) for rank in held if held[rank].is_text}
        first = next(iter(found))
        for rank in held:
            if found.get(rank) != found[first]:
                raise CheckpointError(
                    f"{name}: its text differs between {self.files[first].path} and {self.files[rank].path}"
                )
        return found[first]

    def _check_dtypes(self, name: str, held: Mapping[int, Entry]) -> None:
        first = next(iter(held))
        for rank, entry in held.items():
            if entry.dtype != held[first].dtype or entry.is_text:
                raise CheckpointError(
                    f"{name} is {held[first].type_name} in {self.files[first].path}, but {entry.type_name} in "
                    f"{self.files[rank].path}"
                )

    def _record(self, name: str, held: Mapping[int, Entry]) -> TensorRecord:
        dtype = next(iter(held.values())).dtype
        followed = followed_parameter(name, self.strategy)
        if name in self.strategy:
            layout = self.strategy[name]
            shape = self._full_shape(name, layout, held)
            self._check_slices(name, layout, shape, held)
            named = "parameter" if followed is None else "state"
            return TensorRecord(name, dtype, shape, layout, "plain" if name in self.plain else named)
        if followed is not None and followed in self.holders:
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
                f"{self.files[next(iter(held))].path}: {name}: {err}; the strategy is of another net"
            ) from err

    def _check_slices(
        self, name: str, layout: Layout, shape: tuple[int, ...], held: Mapping[int, Entry]
    ) -> None:
        try:
            shapes = layout.regions(shape).shard_shapes(self.strategy.ranks)
        except LayoutError as err:
            raise CheckpointError(f"{name}: {err}; the strategy is of another net") from err
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
                    f"{self.files[rank].path}: {name} has shape {list(held[rank].shape)}, but the strategy gives "
                    f"rank {rank} {extent} of {list(shape)}; the file is out of place, or the strategy is another's"
                )
        extra = sorted(set(held) - set(wanted))
        if extra:
            raise CheckpointError(
                f"{self.files[extra[0]].path} (rank {extra[0]}) has {name}, though the strategy puts none of it "
                "there; is it another rank's file?"
            )

    def _whole_shape(self, name: str, held: Mapping[int, Entry]) -> tuple[int, ...]:
        first = next(iter(held))
        for rank, entry in held.items():
            if entry.shape != held[first].shape:
                raise CheckpointError(
                    f"{name} has shape {list(held[first].shape)} in {self.files[first].path}, but "
                    f"{list(entry.shape)} in {self.files[rank].path}; the strategy has no layout for it: "
                    "give the strategy that the files were saved with"
                )
        return held[first].shape


def _held_whole(held: Mapping[int, Entry]) -> Layout:
    """Every rank that has the entry holds all of it."""
    ndim = len(next(iter(held.values())).shape)
    ranks = sorted(held)
    if ranks == list(range(ranks[0], ranks[0] + len(ranks))):
        return Layout(Mesh(("repeat",), (len(ranks),)), ((),) * ndim, first_ranks=(ranks[0],))
    return Layout(Mesh(("repeat",), (1,)), ((),) * ndim, first_ranks=tuple(ranks))
