"""Drafts of a destination: which cut counts, what cannot be, what it costs; against plans made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import Cut, Draft, plan_reshard

GRID = Mesh(dp=2, tp=4)
TP = Mesh(tp=2)
SHAPES = {"layers.0.weight": (96, 16), "layers.1.weight": (96, 16), "bias": (16,), "scale": ()}
SRC = Strategy(
    {
        "layers.0.weight": Layout(GRID, "- tp"),
        "layers.1.weight": Layout(GRID, "dp tp"),
        "bias": Layout(GRID, "-"),
        "scale": Layout(GRID, ""),
    },
    SHAPES,
)
PATTERNS = ["*", "layers.*", "*.weight", "layers.0.weight", "layers.1.weight", "bias", "*[01]*"]


@given(st.lists(st.sampled_from(PATTERNS), max_size=8))
def test_the_last_cut_that_fits_counts(matches):
    """Of names and patterns alike; a cut for the same one is replaced, and stands last."""
    draft, made = Draft(TP), []
    for i, match in enumerate(matches):
        draft = draft.cut(match, f"axis{i}")
        made = [m for m in made if m[0] != match] + [(match, i)]
    fits = {
        "*": list(SHAPES),
        "layers.*": ["layers.0.weight", "layers.1.weight"],
        "*.weight": ["layers.0.weight", "layers.1.weight"],
        "*[01]*": ["layers.0.weight", "layers.1.weight"],
    }
    for name in SHAPES:
        of_name = [i for match, i in made if name in fits.get(match, [match])]
        cut = draft.cut_of(name, 1)
        assert (cut is None) == (not of_name)
        assert cut is None or cut.dims == f"axis{of_name[-1]}"


def test_a_pattern_speaks_of_tensors_of_as_many_dims():
    """A cut of rows for all leaves vectors and numbers alone."""
    found = Draft(TP).cut("*", "tp -").assess(SRC)
    assert found.problems == {}
    assert [name for name, layout in found.strategy.items() if any(layout.dims)] == [
        "layers.0.weight",
        "layers.1.weight",
    ]


def test_what_no_cut_fits_is_whole():
    """And a cut that is taken back leaves its tensors whole again."""
    draft = Draft(TP).cut("bias", "tp")
    assert draft.assess(SRC).strategy["bias"] == Layout(TP, "tp")
    found = draft.without("bias").assess(SRC)
    assert dict(found.strategy) == {name: Layout(TP, ((),) * len(shape)) for name, shape in SHAPES.items()}
    assert found.problems == {}


def test_a_draft_begins_as_the_source_lies():
    """So that its plan moves nothing; a source of several meshes begins whole on as many cards."""
    found = Draft.like(SRC).assess(SRC)
    assert found.strategy == SRC
    assert found.plan.moved_bytes == 0
    every = {"w": "tp[8|4|4]/2 -", "b": "tp(1,0,3,4)", "n": "-/4 -", "whole": "- -"}
    fours = Strategy(
        {name: Layout(GRID, text) for name, text in every.items()},
        {"w": (16, 8), "b": (8,), "n": (8, 8), "whole": (3, 3)},
    )
    assert Draft.like(fours).assess(fours).strategy == fours
    mixed = Strategy({"a": Layout(GRID, "tp"), "b": Layout(TP, "tp")}, {"a": (8,), "b": (8,)})
    assert Draft.like(mixed) == Draft(Mesh(cards=8))
    numbers = Strategy({"a": mixed["b"], "step": Layout.replicated(2, 0)}, {"a": (8,), "step": ()})
    assert Draft.like(numbers) == Draft(TP, (Cut("a", "tp"),))  # what is whole may have any mesh


def test_the_plan_and_the_peak_are_those_of_the_strategy():
    """Moved bytes as the plan has them; a card's peak is what it held, what it gets and the buffer."""
    found = Draft(TP).cut("*.weight", "tp -").assess(SRC, buffer_bytes=1000)
    dst = Strategy({n: Layout(TP, "tp -" if "weight" in n else ((),) * len(s)) for n, s in SHAPES.items()})
    assert found.plan.moved_bytes == plan_reshard(SRC, dst).moved_bytes
    held = 4 * (96 * 16 // 4 + 96 * 16 // 8 + 16 + 1)
    needed = 4 * (2 * 96 * 16 // 2 + 16 + 1)
    assert found.peak_bytes == (held + needed + 1000,) * 2


def test_of_files_a_peak_is_the_share_and_the_buffer():
    """The source is on no card then, and everything is brought."""
    dtypes = dict.fromkeys(SHAPES, np.dtype("float16"))
    found = Draft(TP).assess(SRC, dtypes=dtypes, same_cards=False, buffer_bytes=1000)
    assert found.peak_bytes == (2 * (2 * 96 * 16 + 16 + 1) + 1000,) * 2


def test_every_reason_why_not_is_told():
    """An axis that is not there, parts that do not come out even, dims too many; tensor by tensor."""
    mesh = Mesh(tp=3, ep=5)
    draft = Draft(mesh).cut("layers.0.weight", "dp -").cut("layers.1.weight", "- ep")
    found = draft.cut("bias", "tp -").cut("scale", "").assess(SRC)
    assert (found.strategy, found.plan, found.peak_bytes) == (None, None, ())
    assert list(found.problems) == ["layers.0.weight", "layers.1.weight", "bias"]
    assert "no axis 'dp'; its axes are tp, ep" in found.problems["layers.0.weight"]
    assert (
        "dim 1 (cut by ep) has 16 elements, which 5 parts cannot share" in found.problems["layers.1.weight"]
    )
    assert "a layout of 2 dims for a tensor of 1 dims" in found.problems["bias"]


def test_a_limit_names_the_cards_above_it():
    """With what they need; the strategy is there all the same."""
    found = Draft(TP).cut("*.weight", "tp -").assess(SRC, buffer_bytes=1000, limit_bytes=8000)
    assert list(found.problems) == ["card 0", "card 1"]
    assert (
        f"needs {found.peak_bytes[0]} bytes at its peak, above the limit of 8000" in found.problems["card 0"]
    )
    assert found.strategy is not None
    assert Draft(TP).assess(SRC, limit_bytes=1 << 30).problems == {}


def test_a_shape_that_is_not_known_is_an_error():
    """The text names the tensor."""
    with pytest.raises(LayoutError, match="w: the strategy does not know its shape"):
        Draft(TP).assess(Strategy({"w": Layout(TP, "-")}))


def test_drafts_are_values():
    """A change gives a new one, and equal ones are equal."""
    draft = Draft(TP).cut("w", "tp -")
    assert draft == Draft(TP, (Cut("w", "tp -"),))
    assert draft.on(GRID).cuts == draft.cuts
    assert Draft(TP) == draft.without("w")


def test_patterns_fit_whole_parts_of_names():
    """As in rules: *v_proj.weight is not for qkv_proj.weight, and any text is said by a star after a part."""
    draft = Draft(TP).cut("*v_proj.weight", "tp -").cut("*.*norm.weight", "tp")
    assert draft.cut_of("a.v_proj.weight", 2) is not None
    assert draft.cut_of("a.qkv_proj.weight", 2) is None
    assert draft.cut_of("a.input_layernorm.weight", 1) is not None
