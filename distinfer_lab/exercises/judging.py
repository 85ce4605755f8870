"""What is wrong with an answer, as a sentence: the first thing that a learner should look at.

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

Judge = Callable[[object], str | None]

Range = tuple[int, int]
Held = dict[int, tuple[tuple[Range, ...], ...]]
"""Card -> the boxes that it holds, each a range per dim."""

DIMS = {0: "dim 0 (the rows)", 1: "dim 1 (the columns)"}


def judge_value(wanted: int | tuple[int, ...], slips: Mapping[object, str]) -> Judge:
    """A judge of a number or of a tuple of numbers; `slips` explains likely wrong answers."""

    def judge(answer: object) -> str | None:
        given = _plain(answer)
        if given == wanted:
            return None
        kind = (
            f"{len(wanted)} numbers, as in {(0,) * len(wanted)}" if isinstance(wanted, tuple) else "a number"
        )
        if not (_is_numbers(given, len(wanted)) if isinstance(wanted, tuple) else _is_number(given)):
            return f"{given!r:.80} is not a valid answer: expected {kind}."
        return f"{given!r:.80} is not right: {slips.get(given, 'count again.')}"

    return judge


def _plain(answer: object) -> Any:
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

    def judge(answer: object) -> str | None:
        layout = _layout_or_problem(answer, shape)
        if isinstance(layout, str):
            return layout
        held = _held(layout, shape)
        if held == want:
            return None
        return (
            _cards(held, want) or _cuts(held, want, len(shape)) or _copies(held, want) or _places(held, want)
        )

    return judge


def _layout_or_problem(answer: object, shape: Sequence[int]) -> Layout | str:
    if not isinstance(answer, Layout):
        return f"That is a {type(answer).__name__}; the answer is a dl.Layout."
    try:
        answer.regions(shape)
    except LayoutError as err:
        return f"It does not fit a tensor {list(shape)}: {err}."
    return answer


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
        f"Your layout is for {len(held)} cards; expected {len(want)}: "
        "the number of cards is the product of the sizes of the mesh's axes."
    )


def _cuts(held: Held, want: Held, ndim: int) -> str | None:
    for dim in range(ndim):
        yours, expected = _ranges(held, dim), _ranges(want, dim)
        if yours != expected:
            return (
                f"Along {DIMS.get(dim, f'dim {dim}')} your cards hold {_listed(yours)}; "
                f"expected {_listed(expected)}."
            )
    return None


def _ranges(held: Held, dim: int) -> list[Range]:
    return sorted({box[dim] for boxes in held.values() for box in boxes})


def _listed(ranges: Sequence[Range]) -> str:
    shown = ", ".join(f"{a}:{b}" for a, b in ranges[:8])
    return f"{shown} and {len(ranges) - 8} more ranges" if len(ranges) > 8 else shown


def _copies(held: Held, want: Held) -> str | None:
    yours, expected = Counter(held.values()), Counter(want.values())
    for boxes, count in expected.items():
        if yours[boxes] != count:
            return (
                f"{_indices(boxes)} is on {yours[boxes]} of your cards; expected {count}: "
                "cards that differ only in an axis that shards nothing hold the same."
            )
    return None


def _places(held: Held, want: Held) -> str:
    card = next(card for card in sorted(want) if held[card] != want[card])
    return (
        f"The shards are right, but on the wrong cards: your card {card} holds {_indices(held[card])}; expected "
        f"{_indices(want[card])}. Which axis comes first?"
    )


def _indices(boxes: Sequence[tuple[Range, ...]]) -> str:
    """What one card holds, as indices.

    Examples
    --------
    >>> _indices([((0, 2), (0, 6)), ((4, 6), (0, 6))])
    '[0:2, 0:6] and [4:6, 0:6]'
    """
    return " and ".join("[" + ", ".join(f"{a}:{b}" for a, b in box) + "]" for box in boxes) or "nothing"


def judge_stay(start: Layout, shape: Sequence[int], cards: int) -> Judge:
    """A judge of layouts for the first `cards` cards to which nothing must move from `start`."""

    def judge(answer: object) -> str | None:
        layout = _layout_or_problem(answer, shape)
        if isinstance(layout, str):
            return layout
        if sorted(layout.ranks.tolist()) != list(range(cards)):
            return f"Your layout is for {len(layout.ranks)} cards; expected are cards 0..{cards - 1}."
        plan = plan_reshard(*(Strategy({"tensor": one}, {"tensor": tuple(shape)}) for one in (start, layout)))
        received = plan.needed_bytes - plan.kept_bytes
        if not received.any():
            return None
        card = int(np.flatnonzero(received)[0])
        return (
            f"{plan.moved_bytes} bytes move: card {card} needs {plan.needed_bytes[card]} and holds only "
            f"{plan.kept_bytes[card]} of them already."
        )

    return judge
