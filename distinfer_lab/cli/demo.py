"""The commands for a first look: demo, lab, notebooks."""

import sys
from pathlib import Path

import click

from .messages import say

__all__ = ["demo", "lab", "notebooks"]


@click.command()
@click.option("--cards", default=8, show_default=True, type=click.IntRange(1, 128), help="Cards to train on.")
@click.option("--predict-cards", default=4, show_default=True, type=click.IntRange(1, 128))
@click.option("--processes", is_flag=True, help="Run each card in its own process.")
def demo(cards: int, predict_cards: int, processes: bool) -> None:
    """Run the four steps on a small net: train, infer the layout, load, predict.

    Exits with status 0 only if the prediction on the cards equals that of one card.
    """
    from ..demo import run_demo

    if not run_demo(cards, predict_cards, processes):
        sys.exit(1)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the notebooks; missing ones are copied there. By default that of the clone, or "
    "distinfer-notebooks in the current folder.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="By default the first free port from 8888.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open a browser.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION]...")
def lab(folder: Path | None, port: int | None, browser: bool, options: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks.

    Other options are passed to JupyterLab, e.g. distinfer lab --allow-root
    """
    from ..lab import open_lab, prepared_folder

    open_lab(prepared_folder(folder), port=port, browser=browser, options=options)


@click.command()
@click.option(
    "--copy",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the notebooks to this folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing notebooks.")
def notebooks(folder: Path | None, overwrite: bool) -> None:
    """List the notebooks of the package, or copy them to a folder."""
    from ..lab import copy_notebooks, notebooks_folder

    if folder is None:
        paths = sorted(notebooks_folder().glob("*.ipynb"))
    else:
        paths = copy_notebooks(folder, overwrite=overwrite)
    for path in paths:
        say(path)
