"""Files near a checkpoint that are not opened, though they may belong to it.

::

    run/rank_0/ ... rank_7/      opened
    run/train_strategy.ckpt      a strategy file, to be passed as strategy=
    run/rank_8/                  slices that the manifest of the folder does not list
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..display import counted
from ..errors import DistinferError, Option, Remark, listed
from ..formats import FILE_FORMATS, Manifest, as_strategy, is_strategy, unnamed_paths

__all__ = ["strategy_files", "strategy_remark", "unlisted_slices"]

MOST_TRIED = 64
"""At most this many files are examined."""
SUFFIXES = (".ckpt", ".json")
SLICES = (*(f".{one.name}" for one in FILE_FORMATS), "/")


def strategy_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the strategy files in a folder, in its subfolder `strategy` or in its sibling, the likeliest first.

    Candidates are chosen by name and confirmed by their first bytes.
    """
    home = Path(folder)
    likely = (path for place in (home, home / "strategy", home.parent / "strategy") for path in _named(place))
    return [path for path in islice(likely, MOST_TRIED) if is_strategy(path)]


def _named(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError:
        return []
    words = ("strategy", "layout")
    return [p for word in words for p in paths if p.suffix in SUFFIXES and word in p.name.lower()]


def strategy_remark(folder: str | os.PathLike[str]) -> Remark:
    """Return a remark on the strategy files of a folder that was opened without one; "" if it has none."""
    found = strategy_files(folder)
    if not found:
        return Remark("")
    try:
        ranks = f" (for {counted(as_strategy(found[0]).ranks, 'rank')})"
    except DistinferError:
        ranks = ""
    more = f"; also there: {listed(path.name for path in found[1:])}" if found[1:] else ""
    give = Option("strategy", str(found[0]))
    return Remark(
        f"a strategy file lies there{ranks}: if the files are slices, give it as {give}{more}", give
    )


def unlisted_slices(folder: str | os.PathLike[str], manifest: Manifest) -> Iterator[str]:
    """Yield a note if a folder has slices that its manifest does not list, which are not opened."""
    try:
        paths = [path for path in unnamed_paths(folder, manifest) if path.endswith(SLICES)]
    except OSError:
        return
    if paths:
        yield (
            f"{os.fspath(folder)}: not opened, since its manifest does not name it: {listed(paths)}; move what does "
            "not belong there, or open single files by their paths"
        )
