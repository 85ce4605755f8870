"""Every error that distinfer_lab raises on purpose.

::

    DistinferError
      LayoutError       ValueError   a mesh, layout or strategy that does not fit its tensor or ranks
      ShardingError     ValueError   a strategy that an operator, its shapes or the cards cannot take
      GraphError        ValueError   a net that cannot be traced, differentiated or run
      CheckpointError   ValueError   a file that is not what it should be: cut, corrupt, of another kind
        EncryptionError              no key, a wrong key, a wrong mode
      CheckpointFileError OSError    a file that is missing, unreadable, or stands where we may not write
      ReshardError      ValueError   a plan that cannot fill a destination: a hole, an overlap, a disagreement
      CardError         OSError      a card, its group or a channel between cards failed
      ContextError      ValueError   a step of the flow was asked for before what it needs was set
      ArgumentTypeError TypeError    an argument of the wrong kind

A text names the thing, its value, the rule that it breaks, and the way out.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .text import printable

__all__ = [
    "ArgumentTypeError",
    "CardError",
    "CheckpointError",
    "CheckpointFileError",
    "ContextError",
    "DistinferError",
    "EncryptionError",
    "GraphError",
    "LayoutError",
    "Option",
    "Remark",
    "ReshardError",
    "ShardingError",
    "in_lines",
    "listed",
    "options_of",
]


class Option(NamedTuple):
    """An option that a text names, in a call of Python; the command line has another name for it.

    Examples
    --------
    >>> print(Option("without", [3]), Option("like"))
    without=[3] like=
    """

    name: str
    value: object = None
    """None: only its name is said."""

    def __str__(self) -> str:
        return f"{self.name}=" if self.value is None else f"{self.name}={self.value!r}"


class Remark(str):
    """A text, and the options that it names: a note, or a part of an error's text."""

    options: tuple[Option, ...]

    def __new__(cls, text: str, *options: Option) -> "Remark":
        remark = super().__new__(cls, text)
        remark.options = options
        return remark


def options_of(said: object) -> tuple[Option, ...]:
    """The options that an error or a remark names; none of a plain text."""
    return getattr(said, "options", ())


class DistinferError(Exception):
    """The base of all errors of this package.

    Its text may name things of files that somebody else wrote; what is not printable in it is escaped.

    Parameters
    ----------
    text
        What went wrong, and the way out.
    options
        The options that the text names.

    Examples
    --------
    >>> replace = Option("overwrite", True)
    >>> CheckpointFileError(f"out exists; pass {replace}", replace).options
    (Option(name='overwrite', value=True),)
    """

    options: tuple[Option, ...]

    def __init__(self, text: str = "", *options: Option) -> None:
        super().__init__(text)
        self.options = (*options_of(text), *options)

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class LayoutError(DistinferError, ValueError):
    """A mesh, layout or strategy does not fit its tensor or its ranks."""


class ShardingError(DistinferError, ValueError):
    """An operator's strategy cannot be used with its shapes or this number of cards."""


class GraphError(DistinferError, ValueError):
    """A net cannot be traced, differentiated or run."""


class CheckpointError(DistinferError, ValueError):
    """A checkpoint or strategy file is not what it should be."""


class EncryptionError(CheckpointError):
    """An encrypted file was opened with no key, a wrong key or a wrong mode."""


class CheckpointFileError(DistinferError, OSError):
    """A file is missing, cannot be read, or stands where we may not write."""


class ReshardError(DistinferError, ValueError):
    """The source cannot fill the destination exactly once."""


class CardError(DistinferError, OSError):
    """A card, its group, or a channel between cards failed."""


class ContextError(DistinferError, ValueError):
    """A step was asked for before the context held what it needs."""


class ArgumentTypeError(DistinferError, TypeError):
    """An argument is of the wrong kind."""


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names for a text: the first few, and how many more there are.

    Examples
    --------
    >>> listed("abcdefgh"), listed("")
    ('a, b, c, d, e, f and 2 more', 'nothing')
    """
    found = list(map(printable, names))
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(found[:most]) or "nothing") + rest


def in_lines(problems: Iterable[str], most: int = 10) -> str:
    """Several texts as one, a line each: the first few, and how many more there are."""
    found = list(problems)
    rest = [f"... and {len(found) - most} more"] if len(found) > most else []
    return "\n".join(found[:most] + rest)
