"""What is wrong with an answer, in words: the first thing that a learner should look at.

A judge takes an answer and gives None if it is right. Layouts are compared by what every card
holds, not by how they are written: the names of the axes are the learner's own.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import LayoutError
from ..layout import Layout, Strategy
from ..reshard import plan_reshard

__all__ = ["Judge", "judge_layout", "judge_stay", "judge_value"]

Judge = Callable[[Any], str | None]

Range = tuple[int, int]
Held = dict[int, tuple[tuple[Range, ...], ...]]
"""Card -> the boxes that it holds, each a range per dim."""

DIMS = {0: "dim 0 (the rows)", 1: "dim 1 (the columns)"}


def judge_value(wanted: Any, slips: Mapping[Any, str]) -> Judge:
    """A judge of a number or of a tuple of numbers; `slips` says of likely wrong answers what they mistake."""

    def judge(answer: Any) -> str | None:
        given = _plain(answer)
        if given == wanted:
            return None
        kind = (
            f"{len(wanted)} numbers, as in {(0,) * len(wanted)}" if isinstance(wanted, tuple) else "a number"
        )
        if not (_is_numbers(given, len(wanted)) if isinstance(wanted, tuple) else _is_number(given)):
            return f"{given!r:.80} is no answer here: give {kind}."
        return f"{given!r:.80} is not it: {slips.get(given, 'count once more.')}"

    return judge


def _plain(answer: Any) -> Any:
    """Numbers and arrays of numpy, and lists, as Python's own numbers and tuples."""
    if isinstance(answer, np.ndarray | np.generic):
        answer = answer.tolist()
    return tuple(map(_plain, answer)) if isinstance(answer, list | tuple) else answer


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numbers(value: Any, count: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(map(_is_number, value))


def judge_layout(wanted: Layout, shape: Sequence[int]) -> Judge:
    """A judge of layouts: every card must hold of a tensor of this shape what it holds under `wanted`."""
    want = _held(wanted, shape)

    def judge(answer: Any) -> str | None:
        problem = _not_a_layout(answer, shape)
        if problem is not None:
            return problem
        held = _held(answer, shape)
        if held == want:
            return None
        return (
            _cards(held, want) or _cuts(held, want, len(shape)) or _copies(held, want) or _places(held, want)
        )

    return judge


def _not_a_layout(answer: Any, shape: Sequence[int]) -> str | None:
    if not isinstance(answer, Layout):
        return f"That is a {type(answer).__name__}; the answer is a dl.Layout."
    try:
        answer.regions(shape)
    except LayoutError as err:
        return f"It does not fit a tensor {list(shape)}: {err}."
    return None


def _held(layout: Layout, shape: Sequence[int]) -> Held:
    found: dict[int, list[tuple[Range, ...]]] = {}
    regions = layout.regions(shape)
    for rank, box in zip(regions.ranks.tolist(), regions.boxes.tolist(), strict=True):
        ranges = tuple((start, stop) for start, stop in box)
        found.setdefault(rank, []).extend([ranges] if all(a < b for a, b in ranges) else [])
    return {rank: tuple(sorted(boxes)) for rank, boxes in found.items()}


def _cards(held: Held, want: Held) -> str | None:
    if held.keys() == want.keys():
        return None
    return (
        f"Your layout is for {len(held)} cards, asked are {len(want)}: "
        "the sizes of the mesh's axes, multiplied, are the number of cards."
    )


def _cuts(held: Held, want: Held, ndim: int) -> str | None:
    for dim in range(ndim):
        yours, asked = _ranges(held, dim), _ranges(want, dim)
        if yours != asked:
            return (
                f"Of {DIMS.get(dim, f'dim {dim}')} your cards hold {_listed(yours)}; "
                f"asked is {_listed(asked)}."
            )
    return None


def _ranges(held: Held, dim: int) -> list[Range]:
    return sorted({box[dim] for boxes in held.values() for box in boxes})


def _listed(ranges: Sequence[Range]) -> str:
    shown = ", ".join(f"{a}:{b}" for a, b in ranges[:8])
    return f"{shown} and {len(ranges) - 8} more ranges" if len(ranges) > 8 else shown


def _copies(held: Held, want: Held) -> str | None:
    yours, asked = Counter(held.values()), Counter(want.values())
    for boxes, count in asked.items():
        if yours[boxes] != count:
            return (
                f"{_told(boxes)} lies on {yours[boxes]} of your cards, asked are {count}: "
                "cards that differ only in an axis which cuts nothing hold the same."
            )
    return None


def _places(held: Held, want: Held) -> str:
    card = next(card for card in sorted(want) if held[card] != want[card])
    return (
        f"The pieces are right, but lie on other cards: your card {card} holds {_told(held[card])}, asked is "
        f"{_told(want[card])}. Which axis comes first?"
    )


def _told(boxes: Sequence[tuple[Range, ...]]) -> str:
    """What one card holds, as indices.

    Examples
    --------
    >>> _told([((0, 2), (0, 6)), ((4, 6), (0, 6))])
    '[0:2, 0:6] and [4:6, 0:6]'
    """
    return " and ".join("[" + ", ".join(f"{a}:{b}" for a, b in box) + "]" for box in boxes) or "nothing"


def judge_stay(start: Layout, shape: Sequence[int], cards: int) -> Judge:
    """A judge of layouts for the first `cards` cards to which nothing must move from `start`."""

    def judge(answer: Any) -> str | None:
        problem = _not_a_layout(answer, shape)
        if problem is not None:
            return problem
        if sorted(answer.ranks.tolist()) != list(range(cards)):
            return f"Your layout is for {len(answer.ranks)} cards, asked are cards 0..{cards - 1}."
        plan = plan_reshard(
            *(Strategy({"tensor": layout}, {"tensor": tuple(shape)}) for layout in (start, answer))
        )
        received = plan.needed_bytes - plan.kept_bytes
        if not received.any():
            return None
        card = int(np.flatnonzero(received)[0])
        return (
            f"{plan.moved_bytes} bytes move: card {card} needs {plan.needed_bytes[card]} and holds only "
            f"{plan.kept_bytes[card]} of them already."
        )

    return judge
