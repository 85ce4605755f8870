"""The registry of formats: one line per format.

::

    FILE_FORMATS      one rank's files                     read and written
    FOLDER_FORMATS    whole checkpoints of several files   read and written
    FOREIGN           all others                           recognised, with advice on conversion (see foreign.py)
"""

import os

from .ckpt import Ckpt
from .file_format import FileFormat, FolderFormat, Members
from .foreign import FOREIGN
from .hub import HuggingFace
from .safetensors_file import Safetensors

__all__ = [
    "FILE_FORMATS",
    "FOLDER_FORMATS",
    "FOREIGN",
    "folder_format_named",
    "folder_format_of",
    "format_named",
    "format_of",
    "members_of",
]

FILE_FORMATS: tuple[FileFormat, ...] = (
    Ckpt(),
    Safetensors(),
)
"""The first is the default for files with any other extension."""

FOLDER_FORMATS: tuple[FolderFormat, ...] = (HuggingFace(),)


def format_of(path: str) -> FileFormat:
    """Return the format of a file, by its extension.

    Examples
    --------
    >>> [format_of(path).name for path in ("a/b.safetensors", "a/b.ckpt", "b")]
    ['safetensors', 'ckpt', 'ckpt']
    """
    return next((one for one in FILE_FORMATS if path.endswith(f".{one.name}")), FILE_FORMATS[0])


def format_named(name: str) -> FileFormat | None:
    """Return the format of that name, or None."""
    return next((one for one in FILE_FORMATS if one.name == name), None)


def folder_format_named(name: str) -> FolderFormat | None:
    """Return the folder format of that name, or None."""
    return next((one for one in FOLDER_FORMATS if one.name == name), None)


def folder_format_of(path: str | os.PathLike[str]) -> FolderFormat | None:
    """Return the format of a folder that is one unsharded checkpoint, or None.

    Raises
    ------
    CheckpointFileError, CheckpointError
        See `FolderFormat.members`.
    """
    return next((one for one in FOLDER_FORMATS if one.members(path) is not None), None)


def members_of(path: str | os.PathLike[str]) -> Members | None:
    """Return the files of a folder that is one unsharded checkpoint, or None.

    Raises
    ------
    CheckpointFileError, CheckpointError
        See `FolderFormat.members`.
    """
    return next((found for one in FOLDER_FORMATS if (found := one.members(path)) is not None), None)
