"""The commands on checkpoints: inspect, plan, reshard, verify."""

import json
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DistinferError
from .clusters import Cluster, cluster_options
from .keys import EnvironmentKey
from .messages import message, say
from .options import (
    PATH,
    OutputFormat,
    buffer_option,
    checked_size,
    opened,
    planned,
    source_options,
    target_options,
    threads_option,
)

if TYPE_CHECKING:
    from ..checkpoint import Progress

__all__ = ["inspect", "plan", "reshard", "verify"]


@click.command()
@source_options
@click.option(
    "--all", "each", is_flag=True, help="List every tensor, including those that are the same in every layer."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(src: Path, strategy: Path | None, each: bool, as_json: bool, **source: Any) -> None:
    """Show the contents of a checkpoint or a strategy file.

    SRC is a folder of rank_N folders, a Hugging Face folder, or one file. Tensors that differ only in their layer
    number are shown on one line.

    Reads only headers. If no strategy describes the files, it also compares the beginnings of some tensors, to see
    whether the files are equal.
    """
    from ..checkpoint import check_beginnings, unnamed_slices
    from ..layout.dialects.plain import strategy_to_json

    stated = source["dec_key"] is not None and not isinstance(source["dec_key"], EnvironmentKey)
    found = None if src.is_dir() or stated or strategy else _strategy_or_none(src)
    if found is not None:
        say(json.dumps(strategy_to_json(found[0])) if as_json else found[1])
        return
    with opened(src, strategy, **source) as checkpoint:
        shown = replace(checkpoint, notes=())  # they were said
        text = shown.describe(by_layer=not each)
        say(json.dumps(strategy_to_json(checkpoint.strategy)) if as_json else text)
        try:
            check_beginnings(checkpoint)
            for note in unnamed_slices(checkpoint):
                say(f"Note: {note}", err=True)
        except DistinferError as err:
            say(f"Warning: {message(err, click.get_current_context().command)}", err=True)


def _strategy_or_none(path: Path) -> Any:
    """The strategy of a strategy file, and its description; None for any other file."""
    from ..formats import as_strategy, is_strategy, read_strategy

    if path.suffix not in (".ckpt", ".json"):
        return None
    try:
        strategy = as_strategy(path)
    except DistinferError:
        if is_strategy(path):  # a damaged one
            raise
        return None
    lines = [repr(strategy)]
    try:
        found = read_strategy(path)
    except DistinferError:  # JSON layouts of our own
        return strategy, lines[0]
    lines.append(f"current_stage {found.current_stage}")
    lines += [f"  {name}  stage {op.stage}  {op.inputs}" for name, op in found.operators.items()]
    return strategy, "\n".join(lines)


@click.command()
@source_options
@target_options
@buffer_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    src: Path,
    strategy: Path | None,
    dec_key: bytes | None,
    dec_mode: str,
    rebuild: bool,
    without: tuple[int, ...],
    file: tuple[str, ...],
    step: str | None,
    buffer: str,
    as_json: bool,
    **target: Any,
) -> None:
    """Show what resharding SRC would read, write and move.

    Reads only headers, as `inspect` does, and writes nothing.
    """
    with opened(
        src, strategy, dec_key, dec_mode=dec_mode, rebuild=rebuild, without=without, file=file, step=step
    ) as checkpoint:
        found = planned(checkpoint, src, **target)
        found.check_patterns()
        report = found.explain(buffer)
        say(json.dumps(report.to_json()) if as_json else repr(report))


@click.command()
@source_options
@click.argument("dst", type=click.Path(path_type=Path))
@target_options
@click.option(
    "--format",
    type=OutputFormat(),
    help="Output format; by default that of SRC (safetensors, one file per rank, for a Hugging Face folder).",
)
@click.option(
    "--like",
    type=PATH,
    help="With --format huggingface: a Hugging Face folder whose division into files is used, and whose "
    "config.json (with the dtype set to the one written) and tokenizer files are copied. Without --like, no such "
    "files are copied, not even from SRC.",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    callback=checked_size,
    help="With --format huggingface: the maximum size of a file, e.g. 5GB; by default everything is in one file.",
)
@click.option(
    "--prefix",
    default="checkpoint_",
    show_default=True,
    help="Output files are named rank_N/<prefix>N.<format>.",
)
@click.option(
    "--cards", type=click.IntRange(1, 128), help="Use this many local card processes to write the files."
)
@cluster_options
@click.option(
    "--route",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "files", "channels"]),
    help="With cards: each reads all the files it needs (files), or only its own, and pieces are sent from card "
    "to card (channels).",
)
@threads_option
@buffer_option
@click.option(
    "--memory-limit",
    callback=checked_size,
    help="Refuse to run if a worker would need more buffer memory than this.",
)
@click.option("--resume/--no-resume", default=True, show_default=True, help="Resume an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace DST if it was written by an earlier reshard.")
@click.option(
    "--verify-source",
    is_flag=True,
    help="First read all of SRC; compare its replicas, and its manifest.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check that the run could start and print the plan; write nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def reshard(
    src: Path,
    dst: Path,
    strategy: Path | None,
    dec_key: bytes | None,
    dec_mode: str,
    rebuild: bool,
    without: tuple[int, ...],
    file: tuple[str, ...],
    step: str | None,
    cards: int | None,
    cluster: Cluster | None,
    threads: int,
    dry_run: bool,
    as_json: bool,
    **rest: Any,
) -> None:
    """Reshard the checkpoint in SRC and write it to DST.

    SRC is a folder of rank_N folders, a Hugging Face folder, or one file. No tensor is ever held whole in
    memory, and DST appears only when it is complete. To resume an interrupted run, repeat the command.
    """
    from ..checkpoint import OutputOptions, Threads, WriteOptions
    from ..formats import FOLDER_FORMATS

    writing, target = _parted(rest, WriteOptions.__annotations__)
    if cards is not None and cluster is not None:
        raise click.UsageError(f"--cards and {cluster.option} exclude each other; give one of them")
    if cluster is not None:
        src = src.absolute()  # workers may have other working directories
    whole = [one.name for one in FOLDER_FORMATS]
    if writing["like"] is not None and writing["format"] not in whole:
        raise click.UsageError(f"--like needs --format {' or '.join(whole)}; add it")
    with ExitStack() as stack:
        source = {"dec_mode": dec_mode, "rebuild": rebuild, "without": without, "file": file, "step": step}
        found = planned(stack.enter_context(opened(src, strategy, dec_key, **source)), src, **target)
        if dry_run:
            output, _ = _parted(writing, OutputOptions.__annotations__)
            report = found.explain(found.check(dst, **output).buffer_bytes)
            say(json.dumps(report.to_json()) if as_json else repr(report))
            return
        group = stack.enter_context(_cards(cards, cluster)) if cards or cluster else None
        show = stack.enter_context(_progress())
        result = found.write(dst, on=group or Threads(threads), progress=show, **writing)
    say(json.dumps(result.to_json()) if as_json else repr(result))
    if not as_json:
        for path in result.paths:
            say(f"  {path}")


def _parted(given: Mapping[str, Any], names: Container[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of these names, and the others."""
    return (
        {name: value for name, value in given.items() if name in names},
        {name: value for name, value in given.items() if name not in names},
    )


@contextmanager
def _cards(cards: int | None, cluster: Cluster | None) -> Iterator[Any]:
    from ..cards import CardGroup, silent

    # Our error reports what was lost; Dask's log of it, and of the end of its client, is a hundred lines.
    arguments = {"cards": cards, "processes": True} if cluster is None else cluster.arguments
    with silent(), CardGroup(**arguments) as group:
        yield group


@contextmanager
def _progress() -> Iterator[Callable[["Progress"], None]]:
    """A progress bar on stderr, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    bar = click.progressbar(length=1, label="resharding", file=sys.stderr, item_show_func=_describe_ranks)
    with bar as shown:

        def show(progress: "Progress") -> None:
            shown.length = max(progress.total_bytes, 1)
            shown.update(progress.done_bytes - shown.pos, progress)

        yield show


def _describe_ranks(progress: "Progress | None") -> str:
    """The progress of the ranks."""
    if progress is None:
        return ""
    done = sorted(progress.by_rank.items())
    shown = ", ".join(f"{rank}: {nbytes / progress.total_by_rank[rank]:.0%}" for rank, nbytes in done[-4:])
    return f"rank {shown}"


@click.command()
@click.argument("folder", type=PATH)
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(folder: Path, threads: int, as_json: bool) -> None:
    """Compare all files of FOLDER, which a reshard wrote, with the digests in its manifest.

    Exits with status 0 only if every byte is as it was written.
    """
    from ..checkpoint import verify_folder

    found = verify_folder(folder, threads=threads)
    say(json.dumps(found.to_json()) if as_json else repr(found))
    if not found.ok:
        sys.exit(1)
