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

A text names the thing, its value, the rule that it breaks, and the way out. What it names is in fields, too, for
programs: the file, the parameter, the dim, the rank, and the options with their values.
"""

import os
from collections.abc import Iterable, Mapping
from operator import index
from typing import NamedTuple, Self, TypeVar

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


class _Named:
    """What a text is about, for programs."""

    options: tuple[Option, ...] = ()
    file: str | None = None
    parameter: str | None = None
    dim: int | None = None
    rank: int | None = None

    def _set(
        self,
        text: str,
        options: tuple[Option, ...],
        of: object,
        file: str | os.PathLike[str] | None,
        parameter: str | None,
        dim: int | None,
        rank: int | None,
    ) -> None:
        quoted = of if isinstance(of, _Named) else _Named()
        self.options = (*quoted.options, *options_of(text), *options)
        self.file = os.fspath(file) if file is not None else quoted.file
        self.parameter = parameter if parameter is not None else quoted.parameter
        self.dim = index(dim) if dim is not None else quoted.dim
        self.rank = index(rank) if rank is not None else quoted.rank


class Remark(_Named, str):
    """A note, or a part of an error's text, with what it names as `DistinferError` has it.

    Examples
    --------
    >>> remark = Remark("rank 3 is cut", Option("without", [3]), rank=3)
    >>> CheckpointError(f"net: {remark}", of=remark).rank
    3
    """

    def __new__(
        cls,
        text: str,
        *options: Option,
        of: object = None,
        file: str | os.PathLike[str] | None = None,
        parameter: str | None = None,
        dim: int | None = None,
        rank: int | None = None,
    ) -> "Remark":
        remark = super().__new__(cls, text)
        remark._set(text, options, of, file, parameter, dim, rank)
        return remark


def options_of(said: object) -> tuple[Option, ...]:
    """The options that an error or a remark names; none of a plain text."""
    return getattr(said, "options", ())


Kind = TypeVar("Kind", bound="DistinferError")


class DistinferError(_Named, Exception):
    """The base of all errors of this package.

    Its text may name things of files that somebody else wrote; what is not printable in it is escaped.

    Parameters
    ----------
    text
        What went wrong, and the way out.
    options
        The options that the text names.
    of
        The error or the remark that the text quotes: what it names, and is not given here, this error names.
    file, parameter, dim, rank
        What the text is about; a card's number is a rank. Of several files, parameters or dims the first that the
        text names; of two ranks that disagree none.

    Examples
    --------
    >>> replace = Option("overwrite", True)
    >>> CheckpointFileError(f"out exists; pass {replace}", replace, file="out").options
    (Option(name='overwrite', value=True),)
    >>> uneven = LayoutError("dim 1: 10 columns, which 4 parts cannot share evenly", dim=1)
    >>> error = CheckpointError(f"h.0.w: {uneven}", of=uneven, parameter="h.0.w")
    >>> error.parameter, error.dim, error.rank
    ('h.0.w', 1, None)
    """

    def __init__(
        self,
        text: str = "",
        *options: Option,
        of: object = None,
        file: str | os.PathLike[str] | None = None,
        parameter: str | None = None,
        dim: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(text)
        self._set(text, options, of, file, parameter, dim, rank)

    def restated(self, text: str, *options: Option, parameter: str | None = None) -> Self:
        """An error of the same class with another text, which quotes this one: it names what this one names.

        Examples
        --------
        >>> error = LayoutError("3 rows", dim=0)
        >>> error.restated(f"w: {error}", parameter="w")
        LayoutError('w: 3 rows')
        """
        error = _restored(type(self), self.args, vars(self))
        DistinferError.__init__(error, text, *options, of=self, parameter=parameter)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        # A class that makes its text itself has other arguments than this text.
        return _restored, (type(self), self.args, vars(self), getattr(self, "__notes__", ()))

    def __copy__(self) -> Self:
        # Dask has errors copied by tblib, whose copies share their notes.
        return _restored(type(self), self.args, vars(self), getattr(self, "__notes__", ()))

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


def _restored(
    kind: type[Kind], args: tuple[str, ...], fields: Mapping[str, object], notes: Iterable[str] = ()
) -> Kind:
    """The same error; notes that are added to one are not added to the other."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(fields)
    vars(error).pop("__notes__", None)
    for note in notes:
        error.add_note(note)
    return error


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
