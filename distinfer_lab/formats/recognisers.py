"""What a file or a folder is that did not open, and what to do with it: by `file_formats`' lists of all formats.

They are looked at only when opening has failed, so nothing in them can keep a good file out.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ..errors import DistinferError, Remark
from ..untrusted import open_regular
from .file_formats import FILE_FORMATS, FOREIGN, folder_format_of, format_of
from .foreign import STRATEGY_HEADS, Foreign

__all__ = [
    "HEAD_BYTES",
    "is_strategy",
    "recognise_file",
    "recognise_folder",
    "recognise_slices",
    "recognise_unopened",
]

HEAD_BYTES = 1024
MOST_NAMES = 10_000
"""So many names of a folder are looked at."""

NO_WEIGHTS = ("it is a text file", "it is a JSON file", "it is a strategy file")
"""How the texts of what is no weights begin."""
PLAIN = re.compile(r"[\w./+@:=][\w./+@:=-]*")


def recognise_file(path: str, head: bytes) -> str:
    """What a file is that did not open, and what to do; "" if no row fits.

    Parameters
    ----------
    head
        Its first `HEAD_BYTES`, or all if it is shorter.

    Examples
    --------
    >>> print(recognise_file("a.safetensors", b"version https://git-lfs.github.com/spec/v1"))
    it is a Git LFS pointer, which stands for the file; fetch the file itself: git lfs pull, in its repository
    """
    name = os.path.basename(path)
    fitting = [row for row in FOREIGN if (row.head or row.name) and _fits(row, name, head)]
    for row in fitting:
        if not row.general:
            return _remark_of(row, path, name)
    own = [one for one in FILE_FORMATS if re.match(one.head, head, re.DOTALL)]
    if format_of(path) in own:
        return (
            ""  # a damaged file of the format that its name says: what the format found is the better error
        )
    for one in own:
        return f"it is a {one.title} file by its content, under another name; rename it to end in .{one.name}"
    return _remark_of(fitting[0], path, name) if fitting else ""


def _fits(row: Foreign, name: str, head: bytes) -> bool:
    return bool(re.match(row.head, head, re.DOTALL)) and bool(
        re.fullmatch(row.name or ".*", name, re.DOTALL | re.IGNORECASE)
    )


def recognise_slices(path: str, head: bytes) -> str:
    """That a file which is no strategy holds slices, or what else it is by its first bytes; "" if no row fits."""
    if any(re.match(one.head, head, re.DOTALL) for one in FILE_FORMATS):
        return "it holds tensors; give it, or the folder of all ranks' files, as the checkpoint"
    known = recognise_file(path, head)
    return "" if known.startswith(NO_WEIGHTS) else known


def is_strategy(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a strategy file by its first bytes."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return any(re.match(pattern, head, re.DOTALL) for pattern in STRATEGY_HEADS)


def recognise_folder(folder: str | os.PathLike[str]) -> str:
    """What a folder is that holds no checkpoint of ours, and what to do; "" if no row fits.

    A folder without anything known of its own is what its files are.

    Raises
    ------
    OSError
        If it cannot be listed.
    """
    path = os.fspath(folder)
    names = list(islice(_names(Path(folder)), MOST_NAMES))
    for row in FOREIGN:
        found = next(
            (name for name in names if row.inside and re.fullmatch(row.inside, name, re.DOTALL)), None
        )
        if found is not None:
            # Of a model inside a pipeline its folder is to be given.
            within = found.rpartition("/")[0] if found.endswith((".safetensors", ".json")) else ""
            return _remark_of(row, path, within or found)
    files = [name for name in names if "/" not in name and (Path(folder) / name).is_file()]
    return next(filter(None, (_file_inside(path, name) for name in files[:64])), "")


def recognise_unopened(path: str, error: OSError) -> str:
    """Why the system does not open a path as a file, and what to do; of a folder, what it is.

    Parameters
    ----------
    error
        What the system said.
    """
    if not os.path.isdir(path):
        return f"{error.strerror}; check the path"
    with suppress(OSError, DistinferError):
        whole = folder_format_of(path)
        if whole is not None:
            return (
                f"it is a {whole.title} folder, not a file; open it as a checkpoint, or give one of its files"
            )
        if known := recognise_folder(path):
            return known
    return "it is a folder, not a file; give one of the files in it, or open it as a checkpoint"


def _file_inside(folder: str, name: str) -> str:
    """What a file of a folder is."""
    path = os.path.join(folder, name)
    try:
        with open_regular(path) as file:
            found = recognise_file(path, file.read(HEAD_BYTES))
    except OSError:
        return ""
    # These lie beside weights of any kind, and do not say what a folder is.
    return "" if found.startswith(NO_WEIGHTS) or not found else f"{name}: {found}"


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder and, after them, those one level down, each in order."""
    inner = []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        yield entry.name
        if entry.is_dir():
            inner.append(entry.name)
    for name in inner:
        try:
            yield from (f"{name}/{found}" for found in sorted(os.listdir(folder / name)))
        except OSError:
            continue


def _remark_of(row: Foreign, path: str, name: str) -> Remark:
    """A path goes into a command only if a shell and Python take every character of it for itself."""
    path, name = (
        text if PLAIN.fullmatch(text) else other for text, other in ((path, "PATH"), (name, "NAME"))
    )
    advice = row.advice.replace("{path}", path).replace("{name}", name)
    if row.option is None:
        return Remark(f"it is {row.what}; {advice}")
    return Remark(f"it is {row.what}; {advice.replace('{option}', str(row.option))}", row.option)
