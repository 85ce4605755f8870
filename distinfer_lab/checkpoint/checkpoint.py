"""A checkpoint: the slice files of all ranks and the strategy that says who holds what.

Opening reads headers only. It puts the files and the strategy against each other, so that a
file out of place, a rank without a file and a slice of the wrong shape are found before a byte
of data is read.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ..display import Displayed
from ..errors import (
    ArgumentTypeError,
    CheckpointError,
    CheckpointFileError,
    EncryptionError,
    LayoutError,
    listed,
)
from ..layout import Box, Layout, Mesh, Strategy
from .coverage import Coverage, box_in_words, coverage
from .entry import Entry
from .hub import FileSet, hub_files, open_files
from .manifest import read_manifest
from .slice_file import SliceFile
from .strategy_file import StrategyFile, as_strategy

__all__ = [
    "STATE_PREFIXES",
    "Checkpoint",
    "NoFile",
    "TensorRecord",
    "followed_parameter",
    "open_checkpoint",
    "rank_files",
]

STATE_PREFIXES = ("moments", "moment1", "moment2", "adam_m", "adam_v", "accu_grads", "accum", "stat")
"""How optimizers name the states of a parameter: `<prefix>.<parameter>`."""

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, str | os.PathLike[str]]

RANK_IN_PATH = re.compile(r"(?:rank|device)_?(\d+)")
BLOCK_BYTES = 4 << 20


class TensorRecord(NamedTuple):
    """One tensor of a checkpoint."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """The full shape."""
    layout: Layout
    """Which rank holds which box."""
    kind: str
    """"parameter" (named by the strategy), "state" (follows a parameter) or "plain" (held whole)."""


@dataclass(frozen=True)
class NoFile:
    """In place of a file: slices that no file holds, and why."""

    path: str
    reason: str

    @property
    def entries(self) -> Mapping[str, Entry]:
        """None."""
        return {}

    def read(self, name: str, box: Box | None = None) -> Any:
        """There is nothing to read.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    def read_into(self, name: str, box: Box, out: Any, buffer_bytes: int) -> int:
        """There is nothing to read.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    def entry(self, name: str) -> Entry:
        """There is none.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    def check_unchanged(self) -> None:
        """There is nothing that could change."""

    def close(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True, repr=False, eq=False)
class Checkpoint(Displayed):
    """Sliced checkpoint files, opened together (see `open_checkpoint`); a context manager."""

    files: tuple[SliceFile | FileSet | NoFile, ...]
    """One per rank, in rank order."""
    tensors: Mapping[str, TensorRecord]
    texts: Mapping[str, str]
    """Text entries, which are equal on all ranks."""
    missing: tuple[str, ...]
    """Parameters that the strategy names and no file holds."""
    dec_key: bytes | None = None
    dec_mode: str = "AES-GCM"
    """What the files were opened with; a card opens them so again."""
    held: str = ""
    """The placement on cards that holds the slices, where files do not."""

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return len(self.files)

    @property
    def format(self) -> str:
        """The format of the files, ckpt or safetensors."""
        return next((file.format for file in self.files if not isinstance(file, NoFile)), "ckpt")

    @property
    def lost(self) -> Mapping[int, NoFile]:
        """The ranks whose slices are not there, and why."""
        if self.held:
            return {}
        return {rank: file for rank, file in enumerate(self.files) if isinstance(file, NoFile)}

    def coverage(self) -> dict[str, Coverage]:
        """How many copies of each tensor's boxes are there, and which boxes are not."""
        seen: dict[tuple[Layout, tuple[int, ...]], Coverage] = {}
        out: dict[str, Coverage] = {}
        for name, record in self.tensors.items():
            key = record.layout, record.shape
            if key not in seen:
                seen[key] = coverage(*key, self.lost)
            out[name] = seen[key]
        return out

    @property
    def strategy(self) -> Strategy:
        """The layout and the full shape of every tensor, states and plain entries included."""
        return Strategy(
            {name: record.layout for name, record in self.tensors.items()},
            {name: record.shape for name, record in self.tensors.items()},
            self.ranks,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all slices, replicas counted each."""
        return sum(entry.nbytes for file in self.files for entry in file.entries.values())

    @property
    def full_nbytes(self) -> int:
        """Bytes of all tensors, each counted once."""
        return sum(int(np.prod(r.shape, dtype=object)) * r.dtype.itemsize for r in self.tensors.values())

    def read(self, rank: int, name: str, box: Box | None = None) -> Any:
        """Read a box of what one rank holds, in the coordinates of its slice."""
        return self.files[rank].read(name, box)

    def check_replicas(self, names: Sequence[str] | None = None) -> None:
        """Read the slices that should be equal, and compare them.

        Raises
        ------
        CheckpointError
            If two differ; the text names the files: one is damaged, or out of its place.
        """
        for name in self.tensors if names is None else names:
            record = self.tensors[name]
            boxes = record.layout.boxes(record.shape).reshape(len(record.layout.ranks), -1)
            seen: dict[bytes, tuple[int, bytes]] = {}
            copies = np.unique(boxes, axis=0, return_counts=True)[1] if boxes.size else [len(boxes)]
            if max(copies, default=1) == 1:
                continue
            for rank, box in zip(record.layout.ranks.tolist(), boxes, strict=True):
                if rank in self.lost:
                    continue
                digest = _digest(self.files[rank], name)
                first, known = seen.setdefault(box.tobytes(), (rank, digest))
                if known != digest:
                    raise CheckpointError(
                        f"{name}: rank {first} ({self.files[first].path}) and rank {rank} "
                        f"({self.files[rank].path}) should hold equal slices, but they differ; "
                        "one file is damaged, or the files are not in rank order; leave the wrong one out "
                        f"by without=[{first}] or without=[{rank}]"
                    )

    def plan(self, dst: Any = None, **options: Any) -> Any:
        """Plan the way to another strategy; `plan.run(folder)` then goes it.

        Parameters
        ----------
        dst
            A Strategy, `Rules`, or the path of a strategy file or JSON layouts. None: one whole file.
        options
            See `plan_checkpoint`.

        Returns
        -------
        ConversionPlan

        Raises
        ------
        ReshardError, LayoutError
            If that is not possible.
        """
        # By name: planning lies above checkpoints, which do not need it.
        reshard = import_module("..reshard", __package__)
        given = as_strategy(dst) if isinstance(dst, str | os.PathLike) else dst
        return reshard.plan_checkpoint(self, given, **options)

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        lines = [
            f"Checkpoint of {self.ranks} ranks: {len(self.tensors)} tensors, {self.full_nbytes} bytes "
            f"({self.nbytes} in the slices)"
        ]
        for record in self.tensors.values():
            cut = record.layout.describe_cut() or "(no dims)"
            lines.append(f"  {record.name}  {list(record.shape)} {record.dtype}  {cut}  {record.kind}")
        lines += [f"  {name}  text" for name in self.texts]
        if self.lost:
            lines += [f"  rank {rank} is lost: {file.reason}" for rank, file in self.lost.items()]
            for name, found in self.coverage().items():
                if len(found.holes):
                    holes = listed(map(box_in_words, found.holes.tolist()))
                    lines.append(f"  {name}  cannot be recovered: {holes}")
        copies = [found for found in self.coverage().values() if found.fewest]
        if copies:
            fewest, most = min(found.fewest for found in copies), max(found.most for found in copies)
            words = f"{fewest} to {most} ranks" if fewest != most else f"{fewest} rank{'s' * (fewest > 1)}"
            lines.append(f"  every slice that is there is held by {words}")
        lines += [f"  {name}  in the strategy, but in no file" for name in self.missing]
        return "\n".join(lines)


def _digest(file: SliceFile | FileSet | NoFile, name: str) -> bytes:
    """A digest of an entry's bytes, read in blocks."""
    entry = file.entry(name)
    digest = xxhash.xxh3_128()
    rows = entry.shape[0] if entry.shape else 1
    step = max(BLOCK_BYTES * rows // max(entry.nbytes, 1), 1)
    for first in range(0, rows, step):
        box = Box.whole(entry.shape)
        if entry.shape:
            box = Box((first, *box.start[1:]), (min(first + step, rows), *box.stop[1:]))
        digest.update(file.read(name, box).reshape(-1).view(np.uint8).data)
    return digest.digest()


def rank_files(source: Files, ranks: int | None = None) -> list[str]:
    """The files in rank order: of a list as given, of a folder those of its `rank_N` subfolders.

    A Hugging Face folder (or its index) is one rank, which holds everything. In a `rank_N` folder
    the last file by name counts, as MindSpore has it.

    Parameters
    ----------
    ranks
        How many there should be, where gaps are to be told by a path at which nothing is; None: a gap is
        an error.

    Raises
    ------
    CheckpointFileError
        If a folder, a file or a rank is missing.
    CheckpointError
        If the paths of a list carry rank numbers in another order than they stand.
    """
    if isinstance(source, Mapping):
        gaps = sorted(set(range(ranks or len(source))) - set(source))
        if gaps and ranks is not None:
            return [os.fspath(source.get(rank, f"(no file of rank {rank})")) for rank in range(ranks)]
        if gaps:
            raise CheckpointFileError(
                f"there is no file for rank {gaps[0]}; give one for each rank from 0 on"
            )
        return [os.fspath(source[rank]) for rank in range(len(source))]
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Sequence) or not all(isinstance(p, str | os.PathLike) for p in source):
            raise ArgumentTypeError(f"checkpoint files are a list of paths in rank order, not {source!r:.80}")
        files = [os.fspath(path) for path in source]
        _check_order(files)
        return files
    folder = Path(source)
    if not folder.is_dir():
        if not folder.exists():
            raise CheckpointFileError(f"{folder}: no such file or folder; check the path")
        return [os.fspath(folder)]
    if hub_files(folder) is not None:
        return [os.fspath(folder)]
    manifest = read_manifest(folder)
    if manifest is not None:
        return [os.fspath(folder / file.path) for file in manifest.files]
    return _files_of_folder(folder, ranks)


def _files_of_folder(folder: Path, ranks: int | None) -> list[str]:
    found: dict[int, Path] = {}
    for inner in sorted(folder.iterdir()):
        number = re.fullmatch(r"(?:rank|device)_?(\d+)(?:_ckpt)?", inner.name)
        if number and inner.is_dir():
            files = sorted(p for p in inner.iterdir() if p.suffix in (".ckpt", ".safetensors"))
            if files:
                found[int(number[1])] = files[-1]
    if not found:
        raise CheckpointFileError(f"{folder}: no rank_0, rank_1 ... with .ckpt or .safetensors files in it")
    count = max(max(found) + 1, ranks or 0)
    gaps = sorted(set(range(count)) - set(found))
    if ranks is not None:
        return [os.fspath(found.get(rank, folder / f"rank_{rank}")) for rank in range(count)]
    if gaps:
        raise CheckpointFileError(
            f"{folder}: there is no file of rank {gaps[0]}, though there is one of rank {max(found)}; "
            f"put it into {folder / f'rank_{gaps[0]}'}"
        )
    return [os.fspath(found[rank]) for rank in range(len(found))]


def _check_order(files: Sequence[str]) -> None:
    """Where all paths carry rank numbers, and these are 0..n-1, they must stand in that order."""
    numbers = []
    for path in files:
        in_path = {int(n) for n in RANK_IN_PATH.findall(path)}
        if len(in_path) != 1:
            return
        numbers.append(in_path.pop())
    if sorted(numbers) != list(range(len(files))):
        return
    for rank, number in enumerate(numbers):
        if rank != number:
            raise CheckpointError(
                f"{files[rank]} stands at place {rank}, but its path says rank {number}; "
                "give the files in rank order"
            )


def followed_parameter(name: str, parameters: Mapping[str, Any]) -> str | None:
    """The parameter whose layout a state follows; None if the name is not that of a state."""
    prefix, _, rest = name.partition(".")
    return rest if prefix in STATE_PREFIXES and rest in parameters else None


def open_checkpoint(
    files: Files,
    strategy: Strategy | StrategyFile | str | os.PathLike[str] | None = None,
    *,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
    rebuild: bool = False,
    without: Collection[int] = (),
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

    Raises
    ------
    CheckpointFileError
        If a file is missing.
    CheckpointError
        If files are damaged, too many or too few, out of order, or disagree with the strategy.
    LayoutError
        If the strategy does not fit a tensor.
    """
    if strategy is None and isinstance(files, str | os.PathLike) and Path(files).is_dir():
        manifest = read_manifest(files)
        strategy = None if manifest is None else manifest.strategy
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
            f"the strategy is for {layouts.ranks} ranks, but {len(paths)} files were given; give one file per rank"
        )
    if not set(without) <= set(range(len(paths))):
        raise CheckpointError(f"without={sorted(without)}: the checkpoint has ranks 0..{len(paths) - 1}")
    with ExitStack() as stack:
        opened: list[SliceFile | FileSet | NoFile] = []
        for rank, path in enumerate(paths):
            if rank in without:
                opened.append(NoFile(path, f"{path} is not to be used"))
                continue
            try:
                opened.append(open_files(path, dec_key=dec_key, dec_mode=dec_mode, crc_check=crc_check))
                stack.callback(opened[-1].close)
            except (CheckpointError, CheckpointFileError) as err:
                if not rebuild or isinstance(err, EncryptionError):
                    raise
                opened.append(NoFile(path, str(err)))
        found = _Reconciliation(tuple(opened), layouts).checkpoint()
        out = replace(found, dec_key=dec_key, dec_mode=dec_mode)
        stack.pop_all()
        return out


class _Reconciliation:
    """Puts files and strategy against each other."""

    def __init__(self, files: tuple[SliceFile | FileSet | NoFile, ...], strategy: Strategy) -> None:
        self.files, self.strategy = files, strategy
        self.lost = {rank for rank, file in enumerate(files) if isinstance(file, NoFile)}
        self.holders: dict[str, dict[int, Entry]] = {}
        for rank, file in enumerate(files):
            for name, entry in file.entries.items():
                self.holders.setdefault(name, {})[rank] = entry

    def checkpoint(self) -> Checkpoint:
        tensors: dict[str, TensorRecord] = {}
        texts: dict[str, str] = {}
        for name, held in self.holders.items():
            if next(iter(held.values())).is_text:
                texts[name] = self._text(name, held)
                continue
            self._check_dtypes(name, held)
            tensors[name] = self._record(name, held)
        missing = tuple(name for name in self.strategy if name not in self.holders)
        return Checkpoint(self.files, MappingProxyType(tensors), MappingProxyType(texts), missing)

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
        if name in self.strategy:
            layout = self.strategy[name]
            shape = self._full_shape(name, layout, held)
            self._check_slices(name, layout, shape, held)
            return TensorRecord(name, dtype, shape, layout, "parameter")
        followed = followed_parameter(name, self.strategy)
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
