"""A mesh: ranks arranged as a named grid, row-major, the last axis fastest."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed
from ..errors import LayoutError

__all__ = ["Mesh"]


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
        If names and sizes disagree in number, a name repeats, or a size is below 1.

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
        object.__setattr__(self, "axis_sizes", tuple(int(s) for s in self.axis_sizes))
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
        grid = np.indices(self.axis_sizes, dtype=np.int64)
        return grid.reshape(len(self.axis_sizes), self.size).T

    def __repr__(self) -> str:
        axes = ", ".join(f"{n}={s}" for n, s in zip(self.axis_names, self.axis_sizes, strict=True))
        return f"Mesh({axes})"
