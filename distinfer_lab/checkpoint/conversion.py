"""A conversion: what of a checkpoint is written where; and the run that writes it.

::

    checkpoint.plan(dst) -> Conversion.write -> a staging directory -> manifest -> the folder appears

Each destination file is one task (see `file_writer`), done by threads of this process or by the cards of a group.
No tensor is ever whole in memory.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ..arguments import checked
from ..display import Displayed, Saved, counted, format_bytes
from ..dtypes import dtype_name
from ..errors import Option, ReshardError, listed
from ..formats import MANIFEST, Manifest, NamedTensor, check_specs, format_of
from ..layout import Strategy
from ..layout.dialects.plain import strategy_to_json
from ..reshard import Explanation, ReshardPlan, explain
from ..sizes import BUFFER_BYTES
from ..text import printable
from ..version import __version__
from .executors import ROUTES, Executor, Threads
from .file_writer import FileReport, WriteTask
from .files import CheckpointFiles
from .finish import check_equal_shards, manifest_files, write_companions
from .identity import source_identities, source_records
from .likeness import check_like, names_in, names_of
from .output import FileOptions, Output, OutputOptions, WriteOptions
from .output_files import check_apart, tasks_of
from .places import check_places
from .progress import Progress, Watch
from .rank_reads import RankReadPlan, rank_read_plan
from .selection import unmatched
from .staging import Stage, check_target
from .verify import Verification, check_source, check_taken_for_equal, verify_folder

__all__ = ["Conversion", "ReshardResult", "write"]

PathLike = str | os.PathLike[str]
Targets = Mapping[str, tuple[str, np.dtype[Any]]]
"""Entry of a checkpoint -> its name and dtype in the destination."""


@dataclass(frozen=True, repr=False)
class ReshardResult(Displayed):
    """What was written, and what it took."""

    folder: str
    conversion: "Conversion"
    files: tuple[FileReport, ...]
    """What was written, file by file."""
    predicted_peak_bytes: int
    """The most memory for data that a worker was to use."""
    seconds: float
    resumed: bool
    """Whether an earlier run had begun."""
    served_bytes: int = 0
    """Bytes of content that cards read for other cards."""
    moved_bytes: int = 0
    """Bytes that went from card to card."""
    private_bytes: int | None = None
    """The most private memory that a worker process took beyond what it has when idle; None in this process."""
    discarded: str = ""
    """Why what an interrupted run had written was not used; "" if it was, or there was nothing."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files."""
        return tuple(os.path.join(self.folder, file.path) for file in self.files)

    @property
    def read_bytes(self) -> int:
        """Bytes of content read from source files."""
        return self.served_bytes + sum(file.read_bytes for file in self.files)

    @property
    def needed_bytes(self) -> int:
        """Bytes of the pieces of all destination shards, as the sources hold them."""
        return int(self.conversion.plan.needed_bytes.sum())

    @property
    def written_bytes(self) -> int:
        """Bytes of all destination shards."""
        return sum(file.nbytes for file in self.files)

    @property
    def reused_bytes(self) -> int:
        """Bytes that an earlier run had written, and that were right."""
        return sum(file.reused_bytes for file in self.files)

    @property
    def buffer_bytes(self) -> int:
        """The most memory for data that a worker used."""
        return max((file.buffer_bytes for file in self.files), default=0)

    @property
    def overflowed(self) -> Mapping[str, int]:
        """Tensor -> finite values that became infinite when they were converted."""
        out: dict[str, int] = {}
        for file in self.files:
            for name, tensor in file.tensors.items():
                if tensor.overflowed:
                    out[name] = out.get(name, 0) + tensor.overflowed
        return out

    @property
    def digests(self) -> tuple[dict[str, str | None], ...]:
        """For each file, for each tensor, the xxh3-128 digest of its shard's bytes."""
        return tuple({name: tensor.digest for name, tensor in file.tensors.items()} for file in self.files)

    def verify(self, threads: int = 1) -> Verification:
        """Read everything that was written once more (see `verify_folder`)."""
        return verify_folder(self.folder, threads=threads)

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON can say them."""
        names = ["read_bytes", "needed_bytes", "written_bytes", "reused_bytes", "moved_bytes"]
        names += ["buffer_bytes", "private_bytes"]
        return {
            "folder": self.folder,
            "files": list(self.paths),
            **{name: getattr(self, name) for name in names},
            "predicted_peak_bytes": self.predicted_peak_bytes,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "discarded": self.discarded,
            "started_over": [file.path for file in self.files if file.started_over],
            "overflowed": dict(self.overflowed),
            "notes": list(self.conversion.notes),
        }

    def __repr__(self) -> str:
        ratio = self.read_bytes / max(self.needed_bytes, 1)
        lines = [
            f"ReshardResult: {counted(len(self.files), 'file')}, {format_bytes(self.written_bytes)} "
            f"in {self.seconds:.2f} s",
            f"  read {self.read_bytes} of {self.needed_bytes} bytes needed ({ratio:.2f}), "
            f"buffer {format_bytes(self.buffer_bytes)} of {format_bytes(self.predicted_peak_bytes)}",
        ]
        if self.private_bytes is not None:
            lines.append(
                f"  {format_bytes(self.moved_bytes)} from card to card; "
                f"a worker took at most {format_bytes(self.private_bytes)} of private memory"
            )
        if self.reused_bytes:
            lines.append(f"  {format_bytes(self.reused_bytes)} were there from an earlier run, and right")
        if self.discarded:
            lines.append(f"  what an interrupted run had written was discarded: {self.discarded}")
        lines += [
            f"  {printable(file.path)}: the journal of the earlier run was damaged; "
            "the file was written from the start"
            for file in self.files
            if file.started_over
        ]
        lines += [f"  {printable(note)}" for note in self.conversion.notes]
        lines += [
            f"  {printable(name)}: {count} values overflowed" for name, count in self.overflowed.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False, eq=False)
class Conversion(Saved):
    """What of a checkpoint is written where, by what name and in what dtype (see `Checkpoint.plan`)."""

    plan: ReshardPlan
    """Who reads which pieces, by the names that the source has."""
    checkpoint: CheckpointFiles
    strategy: Strategy
    """The layouts of the destination, by its names, as far as layouts can say it."""
    targets: Targets
    """Entry of the checkpoint -> its name and dtype in the destination."""
    texts: Mapping[str, str] = field(default_factory=dict)
    states: str = "follow"
    plain: tuple[str, ...] = ()
    """Entries, by their new names, that are no parameters and no states: all ranks hold them whole."""
    allow_missing: tuple[str, ...] = ()
    """Patterns of tensors that the destination may lack."""
    unmatched: tuple[str, ...] = ()
    """Those of `allow_missing` that fit no name of the source or the destination."""
    notes: tuple[str, ...] = ()
    """Which tensors of floats `dtype` leaves as they are, and why: a sentence for each reason."""

    def share(self, rank: int) -> RankReadPlan:
        """What one destination rank reads."""
        return rank_read_plan(self.plan, self.checkpoint, rank, names=self.targets)

    def check_patterns(self, also: Collection[str] = ()) -> None:
        """See that each pattern of `allow_missing` fits a name; a run does so, too.

        Parameters
        ----------
        also
            Names that a pattern may fit beside those of the source and the destination: those of `like=`.

        Raises
        ------
        ReshardError
            If one fits none.
        """
        left = unmatched(self.unmatched, also)
        if left:
            known = listed(dict.fromkeys([*also, *(name for name, _ in self.targets.values())]))
            given = Option("allow_missing", [left[0]])
            raise ReshardError(f"{given}: no tensor fits it; there is {known}", given)

    @checked
    def explain(self, buffer: int | str = BUFFER_BYTES) -> Explanation:
        """Destination by destination and file by file what a run reads and writes."""
        paths = [file.path for file in self.checkpoint.files]
        return replace(explain(self.plan, buffer, paths), notes=self.notes)

    @checked
    def write(
        self, folder: PathLike, *, on: Executor | None = None, **options: Unpack[WriteOptions]
    ) -> ReshardResult:
        """Write it to a folder (see `write`)."""
        return write(self, folder, on=on, **options)

    @checked
    def check(self, folder: PathLike, **options: Unpack[OutputOptions]) -> Output:
        """Check that `write(folder, **options)` could start; nothing is read or written.

        Parameters
        ----------
        options
            Of `Output`; `format` is by default that of the source's files.

        Raises
        ------
        CheckpointFileError, CheckpointError, ReshardError
            If the folder or the options would be refused.
        """
        output = _output(self, folder, options)
        _checked_tasks(self, output)
        return output

    def __repr__(self) -> str:
        needed = self.plan.needed_bytes
        ranks = f"{self.plan.src_count:,} -> {counted(self.plan.dst_count, 'rank')}"
        counts = f"{counted(len(self.plan), 'tensor')}, {ranks}, {counted(self.plan.pieces, 'piece')}"
        lines = [
            f"Conversion of {counts}",
            f"  destinations hold {int(needed.sum())} bytes, a rank at most {int(needed.max(initial=0))}",
        ]
        return "\n".join(lines + [f"  {printable(note)}" for note in self.notes])


@checked
def write(
    conversion: Conversion,
    folder: PathLike,
    *,
    on: Executor | None = None,
    route: str = "auto",
    verify_source: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    **options: Unpack[OutputOptions],
) -> ReshardResult:
    """Write a conversion to a folder, which appears when everything in it is complete.

    Parameters
    ----------
    on
        Who writes: `Threads`, or a `CardGroup`; by default as many threads as cores, at most 8.
    route
        How pieces reach the workers, see `Executor.write_files`.
    verify_source
        Compare all slices that should be equal first, and all with the source's manifest, which reads them all.
    progress
        Called with how far it is, from the threads that work.
    cancelled
        Asked before every window; True stops the work, which a later run resumes.
    options
        Of `Output`; `format` is by default that of the source's files.

    Raises
    ------
    CheckpointFileError
        If the folder exists, or cannot be written, or a source changes meanwhile.
    CheckpointError
        If the source is damaged, or files that should be equal are not.
    ReshardError
        If another process writes there, or the run was cancelled.
    """
    if route not in ROUTES:
        given = Option("route", route)
        raise ReshardError(f"{given} is not one of {', '.join(ROUTES)}", given)
    checkpoint = conversion.checkpoint
    if on is None and not checkpoint.paths:
        raise ReshardError("the checkpoint is in the memory of cards; pass on=, the group that holds it")
    output = _output(conversion, folder, options)
    _refuse_existing(output)
    tasks = _checked_tasks(conversion, output)
    if verify_source:
        check_source(checkpoint)
    else:
        check_places(checkpoint)
        check_taken_for_equal(checkpoint)
    watch = Watch(_bytes_by_rank(tasks), progress, cancelled)
    with _stage(conversion, output) as stage:
        staged = [replace(task, folder=os.fspath(stage.folder)) for task in tasks]
        by_rank = dict(enumerate(checkpoint.files))
        written = (on or Threads()).write_files(staged, by_rank, watch.of_rank, route)
        for file in checkpoint.files:
            file.check_unchanged()
        if output.digests:
            check_equal_shards(conversion.plan, conversion.targets, written.files)
        _finish(conversion, output, stage, tasks, written.files)
        stage.commit()
        resumed, discarded = stage.resumed, stage.discarded
    return ReshardResult(
        os.fspath(output.folder),
        conversion,
        written.files,
        output.buffer_bytes,
        watch.seconds,
        resumed,
        written.served_bytes,
        written.moved_bytes,
        written.private_bytes,
        discarded,
    )


def _refuse_existing(output: Output) -> None:
    if Path(output.folder).exists() and not output.overwrite:
        with Stage(output.folder, {}):  # refuses it, and clears what a run that was killed left beside it
            pass


def _stage(conversion: Conversion, output: Output) -> Stage:
    sync = bool(output.file_options.get("sync", True))
    job = _job(conversion, output)
    return Stage(output.folder, job, sync=sync, overwrite=output.overwrite, resume=output.resume)


def _bytes_by_rank(tasks: Sequence[WriteTask]) -> dict[int, int]:
    out: dict[int, int] = {}
    for task in tasks:
        out[task.share.rank] = out.get(task.share.rank, 0) + task.nbytes
    return out


def _output(conversion: Conversion, folder: PathLike, options: OutputOptions) -> Output:
    chosen: dict[str, Any] = {**options, "format": options.get("format") or conversion.checkpoint.format}
    chosen["file_options"] = {key: chosen.pop(key) for key in FileOptions.__annotations__ if key in chosen}
    output = Output(folder, **chosen)
    return output if output.like is None else output.renamed(_names_in(output.like, conversion))


def _names_in(like: PathLike, conversion: Conversion) -> dict[str, str]:
    """New name -> the name in a folder that may know the tensors by their old ones."""
    return names_in(like, {source: name for source, (name, _) in conversion.targets.items()})


def _checked_tasks(conversion: Conversion, output: Output) -> list[WriteTask]:
    """The files to write, of a plan that can be written so as far as shows before anything is read or written.

    Another process that writes there, a full disk and the like are found by the run alone.
    """
    checkpoint = conversion.checkpoint
    check_apart(checkpoint.paths, output)
    check_target(Path(os.path.abspath(output.folder)), output.overwrite)
    if output.like is not None:
        names = _names_in(output.like, conversion)
        sources = {names[name]: source for source, (name, _) in conversion.targets.items()}
        written = {names[name]: tensor for name, tensor in _written(conversion).items()}

        def are_equal(one: str, other: str) -> bool:
            return checkpoint.start_equal(sources[one], sources[other])

        check_like(written, output.like, conversion.allow_missing, are_equal)
    conversion.check_patterns(
        () if output.like is None or not conversion.unmatched else names_of(output.like)
    )
    shares = [conversion.share(rank) for rank in range(conversion.plan.dst_count)]
    tasks = tasks_of(shares, conversion.texts, output)
    for task in tasks:
        check_specs(task.path, task.specs, format_of(task.path))
    return tasks


def _written(conversion: Conversion) -> dict[str, NamedTensor]:
    """All tensors of the output, by their new names."""
    return {
        name: NamedTensor(conversion.plan.class_named(source).shape, str(dtype))
        for source, (name, dtype) in conversion.targets.items()
    }


def _job(conversion: Conversion, output: Output) -> dict[str, Any]:
    """All that the bytes of the output depend on."""
    return {
        "program": __version__,
        "sources": source_identities(conversion.checkpoint),
        "destination": strategy_to_json(conversion.strategy),
        "tensors": {
            source: [name, dtype_name(dtype)] for source, (name, dtype) in conversion.targets.items()
        },
        "states": conversion.states,
        **output.recorded,
    }


def _finish(
    conversion: Conversion,
    output: Output,
    stage: Stage,
    tasks: Sequence[WriteTask],
    reports: Sequence[FileReport],
) -> None:
    """Write the manifest and, of a folder that is one whole checkpoint, its index and what is copied along."""
    files = manifest_files(stage, reports)
    companions = write_companions(stage, output, tasks)
    manifest = Manifest(
        files,
        conversion.strategy,
        conversion.texts if output.whole is None else {},
        tuple(source_records(conversion.checkpoint)),
        f"distinfer_lab {__version__}",
        companions,
        conversion.plain,
    )
    stage.write(MANIFEST, manifest.to_json())
