"""Code written to a file: a notebook of one cell, or a script."""

import json
import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointFileError

__all__ = ["write_code"]


def write_code(text: str, file: str | os.PathLike[str]) -> Path:
    """Write code to a new file: a notebook if its name ends in .ipynb, else a script.

    Raises
    ------
    CheckpointFileError
        If the file exists, or cannot be written.
    """
    path = Path(file)
    if path.suffix == ".ipynb":
        cell: dict[str, Any] = {
            "cell_type": "code",
            "id": "all",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": text.rstrip(),
        }
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        text = json.dumps(notebook, indent=1) + "\n"
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as err:
        raise CheckpointFileError(
            f"{path}: {err.strerror}; choose the name of a new file", file=path
        ) from err
    return path
