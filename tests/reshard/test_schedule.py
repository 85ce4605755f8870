"""A plan in steps, and its warnings: against the plan's own traffic, and plans made to be bad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ReshardError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import plan_reshard, plan_steps, warnings_of
from distinfer_lab.reshard.schedule import MOST_SCHEDULED

from ..strategies import layout_pairs


def tp(cards, *dims):
    return Layout(Mesh(tp=cards), dims)


@given(layout_pairs(), st.integers(1, 9), st.integers(1, 12))
def test_the_steps_add_up_to_the_plan(pair, tensors, most):
    """Each tensor is in one step, in order; the bytes of all steps are the plan's traffic."""
    src, dst, shape = pair
    names = [f"w{i}" for i in range(tensors)]
    plan = plan_reshard(
        Strategy(dict.fromkeys(names, src), dict.fromkeys(names, shape)), Strategy(dict.fromkeys(names, dst))
    )
    steps = plan_steps(plan, most)
    assert [name for step in steps for name in step.names] == names
    assert len(steps) <= most + 1
    np.testing.assert_array_equal(sum(step.traffic for step in steps), plan.traffic)
    assert sum(step.nbytes for step in steps) == plan.traffic.sum()


def test_too_many_tensors_are_refused():
    """With the number, and the way out."""
    names = [f"w{i}" for i in range(MOST_SCHEDULED + 1)]
    src = Strategy(dict.fromkeys(names, tp(1, ())), dict.fromkeys(names, (1,)))
    with pytest.raises(ReshardError, match="5001 tensors are too many .* select="):
        plan_steps(plan_reshard(src, None))


def plan_of(src, dst, shape):
    return plan_reshard(Strategy({"w": src}, {"w": shape}), Strategy({"w": dst}))


def test_a_plan_that_is_well_has_no_warnings():
    """Rows to rows on the same cards: all move alike, in long runs."""
    assert warnings_of(plan_of(tp(4, ("tp",), ()), tp(2, ("tp",), ()), (1024, 1024))) == ()


def test_short_runs_are_told():
    """Columns of 4 bytes from rows: as many runs as elements of a column."""
    found = warnings_of(plan_of(tp(4, ("tp",), ()), tp(2, (), ("tp",)), (4096, 4)))
    assert "The bytes are in 8,192 runs of 8 B on average: many short reads." in found


def test_uneven_loads_and_empty_cards_are_told():
    """One card sends nearly all, one gets nearly all, one gets nothing."""
    src = Layout(Mesh(tp=4), "tp(60000,20,20,20)")
    dst = Layout(Mesh(tp=3), "tp(0,60030,30)")
    found = warnings_of(plan_of(src, dst, (60060,)))
    assert any(text.startswith("Card 0 sends 234.4 KiB, ") for text in found)
    assert any(text.startswith("Card 1 ends with 234.5 KiB, 2.0 times the mean") for text in found)
    assert "1 of 3 destination cards get nothing." in found
