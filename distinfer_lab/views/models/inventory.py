"""Who holds which tensors of a model: many tensors that are alike are looked at once.

::

    Held    layers.0.q, layers.1.q      [32, 32] float32     training  ranks 0..3     a quarter of the rows each
                                                             inference ranks 0, 1     half of the columns each
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layout import Boxes, Layout, volumes

if TYPE_CHECKING:
    from ...reshard import ReshardPlan

__all__ = ["Held", "Holders", "by_name", "held_by_layouts", "held_by_plan", "memory"]


class Holders(NamedTuple):
    """The ranks of one side that hold a tensor."""

    ranks: NDArray[np.int64]
    """int64, shape (n,), each once."""
    elements: NDArray[np.int64]
    """What each of them holds, int64, shape (n,)."""
    parts: tuple[int, ...]
    """Into how many parts each dim is cut."""

    @classmethod
    def of(cls, ranks: NDArray[np.int64], boxes: Boxes, first: int = 0) -> "Holders":
        """Of boxes, int64, shape (n, ndim, 2), each held by the rank of its row, counted from `first`."""
        counts = volumes(boxes)
        full = counts > 0
        found, at = np.unique(ranks[full], return_inverse=True)
        each = np.bincount(at, weights=counts[full], minlength=len(found)).astype(np.int64)
        # A rank of a fused tensor has a box in each of its parts: these are no cut.
        fused = max(int(np.bincount(at).max(initial=1)), 1)
        cuts = (len(np.unique(boxes[full, d], axis=0)) for d in range(boxes.shape[1]))
        parts = tuple(n // fused if n > 1 and n % fused == 0 else n for n in cuts)
        return cls(found + first, each, parts)


class Held(NamedTuple):
    """Tensors of one shape that the same ranks hold in the same way."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    itemsize: int
    """Bytes of an element; 1 where the dtype is not known."""
    train: Holders | None
    infer: Holders | None

    @property
    def nbytes(self) -> int:
        """Bytes of one of the tensors, whole."""
        return math.prod(self.shape) * self.itemsize


def held_by_layouts(
    tensors: Iterable[tuple[str, tuple[int, ...], int, Layout]], *, inference: bool = False
) -> list[Held]:
    """Of one side: the name, shape, bytes of an element and layout of each tensor.

    Raises
    ------
    LayoutError
        If a layout cannot cut its shape.
    """
    names: dict[tuple[tuple[int, ...], int, Layout], list[str]] = {}
    known: dict[int, Layout] = {}  # equal layouts are compared once
    distinct: dict[Layout, Layout] = {}
    for name, shape, itemsize, layout in tensors:
        one = known.get(id(layout))
        if one is None:
            one = known[id(layout)] = distinct.setdefault(layout, layout)
        names.setdefault((shape, itemsize, one), []).append(name)
    out = []
    for (shape, itemsize, layout), some in names.items():
        regions = layout.regions(shape)
        side = Holders.of(np.asarray(regions.ranks), regions.boxes)
        sides = (None, side) if inference else (side, None)
        out.append(Held(tuple(some), shape, itemsize, *sides))
    return out


def held_by_plan(plan: "ReshardPlan") -> list[Held]:
    """Of both sides of a plan."""
    out = []
    for kind in plan.classes:
        for (src, dst), begin, count in zip(
            kind.places.tolist(), kind.firsts.tolist(), kind.counts.tolist(), strict=True
        ):
            names = tuple(plan.names[i] for i in kind.tensors[begin : begin + count].tolist())
            train = Holders.of(kind.src.ranks, kind.src.boxes, src)
            infer = Holders.of(kind.dst.ranks, kind.dst.boxes, dst)
            out.append(Held(names, kind.shape, kind.dtype.itemsize, train, infer))
    return out


def memory(held: Iterable[Held], side: str, ranks: int) -> NDArray[np.int64]:
    """Bytes that each rank of one side ("train" or "infer") holds, int64, shape (ranks,)."""
    out = np.zeros(ranks, np.int64)
    for one in held:
        holders = getattr(one, side)
        if holders is not None:
            out[holders.ranks] += holders.elements * (one.itemsize * len(one.names))
    return out


def by_name(held: Iterable[Held]) -> Mapping[str, Held]:
    """The record of each tensor."""
    return {name: one for one in held for name in one.names}
