"""Exercises: right answers pass however they are written, wrong ones get a sentence, nothing raises."""

import re
import xml.etree.ElementTree as ET
from base64 import b64decode

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab import exercises
from distinfer_lab.exercises import EXERCISES, check, solution


def layout(dims, sizes=None, **mesh):
    return dl.Layout(dl.Mesh(**mesh), dims, **(sizes or {}))


def held(name, card):
    """The elements that a card holds under an exercise's solution, by their number in the whole tensor."""
    exercise = EXERCISES[name]
    whole = np.arange(np.prod(exercise.shape)).reshape(exercise.shape)
    regions = exercise.solution.regions(exercise.shape)
    boxes = regions.boxes[regions.ranks == card]
    return np.sort(np.concatenate([whole[tuple(slice(a, b) for a, b in box)].ravel() for box in boxes]))


def whole(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


WANTED = {
    "rows": [whole(8, 6)[:4], whole(8, 6)[4:]],
    "columns": np.split(whole(96, 16), 4, axis=1),
    "copies": np.split(whole(96, 16), 4, axis=1) * 2,
    "grid": [part for half in np.split(whole(8, 12), 2) for part in np.split(half, 3, axis=1)],
    "order": [whole(8, 6)[2 * i : 2 * i + 2] for i in (0, 2, 1, 3)],
    "sizes": np.split(whole(10, 6), [5, 8]),
    "fused": [whole(16, 6)[np.r_[0:4, 8:10, 12:14]], whole(16, 6)[np.r_[4:8, 10:12, 14:16]]],
    "optimizer": [
        c[48 * half : 48 * half + 48] for half in (0, 1) for c in np.split(whole(96, 16), 4, axis=1)
    ],
}


@pytest.mark.parametrize("name", WANTED)
def test_a_solution_is_what_its_task_says(name):
    """Card by card, as numpy cuts the tensor."""
    cards = EXERCISES[name].solution.ranks.tolist()
    assert cards == list(range(len(WANTED[name])))
    for card, part in enumerate(WANTED[name]):
        np.testing.assert_array_equal(held(name, card), np.sort(part.ravel()))


def test_the_numbers_are_right():
    """As counted by plain numpy."""
    assert solution("coordinates") == tuple(int(i) for i in np.unravel_index(6, (2, 4)))
    assert solution("bytes") == np.split(np.zeros((96, 16), np.float32), 4, axis=1)[0].nbytes
    rows = np.arange(10)
    assert solution("uneven") == tuple(len(rows[3 * i : 3 * i + 3]) for i in range(4))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_passes_and_no_answer_is_open(name):
    """As a value and as a function; without one the task and a hint are shown."""
    found = check(name, solution(name))
    assert found.right, found
    assert check(name, lambda: solution(name)) == found
    for answer in (..., None, lambda: ...):
        empty = check(name, answer)
        assert (empty.state, empty.message, empty.hint) == (
            "open",
            EXERCISES[name].task,
            EXERCISES[name].hint,
        )


def test_any_way_to_write_a_right_answer_passes():
    """Names of axes, more axes, explicit sizes: what counts is what each card holds."""
    assert check("columns", layout("- a+b", a=2, b=2)).right
    assert check("copies", layout("- fast+faster", slow=2, fast=2, faster=2)).right
    assert check("rows", layout("q -", {"sizes": ((4, 4), None)}, q=2)).right
    assert check("uneven", np.array([3, 3, 3, 1])).right
    assert check("uneven", [3, 3, 3, 1]).right
    assert check("bytes", np.int64(1536)).right
    assert check("stay", layout("- y+x", x=2, y=2)).right is False
    assert check("stay", layout("- x+y", x=2, y=2)).right


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("columns", 5, "That is a int; the answer is a dl.Layout."),
        ("columns", layout("tp", tp=4), "It does not fit a tensor [96, 16]: a layout of 1 dims"),
        ("columns", layout("- tp", tp=8), "Your layout is for 8 cards; expected 4"),
        ("columns", layout("tp -", tp=4), "Along dim 0 (the rows) your cards hold 0:24, 24:48"),
        (
            "grid",
            layout("y -", y=2, x=3),
            "Along dim 1 (the columns) your cards hold 0:12; expected 0:4, 4:8",
        ),
        ("copies", layout("- tp", tp=4, dp=2), "your card 1 holds [0:96, 0:4]; expected [0:96, 4:8]"),
        ("order", layout("x+y -", x=2, y=2), "your card 1 holds [2:4, 0:6]; expected [4:6, 0:6]"),
        (
            "fused",
            layout("tp -", tp=2),
            "Along dim 0 (the rows) your cards hold 0:8, 8:16; expected 0:4, 4:8",
        ),
        (
            "optimizer",
            layout("- tp", dp=2, tp=4),
            "(the rows) your cards hold 0:96; expected 0:48, 48:96",
        ),
        ("sizes", layout("tp -", tp=3), "dim 0 (cut by tp) has 10 elements, which 3 parts"),
        ("stay", layout("tp -", tp=4), "4608 bytes move: card 0 needs 1536 and holds only 384"),
        ("stay", layout("- tp", tp=8), "for 8 cards; expected are cards 0..3"),
        ("bytes", 6144, "that is the whole tensor"),
        ("bytes", 7, "7 is not right: count again."),
        ("bytes", "many", "'many' is not a valid answer: expected a number."),
        ("bytes", True, "True is not a valid answer"),
        ("coordinates", (2, 1), "(2, 1) is not right: that is (tp, dp)"),
        ("coordinates", 6, "expected 2 numbers, as in (0, 0)"),
        ("coordinates", {"dp": 1}, "expected 2 numbers"),
        ("uneven", (3, 3, 2, 2), "numpy's array_split"),
        ("colums", 1, "There is no such exercise; the exercises are coordinates, rows, columns"),
        ("rows", lambda: 1 // 0, "Your answer raised an error. ZeroDivisionError"),
        ("rows", lambda: layout("tp tp", tp=2), "axis 'tp' is used more than once"),
    ],
)
def test_a_wrong_answer_gets_a_sentence(name, answer, words):
    """The first thing to look at; with a hint, and without a traceback."""
    found = check(name, answer)
    assert found.state == "wrong"
    assert words in found.message
    assert repr(found).startswith(f"{name}: Not yet. ")
    assert "no picture" not in found._repr_mimebundle_()["text/plain"]


def test_as_many_holders_as_expected():
    """The right ranges, but unlike many copies of them."""
    uneven = dl.Layout(dl.Mesh(a=8), "- a(4,0,4,0,4,0,4,0)")
    assert "is on 1 of your cards; expected 2" in check("copies", uneven).message


@pytest.mark.parametrize("name", EXERCISES)
def test_a_verdict_shows_pictures_that_need_no_trust(name):
    """What is expected while it is open, what was given when it is right; small, and without a live SVG."""
    drawn = isinstance(solution(name), dl.Layout)
    for answer, count in ((..., drawn and name != "stay"), (solution(name), drawn)):
        html = check(name, answer)._repr_mimebundle_()["text/html"]
        assert html.count("<img alt=") == count
        assert "<svg" not in html
        assert len(html) < 50_000


@pytest.mark.parametrize("name", WANTED)
def test_the_goal_does_not_give_the_layout_away(name):
    """It shows what each card holds, and says of no axis what it cuts."""
    html = check(name)._repr_mimebundle_()["text/html"]
    ((alt, data),) = re.findall('alt="([^"]*)" [^>]*src="[^"]*base64,([^"]*)"', html)
    said = [alt, *ET.fromstring(b64decode(data)).itertext()]
    assert {f"card {card}" for card in range(len(WANTED[name]))} <= set(said)
    assert not [words for words in said if "Mesh" in words or "cut" in words or "copies" in words]


def test_the_exercises_are_those_of_the_notebook():
    """In its order; each is asked there once."""
    from pathlib import Path

    import nbformat

    path = Path(__file__).parents[2] / "notebooks/01_layouts.ipynb"
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    asked = [line for source in cells for line in source.splitlines() if line.startswith("exercises.check(")]
    assert [line.split('"')[1] for line in asked] == list(EXERCISES)
    assert exercises.check is check
