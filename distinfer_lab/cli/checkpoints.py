"""The commands that look at checkpoints and cut them another way: inspect, plan, reshard, verify."""

import json
import sys
from collections.abc import Callable, Iterator
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
    "--all", "each", is_flag=True, help="List each tensor, also those that are the same in every layer."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(src: Path, strategy: Path | None, each: bool, as_json: bool, **source: Any) -> None:
    """Show what a checkpoint file, a folder of rank_N folders, or a strategy file holds.

    Tensors that are the same in several layers, but for the layer's number in their names, have one line.

    Reads headers only; where no strategy says who holds what, the beginnings of some tensors, too, to see whether
    the files are equal.
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
    """The strategy of a strategy file, and what to tell of it; None if the file is none."""
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
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
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
    """Tell what resharding SRC would read, write and move, rank by rank and file by file.

    Reads as little as `inspect`, and moves nothing.
    """
    with opened(
        src, strategy, dec_key, dec_mode=dec_mode, rebuild=rebuild, without=without, file=file, step=step
    ) as checkpoint:
        found = planned(checkpoint, src, **target)
        found.check_patterns()
        told = found.explain(buffer)
        say(json.dumps(told.to_json()) if as_json else repr(told))


@click.command()
@source_options
@click.argument("dst", type=click.Path(path_type=Path))
@target_options
@click.option(
    "--format",
    type=OutputFormat(),
    help="Of the files; by default that of SRC (safetensors, a file per rank, for a Hugging Face folder).",
)
@click.option(
    "--like",
    type=PATH,
    help="With --format huggingface: a Hugging Face folder whose division into files is used, and whose "
    "config.json (saying the dtype of what is written) and tokenizer files are copied along. Without it "
    "nothing is copied, not from SRC either.",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    callback=checked_size,
    help="With --format huggingface: the most that a file may hold, e.g. 5GB; by default all is in one file.",
)
@click.option(
    "--prefix", default="checkpoint_", show_default=True, help="Files are rank_N/<prefix>N.<format>."
)
@click.option("--cards", type=click.IntRange(1, 128), help="Let this many cards (processes) write the files.")
@cluster_options
@click.option(
    "--route",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "files", "channels"]),
    help="Cards read all files that they need; or their own only, and pieces go from card to card.",
)
@threads_option
@buffer_option
@click.option(
    "--memory-limit", callback=checked_size, help="Refuse what needs more memory for data in a worker."
)
@click.option("--resume/--no-resume", default=True, show_default=True, help="Resume an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace DST if an earlier reshard wrote it.")
@click.option(
    "--verify-source", is_flag=True, help="Compare all replicas in SRC first, and all with its manifest."
)
@click.option("--dry-run", is_flag=True, help="See that it could begin, and tell the plan; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Tell the result as JSON.")
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
    route: str,
    threads: int,
    verify_source: bool,
    dry_run: bool,
    as_json: bool,
    format: str | None,
    like: Path | None,
    max_shard_size: str | None,
    prefix: str,
    buffer: str,
    memory_limit: str | None,
    resume: bool,
    overwrite: bool,
    **target: Any,
) -> None:
    """Cut the checkpoint in SRC another way and write it to DST.

    SRC is a folder of rank_N folders, a Hugging Face folder, or one file. No tensor is ever whole in
    memory; DST appears when it is complete. A run that was interrupted is resumed by the same command.
    """
    from ..checkpoint import Threads

    if cards is not None and cluster is not None:
        raise click.UsageError(f"--cards and {cluster.option} both say who works; give one of them")
    if cluster is not None:
        src = src.absolute()  # the workers may stand in other folders
    if like is not None and format != "huggingface":
        raise click.UsageError("--like says how a Hugging Face folder is to be; add --format huggingface")
    with ExitStack() as stack:
        source = {"dec_mode": dec_mode, "rebuild": rebuild, "without": without, "file": file, "step": step}
        found = planned(stack.enter_context(opened(src, strategy, dec_key, **source)), src, **target)
        options: dict[str, Any] = {
            "prefix": prefix,
            "format": format,
            "like": like,
            "max_shard_size": max_shard_size,
            "buffer": buffer,
            "memory_limit": memory_limit,
            "overwrite": overwrite,
            "resume": resume,
        }
        if dry_run:
            told = found.explain(found.check(dst, **options).buffer_bytes)
            say(json.dumps(told.to_json()) if as_json else repr(told))
            return
        group = stack.enter_context(_cards(cards, cluster)) if cards or cluster else None
        show = stack.enter_context(_progress())
        options |= {"route": route, "verify_source": verify_source, "progress": show}
        result = found.write(dst, on=group or Threads(threads), **options)
    say(json.dumps(result.to_json()) if as_json else repr(result))
    if not as_json:
        for path in result.paths:
            say(f"  {path}")


@contextmanager
def _cards(cards: int | None, cluster: Cluster | None) -> Iterator[Any]:
    from ..cards import CardGroup, silent

    # Of what is lost our error says all; Dask's log of it, and of the end of its client, is a hundred lines.
    arguments = {"cards": cards, "processes": True} if cluster is None else cluster.arguments
    with silent(), CardGroup(**arguments) as group:
        yield group


@contextmanager
def _progress() -> Iterator[Callable[["Progress"], None]]:
    """A line on stderr that tells how far a run is, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    bar = click.progressbar(length=1, label="resharding", file=sys.stderr, item_show_func=_ranks_in_words)
    with bar as shown:

        def tell(progress: "Progress") -> None:
            shown.length = max(progress.total_bytes, 1)
            shown.update(progress.done_bytes - shown.pos, progress)

        yield tell


def _ranks_in_words(progress: "Progress | None") -> str:
    """How far the ranks are."""
    if progress is None:
        return ""
    done = sorted(progress.by_rank.items())
    shown = ", ".join(f"{rank}: {nbytes / progress.total_by_rank[rank]:.0%}" for rank, nbytes in done[-4:])
    return f"rank {shown}"


@click.command()
@click.argument("folder", type=PATH)
@threads_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify(folder: Path, threads: int, as_json: bool) -> None:
    """Read everything that a reshard wrote to FOLDER, and compare it with the digests of its manifest.

    Leaves with status 0 only if all is as it was written.
    """
    from ..checkpoint import verify_folder

    found = verify_folder(folder, threads=threads)
    say(json.dumps(found.to_json()) if as_json else repr(found))
    if not found.ok:
        sys.exit(1)
