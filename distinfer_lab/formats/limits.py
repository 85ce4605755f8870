"""What a file of a format can hold, so that whatever is written can be read.

::

    check_format       the name of the file and the format say the same
    check_specs        names, texts and shapes that the format has no place for
    check_read_back    the index of what was just written, read as any reader reads it
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import ArgumentTypeError, CheckpointError, Option
from ..text import pattern_of, shown
from ..untrusted import check_shape
from .ckpt import LARGEST_TEXT, LONGEST_NAME, index_ckpt
from .entry import Entry, TensorSpec
from .safetensors_file import METADATA, index_safetensors

__all__ = ["FORMATS", "check_format", "check_read_back", "check_specs", "format_of"]

FORMATS = ("ckpt", "safetensors")

ReadAt = Callable[[int, int], bytes]


def format_of(path: str) -> str:
    """The format by which a file of this name is read.

    >>> format_of("a/b.safetensors"), format_of("a/b.ckpt"), format_of("b")
    ('safetensors', 'ckpt', 'ckpt')
    """
    return "safetensors" if path.endswith(".safetensors") else "ckpt"


def check_format(path: str, format: str) -> None:
    """Refuse a file that would be read as another format than it has.

    Raises
    ------
    CheckpointError
        If it would.
    """
    if format not in FORMATS:
        raise CheckpointError(f"{path}: format {format!r} is not 'ckpt' or 'safetensors'")
    if format != format_of(path):
        given, fitting = Option("format", format), Option("format", format_of(path))
        raise CheckpointError(
            f"{path}: a file of this name is read as {format_of(path)}, so it cannot be written with "
            f"{given}; use {fitting}, or a name that ends in .{format}",
            given,
            fitting,
        )


def check_specs(path: str, specs: Sequence[TensorSpec], format: str) -> None:
    """Refuse what the format cannot hold.

    Raises
    ------
    ArgumentTypeError
        If a name is not a text, or empty.
    CheckpointError
        If two entries have one name; if a name, a text or a shape cannot be written or read.
    """
    names: set[str] = set()
    for spec in specs:
        if not isinstance(spec.name, str) or not spec.name:
            raise ArgumentTypeError(f"{path}: {shown(spec.name)}: every entry needs a name that is a text")
        if spec.name in names:
            raise CheckpointError(f"{path}: {spec.name!r} is to be written twice; rename one of them")
        names.add(spec.name)
        problem = _problem(spec, format)
        if problem:
            without = Option("select", [f"!{pattern_of(spec.name)}"])
            raise CheckpointError(
                f"{path}: {shown(spec.name)}: {problem}; rename it, or leave it out by {without}",
                without,
            )


def _problem(spec: TensorSpec, format: str) -> str:
    """Why a format cannot hold an entry; "" if it can."""
    try:
        length = len(spec.name.encode())
        (spec.text or "").encode()
    except UnicodeEncodeError:
        return "its name or text holds half a surrogate pair, which no file can hold"
    try:
        check_shape(spec.shape, "its shape", np.dtype(spec.dtype).itemsize)
    except ValueError as err:
        return str(err)
    if format == "safetensors" and spec.name == METADATA and spec.text is None:
        return "safetensors reserves this name"
    if format == "ckpt" and length > LONGEST_NAME:
        return f"its name takes {length} bytes, and a .ckpt file holds at most {LONGEST_NAME}"
    if format == "ckpt" and spec.nbytes > LARGEST_TEXT and spec.text is not None:
        return f"its text takes {spec.nbytes} bytes, and at most {LARGEST_TEXT} are supported"
    return ""


def check_read_back(
    path: str,
    read_at: ReadAt,
    size: int,
    specs: Sequence[TensorSpec],
    entries: Mapping[str, Entry],
    format: str,
) -> None:
    """Read the index of a file that was begun, and compare it with what the file is to hold.

    Parameters
    ----------
    read_at
        Gives up to `count` bytes at an offset.
    size
        Bytes of the file, without a checksum.
    entries
        Where the writer puts everything.

    Raises
    ------
    CheckpointError
        If an entry would be read with another name, dtype, shape, place or text.
    """
    texts: Mapping[str, str] = {}
    if format == "safetensors":
        found, texts, _ = index_safetensors(path, read_at, size)
    else:
        found = index_ckpt(path, read_at, size)
    for spec in specs:
        entry, own = found.get(spec.name), entries.get(spec.name)
        if spec.text is not None and format == "safetensors":
            same = texts.get(spec.name) == spec.text
        else:
            same = entry is not None and own is not None and _alike(entry, own)
        if not same:
            raise CheckpointError(
                f"{path}: {shown(spec.name)} would not be read back as it is written; this is a fault of "
                "distinfer_lab: nothing was written, please report it with this message"
            )
    if len(found) != len(specs):
        raise CheckpointError(
            f"{path}: {len(found)} entries would be read back, and {len(specs)} are written"
        )


def _alike(found: Entry, own: Entry) -> bool:
    return not found.problem and (found.dtype, found.shape, found.pieces) == (
        own.dtype,
        own.shape,
        own.pieces,
    )
