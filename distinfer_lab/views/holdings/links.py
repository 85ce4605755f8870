"""Which cards belong together: who holds the elements that another card needs.

::

    train:0 ---- infer:0        Hovering either end lights up the other. Many cards share one
    train:1 --/                 set of partners (all replicas do), so sets are stored once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...layout import Layout
from ..drawing import STORED_CARDS, shorten
from .holding import Holding, describe_card, group_pair, hold, needed_volumes

__all__ = ["Links", "link_cards", "partner_sets"]

NAMED = 8
"""How many partners a sentence names before it counts the rest."""


@dataclass(frozen=True, eq=False)
class Links:
    """The cards of both sides of a picture and what flows between them.

    Parameters
    ----------
    src, dst
        What the training and the inference cards hold, grouped as they are drawn.
    elements
        int64, shape (cards of src, cards of dst): the elements that the one holds and the
        other needs; for groups the sum over their cards.
    """

    src: Holding
    dst: Holding
    elements: NDArray[np.int64]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all tiles, training first."""
        return (*_keys("train", self.src), *_keys("infer", self.dst))

    def partners(self) -> dict[str, tuple[str, ...]]:
        """For each key the keys of the cards that it gives to or takes from.

        Examples
        --------
        >>> from distinfer_lab.layout import Mesh
        >>> rows = Layout(Mesh(tp=2), "tp -")
        >>> link_cards(rows, Layout.replicated(1, 2), (4, 6)).partners()["infer:0"]
        ('train:0', 'train:1')
        """
        left, right = np.array(_keys("train", self.src)), np.array(_keys("infer", self.dst))
        gives = {str(k): tuple(right[row].tolist()) for k, row in zip(left, self.elements > 0, strict=True)}
        takes = {str(k): tuple(left[col].tolist()) for k, col in zip(right, self.elements.T > 0, strict=True)}
        return gives | takes

    def sentences(self) -> dict[str, str]:
        """For each key a sentence: what its card holds, and its partners."""
        gives = _sentences(("Training", "holds", "needed by", "inference"), self.src, self.dst, self.elements)
        takes = _sentences(("Inference", "needs", "held by", "training"), self.dst, self.src, self.elements.T)
        return dict(zip(self.keys, [*gives, *takes], strict=True))


def link_cards(
    train: Layout,
    infer: Layout,
    shape: Sequence[int],
    *,
    ranks: tuple[int | None, int | None] = (None, None),
    max_cards: int = STORED_CARDS,
) -> Links:
    """Intersect every training card's box with every inference card's.

    Parameters
    ----------
    train, infer, shape, ranks
        As for `cutmap_svg`: the keys are those of its tiles.
    max_cards
        Above so many on both sides together, cards are grouped.

    Raises
    ------
    LayoutError
        If a layout cannot cut the shape.
    """
    src, dst = hold(train, shape, ranks[0]), hold(infer, shape, ranks[1])
    drawn = group_pair(src, dst, max_cards)
    elements = needed_volumes(src, dst)
    elements = np.add.reduceat(elements, drawn[0].firsts, axis=0)
    elements = np.add.reduceat(elements, drawn[1].firsts, axis=1)
    return Links(*drawn, elements)


def partner_sets(
    partners: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """The same, every distinct set stored once: the number of each key's set, and the sets.

    Examples
    --------
    >>> partner_sets({"a": ("x",), "b": ("x",), "x": ("a", "b")})
    ({'a': 0, 'b': 0, 'x': 1}, [('x',), ('a', 'b')])
    """
    numbers: dict[tuple[str, ...], int] = {}
    of_key = {key: numbers.setdefault(keys, len(numbers)) for key, keys in partners.items()}
    return of_key, list(numbers)


def _keys(side: str, holding: Holding) -> list[str]:
    return [f"{side}:{card}" for card in holding.cards]


def _sentences(
    words: tuple[str, str, str, str], holding: Holding, other: Holding, elements: NDArray[np.int64]
) -> list[str]:
    side, has, from_or_to, other_side = words
    out = []
    for row, card in enumerate(holding.cards):
        verb = has.removesuffix("s") if "-" in card else has
        what = f"{side} {describe_card(card)} {verb} {shorten(holding.describe(row), 120)}"
        partners = np.flatnonzero(elements[row])
        if len(partners):
            named = ", ".join(f"{other.cards[j]} ({elements[row, j]:,})" for j in partners[:NAMED].tolist())
            rest = f" and {len(partners) - NAMED:,} more" if len(partners) > NAMED else ""
            plural = "cards" if len(partners) > 1 or other.group > 1 else "card"
            what += f"; {from_or_to} {other_side} {plural} {named}{rest} (elements in brackets)"
        out.append(what + ".")
    return out
