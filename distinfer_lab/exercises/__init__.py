"""Exercises that check themselves: each takes an answer and reports what is wrong with it.

::

    def answer():
        return dl.Layout(dl.Mesh(tp=2), "tp -")

    exercises.check("rows", answer)         rows: Right. Every card holds what it should.

No answer raises: an error within it is reported like any other mistake.
"""

from ..errors import DistinferError, listed
from ..layout import Layout
from .lessons import EXERCISES, Answer, Exercise
from .verdict import Verdict

__all__ = ["EXERCISES", "Exercise", "Verdict", "check", "solution"]


def check(name: str, answer: object = ...) -> Verdict:
    """Say whether an answer is right, and if not, what to look at.

    Parameters
    ----------
    name
        The exercise's.
    answer
        The answer, or a function without parameters that gives it; `...` stands for none yet.

    Returns
    -------
    Verdict
        Never an error, whatever the answer is.

    Examples
    --------
    >>> check("bytes", 384)
    bytes: Not yet. 384 is not right: that is the number of elements; each has 4 bytes.
    Hint: How many elements has a slice, and how many bytes has a float32?
    """
    exercise = EXERCISES.get(name)
    if exercise is None:
        known = listed(EXERCISES, most=len(EXERCISES))
        return Verdict(str(name), "wrong", f"There is no such exercise; the exercises are {known}.")
    expected = exercise.solution if isinstance(exercise.solution, Layout) else None
    shape = exercise.shape or ()
    try:
        given = answer() if callable(answer) else answer
        if given is ... or given is None:
            return Verdict(name, "open", exercise.task, exercise.hint, _shown(exercise), None, shape)
        problem = exercise.judge(given)
    except Exception as err:
        return Verdict(name, "wrong", _error_message(err), exercise.hint, _shown(exercise), None, shape)
    drawn = given if isinstance(given, Layout) and _fits(given, shape) else None
    if problem is None:
        message = f"{given} is right." if expected is None else "Every card holds what it should."
        return Verdict(name, "right", message, "", None, drawn, shape)
    return Verdict(name, "wrong", problem, exercise.hint, _shown(exercise), drawn, shape)


def solution(name: str) -> Answer:
    """A right answer to an exercise.

    Raises
    ------
    KeyError
        If there is no exercise of that name.
    """
    return EXERCISES[name].solution


def _shown(exercise: Exercise) -> Layout | None:
    """The goal, where a picture of it does not give the answer away."""
    return exercise.solution if isinstance(exercise.solution, Layout) and exercise.name != "stay" else None


def _fits(layout: Layout, shape: tuple[int, ...]) -> bool:
    try:
        layout.regions(shape)
    except DistinferError:
        return False
    return True


def _error_message(err: Exception) -> str:
    kind = "" if isinstance(err, DistinferError) else f"{type(err).__name__}: "
    return f"Your answer raised an error. {kind}{err}"
