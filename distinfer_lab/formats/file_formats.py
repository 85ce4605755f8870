"""The formats of one rank's files: a line for each."""

from .ckpt import Ckpt
from .file_format import FileFormat
from .safetensors_file import Safetensors

__all__ = ["FILE_FORMATS", "format_named", "format_of"]

FILE_FORMATS: tuple[FileFormat, ...] = (
    Ckpt(),
    Safetensors(),
)
"""The first is that of files whose name ends in none of the names."""


def format_of(path: str) -> FileFormat:
    """The format by which a file of this name is read.

    Examples
    --------
    >>> [format_of(path).name for path in ("a/b.safetensors", "a/b.ckpt", "b")]
    ['safetensors', 'ckpt', 'ckpt']
    """
    return next((one for one in FILE_FORMATS if path.endswith(f".{one.name}")), FILE_FORMATS[0])


def format_named(name: str) -> FileFormat | None:
    """The format of that name; None if there is none."""
    return next((one for one in FILE_FORMATS if one.name == name), None)
