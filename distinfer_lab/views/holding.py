"""Who holds what of one tensor: all that a drawing of cards needs to know.

    cards    "0"        "1"        "2"        "3"          one row each
    boxes    [0:4,0:8]  [0:4,8:16] [4:8,0:8]  [4:8,8:16]
    shards    0          1          2          3           equal boxes have equal numbers

More cards than a picture can carry are grouped: card "0-7" then stands for eight, its box is
the smallest that covers theirs, and the picture says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..layout import Box, Boxes, Layout, box_at, intersect_boxes, nonempty_boxes, volumes

__all__ = ["Holding", "describe_box", "group_pair", "hold", "needed_volumes"]


@dataclass(frozen=True, eq=False)
class Holding:
    """What every card of a group holds of one tensor.

    Parameters
    ----------
    shape
        The tensor's full shape.
    cards
        One label per row: a rank, or the first and the last rank of a group.
    boxes
        int64, shape (n, ndim, 2), in elements.
    held
        bool, shape (n,): whether the card holds any element.
    shards
        int64, shape (n,): the number of the card's box among the distinct ones, in row-major
        order of their starts; -1 where nothing is held.
    columns
        How many cards a drawing should put in a row.
    group
        How many ranks one row stands for.
    """

    shape: tuple[int, ...]
    cards: tuple[str, ...]
    boxes: Boxes
    held: NDArray[np.bool_]
    shards: NDArray[np.int64]
    columns: int
    group: int = 1

    def box(self, row: int) -> Box:
        """The box of one row."""
        return box_at(self.boxes, row)

    def describe(self, row: int) -> str:
        """What one row holds, in words.

        Examples
        --------
        >>> from distinfer_lab.layout import Mesh
        >>> hold(Layout(Mesh(("tp",), (2,)), ((), ("tp",))), (4, 6)).describe(1)
        '[0:4, 3:6]'
        """
        return describe_box(self.box(row)) if self.held[row] else "nothing"

    def grouped(self, limit: int) -> "Holding":
        """The same with at most `limit` rows: runs of equally many ranks become one."""
        if len(self.cards) <= limit:
            return self
        size = 1
        while -(-len(self.cards) // size) > limit:
            size *= 2
        return _grouped(self, size)


def describe_box(box: Box) -> str:
    """A box as an index: "[0:4, 8:16]"; that of a tensor of no dims is "[]"."""
    return "[" + ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True)) + "]"


def hold(layout: Layout, shape: Sequence[int], ranks: int | None = None) -> Holding:
    """What each rank holds under a layout; ranks that the layout does not name hold nothing.

    Parameters
    ----------
    layout, shape
        The layout and the tensor's full shape.
    ranks
        The number of cards of the whole group; by default one more than the highest rank
        that holds something.

    Raises
    ------
    LayoutError
        If the layout cannot cut the shape.
    """
    boxes = layout.boxes(shape)
    total = max(ranks or 0, int(layout.ranks.max()) + 1)
    every = np.zeros((total, layout.ndim, 2), np.int64)
    every[layout.ranks] = boxes
    held = np.zeros(total, bool)
    held[layout.ranks] = nonempty_boxes(boxes)
    return Holding(
        tuple(int(n) for n in shape),
        tuple(str(r) for r in range(total)),
        every,
        held,
        _shard_numbers(every, held),
        _columns(total, layout.mesh.axis_sizes[-1] if layout.mesh.axis_sizes else 1),
    )


def _shard_numbers(boxes: Boxes, held: NDArray[np.bool_]) -> NDArray[np.int64]:
    out = np.full(len(boxes), -1, np.int64)
    if held.any():
        rows = boxes[held].reshape(int(held.sum()), -1)
        # A column of zeros lets a tensor of no dims be told apart like any other.
        rows = np.concatenate([np.zeros((len(rows), 1), np.int64), rows], axis=1)
        out[held] = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return out


def _columns(cards: int, last_axis: int) -> int:
    """The last mesh axis across where that gives a fair rectangle, else about a square."""
    if cards <= 64 and 2 <= last_axis <= 8:
        return last_axis
    if cards <= 4:
        return cards
    return 1 << round(math.log2(math.sqrt(cards) * 1.2))


def _grouped(holding: Holding, size: int) -> Holding:
    firsts = np.arange(0, len(holding.cards), size)
    big = np.iinfo(np.int64).max
    start = np.where(holding.held[:, None], holding.boxes[..., 0], big)
    stop = np.where(holding.held[:, None], holding.boxes[..., 1], 0)
    held = np.logical_or.reduceat(holding.held, firsts)
    boxes = np.stack([np.minimum.reduceat(start, firsts), np.maximum.reduceat(stop, firsts)], axis=-1)
    boxes[~held] = 0
    lasts = np.minimum(firsts + size, len(holding.cards)) - 1
    cards = tuple(f"{a}-{b}" for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True))
    shards = _shard_numbers(boxes, held)
    columns = _columns(len(cards), 1)
    return Holding(holding.shape, cards, boxes, held, shards, columns, size * holding.group)


def group_pair(src: Holding, dst: Holding, max_cards: int) -> tuple[Holding, Holding]:
    """Group both sides until they have `max_cards` rows together, the larger side first."""
    limits = [len(src.cards), len(dst.cards)]
    while sum(limits) > max(max_cards, 2):
        larger = limits.index(max(limits))
        limits[larger] = -(-limits[larger] // 2)
    return src.grouped(limits[0]), dst.grouped(limits[1])


def needed_volumes(src: Holding, dst: Holding) -> NDArray[np.int64]:
    """How many elements each card of `dst` needs that each card of `src` holds.

    Replicas count each: whoever holds an element could give it.

    Returns
    -------
    int64, shape (cards of src, cards of dst)
    """
    # Distinct boxes first: 1,024 replicas of 4 shards are 4 rows, not 1,024.
    src_boxes, dst_boxes = _distinct(src), _distinct(dst)
    table = volumes(intersect_boxes(src_boxes[:, None], dst_boxes[None]))
    table = np.pad(table, ((0, 1), (0, 1)))
    # Row -1, of zeros, is that of the cards that hold nothing.
    out: NDArray[np.int64] = table[np.ix_(src.shards, dst.shards)]
    return out


def _distinct(holding: Holding) -> Boxes:
    count = int(holding.shards.max(initial=-1)) + 1
    out = np.zeros((count, *holding.boxes.shape[1:]), np.int64)
    out[holding.shards[holding.held]] = holding.boxes[holding.held]
    return out
