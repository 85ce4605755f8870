"""The bytes between cards as live pictures: what lights up with what, and what is said of it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...display import bytes_in_words
from ...views.moves.runs import grouped_traffic

__all__ = ["MOST_SHOWN", "moves_of"]

MOST_SHOWN = 16
"""Cards a side of a live matrix; above, runs of cards share a row or a column."""
NAMED = 6

Rows = NDArray[np.int64]


def moves_of(
    matrix: Rows, placement: Sequence[int] | None, limit: int
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """For the keys of `traffic_svg` and `bands_svg`: a sentence each, and the keys that light up with it.

    Parameters
    ----------
    matrix
        Bytes, int64, shape (source cards, destination cards).
    placement
        The source card on which each destination card lives.
    limit
        How many rows and columns the picture has at most.

    Examples
    --------
    >>> sentences, partners = moves_of(np.array([[0, 8], [4, 0]]), None, 16)
    >>> sentences["move:0>1"], partners["infer:1"]
    ('Card 0 gives 8 B to card 1.', ('move:0>1', 'train:0'))
    """
    rows, columns, cells = grouped_traffic(matrix, limit)
    stays = list(placement) if placement is not None and cells.shape == matrix.shape else None
    sentences: dict[str, str] = {}
    partners: dict[str, tuple[str, ...]] = {}
    for side, verb, other, labels, others, table in (
        ("train", "gives", "infer", rows, columns, cells),
        ("infer", "gets", "train", columns, rows, cells.T),
    ):
        for label, amounts in zip(labels, table.tolist(), strict=True):
            there = [(others[j], n) for j, n in enumerate(amounts) if n]
            sentences[f"{side}:{label}"] = _of_card(label, verb, there)
            moves = [f"move:{label}>{o}" if side == "train" else f"move:{o}>{label}" for o, _ in there]
            partners[f"{side}:{label}"] = (*moves, *(f"{other}:{o}" for o, _ in there))
    for i, j in np.argwhere(cells).tolist():
        key = f"move:{rows[i]}>{columns[j]}"
        amount = bytes_in_words(int(cells[i, j]))
        kept = stays is not None and stays[j] == i
        sentences[key] = (
            f"{_card(rows[i])} keeps {amount} as card {columns[j]}: nothing is sent."
            if kept
            else f"{_card(rows[i])} {_give(rows[i])} {amount} to {_card(columns[j]).lower()}."
        )
        partners[key] = (f"train:{rows[i]}", f"infer:{columns[j]}")
    return sentences, partners


def _card(label: str) -> str:
    return f"Cards {label}" if "-" in label else f"Card {label}"


def _give(label: str) -> str:
    return "give" if "-" in label else "gives"


def _of_card(label: str, verb: str, there: Sequence[tuple[str, int]]) -> str:
    verb = verb.removesuffix("s") if "-" in label else verb
    if not there:
        return f"{_card(label)} {verb} nothing."
    way = "to" if verb.startswith("give") else "from"
    named = ", ".join(f"{name} ({bytes_in_words(n)})" for name, n in there[:NAMED])
    rest = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
    total = bytes_in_words(sum(n for _, n in there))
    return f"{_card(label)} {verb} {total}: {way} {named}{rest}."
