"""MindSpore's notation, there and back, and its tuples of 4 to 12 items."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.layout.dialects.mindspore import (
    MindSporeLayout,
    from_layout,
    layout_from_tuple,
    layout_tuple,
    strategy_from_tuples,
    to_layout,
)
from tests.strategies import layouts_with_shape

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
TUPLES = [
    (case["name"], name, items)
    for case in json.loads((ORACLE / "infer_layout" / "layouts.json").read_text())
    for name, items in case.get("layout", {}).items()
]


@given(layouts_with_shape())
def test_a_layout_survives_the_notation(case):
    """To MindSpore's numbers and back, every rank holds the same box."""
    layout, shape = case
    stage = layout.first_ranks[0] // layout.mesh.size
    again = to_layout(from_layout(layout), stages=(stage,))
    np.testing.assert_array_equal(again.boxes(shape), layout.boxes(shape))
    np.testing.assert_array_equal(again.ranks, layout.ranks)


@given(layouts_with_shape(), st.integers(7, 12))
def test_a_layout_survives_its_tuple(case, count):
    """The tuple says the whole layout, but for uneven sizes and stages, which it cannot say."""
    layout, shape = case
    layout = Layout(layout.mesh, layout.dims, optimizer_shards=layout.optimizer_shards if count == 12 else 1)
    shape = layout.full_shape({0: [2] * layout.ndim})
    again, full = layout_from_tuple(layout_tuple(layout, shape)[:count])
    assert full == shape
    np.testing.assert_array_equal(again.boxes(shape), layout.boxes(shape))


@pytest.mark.parametrize(("case", "name", "items"), TUPLES, ids=[f"{c}-{n}" for c, n, _ in TUPLES])
def test_real_tuples_give_the_shard_that_they_state(case, name, items):
    """For every tuple that MindSpore gave, the shard shape that follows is the one it wrote beside."""
    layout, shape = layout_from_tuple(items)
    assert list(shape) == items[6]
    assert list(layout.shard_shape(shape)) == items[2]


def test_four_items_are_enough():
    """The full shape follows from the slice."""
    layout, shape = layout_from_tuple(([2, 4], [-1, 0], [96, 4], 0))
    assert shape == (96, 16)
    assert layout == Layout(Mesh(a=2, b=4), "- b")


def test_axes_written_side_by_side_are_taken_as_one_dim():
    """MindSpore flattens [[0, 1], [-1]] to [0, 1, -1]; with the full shape it can be told apart."""
    items = [[2, 2, 2], [0, 1, -1], [16, 32], 0, True, "", [64, 32]]
    layout, _ = layout_from_tuple(items)
    assert layout.dims == (("c", "b"), ())


@pytest.mark.parametrize(
    ("items", "error", "text"),
    [
        (([2, 4], [-1, 0]), LayoutError, "this one has 2"),
        (([2, 4], [-1, 0], [96, 4], 3), LayoutError, "field_size=3"),
        (([2, 4], [-1, 5], [96, 4], 0), LayoutError, "has 5, but dev_matrix"),
        (([2, 4], [0], [96, 4], 0), LayoutError, "1 entries for a slice of 2 dims"),
        (("ab", [0], [96], 0), ArgumentTypeError, "dev_matrix is a list of integers"),
        (([0, 4], [0], [96], 0), LayoutError, "size 0"),
        (7, ArgumentTypeError, "not 7"),
        (([4], [0], [96], 0, True, "opt-group"), LayoutError, "without its size"),
    ],
)
def test_a_tuple_that_says_no_layout_is_refused(items, error, text):
    """The error names the parameter and the item at fault."""
    with pytest.raises(error, match=f"w: .*{text}"):
        strategy_from_tuples({"w": items})


@pytest.mark.parametrize("layouts", [[1], {1: ([2], [0], [4], 0)}])
def test_a_predict_strategy_is_a_mapping_by_name(layouts):
    """Neither a list nor a key that is no string is taken."""
    with pytest.raises(ArgumentTypeError, match="predict strategy"):
        strategy_from_tuples(layouts)


def test_field_slices_are_refused():
    """A field slice cannot be served, and is said so rather than ignored."""
    with pytest.raises(LayoutError, match="field=4"):
        to_layout(MindSporeLayout((4,), (0, -1), field=4))
