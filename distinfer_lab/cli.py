"""The command line: `distinfer demo`, `distinfer inspect`, `distinfer reshard`."""

import sys
from pathlib import Path
from typing import Any

import click

from .errors import DistinferError
from .version import __version__

__all__ = ["main"]


class _Group(click.Group):
    """Tells our own errors in one line, and leaves with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DistinferError as err:
            raise click.ClickException(str(err)) from err


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="distinfer")
def main() -> None:
    """Distributed inference from sliced checkpoints."""


@main.command()
@click.option("--cards", default=8, show_default=True, type=click.IntRange(1, 128), help="Cards to train on.")
@click.option("--predict-cards", default=4, show_default=True, type=click.IntRange(1, 128))
@click.option("--processes", is_flag=True, help="Every card is a process of its own.")
def demo(cards: int, predict_cards: int, processes: bool) -> None:
    """Run the four steps on a small net: train, infer the layout, load, predict.

    Leaves with status 0 only if the prediction on the cards equals one card's.
    """
    from .demo import run_demo

    if not run_demo(cards, predict_cards, processes):
        sys.exit(1)


@main.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--strategy", type=click.Path(exists=True, path_type=Path), help="The strategy file of a folder."
)
@click.option("--key", help="The key of an encrypted checkpoint, in hex.")
@click.option("--mode", default="AES-GCM", show_default=True, help="AES-GCM, AES-CBC or SM4-CBC.")
def inspect(path: Path, strategy: Path | None, key: str | None, mode: str) -> None:
    """Tell what a checkpoint file, a folder of rank_N folders, or a strategy file holds.

    Reads headers only.
    """
    from .checkpoint import open_checkpoint

    found = None if path.is_dir() or key or strategy else _strategy_or_none(path)
    if found is not None:
        click.echo(f"{found.strategy()!r}\ncurrent_stage {found.current_stage}")
        for name, operator in found.operators.items():
            click.echo(f"  {name}  stage {operator.stage}  {operator.inputs}")
        return
    with open_checkpoint(path, strategy, dec_key=_key(key), dec_mode=mode) as checkpoint:
        click.echo(repr(checkpoint))


def _strategy_or_none(path: Path) -> Any:
    from .checkpoint import read_strategy

    if path.suffix not in (".ckpt", ".json"):
        return None
    try:
        found = read_strategy(path)
    except DistinferError:
        if path.suffix == ".json":
            raise
        return None
    return found if found.layouts else None


def _key(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError as err:
        raise click.BadParameter("a key is given in hex, e.g. 000102...", param_hint="--key") from err


@main.command()
@click.argument("src", type=click.Path(exists=True, path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--src-strategy", type=click.Path(exists=True, path_type=Path), help="None: every file is whole."
)
@click.option("--dst-strategy", type=click.Path(exists=True, path_type=Path), help="None: one whole file.")
@click.option(
    "--format", "output_format", default="ckpt", type=click.Choice(["ckpt", "safetensors"]), show_default=True
)
@click.option(
    "--prefix", default="checkpoint_", show_default=True, help="Files are rank_N/<prefix>N.<format>."
)
@click.option(
    "--states", default="follow", type=click.Choice(["follow", "replicate", "mindspore"]), show_default=True
)
@click.option(
    "--buffer-mib", default=32, show_default=True, type=click.IntRange(min=1), help="Memory for data, MiB."
)
@click.option("--plan", "only_plan", is_flag=True, help="Tell the plan; write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace DST if it exists.")
@click.option("--key", help="The key of an encrypted source, in hex.")
@click.option("--mode", default="AES-GCM", show_default=True)
def reshard(
    src: Path,
    dst: Path,
    src_strategy: Path | None,
    dst_strategy: Path | None,
    output_format: str,
    prefix: str,
    states: str,
    buffer_mib: int,
    only_plan: bool,
    overwrite: bool,
    key: str | None,
    mode: str,
) -> None:
    """Cut the checkpoint in SRC another way and write it to DST.

    SRC is a folder of rank_N folders, or one file. No tensor is ever whole in memory.
    """
    from .checkpoint import as_strategy, open_checkpoint
    from .reshard import plan_checkpoint, transform_checkpoints

    if only_plan:
        target = None if dst_strategy is None else as_strategy(dst_strategy)
        with open_checkpoint(src, src_strategy, dec_key=_key(key), dec_mode=mode) as checkpoint:
            click.echo(repr(plan_checkpoint(checkpoint, target, states=states)))
        return
    result = transform_checkpoints(
        src,
        dst,
        prefix,
        src_strategy,
        dst_strategy,
        output_format=output_format,
        states=states,
        overwrite=overwrite,
        buffer=buffer_mib << 20,
        dec_key=_key(key),
        dec_mode=mode,
    )
    click.echo(repr(result))
    for path in result.paths:
        click.echo(f"  {path}")


if __name__ == "__main__":
    main()
