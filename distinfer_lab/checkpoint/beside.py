"""What lies beside the files of a checkpoint and is not opened, though it may belong to it.

::

    run/rank_0/ ... rank_7/      opened
    run/train_strategy.ckpt      a strategy file: it says who holds what, and is to be given
    run/rank_8/                  slices that the folder's manifest does not name
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..display import counted
from ..errors import DistinferError, Option, Remark, listed
from ..formats import FILE_FORMATS, Manifest, as_strategy, is_strategy, unnamed_paths

__all__ = ["strategy_files", "strategy_words", "unnamed_notes"]

MOST_TRIED = 64
"""So many files are looked into."""
SUFFIXES = (".ckpt", ".json")
SLICES = (*(f".{one.name}" for one in FILE_FORMATS), "/")


def strategy_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The strategy files in a folder, or in a folder `strategy` in it or beside it, the likeliest first.

    A file is called one by a word in its name, and is one by its first bytes.
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


def strategy_words(folder: str | os.PathLike[str]) -> Remark:
    """That a strategy file lies in a folder whose files were opened without one, as a sentence; "" if none does."""
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


def unnamed_notes(folder: str | os.PathLike[str], manifest: Manifest) -> Iterator[str]:
    """Which slices of a folder its manifest does not name, so that they are not opened."""
    try:
        paths = [path for path in unnamed_paths(folder, manifest) if path.endswith(SLICES)]
    except OSError:
        return
    if paths:
        yield (
            f"{os.fspath(folder)}: not opened, since its manifest does not name it: {listed(paths)}; move what does "
            "not belong there, or open single files by their paths"
        )
