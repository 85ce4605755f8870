"""What lights up with what in a matrix or in bands, and the sentence of each part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...display import format_bytes
from .runs import CARDS, Rows, Sides, Window, called, doing, grouped_traffic

__all__ = ["MoveLinks", "link_moves"]

NAMED = 8
"""How many partners a sentence names before it counts the rest."""


@dataclass(frozen=True, eq=False)
class MoveLinks:
    """The heads and the moves of a picture of bytes, by the keys of its parts.

    Parameters
    ----------
    src, dst
        The labels of both sides, as they are drawn.
    cells
        Bytes, int64, shape (rows, columns).
    moved
        Of these, what does not stay on its card.
    sides
        What gives and what gets.
    """

    src: tuple[str, ...]
    dst: tuple[str, ...]
    cells: Rows
    moved: Rows
    sides: Sides = CARDS

    def partners(self) -> dict[str, tuple[str, ...]]:
        """For each key those that belong to it: a card's moves and who is at their other end.

        Examples
        --------
        >>> link_moves(np.array([[5, 0], [7, 1]])).partners()["infer:0"]
        ('move:0>0', 'train:0', 'move:1>0', 'train:1')
        """
        out: dict[str, tuple[str, ...]] = {f"train:{a}": () for a in self.src}
        out |= {f"infer:{b}": () for b in self.dst}
        for i, j in np.argwhere(self.cells).tolist():
            give, get = f"train:{self.src[i]}", f"infer:{self.dst[j]}"
            move = f"move:{self.src[i]}>{self.dst[j]}"
            out[give] += (move, get)
            out[get] += (move, give)
            out[move] = (give, get)
        return out

    def sentences(self) -> dict[str, str]:
        """For each key its bytes, and from or to whom."""
        sender, receiver = self.sides.sender, self.sides.receiver
        out = {
            f"train:{a}": _sentence(doing(sender, a, "gives"), "to", self.dst, self.cells[i], self.moved[i])
            for i, a in enumerate(self.src)
        }
        out |= {
            f"infer:{b}": _sentence(
                doing(receiver, b, "gets"), "from", self.src, self.cells[:, j], self.moved[:, j]
            )
            for j, b in enumerate(self.dst)
        }
        for i, j in np.argwhere(self.cells).tolist():
            words = format_bytes(int(self.cells[i, j]))
            way = f"from {called(sender, self.src[i])} to {called(receiver, self.dst[j])}"
            if not self.moved[i, j]:
                way = f"that stays on {called(receiver, self.dst[j])}"
            out[f"move:{self.src[i]}>{self.dst[j]}"] = f"{words} {way}."
        return out


def link_moves(
    matrix: NDArray[np.int64],
    *,
    placement: Sequence[int] | None = None,
    max_cells: int = 16,
    window: Window | None = None,
    sides: Sides = CARDS,
) -> MoveLinks:
    """The links of `traffic_svg` (or of `bands_svg`, with its `max_cards`), which takes the same."""
    shown = grouped_traffic(matrix, max_cells, window, placement)
    return MoveLinks(tuple(shown.rows), tuple(shown.columns), shown.cells, shown.moved, sides)


def _sentence(does: str, way: str, names: tuple[str, ...], row: Rows, moved: Rows) -> str:
    start = does.capitalize()
    most = np.argsort(-row, kind="stable")[: int((row > 0).sum())].tolist()
    if not most:
        return f"{start} nothing."
    named = ", ".join(f"{names[j]} ({format_bytes(int(row[j]))})" for j in most[:NAMED])
    rest = f" and {len(most) - NAMED:,} more" if len(most) > NAMED else ""
    stays = int(row.sum() - moved.sum())
    kept = f" {format_bytes(stays)} of it stays where it is." if stays else ""
    return f"{start} {format_bytes(int(row.sum()))}: {way} {named}{rest}.{kept}"
