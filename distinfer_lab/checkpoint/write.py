"""A plan carried out from files to files: byte ranges, a bounded buffer, one rename at the end.

::

    checkpoint -> plan_checkpoint -> ConversionPlan.run -> stage -> manifest -> the folder appears

Each destination file is one task (see `write.py`), done in this process, by threads, or by the cards
of a group. No tensor is ever whole in memory.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xxhash

from ..arguments import checked
from ..dtypes import dtype_name
from ..errors import CheckpointError, CheckpointFileError, ReshardError
from ..formats import (
    CHUNK_BYTES,
    INDEX,
    MANIFEST,
    FileSet,
    Manifest,
    ManifestBeside,
    ManifestFile,
    ManifestTensor,
    NamedTensor,
    SliceFile,
    check_specs,
    config_with_dtype,
    index_json,
    read_companion,
)
from ..layout import Box, Strategy
from ..layout.dialects.plain import strategy_to_json
from ..rules import Rules
from ..sizes import BUFFER_BYTES
from ..version import __version__
from .conversion import ConversionPlan, plan_checkpoint
from .file_writer import Control, FileReport, WriteTask, Written, write_file
from .files import CheckpointFiles
from .likeness import check_like, names_of
from .output import Output
from .places import check_places
from .progress import Progress, Watch
from .records import MissingFile
from .result import ReshardResult
from .staging import Stage, check_target
from .verify import check_source, check_taken_for_equal

__all__ = ["Workers", "checked_tasks", "reshard_files", "run_plan"]

ROUTES = ("auto", "files", "channels")


@runtime_checkable
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


@checked
def run_plan(
    plan: ConversionPlan,
    output: Output,
    *,
    threads: int = 1,
    cards: Workers | None = None,
    route: str = "auto",
    verify_source: bool = False,
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
    verify_source
        Compare all slices that should be equal first, and all with the source's manifest, which reads them all.
    progress
        Called with how far it is, from the threads that work.
    cancelled
        Asked before every window; True stops the work, which a later run takes up.

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
        raise ReshardError(f"route={route!r} is not one of {', '.join(ROUTES)}")
    if cards is None and plan.checkpoint.held:
        raise ReshardError("the checkpoint lies on cards; pass cards=, the group that holds it")
    tasks = checked_tasks(plan, output)
    if verify_source:
        check_source(plan.checkpoint)
    else:
        check_places(plan.checkpoint)
        check_taken_for_equal(plan.checkpoint)
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
        resumed, discarded = stage.resumed, stage.discarded
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
        discarded,
    )


def checked_tasks(plan: ConversionPlan, output: Output) -> list[WriteTask]:
    """The files to write, of a plan that can be written so as far as shows before anything is read or written.

    Another process that writes there, a full disk and the like are told by the run alone.

    Raises
    ------
    CheckpointFileError, ReshardError
        See `run_plan`.
    """
    _check_apart(plan, output)
    check_target(Path(os.path.abspath(output.folder)), output.overwrite)
    if output.like is not None:
        sources = {name: source for source, (name, _) in plan.targets.items()}

        def are_equal(one: str, other: str) -> bool:
            return plan.checkpoint.begin_alike(sources[one], sources[other])

        check_like(_written(plan), output.like, plan.allow_missing, are_equal)
    plan.check_patterns(() if output.like is None or not plan.unmatched else names_of(output.like))
    tasks = _tasks(plan, output)
    for task in tasks:
        check_specs(task.path, task.specs, task.options["format"])
    return tasks


def _written(plan: ConversionPlan) -> dict[str, NamedTensor]:
    """All tensors of the output, by their new names."""
    return {
        name: NamedTensor(plan.class_named(source).shape, str(dtype))
        for source, (name, dtype) in plan.targets.items()
    }


def _tasks(plan: ConversionPlan, output: Output) -> list[WriteTask]:
    options: dict[str, Any] = {"chunk_bytes": CHUNK_BYTES, **output.file_options}
    options["format"] = "ckpt" if output.format == "ckpt" else "safetensors"
    if output.format == "huggingface":
        if plan.dst_count != 1:
            raise ReshardError(
                f"format='huggingface' is one whole checkpoint, but the plan has {plan.dst_count} destination "
                "ranks; leave the destination out"
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
            word = "partition=" if output.like is None else "like="
            raise ReshardError(
                f"{name}: {word} names no file for it; leave {word} out, and all go into one file"
            )
        path = output.partition[name]
        if Path(path).name != path or not path.endswith(".safetensors"):
            raise ReshardError(f"{name}: {path!r} is no name of a .safetensors file")
        out.setdefault(path, []).append(name)
    return dict(sorted(out.items()))


def _staged(task: WriteTask, stage: Stage) -> WriteTask:
    return replace(task, folder=os.fspath(stage.folder))


def _job(plan: ConversionPlan, output: Output) -> dict[str, Any]:
    """All that the bytes of the output depend on.

    The key is left out, since nothing secret may be on the disk: an encrypted file is never resumed.
    """
    options = {key: value for key, value in output.file_options.items() if key not in ("sync", "enc_key")}
    return {
        "program": __version__,
        "sources": _source_identities(plan.checkpoint),
        "destination": strategy_to_json(plan.strategy),
        "tensors": {source: [name, dtype_name(dtype)] for source, (name, dtype) in plan.targets.items()},
        "states": plan.states,
        "format": output.format,
        "prefix": output.prefix,
        "partition": dict(output.partition or {}),
        "copied": [path.name for path in output.copied],
        "options": options,
        "encrypted": output.file_options.get("enc_key") is not None,
    }


def source_records(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """Path, size and time of change of every source file."""
    return [
        {"path": os.path.abspath(file.path), "size": file.identity.size, "mtime_ns": file.identity.mtime_ns}
        for file in _source_files(checkpoint)
    ]


def _source_files(checkpoint: CheckpointFiles) -> list[SliceFile]:
    files: list[SliceFile] = []
    for source in checkpoint.files:
        if not isinstance(source, MissingFile):
            files += source.files if isinstance(source, FileSet) else [source]
    return files


def _source_identities(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """What tells the source from any other; what cards hold changes as they train, so it is never the same."""
    if checkpoint.held:
        return [{"held": uuid.uuid4().hex}]
    return [
        {"path": os.path.abspath(file.path), **file.identity._asdict()} for file in _source_files(checkpoint)
    ]


def _write_here(
    checkpoint: CheckpointFiles, tasks: Sequence[WriteTask], watch: Watch, threads: int
) -> list[FileReport]:
    sources = dict(enumerate(checkpoint.files))

    def write(task: WriteTask) -> FileReport:
        return write_file(task, watch.of_rank(task.share.rank), sources, ahead=threads > len(tasks))

    if threads <= 1:
        return [write(task) for task in tasks]
    # The largest first, so that none is left over at the end.
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].nbytes)
    with ThreadPoolExecutor(threads) as pool:
        running = {i: pool.submit(write, tasks[i]) for i in order}
        try:
            wait(running.values(), return_when=FIRST_EXCEPTION)
            _raise_first(running.values())
            return [running[i].result() for i in range(len(tasks))]
        except BaseException:  # Ctrl-C, too, which only this thread sees
            watch.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _raise_first(running: Iterable[Future[FileReport]]) -> None:
    """Raise the first error of those that ended; one that was stopped because of it comes later."""
    for future in running:
        if future.done():
            future.result()


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
    """The manifest and, for Hugging Face, the index and what is copied along."""
    files = []
    for task, report in zip(tasks, reports, strict=True):
        path = stage.folder / report.path
        entries = {
            t.name: ManifestTensor(
                dtype_name(t.dtype), t.shape, report.tensors[t.name].pieces, report.tensors[t.name].digest
            )
            for t in task.share.tensors
        }
        files.append(
            ManifestFile(report.rank, report.path, path.stat().st_size, entries, report.frame, report.cipher)
        )
    sources = tuple(source_records(plan.checkpoint))
    texts = {} if output.format == "huggingface" else plan.texts
    beside = []
    for name, data in _beside(output, tasks):
        stage.write(name, data)
        beside.append(ManifestBeside(name, len(data), xxhash.xxh3_128(data).hexdigest()))
    program = f"distinfer_lab {__version__}"
    manifest = Manifest(tuple(files), plan.strategy, texts, sources, program, tuple(beside), plan.plain)
    stage.write(MANIFEST, manifest.to_json())


def _beside(output: Output, tasks: Sequence[WriteTask]) -> Iterator[tuple[str, bytes]]:
    """The small files of a Hugging Face folder, one at a time."""
    # As in a plan: a scalar keeps its dtype.
    dtypes = {
        dtype_name(t.dtype) for task in tasks for t in task.share.tensors if Box.whole(t.shape).size > 1
    }
    for path in output.copied:
        data = read_companion(path)
        yield path.name, config_with_dtype(data, dtypes) if path.name == "config.json" else data
    if output.format == "huggingface" and (len(tasks) > 1 or output.index_name):
        weights = {tensor.name: task.path for task in tasks for tensor in task.share.tensors}
        elements = sum(Box.whole(t.shape).size for task in tasks for t in task.share.tensors)
        yield output.index_name or INDEX, index_json(weights, sum(t.nbytes for t in tasks), elements)


def _check_apart(plan: ConversionPlan, output: Output) -> None:
    """An output that replaced its own source would throw it away, and what else lies there."""
    target = Path(output.folder).resolve()
    for file in () if plan.checkpoint.held else plan.checkpoint.files:
        path = Path(file.path).resolve()
        if path == target or target in path.parents:
            raise CheckpointFileError(
                f"{file.path} is read from, and lies in {output.folder}; write to another folder"
            )


@checked
def reshard_files(
    checkpoint: CheckpointFiles,
    dst: Strategy | Rules | None,
    out_dir: str | os.PathLike[str],
    *,
    states: str = "follow",
    dtype: str | np.dtype[Any] | None = None,
    select: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    allow_missing: Sequence[str] = (),
    threads: int = 1,
    cards: Workers | None = None,
    route: str = "auto",
    verify_source: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    prefix: str = "checkpoint_",
    format: str | None = None,
    partition: Mapping[str, str] | None = None,
    like: str | os.PathLike[str] | None = None,
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
    states, dtype, select, rename, allow_missing
        What is written of the checkpoint, see `plan_checkpoint`.
    threads, cards, route, verify_source, progress, cancelled
        Who does it, what is compared before, and how it is watched, see `run_plan`.
    prefix, format, partition, like, buffer, memory_limit, overwrite, resume, digests, file_options
        Where and how it is written, see `Output`; `format` is by default that of the checkpoint's files.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If `out_dir` exists, or cannot be written; if a source is damaged or changes.
    ReshardError
        If the plan cannot be made, or a value does not do.
    """
    output = Output(
        out_dir,
        prefix,
        format or checkpoint.format,
        partition,
        buffer,
        memory_limit,
        overwrite,
        resume,
        digests,
        file_options,
        like,
    )
    if Path(out_dir).exists() and not overwrite:
        with Stage(out_dir, {}):  # refuses it, before anything is planned or read
            pass
    plan = plan_checkpoint(
        checkpoint,
        dst,
        states=states,
        dtype=dtype,
        select=select,
        rename=rename,
        allow_missing=allow_missing,
    )
    return run_plan(
        plan,
        output,
        threads=threads,
        cards=cards,
        route=route,
        verify_source=verify_source,
        progress=progress,
        cancelled=cancelled,
    )
