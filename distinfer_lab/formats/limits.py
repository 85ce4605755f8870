"""What a file of a format can hold, so that whatever is written can be read.

::

    check_format       the name of the file and the format say the same
    check_specs        names, texts and shapes that the format has no place for
    check_read_back    the index of what was just written, read as any reader reads it
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentTypeError, CheckpointError, Option
from ..text import pattern_of, shown
from ..untrusted import check_shape
from .entry import Entry, TensorSpec
from .entry_table import EntryTable
from .file_format import FileFormat, ReadAt
from .file_formats import FILE_FORMATS, format_named, format_of

__all__ = ["check_format", "check_read_back", "check_specs"]


def check_format(path: str, format: str) -> None:
    """Refuse a file that would be read as another format than it has.

    Raises
    ------
    CheckpointError
        If it would.
    """
    read_as = format_of(path).name
    if format_named(format) is None:
        raise CheckpointError(
            f"{path}: format {format!r} is not {' or '.join(repr(one.name) for one in FILE_FORMATS)}",
            file=path,
        )
    if format != read_as:
        given, fitting = Option("format", format), Option("format", read_as)
        raise CheckpointError(
            f"{path}: a file of this name is read as {read_as}, so it cannot be written with "
            f"{given}; use {fitting}, or a name that ends in .{format}",
            given,
            fitting,
            file=path,
        )


def check_specs(path: str, specs: Sequence[TensorSpec], format: FileFormat) -> None:
    """Refuse what the format cannot hold.

    Raises
    ------
    ArgumentTypeError
        If a name is not a text, or empty.
    CheckpointError
        If two entries have one name; if a name, a text or a shape cannot be written or read.
    """
    names: set[str] = set()
    shapes: dict[tuple[Any, ...], str] = {}
    for spec in specs:
        if not isinstance(spec.name, str) or not spec.name:
            raise ArgumentTypeError(
                f"{path}: {shown(spec.name)}: every entry needs a name that is a text", file=path
            )
        if spec.name in names:
            raise CheckpointError(
                f"{path}: {spec.name!r} is to be written twice; rename one of them",
                file=path,
                parameter=spec.name,
            )
        names.add(spec.name)
        form = spec.dtype, spec.shape
        if form not in shapes:
            shapes[form] = _shape_problem(spec)
        problem = _name_problem(spec) or shapes[form] or format.problem(spec)
        if problem:
            without = Option("select", [f"!{pattern_of(spec.name)}"])
            raise CheckpointError(
                f"{path}: {shown(spec.name)}: {problem}; rename it, or leave it out by {without}",
                without,
                file=path,
                parameter=spec.name,
            )


def _name_problem(spec: TensorSpec) -> str:
    try:
        spec.name.encode()
        (spec.text or "").encode()
    except UnicodeEncodeError:
        return "its name or text holds half a surrogate pair, which no file can hold"
    return ""


def _shape_problem(spec: TensorSpec) -> str:
    try:
        check_shape(spec.shape, "its shape", np.dtype(spec.dtype).itemsize)
    except ValueError as err:
        return str(err)
    return ""


def check_read_back(
    path: str,
    read_at: ReadAt,
    size: int,
    specs: Sequence[TensorSpec],
    entries: Mapping[str, Entry],
    format: FileFormat,
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
    found, texts, _ = format.index(path, read_at, size)
    alike = isinstance(found, EntryTable) and isinstance(entries, EntryTable) and found.begins_like(entries)
    for spec in specs if not alike else [spec for spec in specs if spec.name not in entries]:
        entry, own = found.get(spec.name), entries.get(spec.name)
        if own is None:
            same = spec.text is not None and texts.get(spec.name) == spec.text
        else:
            same = entry is not None and _alike(entry, own)
        if not same:
            raise CheckpointError(
                f"{path}: {shown(spec.name)} would not be read back as it is written; this is a fault of "
                "distinfer_lab: nothing was written, please report it with this message",
                file=path,
                parameter=spec.name,
            )
    if len(found) != len(specs):
        raise CheckpointError(
            f"{path}: {len(found)} entries would be read back, and {len(specs)} are written", file=path
        )


def _alike(found: Entry, own: Entry) -> bool:
    return not found.problem and (found.dtype, found.shape, found.pieces) == (
        own.dtype,
        own.shape,
        own.pieces,
    )
