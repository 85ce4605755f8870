"""What is left of tensors when slices are lost: how many copies of each box, and which boxes none."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..layout import Boxes, Layout, Regions, nonempty_boxes

__all__ = ["Coverage", "Surviving", "coverage", "format_box"]


class Coverage(NamedTuple):
    """How well a tensor is held."""

    fewest: int
    """Copies of the box that has the fewest."""
    most: int
    """Copies of the box that has the most."""
    holes: Boxes
    """The boxes that nobody holds any more, int64, shape (n, ndim, 2)."""


def coverage(layout: Layout, shape: Sequence[int], lost: Collection[int]) -> Coverage:
    """How well a tensor is held without the slices of some ranks."""
    regions = layout.regions(shape)
    full = nonempty_boxes(regions.boxes)
    boxes, ranks = regions.boxes[full], regions.ranks[full]
    if not len(boxes):
        return Coverage(1, 1, boxes)
    flat = boxes.reshape(len(boxes), 2 * len(shape))
    if not len(shape):
        flat = np.zeros((len(boxes), 1), np.int64)
    _, first, number = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    there = ~np.isin(ranks, list(lost))
    copies = np.bincount(number.reshape(-1)[there], minlength=len(first))
    return Coverage(int(copies.min()), int(copies.max()), boxes[first[copies == 0]])


def format_box(box: Sequence[Sequence[int]]) -> str:
    """A box as one writes it in Python.

    Examples
    --------
    >>> format_box([[0, 4], [8, 16]])
    '[0:4, 8:16]'
    """
    return "[" + ", ".join(f"{a}:{b}" for a, b in box) + "]"


@dataclass(frozen=True)
class Surviving:
    """A layout without the slices of some ranks; a plan takes it like a layout."""

    layout: Layout
    lost: frozenset[int]

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """The first rank of the layout, lost or not."""
        return self.layout.first_ranks

    @property
    def pattern(self) -> Hashable:
        """What equal ones have in common."""
        return ("surviving", self.layout, self.lost)

    def regions(self, shape: Sequence[int]) -> Regions:
        """Who still holds which boxes."""
        held = self.layout.regions(shape)
        there = ~np.isin(held.ranks, list(self.lost))
        return Regions(held.ranks[there], held.boxes[there], held.starts[there])
