"""Where an output that is not finished is kept; a few lines, so that Ctrl-C finds it before all imports."""

import os
from pathlib import Path

__all__ = ["stage_of", "unfinished"]


def stage_of(target: str | os.PathLike[str]) -> Path:
    """The staging folder of an output: its neighbour, hidden.

    Examples
    --------
    >>> stage_of("/data/out")
    PosixPath('/data/.out.stage')
    """
    path = Path(os.path.abspath(target))
    return path.with_name(f".{path.name}.stage")


def unfinished(target: str | os.PathLike[str]) -> tuple[Path, int]:
    """The staging folder of an output, and the bytes that it takes on the disk; 0 if there is none."""
    stage = stage_of(target)
    return stage, sum(file.lstat().st_blocks * 512 for file in stage.rglob("*"))
