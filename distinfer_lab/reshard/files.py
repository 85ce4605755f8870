"""A plan carried out from files to files: byte ranges, a bounded buffer, one rename at the end.

    checkpoint -> plan_checkpoint -> ConversionPlan.run -> stage -> manifest -> the folder appears

Each destination file is one task (see `write.py`), done in this process, by threads, or by the cards
of a group. No tensor is ever whole in memory.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..checkpoint import (
    CHUNK_BYTES,
    INDEX,
    MANIFEST,
    Checkpoint,
    FileSet,
    Manifest,
    ManifestFile,
    ManifestTensor,
    NoFile,
    index_json,
)
from ..display import Displayed, bytes_in_words
from ..errors import CheckpointError, ReshardError
from ..layout import Box, Strategy
from ..layout.dialects.plain import strategy_to_json
from ..version import __version__
from .conversion import ConversionPlan, plan_checkpoint
from .sizes import BUFFER_BYTES, size_of
from .stage import Stage
from .write import SMALLEST_BUFFER, Control, FileReport, WriteTask, Written, write_file

__all__ = ["BUFFER_BYTES", "Output", "Progress", "ReshardResult", "reshard_files", "run_plan"]

ROUTES = ("auto", "files", "channels")
FORMATS = ("ckpt", "safetensors", "huggingface")


class Progress(NamedTuple):
    """How far a run is."""

    done_bytes: int
    total_bytes: int
    """Bytes of all destination shards."""
    by_rank: Mapping[int, int]
    """Destination rank -> bytes done."""
    total_by_rank: Mapping[int, int]
    """Destination rank -> bytes of its shards."""
    seconds: float
    """Since the run began."""

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the speed so far; None before there is any."""
        if not self.done_bytes:
            return None
        return self.seconds * (self.total_bytes - self.done_bytes) / self.done_bytes


class Workers(Protocol):
    """Who can write destination files in this process's stead: a card group."""

    def write_files(
        self, tasks: Sequence[WriteTask], control: Callable[[int], Control], route: str
    ) -> Written:
        """Do all tasks.

        Parameters
        ----------
        control
            Gives the control of a destination rank.
        route
            "files": every worker reads the source files that it needs; "channels": each reads its own
            and the pieces go from worker to worker; "auto": the first if all workers see all files.
        """
        ...


@dataclass(frozen=True)
class Output:
    """Where and how the files of a run are written.

    Parameters
    ----------
    folder
        The folder to make. It appears when everything in it is complete.
    prefix
        Files are `rank_N/<prefix>N.<format>`.
    format
        "ckpt", "safetensors", or "huggingface" (one rank; `model*.safetensors` with an index).
    partition
        Tensor -> file name, for "huggingface"; by default all in `model.safetensors`.
    buffer
        The most memory for data of each worker, in bytes or as "64 MiB".
    memory_limit
        The most memory of each worker; the buffer is made smaller to keep it. None: no limit.
    overwrite
        Replace `folder` if it exists, by exchanging the two at one moment.
    resume
        Go on with what an earlier run of the same work has left.
    digests
        Take the digest of every shard; without them nothing can be verified or gone on with.
    file_options
        `chunk_bytes`, `crc_check`, `enc_key`, `enc_mode`, `sync` of `SliceWriter`.

    Raises
    ------
    ReshardError
        If a value does not do.
    """

    folder: str | os.PathLike[str]
    prefix: str = "checkpoint_"
    format: str = "ckpt"
    partition: Mapping[str, str] | None = None
    buffer: int | str = BUFFER_BYTES
    memory_limit: int | str | None = None
    overwrite: bool = False
    resume: bool = True
    digests: bool = True
    file_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ReshardError(f"format={self.format!r} is not one of {', '.join(FORMATS)}")
        if Path(self.prefix).name != self.prefix and self.prefix:
            raise ReshardError(
                f"prefix={self.prefix!r} is the start of a file name; it may not name a folder"
            )
        buffer = size_of(self.buffer, "buffer")
        if self.memory_limit is not None:
            limit = size_of(self.memory_limit, "memory_limit")
            if limit < SMALLEST_BUFFER:
                raise ReshardError(
                    f"memory_limit={self.memory_limit}: files are written through a buffer of at least "
                    f"{SMALLEST_BUFFER} bytes; use memory_limit={SMALLEST_BUFFER}"
                )
            buffer = min(buffer, limit)
        object.__setattr__(self, "buffer_bytes", buffer)

    buffer_bytes: int = field(init=False, default=BUFFER_BYTES)
    """The buffer, in bytes."""


@dataclass(frozen=True, repr=False)
class ReshardResult(Displayed):
    """What was written, and what it took."""

    folder: str
    plan: ConversionPlan
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
        return int(self.plan.needed_bytes.sum())

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

    def verify(self, threads: int = 1) -> Any:
        """Read everything that was written once more (see `verify_folder`)."""
        from .verify import verify_folder

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
            "overflowed": dict(self.overflowed),
        }

    def __repr__(self) -> str:
        ratio = self.read_bytes / max(self.needed_bytes, 1)
        lines = [
            f"ReshardResult: {len(self.files)} files, {bytes_in_words(self.written_bytes)} in {self.seconds:.2f} s",
            f"  read {self.read_bytes} of {self.needed_bytes} bytes needed ({ratio:.2f}), "
            f"buffer {bytes_in_words(self.buffer_bytes)} of {bytes_in_words(self.predicted_peak_bytes)}",
        ]
        if self.private_bytes is not None:
            lines.append(
                f"  {bytes_in_words(self.moved_bytes)} from card to card; "
                f"a worker took at most {bytes_in_words(self.private_bytes)} of private memory"
            )
        if self.reused_bytes:
            lines.append(f"  {bytes_in_words(self.reused_bytes)} were there from an earlier run, and right")
        lines += [f"  {name}: {count} values overflowed" for name, count in self.overflowed.items()]
        return "\n".join(lines)


class Watch:
    """Counts what is done, tells it, and stops the work when it is asked to."""

    def __init__(
        self,
        totals: Mapping[int, int],
        tell: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._totals, self._tell, self._cancelled = totals, tell, cancelled
        self._total = sum(totals.values())
        self._done: dict[int, int] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def of_rank(self, rank: int) -> "RankWatch":
        """The control of one destination rank's work."""
        return RankWatch(self, rank)

    def advance(self, rank: int, nbytes: int) -> None:
        """So many more bytes of a rank are done."""
        with self._lock:
            self._done[rank] = self._done.get(rank, 0) + nbytes
            if self._tell is not None:
                done = dict(self._done)
                self._tell(Progress(sum(done.values()), self._total, done, self._totals, self.seconds))

    def check(self) -> None:
        """Raise if the work was cancelled."""
        if self._cancelled is not None and self._cancelled():
            raise ReshardError("the run was cancelled; the next run of the same work goes on from here")


class RankWatch(NamedTuple):
    """`Control` for one destination rank."""

    watch: Watch
    rank: int

    def advance(self, nbytes: int) -> None:
        """See `Control`."""
        self.watch.advance(self.rank, nbytes)

    def check(self) -> None:
        """See `Control`."""
        self.watch.check()


def run_plan(
    plan: ConversionPlan,
    output: Output,
    *,
    threads: int = 1,
    cards: Workers | None = None,
    route: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ReshardResult:
    """Write what a plan says.

    Parameters
    ----------
    threads
        How many files are written at one time, in this process. More than there are files: each reads
        ahead in a thread of its own.
    cards
        A card group that writes the files instead.
    route
        How pieces reach the cards, see `Workers`.
    progress
        Called with how far it is, from the threads that work.
    cancelled
        Asked before every window; True stops the work, which a later run takes up.

    Raises
    ------
    CheckpointFileError
        If the folder exists, or cannot be written, or a source changes meanwhile.
    ReshardError
        If another process writes there, or the run was cancelled.
    """
    if route not in ROUTES:
        raise ReshardError(f"route={route!r} is not one of {', '.join(ROUTES)}")
    if cards is None and plan.checkpoint.held:
        raise ReshardError("the checkpoint lies on cards; pass cards=, the group that holds it")
    tasks = _tasks(plan, output)
    totals: dict[int, int] = {}
    for task in tasks:
        totals[task.share.rank] = totals.get(task.share.rank, 0) + task.nbytes
    watch = Watch(totals, progress, cancelled)
    stage_options = {"overwrite": output.overwrite, "resume": output.resume}
    sync = bool(output.file_options.get("sync", True))
    with Stage(output.folder, _job(plan, output), sync=sync, **stage_options) as stage:
        staged = [_staged(task, stage) for task in tasks]
        if cards is not None:
            written = cards.write_files(staged, watch.of_rank, route)
        else:
            written = Written(tuple(_write_here(plan.checkpoint, staged, watch, threads)))
        reports = written.files
        for file in plan.checkpoint.files:
            file.check_unchanged()
        if output.digests:
            _check_replicas(plan, reports)
        _finish(plan, output, stage, tasks, reports)
        stage.commit()
        resumed = stage.resumed
    return ReshardResult(
        os.fspath(output.folder),
        plan,
        reports,
        output.buffer_bytes,
        watch.seconds,
        resumed,
        written.served_bytes,
        written.moved_bytes,
        written.private_bytes,
    )


def _tasks(plan: ConversionPlan, output: Output) -> list[WriteTask]:
    options: dict[str, Any] = {"chunk_bytes": CHUNK_BYTES, **output.file_options}
    options["format"] = "ckpt" if output.format == "ckpt" else "safetensors"
    if output.format == "huggingface":
        if plan.dst_count != 1:
            raise ReshardError(
                f"format='huggingface' is one whole checkpoint, but the plan has {plan.dst_count} destination "
                "ranks; leave the destination strategy out"
            )
        options["metadata"] = {"format": "pt"}
        share = plan.share(0)
        return [
            WriteTask(share.only(names), "", path, {}, output.buffer_bytes, output.digests, options)
            for path, names in _partition(output, [tensor.name for tensor in share.tensors]).items()
        ]
    return [
        WriteTask(
            plan.share(rank),
            "",
            f"rank_{rank}/{output.prefix}{rank}.{output.format}",
            plan.texts,
            output.buffer_bytes,
            output.digests,
            options,
        )
        for rank in range(plan.dst_count)
    ]


def _partition(output: Output, names: Sequence[str]) -> dict[str, list[str]]:
    """File name -> tensors."""
    if output.partition is None:
        return {"model.safetensors": list(names)}
    out: dict[str, list[str]] = {}
    for name in names:
        if name not in output.partition:
            raise ReshardError(
                f"{name}: the partition has no file for it; add one, or leave the partition out"
            )
        path = output.partition[name]
        if Path(path).name != path or not path.endswith(".safetensors"):
            raise ReshardError(f"{name}: {path!r} is no name of a .safetensors file")
        out.setdefault(path, []).append(name)
    return dict(sorted(out.items()))


def _staged(task: WriteTask, stage: Stage) -> WriteTask:
    return replace(task, folder=os.fspath(stage.folder))


def _job(plan: ConversionPlan, output: Output) -> dict[str, Any]:
    """All that the bytes of the output depend on."""
    shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in output.file_options.items() if k != "sync"}
    return {
        "program": __version__,
        "sources": source_records(plan.checkpoint),
        "destination": strategy_to_json(plan.strategy),
        "tensors": {source: [name, dtype.str] for source, (name, dtype) in plan.targets.items()},
        "states": plan.states,
        "format": output.format,
        "prefix": output.prefix,
        "partition": dict(output.partition or {}),
        "options": shown,
    }


def source_records(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Path, size and time of change of every source file."""
    out = []
    for source in checkpoint.files:
        if isinstance(source, NoFile):
            continue
        for file in source.files if isinstance(source, FileSet) else [source]:
            size, mtime = file.identity
            out.append({"path": os.path.abspath(file.path), "size": size, "mtime_ns": mtime})
    return out


def _write_here(
    checkpoint: Checkpoint, tasks: Sequence[WriteTask], watch: Watch, threads: int
) -> list[FileReport]:
    sources = dict(enumerate(checkpoint.files))

    def write(task: WriteTask) -> FileReport:
        return write_file(task, watch.of_rank(task.share.rank), sources, ahead=threads > len(tasks))

    if threads <= 1:
        return [write(task) for task in tasks]
    failed = threading.Event()

    def write_or_stop(task: WriteTask) -> FileReport | None:
        if failed.is_set():
            return None
        try:
            return write(task)
        except BaseException:
            failed.set()
            raise

    # The largest first, so that none is left over at the end.
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].nbytes)
    with ThreadPoolExecutor(threads) as pool:
        running = {i: pool.submit(write_or_stop, tasks[i]) for i in order}
        found = [running[i].result() for i in range(len(tasks))]
    return [report for report in found if report is not None]


def _check_replicas(plan: ConversionPlan, reports: Sequence[FileReport]) -> None:
    """Shards of one box were read from whatever replica was at hand: they must be equal."""
    by_rank: dict[int, dict[str, str | None]] = {}
    for report in reports:
        by_rank.setdefault(report.rank, {}).update({n: t.digest for n, t in report.tensors.items()})
    for kind in plan.classes:
        boxes = kind.dst.boxes.reshape(len(kind.dst.boxes), 2 * len(kind.shape))
        if len(np.unique(boxes, axis=0)) == len(boxes) or not len(kind.shape):
            continue
        for number in kind.tensors.tolist():
            _check_equal(plan, plan.names[number], by_rank)


def _check_equal(plan: ConversionPlan, source: str, by_rank: Mapping[int, Mapping[str, str | None]]) -> None:
    name = plan.targets[source][0]
    tensor = plan[source]
    seen: dict[bytes, int] = {}
    held: dict[int, list[bytes]] = {}
    for rank, box in zip(tensor.dst.ranks.tolist(), tensor.dst.boxes, strict=True):
        held.setdefault(rank, []).append(box.tobytes())
    for rank, boxes in held.items():
        first = seen.setdefault(b"".join(boxes), rank)
        if by_rank[first].get(name) != by_rank[rank].get(name):
            raise CheckpointError(
                f"{name}: destination ranks {first} and {rank} should get equal shards, but what was read for them "
                "differs: replicas in the source differ, one is damaged; compare them by verify_source=True"
            )


def _finish(
    plan: ConversionPlan,
    output: Output,
    stage: Stage,
    tasks: Sequence[WriteTask],
    reports: Sequence[FileReport],
) -> None:
    """The manifest and, for Hugging Face, the index."""
    files = []
    for task, report in zip(tasks, reports, strict=True):
        path = stage.folder / report.path
        entries = {
            t.name: ManifestTensor(
                str(t.dtype), t.shape, report.tensors[t.name].pieces, report.tensors[t.name].digest
            )
            for t in task.share.tensors
        }
        files.append(ManifestFile(report.rank, report.path, path.stat().st_size, entries))
    if output.format == "huggingface" and len(tasks) > 1:
        weights = {tensor.name: task.path for task in tasks for tensor in task.share.tensors}
        elements = sum(Box.whole(t.shape).size for task in tasks for t in task.share.tensors)
        stage.write(INDEX, index_json(weights, sum(t.nbytes for t in tasks), elements))
    sources = tuple(source_records(plan.checkpoint))
    texts = {} if output.format == "huggingface" else plan.texts
    manifest = Manifest(tuple(files), plan.strategy, texts, sources, f"distinfer_lab {__version__}")
    stage.write(MANIFEST, manifest.to_json())


def reshard_files(
    checkpoint: Checkpoint,
    dst: Strategy | None,
    out_dir: str | os.PathLike[str],
    *,
    states: str = "follow",
    dtype: str | np.dtype[Any] | None = None,
    select: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    threads: int = 1,
    cards: Workers | None = None,
    route: str = "auto",
    verify_source: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    prefix: str = "checkpoint_",
    format: str = "ckpt",
    partition: Mapping[str, str] | None = None,
    buffer: int | str = BUFFER_BYTES,
    memory_limit: int | str | None = None,
    overwrite: bool = False,
    resume: bool = True,
    digests: bool = True,
    **file_options: Any,
) -> ReshardResult:
    """Plan and write a checkpoint's way to another strategy: `rank_N/<prefix>N.<format>` for every rank.

    Parameters
    ----------
    dst
        Who shall hold what; None: one whole file, in `rank_0`.
    states, dtype, select, rename
        What is written of the checkpoint, see `plan_checkpoint`.
    threads, cards, route, progress, cancelled
        Who does it, and how it is watched, see `run_plan`.
    verify_source
        Compare all slices that should be equal first, which reads them all.
    prefix, format, partition, buffer, memory_limit, overwrite, resume, digests, file_options
        Where and how it is written, see `Output`.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If `out_dir` exists, or cannot be written; if a source is damaged or changes.
    ReshardError
        If the plan cannot be made, or a value does not do.
    """
    output = Output(
        out_dir, prefix, format, partition, buffer, memory_limit, overwrite, resume, digests, file_options
    )
    if Path(out_dir).exists() and not overwrite:
        with Stage(out_dir, {}):  # refuses it, before anything is planned or read
            pass
    plan = plan_checkpoint(checkpoint, dst, states=states, dtype=dtype, select=select, rename=rename)
    if verify_source:
        checkpoint.check_replicas()
    return run_plan(
        plan, output, threads=threads, cards=cards, route=route, progress=progress, cancelled=cancelled
    )
