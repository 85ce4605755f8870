"""A box: a half-open region of a tensor, in elements.

One box is a `Box`; many are an int64 array of shape (n, ndim, 2), `[..., 0]` the starts and
`[..., 1]` the stops. Functions here take the arrays, so that a million boxes cost one call.
"""

import math
from collections.abc import Iterator, Sequence
from operator import add, gt, lt, sub
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import show
from ..errors import LayoutError

__all__ = ["Box", "Boxes", "box_at", "box_of", "intersect_boxes", "nonempty_boxes", "volumes", "windows"]

Boxes = NDArray[np.int64]


class Box(NamedTuple):
    """A half-open region `start <= index < stop` of a tensor, per dim, in elements.

    Examples
    --------
    >>> box = Box((0, 4), (2, 8))
    >>> box.shape, box.size
    ((2, 4), 8)
    >>> Box((2, 4), (4, 8)).within(Box((2, 0), (4, 8)))
    Box(start=(0, 4), stop=(2, 8))
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Box":
        """The box of a whole tensor of this shape."""
        return cls((0,) * len(shape), tuple(map(int, shape)))

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """The extent per dim, in elements."""
        return tuple(map(sub, self.stop, self.start))

    @property
    def size(self) -> int:
        """The number of elements (1 for a box of no dims)."""
        return math.prod(self.shape)

    def slices(self) -> tuple[slice, ...]:
        """The region as an index of a numpy array."""
        return tuple(map(slice, self.start, self.stop))

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The region of an array, as a view (also of an array of no dims, where an index would copy)."""
        index: tuple[Any, ...] = (*self.slices(), ...)
        view: NDArray[Any] = array[index]
        return view

    def common(self, other: "Box") -> "Box | None":
        """The region that both have, None if they have none."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(min, self.stop, other.stop))
        return Box(start, stop) if all(map(lt, start, stop)) else None

    def moved(self, by: Sequence[int]) -> "Box":
        """The same region, shifted by so many elements per dim."""
        return Box(tuple(map(add, self.start, by)), tuple(map(add, self.stop, by)))

    def within(self, outer: "Box") -> "Box":
        """Give this region in the coordinates of `outer`, which must hold it.

        Raises
        ------
        LayoutError
            If part of this box lies outside `outer`.
        """
        inside = len(self.start) == len(outer.start)
        if not inside or any(map(lt, self.start, outer.start)) or any(map(gt, self.stop, outer.stop)):
            raise LayoutError(f"box {self.start}:{self.stop} does not lie inside {outer.start}:{outer.stop}")
        return Box(tuple(map(sub, self.start, outer.start)), tuple(map(sub, self.stop, outer.start)))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return show(self)


def box_at(boxes: Boxes, index: int) -> Box:
    """Row `index` of an array of boxes as a `Box`."""
    row = boxes[index].tolist()
    return Box(tuple(a for a, _ in row), tuple(b for _, b in row))


def box_of(start: NDArray[np.int64], extent: NDArray[np.int64]) -> Box:
    """The box of this extent that begins at `start`, both int64, shape (ndim,)."""
    return Box(tuple(start.tolist()), tuple((start + extent).tolist()))


def volumes(boxes: Boxes) -> NDArray[np.int64]:
    """The number of elements of each box, int64, shape (...); 0 where a box is empty."""
    extent: NDArray[np.int64] = np.maximum(boxes[..., 1] - boxes[..., 0], 0)
    product: NDArray[np.int64] = extent.prod(axis=-1, dtype=np.int64)
    return product


def nonempty_boxes(boxes: Boxes) -> NDArray[np.bool_]:
    """Which boxes hold at least one element, bool, shape (...)."""
    return np.asarray((boxes[..., 1] > boxes[..., 0]).all(axis=-1))


def intersect_boxes(a: Boxes, b: Boxes) -> Boxes:
    """The common region of boxes, broadcast against each other; empty ones have stop <= start.

    Parameters
    ----------
    a, b
        Arrays of shape (..., ndim, 2) that broadcast.
    """
    out: Boxes = np.stack(
        [np.maximum(a[..., 0], b[..., 0]), np.minimum(a[..., 1], b[..., 1])],
        axis=-1,
    )
    return out


def windows(shape: tuple[int, ...], itemsize: int, limit: int) -> Iterator[Box]:
    """Boxes that tile a tensor in row-major order, each contiguous and within `limit` bytes."""
    whole = Box.whole(shape)
    if not shape or whole.size * itemsize <= limit:
        yield whole
        return
    # The first dim whose rows fit is cut into runs of rows; those before it go index by index.
    dim = 0
    row = whole.size * itemsize
    for dim, n in enumerate(shape):  # noqa: B007  the last dim, if no row fits
        row //= n
        if row <= limit:
            break
    step = max(limit // max(row, 1), 1)
    for index in np.ndindex(*shape[:dim]):
        for first in range(0, shape[dim], step):
            stop = min(first + step, shape[dim])
            start = (*index, first, *(0 for _ in shape[dim + 1 :]))
            yield Box(start, (*(i + 1 for i in index), stop, *shape[dim + 1 :]))
