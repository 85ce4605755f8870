"""The layout view as Python sees it: what is paired, linked, selected, shown and refused."""

import numpy as np
import pytest
from hypothesis import given, settings

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh, Strategy, intersect_boxes, nonempty_boxes
from distinfer_lab.layout.dialects.mindspore import layout_tuple
from distinfer_lab.views.drawing import themed
from distinfer_lab.widgets import LayoutView, Picture
from tests.strategies import layouts_with_shape

GRID = Layout(Mesh(dp=2, tp=4), "dp tp")
COLUMNS = Layout(Mesh(tp=4), "- tp")
BIAS = Layout(Mesh(tp=4), "tp")
TRAIN = Strategy({"fc1.weight": GRID, "fc1.bias": BIAS, "only.train": BIAS}, {"fc1.weight": (96, 16)}, 8)
INFER = Strategy({"fc1.weight": COLUMNS, "fc1.bias": Layout.replicated(4, 1)}, {"fc1.bias": (96,)})


@settings(max_examples=20)
@given(layouts_with_shape())
def test_the_selected_cards_partners_are_those_whose_boxes_meet(case):
    """Selecting any card gives the cards of the other side whose boxes meet its own."""
    train, shape = case
    infer = Layout.replicated(3, len(shape))
    view = LayoutView(train, infer, shape=shape)
    meets = nonempty_boxes(intersect_boxes(train.boxes(shape)[:, None], infer.boxes(shape)[None]))
    for row, rank in enumerate(train.ranks):
        view.selected = f"train:{rank}"
        assert view.linked == tuple(f"infer:{j}" for j in np.flatnonzero(meets[row]))


def test_parameters_are_those_of_both_strategies():
    """The view starts with the first common parameter; setting another redraws and keeps the choice."""
    view = LayoutView(TRAIN, INFER)
    assert view.parameter == "fc1.weight"
    view.selected = "train:7"
    view.hover = "infer:1"
    assert view.linked == ("infer:3",)
    view.parameter = "fc1.bias"
    assert (view.selected, view.hover) == ("train:7", "")
    assert view.linked == ()
    view.selected = "infer:2"
    assert view.linked == ("train:0", "train:1", "train:2", "train:3")
    assert 'data-key="train:7"' not in view.picture.svg
    assert "Training cards 4-7 hold none of it" in view.picture.svg


def test_the_list_of_parameters_and_the_view_stay_in_step():
    """Choosing in the list, narrowed or not, changes the view, and the other way round."""
    view = LayoutView(TRAIN, INFER)
    choice = view.children[0]
    choice.search.value = "bias"
    choice.listed.value = "fc1.bias"
    assert (view.parameter, view.picture.still) == ("fc1.bias", view.static)
    view.parameter = "fc1.weight"
    assert choice.value == "fc1.weight"


def test_a_selection_that_the_next_parameter_lacks_is_dropped():
    """With fewer cards the chosen one may be gone; then none is chosen."""
    picture = LayoutView(GRID, COLUMNS, shape=(96, 16)).picture
    picture.selected = "train:7"
    small = LayoutView(COLUMNS, None, shape=(96, 16)).picture
    picture.show(small.still, small.sentences, {})
    assert picture.selected == ""


def test_one_card_is_the_default_inference():
    """Without an inference strategy one card needs everything."""
    view = LayoutView(TRAIN, None, shape={"fc1.bias": (96,), "only.train": (4,)})
    assert view.picture.sentences["infer:0"].startswith("Inference card 0 needs [0:96, 0:16]")


def test_mindspore_tuples_are_a_strategy():
    """A mapping of layout tuples is taken as it is."""
    tuples = {"fc1.weight": layout_tuple(COLUMNS, (96, 16))}
    view = LayoutView({"fc1.weight": layout_tuple(GRID, (96, 16))}, tuples)
    view.selected = "infer:0"
    assert view.linked == ("train:0", "train:4")


def test_the_mimebundle_has_words_and_a_still_picture():
    """Text is the same each time, without an address; the picture needs neither trust nor kernel."""
    bundles = [LayoutView(TRAIN, INFER)._repr_mimebundle_()[0] for _ in range(2)]
    assert bundles[0]["text/plain"] == bundles[1]["text/plain"]
    assert bundles[0]["text/html"] == bundles[1]["text/html"]
    assert bundles[0]["text/plain"] == (
        "LayoutView(fc1.weight [96, 16], training cards 8 (dp tp) -> inference cards 4 (- tp); 2 parameters)"
    )
    assert bundles[0]["text/html"].startswith('<img alt="fc1.weight')
    assert "application/vnd.jupyter.widget-view+json" in bundles[0]


def test_single_cards_live_and_a_crowd_in_the_notebook():
    """1,024 training cards are single tiles in the page, and colours of a crowd in what is stored."""
    grid = Layout(Mesh(dp=32, tp=32), "dp tp")
    view = LayoutView(grid, Layout(Mesh(tp=256), "- tp"), shape=(64, 256))
    assert view.picture.svg.count("data-key") == 1280
    assert len(view._repr_mimebundle_()[0]["text/html"]) < 50_000
    assert 'data-key="train:' not in view.static.svg


def test_the_picture_saves_itself(tmp_path):
    """What is saved is the picture that is shown."""
    view = LayoutView(GRID, COLUMNS, shape=(96, 16))
    view.save(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text() == themed(view.picture.svg)


def test_a_picture_shows_itself_without_a_kernel():
    """The generic widget, too, has words and a still picture."""
    picture = LayoutView(GRID, COLUMNS, shape=(96, 16)).picture
    assert isinstance(picture, Picture)
    data, _ = picture._repr_mimebundle_()
    assert data["text/plain"].startswith("Picture(tensor [96, 16], training cards 8")
    assert data["text/html"].startswith("<img")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((GRID, INFER), ArgumentTypeError, "train is a Layout, but infer is a Strategy"),
        ((TRAIN, COLUMNS), ArgumentTypeError, "infer is a Layout; give a Strategy"),
        (
            (TRAIN, "strategy.ckpt"),
            ArgumentTypeError,
            "infer='strategy.ckpt' should be a Layout, a Strategy",
        ),
        ((GRID, COLUMNS), LayoutError, r"a layout alone has no shape; give shape="),
        ((TRAIN, Strategy({"x": BIAS})), LayoutError, "inference names x: no parameter is in both"),
        ((Strategy({"b": BIAS}), Strategy({"b": BIAS})), LayoutError, "b: neither strategy has its shape"),
    ],
)
def test_sides_that_do_not_fit_are_refused(arguments, error, words):
    """The text says which side, and what to give."""
    with pytest.raises(error, match=words):
        LayoutView(*arguments)


def test_one_shape_for_many_parameters_is_refused():
    """A shape without a name cannot be for two parameters."""
    with pytest.raises(LayoutError, match=r"shape=\(4,\) for 2 parameters"):
        LayoutView(TRAIN, INFER, shape=(4,))


def test_a_shape_that_does_not_fit_names_its_parameter():
    """The parameter is named when its layout cannot cut it."""
    with pytest.raises(LayoutError, match=r"fc1\.bias: dim 0 \(cut by tp\) has 90 elements"):
        LayoutView(TRAIN, INFER, shape={"fc1.bias": (90,)})


def test_cards_and_parameters_that_are_not_there_are_refused():
    """A key or a name that is not in the picture is answered with those that are."""
    view = LayoutView(TRAIN, INFER)
    with pytest.raises(
        LayoutError, match="'train:8': the picture has no such card; its keys go from 'train:0'"
    ):
        view.selected = "train:8"
    with pytest.raises(LayoutError, match="parameter='x' is not in both strategies"):
        view.parameter = "x"
    with pytest.raises(LayoutError, match=r"parameter='only\.train' is not in both"):
        LayoutView(TRAIN, INFER, parameter="only.train")


def test_fused_parts_are_shown_too():
    """Two strategies of a fused tensor: every card has a part of each."""
    fused = Layout(Mesh(tp=2), "tp[8|8|8] -")
    view = LayoutView(Strategy({"qkv": fused}, {"qkv": (24, 4)}), None)
    view.selected = "train:1"
    assert view.linked == ("infer:0",)
    with pytest.raises(LayoutError, match="qkv: "):
        LayoutView(Strategy({"qkv": fused}, {"qkv": (23, 4)}), None)
