"""The exercises of the notebook `01_layouts`, in its order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..layout import Layout, Mesh
from .judging import Judge, judge_layout, judge_stay, judge_value

__all__ = ["EXERCISES", "Exercise"]


Answer = Layout | int | tuple[int, ...]


@dataclass(frozen=True)
class Exercise:
    """A question that can tell what is wrong with an answer to it.

    Parameters
    ----------
    name
        By which it is asked for.
    task
        What is asked, in a sentence.
    hint
        Where to look.
    solution
        A right answer; there may be others.
    judge
        Tells what is wrong with an answer.
    shape
        The tensor's, where the answer is a layout.
    """

    name: str
    task: str
    hint: str
    solution: Answer
    judge: Judge
    shape: tuple[int, ...] | None = None


def _layout(name: str, shape: Sequence[int], solution: Layout, task: str, hint: str) -> Exercise:
    return Exercise(name, task, hint, solution, judge_layout(solution, shape), tuple(shape))


def _value(
    name: str, solution: int | tuple[int, ...], task: str, hint: str, slips: Mapping[object, str]
) -> Exercise:
    return Exercise(name, task, hint, solution, judge_value(solution, slips))


TRAINING = Layout(Mesh(dp=2, tp=4), "- tp")
"""Four slices of columns, each on two cards: the layout that the exercises come back to."""

WEIGHT = (96, 16)

_ALL = (
    _value(
        "coordinates",
        (1, 2),
        "Cards are counted row by row through Mesh(dp=2, tp=4). Where is card 6? Answer (dp, tp), from 0.",
        "The last axis is the fastest: cards 0, 1, 2, 3 differ in tp only.",
        {
            (2, 1): "that is (tp, dp); the mesh names dp first.",
            (0, 3): "that would be so if dp were the fast axis; the last axis is.",
            (1, 3): "cards and coordinates are counted from 0.",
            (2, 3): "cards and coordinates are counted from 0.",
        },
    ),
    _layout(
        "rows",
        (8, 6),
        Layout(Mesh(tp=2), "tp -"),
        "Two cards: the upper half of the rows of a tensor [8, 6] on card 0, the lower half on card 1.",
        'A layout is a mesh and, for each dim, the axes that cut it or "-": Layout(mesh, "tp -") cuts dim 0.',
    ),
    _layout(
        "columns",
        WEIGHT,
        Layout(Mesh(tp=4), "- tp"),
        "Four cards: each holds all rows and 4 of the 16 columns of a tensor [96, 16].",
        'The rows are not cut, so the first word is "-"; the axis is the second.',
    ),
    _layout(
        "copies",
        WEIGHT,
        TRAINING,
        "Eight cards: four slices of columns of a tensor [96, 16], on cards 0..3, and the same again on 4..7.",
        "A mesh of two axes, of which only the last cuts. Which one must be the fast one?",
    ),
    _value(
        "bytes",
        1536,
        "How many bytes of that tensor does one of the eight cards hold? It is float32.",
        "How many elements has a slice, and how many bytes has a float32?",
        {
            384: "that is the number of elements; each has 4 bytes.",
            768: "that is an eighth, but there are four slices: two cards hold the same.",
            6144: "that is the whole tensor.",
            12288: "that is what all eight cards hold together.",
        },
    ),
    _layout(
        "grid",
        (8, 12),
        Layout(Mesh(y=2, x=3), "y x"),
        "Six cards: the rows of a tensor [8, 12] in two, its columns in three; card 1 lies to the right of card 0.",
        "Each dim has an axis of its own, and the fast one runs to the right.",
    ),
    _layout(
        "order",
        (8, 6),
        Layout(Mesh(x=2, y=2), "y+x -"),
        "Four cards cut the rows of a tensor [8, 6]. From the top: card 0, card 2, card 1, card 3.",
        'Take a mesh of two axes and let both cut the rows, as in "a+b -"; the axis named first counts most.',
    ),
    _value(
        "uneven",
        (3, 3, 3, 1),
        'Ten rows on four cards, cut with split="torch_chunk". How many rows does each card get?',
        "Every card gets ceil(10 / 4) rows, until none are left.",
        {
            (
                3,
                3,
                2,
                2,
            ): "that is numpy's array_split; torch gives ceil(10 / 4) to each until none are left.",
            (2, 2, 2, 4): "the last card gets what is left, not more than the others.",
            (4, 4, 2, 0): "ceil(10 / 4) is 3.",
        },
    ),
    _layout(
        "sizes",
        (10, 6),
        Layout(Mesh(tp=3), "tp(5,3,2) -"),
        "Three cards of unlike memory: 5, 3 and 2 of the ten rows of a tensor [10, 6].",
        'The sizes of the pieces stand in parentheses behind the axis: "tp(4,4,2) -".',
    ),
    _layout(
        "fused",
        (16, 6),
        Layout(Mesh(tp=2), "tp[8|4|4] -"),
        "Query (8 rows), key (4) and value (4) are one tensor [16, 6]. Two cards: each holds half of each.",
        'The sizes of the parts that are cut by themselves stand in brackets behind the axis: "tp[6|6|6] -".',
    ),
    _layout(
        "optimizer",
        WEIGHT,
        Layout(Mesh(dp=2, tp=4), "-/2 tp"),
        "Eight cards, columns in four, but no element twice: the two holders of a slice share its rows.",
        'That is what a parallel optimizer does with its states: "/4" behind dim 0 says among how many.',
    ),
    Exercise(
        "stay",
        "A tensor [96, 16] lies on eight cards as in the exercise copies. Give a layout for cards 0..3 to which "
        "nothing has to move.",
        "Which cards hold all four slices between them already?",
        Layout(Mesh(tp=4), "- tp"),
        judge_stay(TRAINING, WEIGHT, 4),
        WEIGHT,
    ),
)

EXERCISES: Mapping[str, Exercise] = {exercise.name: exercise for exercise in _ALL}
"""By name."""
