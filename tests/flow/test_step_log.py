"""The steps of a session: in order, whole or not at all, and what they hold is closed with them."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ContextError
from distinfer_lab.flow.step_log import StepLog
from distinfer_lab.flow.steps import LaidOut, Loaded, Opened, Predicted

KINDS = (Opened, LaidOut, Loaded, Predicted)
FIELDS = {Opened: {"checkpoint": None, "folder": ""}, LaidOut: {"layout": None}}
REST = {Loaded: {"result": None}, Predicted: {"prediction": None}}


def step(number, closed=None):
    """The step of this number; when it is closed, `closed` gets its number."""
    kind = KINDS[number]
    resources = ExitStack()
    resources.callback((closed if closed is not None else []).append, number)
    return kind(code=(), resources=resources, **(FIELDS | REST)[kind])


@given(st.lists(st.integers(0, 3), max_size=12))
def test_a_step_takes_the_place_of_itself_and_of_all_after_it(numbers):
    """Against a list: what is forgotten is closed once, the last first; no version comes twice."""
    log, closed, known, expected, versions = StepLog(), [], [], [], {0}
    for wanted in numbers:
        number = min(wanted, len(known))
        expected += reversed(known[number:])
        known = [*known[:number], number]
        log.enter(step(number, closed), log.version)
        assert [type(one) for one in log.done] == [KINDS[n] for n in known]
        assert closed == expected
        assert log.done[-1].version not in versions
        versions.add(log.done[-1].version)
    log.clear()
    assert log.done == ()
    assert closed == expected + known[::-1]


def test_a_step_that_began_before_another_one_ended_is_refused_and_closed():
    """What is in the log stays, and no change is reported."""
    log, closed, told = StepLog(), [], []
    begun = log.version
    log.enter(step(0, closed), begun)
    kept = log.done
    log.watch(lambda: told.append(log.version))
    with pytest.raises(ContextError, match="another step was completed in the meantime"):
        log.enter(step(0, closed), begun)
    assert (log.done, closed, told) == (kept, [0], [])
