"""A mesh: ranks arranged as a named grid, row-major, the last axis fastest."""

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from keyword import iskeyword

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked, checked_on_error
from ..display import Saved
from ..errors import ArgumentTypeError, LayoutError
from ..text import shown
from ..untrusted import MAX_AXES, MOST_RANKS
from .notation import NAME, quoted, unquoted, whole_numbers

__all__ = ["Mesh", "checked_mesh"]

_AXIS = rf"\s*({NAME})\s*=\s*([0-9]{{1,9}})\s*"
_AXES = re.compile(f"{_AXIS}(?:,{_AXIS})*")


@dataclass(frozen=True, repr=False, init=False)
class Mesh(Saved):
    """A named n-d grid of ranks.

    Parameters
    ----------
    **axes
        The number of ranks along each axis, at least 1, by the axis's name; slowest axis first. A name that
        is not a Python identifier is given as in ``Mesh(**{"data parallel": 2})``.

    Raises
    ------
    LayoutError
        If a size is not an integer of 1 or more, or there are more than 32 axes or 32,768 ranks.
    ArgumentTypeError
        If axes are given by position.

    Examples
    --------
    >>> mesh = Mesh(dp=2, tp=4)
    >>> mesh
    Mesh(dp=2, tp=4)
    >>> mesh.axis_names, mesh.axis_sizes
    (('dp', 'tp'), (2, 4))
    >>> mesh.coordinates()[5].tolist()
    [1, 1]
    """

    axis_names: tuple[str, ...]
    axis_sizes: tuple[int, ...]

    def __init__(self, /, *given: object, **axes: int) -> None:
        if given:
            raise ArgumentTypeError(_by_position(given, axes))
        self._set(tuple(axes), tuple(axes.values()))

    @classmethod
    @checked_on_error
    def from_axes(cls, names: Iterable[str], sizes: Iterable[int]) -> "Mesh":
        """The mesh of axes whose names and sizes are at hand, slowest first.

        Raises
        ------
        LayoutError
            If names and sizes disagree in number, a name repeats or is not text; and as for `Mesh`.

        Examples
        --------
        >>> Mesh.from_axes(("dp", "tp"), (2, 4))
        Mesh(dp=2, tp=4)
        """
        mesh = cls.__new__(cls)
        mesh._set(tuple(names), tuple(sizes))
        return mesh

    @classmethod
    @checked
    def parse(cls, text: str) -> "Mesh":
        """The mesh that a text such as "dp=2,tp=4" says, slowest axis first; `text` writes it.

        Raises
        ------
        LayoutError
            If the text is not of that form; and as for `Mesh`.

        Examples
        --------
        >>> Mesh.parse("dp=2,tp=4")
        Mesh(dp=2, tp=4)
        """
        if not _AXES.fullmatch(text):
            raise LayoutError(
                f"{shown(text)} is not a mesh: write the axes and their sizes, slowest first, as in dp=2,tp=4"
            )
        axes = re.findall(_AXIS, text)
        return cls.from_axes((unquoted(name) for name, _ in axes), (int(size) for _, size in axes))

    def _set(self, names: tuple[str, ...], sizes: tuple[int, ...]) -> None:
        object.__setattr__(self, "axis_names", names)
        object.__setattr__(self, "axis_sizes", whole_numbers(sizes, f"mesh: sizes of axes {shown(names)}"))
        self._check()

    def _check(self) -> None:
        names, sizes = self.axis_names, self.axis_sizes
        if len(names) > MAX_AXES:
            raise LayoutError(f"mesh: {len(names)} axes; at most {MAX_AXES} are supported")
        if not all(isinstance(name, str) for name in names):
            raise LayoutError(f"mesh: axis names are {shown(names)}; give text")
        if len(names) != len(sizes):
            raise LayoutError(
                f"mesh: {len(names)} axis names {names} for {len(sizes)} axis sizes {sizes}; give one name per size"
            )
        if len(set(names)) != len(names):
            raise LayoutError(f"mesh: axis names {names} repeat; each axis needs its own name")
        for name, size in zip(names, sizes, strict=True):
            if size < 1:
                raise LayoutError(f"mesh: axis {name!r} has size {size}; a size is at least 1")
        if self.size > MOST_RANKS:
            raise LayoutError(
                f"mesh: axis sizes {shown(sizes)} make {shown(self.size)} ranks; "
                f"at most {MOST_RANKS} are supported"
            )

    @property
    def text(self) -> str:
        """The axes as `parse` reads them.

        Examples
        --------
        >>> Mesh(dp=2, tp=4).text
        'dp=2,tp=4'
        """
        return ",".join(
            f"{quoted(name)}={size}" for name, size in zip(self.axis_names, self.axis_sizes, strict=True)
        )

    @property
    def size(self) -> int:
        """The number of ranks."""
        return math.prod(self.axis_sizes)

    def axis_size(self, axis: str) -> int:
        """The number of ranks along `axis`.

        Raises
        ------
        LayoutError
            If the mesh has no such axis.
        """
        return self.axis_sizes[self.axis_index(axis)]

    def axis_index(self, axis: str) -> int:
        """The position of `axis`, 0 for the slowest."""
        if axis not in self.axis_names:
            raise LayoutError(f"{self!r} has no axis {axis!r}; its axes are {', '.join(self.axis_names)}")
        return self.axis_names.index(axis)

    def coordinates(self) -> NDArray[np.int64]:
        """The grid position of every rank, int64, shape (ranks, axes)."""
        # Not np.indices, which has one dim for each axis and one more: numpy stops at 32 or 64.
        out = np.empty((self.size, len(self.axis_sizes)), np.int64)
        left = np.arange(self.size, dtype=np.int64)
        for axis in reversed(range(len(self.axis_sizes))):
            left, out[:, axis] = np.divmod(left, self.axis_sizes[axis])
        return out

    def __repr__(self) -> str:
        axes = dict(zip(self.axis_names, self.axis_sizes, strict=True))
        if all(map(_is_keyword_name, axes)):
            return f"Mesh({', '.join(f'{name}={size}' for name, size in axes.items())})"
        return f"Mesh(**{axes!r})"


def checked_mesh(given: object) -> Mesh:
    """What is given for a mesh.

    Raises
    ------
    ArgumentTypeError
        If it is not a `Mesh`; the message says how to make one of it.

    Examples
    --------
    >>> checked_mesh({"tp": 4})
    Traceback (most recent call last):
    distinfer_lab.errors.ArgumentTypeError: mesh={'tp': 4} is not a Mesh; write Mesh(**{'tp': 4})
    """
    if isinstance(given, Mesh):
        return given
    raise ArgumentTypeError(f"mesh={shown(given)} is not a Mesh; write {_meant((given,))}")


def _is_keyword_name(name: str) -> bool:
    """Whether Python reads ``f(name=1)`` as an argument of exactly this name."""
    is_normal = unicodedata.normalize("NFKC", name) == name  # Python normalises identifiers, not strings
    return name.isidentifier() and is_normal and not iskeyword(name) and name != "__debug__"


def _by_position(given: tuple[object, ...], axes: dict[str, int]) -> str:
    """What to write instead of axes that were given by position."""
    what = ", ".join([*map(shown, given), *(f"{name}={size}" for name, size in axes.items())])
    return f"Mesh({what}): axes are given by name, slowest first; write {_meant(given)}"


def _meant(given: tuple[object, ...]) -> str:
    """The call that makes the mesh which these arguments seem to mean, or an example."""
    match given:
        case (str(text),) if "=" in text:
            return f"Mesh.parse({shown(text)})"
        case (dict() as sizes,):
            return f"Mesh(**{shown(sizes)})"
        case (names, sizes):
            return _as_keywords(names, sizes)
        case _:
            return "Mesh(dp=2, tp=4)"


def _as_keywords(names: object, sizes: object) -> str:
    """The call of `Mesh` that was meant by names and sizes, in whichever order the two came."""
    pair = [(one,) if isinstance(one, str | int) else one for one in (names, sizes)]
    if all(isinstance(one, tuple | list) for one in pair):
        for one, other in (pair, pair[::-1]):
            try:
                return repr(Mesh.from_axes(one, other))  # type: ignore[arg-type]
            except LayoutError:
                continue
    return "Mesh(dp=2, tp=4)"
