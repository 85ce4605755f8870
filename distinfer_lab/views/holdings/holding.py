"""Who holds what of one tensor: all that a drawing of cards needs to know.

::

    cards    "0"        "1"        "2"        "3"          one row each
    boxes    [0:4,0:8]  [0:4,8:16] [4:8,0:8]  [4:8,8:16]
    shards    0          1          2          3           equal shards have equal numbers

More cards than a picture can carry are grouped: card "0-7" then stands for eight, its box (each of its boxes, if the
tensor is fused) is the smallest that covers theirs, and the picture says so; where its cards hold different shards
these are distinguished.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...layout import Box, Boxes, Layout, intersect_boxes, nonempty_boxes, volumes

__all__ = ["Holding", "describe_box", "describe_card", "group_pair", "hold", "needed_volumes"]

BIG = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Holding:
    """What every card of a group holds of one tensor.

    Parameters
    ----------
    shape
        The tensor's full shape.
    cards
        One label per row: a rank, or the first and the last rank of a group.
    parts
        int64, shape (n, parts, ndim, 2), in elements: one box a card, or several of a fused
        tensor; a group has the one that covers those of its cards. Some may be empty.
    shards
        int64, shape (n,): the number of what the card holds among the distinct shards, in
        row-major order of their starts; -1 where nothing is held.
    firsts
        int64, shape (n,): the first rank of each row.
    columns
        How many cards a drawing should put in a row.
    lost
        Labels of the cards whose shards are gone.
    shares
        For a group whose cards hold different shards these, as shape (shards, parts, ndim, 2), by its row.
    """

    shape: tuple[int, ...]
    cards: tuple[str, ...]
    parts: NDArray[np.int64]
    shards: NDArray[np.int64]
    firsts: NDArray[np.int64]
    columns: int
    lost: frozenset[str] = frozenset()
    shares: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether each card holds any element, bool, shape (n,)."""
        return np.asarray(self.shards >= 0)

    @property
    def boxes(self) -> Boxes:
        """The smallest box that covers what each card holds, int64, shape (n, ndim, 2); 0 for nothing."""
        return _covers(self.parts)

    @property
    def group(self) -> int:
        """The most ranks that one row stands for."""
        lasts = np.array([_last(card) for card in self.cards], np.int64)
        return int((lasts - self.firsts).max(initial=0)) + 1

    def boxes_of(self, row: int) -> list[Box]:
        """The boxes of one row, without empty ones."""
        return _boxes(self.parts[row])

    def boxes_in(self, row: int) -> list[Box]:
        """The boxes of one row; those of each different shard where it is a group of such."""
        return _boxes(np.concatenate(self.shares.get(row, self.parts[row, None])))

    def describe(self, row: int) -> str:
        """The text for what one row holds.

        Examples
        --------
        >>> from distinfer_lab.layout import Mesh
        >>> hold(Layout(Mesh(tp=2), "- tp"), (4, 6)).describe(1)
        '[0:4, 3:6]'
        """
        if self.cards[row] in self.lost:
            return "lost"
        if not self.held[row]:
            return "nothing"
        words = _describe_boxes(self.boxes_of(row))
        return f"{words} in {len(self.shares[row])} shards" if row in self.shares else words

    def without(self, ranks: Collection[int]) -> "Holding":
        """The same after the loss of some ranks; each card must be a row of its own."""
        gone = np.isin(self.firsts, list(ranks))
        parts, shards = self.parts.copy(), self.shards.copy()
        parts[gone], shards[gone] = 0, -1
        return replace(self, parts=parts, shards=shards, lost=frozenset(map(str, ranks)))

    def grouped(self, limit: int) -> "Holding":
        """The same with at most `limit` rows: runs of equally many ranks become one."""
        if len(self.cards) <= limit:
            return self
        size = 1
        while -(-len(self.cards) // size) > limit:
            size *= 2
        return _grouped(self, size)


def _boxes(parts: Boxes) -> list[Box]:
    rows = parts[nonempty_boxes(parts)].tolist()
    return [Box(tuple(a for a, _ in row), tuple(b for _, b in row)) for row in rows]


def describe_card(label: str) -> str:
    """What a row is called.

    Examples
    --------
    >>> describe_card("3"), describe_card("0-7")
    ('card 3', 'cards 0-7')
    """
    return f"cards {label}" if "-" in label else f"card {label}"


def describe_box(box: Box) -> str:
    """A box as an index: "[0:4, 8:16]"; that of a tensor of no dims is "[]"."""
    return "[" + ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True)) + "]"


def _describe_boxes(boxes: Sequence[Box]) -> str:
    """Boxes that differ in one dim only, as those of a fused tensor: "[0:4 + 8:10, 0:6]"; else each by itself."""
    spans = [list(zip(box.start, box.stop, strict=True)) for box in boxes]
    every = [list(dict.fromkeys(dim)) for dim in zip(*spans, strict=True)]
    if sum(len(dim) > 1 for dim in every) > 1:
        return " + ".join(map(describe_box, boxes))
    return "[" + ", ".join(" + ".join(f"{a}:{b}" for a, b in dim) for dim in every) + "]"


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
    boxes = layout.regions(shape).boxes
    found = boxes.reshape(len(layout.ranks), len(boxes) // len(layout.ranks), layout.ndim, 2)
    total = max(ranks or 0, int(layout.ranks.max()) + 1)
    parts = np.zeros((total, found.shape[1], layout.ndim, 2), np.int64)
    parts[layout.ranks] = found
    named = np.zeros(total, bool)
    named[layout.ranks] = True
    return Holding(
        tuple(int(n) for n in shape),
        tuple(str(r) for r in range(total)),
        parts,
        _shard_numbers(parts, named & nonempty_boxes(parts).any(axis=1)),
        np.arange(total),
        _columns(total, layout.mesh.axis_sizes[-1] if layout.mesh.axis_sizes else 1),
    )


def _covers(parts: NDArray[np.int64]) -> Boxes:
    full = nonempty_boxes(parts)[..., None]
    start = np.where(full, parts[..., 0], BIG).min(axis=1, initial=BIG)
    stop = np.where(full, parts[..., 1], 0).max(axis=1, initial=0)
    out: Boxes = np.stack([start, stop], axis=-1)
    out[~full.any(axis=(1, 2))] = 0
    return out


def _shard_numbers(parts: NDArray[np.int64], held: NDArray[np.bool_]) -> NDArray[np.int64]:
    out = np.full(len(parts), -1, np.int64)
    if held.any():
        rows = parts[held].reshape(int(held.sum()), -1)
        # A column of zeros lets a tensor of no dims be distinguished like any other.
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


def _last(card: str) -> int:
    return int(card.rpartition("-")[2])


def _label(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _grouped(holding: Holding, size: int) -> Holding:
    total = len(holding.cards)
    firsts = list(range(0, total, size))
    stops = [*firsts[1:], total]
    lasts = np.array(stops) - 1
    # Part by part: what lies between the parts of a fused tensor is not the group's.
    full = (nonempty_boxes(holding.parts) & holding.held[:, None])[..., None]
    start = np.minimum.reduceat(np.where(full, holding.parts[..., 0], BIG), firsts)
    stop = np.maximum.reduceat(np.where(full, holding.parts[..., 1], 0), firsts)
    held = np.logical_or.reduceat(holding.held, firsts)
    parts = np.stack([start, stop], axis=-1)
    parts[~np.logical_or.reduceat(full, firsts)[..., 0]] = 0
    single = lasts == firsts
    parts[single] = holding.parts[lasts[single]]
    cards = tuple(_label(first, last) for first, last in zip(firsts, lasts.tolist(), strict=True))
    numbers = _shard_numbers(parts, held)
    columns = _columns(len(cards), 1)
    shares = {}
    for row, (begin, end) in enumerate(zip(firsts, stops, strict=True)):
        numbers_of, at = np.unique(holding.shards[begin:end], return_index=True)
        some = begin + at[numbers_of >= 0]
        if len(some) > 1:
            shares[row] = holding.parts[some]
    return Holding(holding.shape, cards, parts, numbers, np.array(firsts), columns, holding.lost, shares)


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
    # Distinct shards first: 1,024 replicas of 4 shards are 4 rows, not 1,024.
    src_parts, dst_parts = _distinct(src), _distinct(dst)
    table = np.zeros((len(src_parts) + 1, len(dst_parts) + 1), np.int64)
    for a in range(src_parts.shape[1]):
        for b in range(dst_parts.shape[1]):
            table[:-1, :-1] += _common_volumes(src_parts[:, a], dst_parts[:, b])
    # Row -1, of zeros, is that of the cards that hold nothing.
    out: NDArray[np.int64] = table[np.ix_(src.shards, dst.shards)]
    return out


def _common_volumes(a: Boxes, b: Boxes) -> NDArray[np.int64]:
    """Of every box with every other; an empty box of no dims does not occur."""
    return volumes(intersect_boxes(a[:, None], b[None]))


def _distinct(holding: Holding) -> NDArray[np.int64]:
    count = int(holding.shards.max(initial=-1)) + 1
    out = np.zeros((count, *holding.parts.shape[1:]), np.int64)
    out[holding.shards[holding.held]] = holding.parts[holding.held]
    return out
