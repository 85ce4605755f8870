"""A mesh: ranks arranged as a named grid, row-major, the last axis fastest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked_on_error
from ..display import Displayed
from ..errors import LayoutError
from ..text import printable, shown
from ..untrusted import MAX_AXES, MOST_RANKS

__all__ = ["Mesh", "whole_numbers"]


def whole_numbers(values: Iterable[Any], name: str) -> tuple[int, ...]:
    """The values as Python's integers.

    Raises
    ------
    LayoutError
        If one is not an integer; nothing is rounded.
    """
    given = tuple(values)
    try:
        return tuple(map(index, given))
    except TypeError as err:
        raise LayoutError(f"{name} are {shown(given)}; give integers") from err


@checked_on_error
@dataclass(frozen=True, repr=False)
class Mesh(Displayed):
    """A named n-d grid of ranks.

    Parameters
    ----------
    axis_names
        One name per axis, all different, slowest axis first.
    axis_sizes
        The number of ranks along each axis, each at least 1.

    Raises
    ------
    LayoutError
        If names and sizes disagree in number, a name repeats, a size is below 1, or there are more than
        32 axes or 32,768 ranks.

    Examples
    --------
    >>> mesh = Mesh(("dp", "tp"), (2, 4))
    >>> mesh
    Mesh(dp=2, tp=4)
    >>> mesh.coordinates()[5].tolist()
    [1, 1]
    """

    axis_names: tuple[str, ...]
    axis_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis_names", tuple(self.axis_names))
        object.__setattr__(self, "axis_sizes", whole_numbers(self.axis_sizes, "mesh: axis sizes"))
        if len(self.axis_names) > MAX_AXES:
            raise LayoutError(f"mesh: {len(self.axis_names)} axes; at most {MAX_AXES} are supported")
        if len(self.axis_names) != len(self.axis_sizes):
            raise LayoutError(
                f"mesh: {len(self.axis_names)} axis names {self.axis_names} for "
                f"{len(self.axis_sizes)} axis sizes {self.axis_sizes}; give one name per size"
            )
        if len(set(self.axis_names)) != len(self.axis_names):
            raise LayoutError(f"mesh: axis names {self.axis_names} repeat; each axis needs its own name")
        for name, size in zip(self.axis_names, self.axis_sizes, strict=True):
            if size < 1:
                raise LayoutError(f"mesh: axis {name!r} has size {size}; a size is at least 1")
        if self.size > MOST_RANKS:
            raise LayoutError(
                f"mesh: axis sizes {shown(self.axis_sizes)} make {shown(self.size)} ranks; "
                f"at most {MOST_RANKS} are supported"
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
        axes = ", ".join(f"{printable(n)}={s}" for n, s in zip(self.axis_names, self.axis_sizes, strict=True))
        return f"Mesh({axes})"
