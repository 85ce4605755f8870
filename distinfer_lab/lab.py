"""The notebooks that come with the package: where they lie, copies of them, JupyterLab on them.

::

    a clone            notebooks/                 beside distinfer_lab/; opened as they are
    an installation    distinfer_lab/shipped/     put into the wheel; what people open is a copy
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .errors import CheckpointFileError, Option, listed

__all__ = ["COPY", "FIRST", "copy_notebooks", "notebooks_folder", "open_lab", "prepared_folder"]

FIRST = "00_start_here.ipynb"

COPY = "distinfer-notebooks"
"""The folder, in the current one, to which an installation's notebooks are copied."""

PACKAGE = Path(__file__).parent


def notebooks_folder() -> Path:
    """Where the notebooks of this clone or installation lie.

    Raises
    ------
    CheckpointFileError
        If they are not there.
    """
    places = (PACKAGE / "shipped", PACKAGE.parent / "notebooks")
    for place in places:
        if (place / FIRST).is_file():
            return place
    raise CheckpointFileError(
        f"{FIRST} is neither in {places[0]} nor in {places[1]}; install the package from a wheel or a clone"
    )


def copy_notebooks(
    folder: str | os.PathLike[str], *, overwrite: bool = False, keep: bool = False
) -> list[Path]:
    """Copy the notebooks to a folder, which is made if need be.

    Parameters
    ----------
    folder
        Where to.
    overwrite, keep
        What becomes of a file that is there: it is replaced, or left as it is. Without either
        nothing is copied at all.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    CheckpointFileError
        If a file is there already, or the folder cannot be written.
    """
    target = Path(folder)
    pairs = [(path, target / path.name) for path in sorted(notebooks_folder().glob("*.ipynb"))]
    there = [copy.name for _, copy in pairs if copy.exists()]
    replace = Option("overwrite", True)
    if there and not (overwrite or keep):
        raise CheckpointFileError(
            f"{target} has {listed(there)} already; choose another folder, or pass {replace}",
            replace,
            file=target,
        )
    wanted = [pair for pair in pairs if overwrite or pair[1].name not in there]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, copy in wanted:
            shutil.copyfile(path, copy)
    except OSError as err:
        raise CheckpointFileError(
            f"{target}: {err.strerror}; choose a folder that can be written", file=target
        ) from err
    return [copy for _, copy in wanted]


def prepared_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder that JupyterLab opens.

    Parameters
    ----------
    folder
        Where to put the notebooks; missing ones are copied there. None: a clone's own,
        or `distinfer-notebooks` where the package is installed without one.
    """
    home = notebooks_folder()
    if folder is None and home.parent != PACKAGE:
        return home
    target = Path(COPY if folder is None else folder).absolute()
    if target != home:
        copy_notebooks(target, keep=True)
    return target


def open_lab(
    folder: Path, *, port: int | None = None, browser: bool = True, options: Sequence[str] = ()
) -> None:
    """Run JupyterLab on a folder of notebooks until it is stopped.

    Parameters
    ----------
    folder
        The root of what it shows.
    port
        The port on this machine; by default the first that is free from 8888 on.
    browser
        Open a page of the first notebook.
    options
        What else to tell JupyterLab, as on its command line.
    """
    from jupyterlab.labapp import LabApp

    told = [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
    if port is not None:
        told += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        told.append("--no-browser")
    LabApp.launch_instance([*told, *options])
