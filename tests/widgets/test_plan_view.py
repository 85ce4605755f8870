"""The plan view as Python sees it: what is shown, what lights up, how it goes with a layout view."""

import numpy as np
import pytest
from hypothesis import given, settings

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import plan_reshard
from distinfer_lab.widgets import LayoutView, PlanView
from tests.strategies import layout_pairs

GRID = Mesh(dp=2, tp=4)
COLUMNS = Layout(GRID, "- tp")
ROWS = Layout(Mesh(tp=4), "tp -")
SHAPES = {"b.weight": (96, 16), "a.weight": (192, 32), "c.weight": (96, 16)}
SRC = Strategy(dict.fromkeys(SHAPES, COLUMNS), SHAPES)
DST = Strategy(dict.fromkeys(SHAPES, ROWS), SHAPES)


@pytest.fixture
def view():
    return PlanView(plan_reshard(SRC, DST))


def keys_of(view):
    return set(view.picture.sentences)


@settings(max_examples=25)
@given(layout_pairs())
def test_what_lights_up_are_the_cards_between_which_bytes_flow(pair):
    """For every card and move, against the pieces of the plan."""
    src, dst, shape = pair
    plan = plan_reshard(Strategy({"w": src}, {"w": shape}), Strategy({"w": dst}))
    view = PlanView(plan)
    if max(plan.src_count, plan.dst_count) > 16:
        return
    transfers, nbytes = plan["w"].transfers, plan["w"].nbytes
    moves = {
        (a, b)
        for a, b, n in zip(
            transfers.src_rank.tolist(), transfers.dst_rank.tolist(), nbytes.tolist(), strict=True
        )
        if n
    }
    for rank in range(plan.src_count):
        view.selected = f"train:{rank}"
        assert {k for k in view.linked if k[0] == "i"} == {f"infer:{b}" for a, b in moves if a == rank}
        assert {k for k in view.linked if k[0] == "m"} == {f"move:{a}>{b}" for a, b in moves if a == rank}
    for a, b in moves:
        view.selected = f"move:{a}>{b}"
        assert view.linked == (f"train:{a}", f"infer:{b}")
        assert (
            f'data-key="move:{a}&gt;{b}"' in view.picture.svg
            or f'data-key="move:{a}>{b}"' in view.picture.svg
        )


def test_all_tensors_one_or_a_step(view):
    """The matrix is that of what is shown; the steps add up to the plan."""
    np.testing.assert_array_equal(view.traffic, view.plan.traffic)
    view.parameter = "a.weight"
    assert view.traffic.sum() == 192 * 32 * 4
    view.parameter = ""
    total = 0
    for step in range(1, view.scrubber.max + 1):
        view.scrubber.value = step
        total = total + view.traffic
    np.testing.assert_array_equal(total, view.plan.traffic)
    assert "step 3 of 3: c.weight" in view.static.alt
    assert "6 KiB in this step; with it 36 KiB of 36 KiB are done" in view.at.value
    view.step = 0
    assert "all steps together" in view.at.value


def test_the_list_is_sorted_and_searched(view):
    """As planned, by name, the largest first; a search narrows, All tensors lets go."""
    listed = lambda: [name for _, name in view.choice.listed.options]  # noqa: E731
    assert listed() == ["b.weight", "a.weight", "c.weight"]
    view.order.value = "by name"
    assert listed() == ["a.weight", "b.weight", "c.weight"]
    view.order.value = "largest first"
    assert listed()[0] == "a.weight"
    view.choice.search.value = "c."
    view.choice.listed.value = "c.weight"
    assert view.parameter == "c.weight"
    view.every.click()
    assert (view.parameter, view.choice.value) == ("", "")


def a_move(view):
    """Some sender and receiver that are different cards."""
    return next((a, b) for a, b in np.argwhere(view.traffic).tolist() if a != b)


def test_bands_have_the_same_keys(view):
    """What was selected in the matrix is selected in the bands."""
    sender, receiver = a_move(view)
    view.selected = f"move:{sender}>{receiver}"
    before = keys_of(view)
    view.kind.value = "Bands"
    assert keys_of(view) == before
    assert view.selected == f"move:{sender}>{receiver}"
    assert view.picture.sentences[view.selected].endswith(f" from card {sender} to card {receiver}.")


def test_bytes_that_stay_are_marked(view):
    """With a sign of their own; each part says its bytes."""
    kept = 4 * (2 * 24 * 4 + 48 * 8)
    assert view.plan.traffic[1, 1] == kept
    assert view.picture.sentences["move:1>1"] == "2.2 KiB that stays on card 1."
    assert "= 2.2 KiB" in view.picture.svg


def test_it_keeps_in_step_with_a_layout_view(view):
    """Tensor and card in both directions; a chosen move chooses the card that gives."""
    layouts = LayoutView(SRC, DST)
    view.link(layouts)
    view.parameter = "a.weight"
    assert layouts.parameter == "a.weight"
    layouts.parameter = "c.weight"
    assert view.parameter == "c.weight"
    view.selected = "infer:2"
    assert layouts.selected == "infer:2"
    assert "train:2" in view.linked
    layouts.selected = "train:2"
    assert view.selected == "train:2"
    sender, receiver = a_move(view)
    view.selected = f"move:{sender}>{receiver}"
    assert (view.selected, layouts.selected) == (f"move:{sender}>{receiver}", f"train:{sender}")
    view.selected = ""
    assert layouts.selected == ""


def test_large_groups_share_rows(view):
    """1,024 cards a side: runs of cards, and what is stored is small."""
    src = Layout(Mesh(tp=1024), "tp -")
    dst = Layout(Mesh(tp=256), "- tp")
    crowd = PlanView(plan_reshard(Strategy({"w": src}, {"w": (1024, 256)}), Strategy({"w": dst})))
    crowd.selected = "train:0-63"
    assert crowd.picture.sentences["train:0-63"].startswith("Cards 0-63 give 64 KiB: to 0-15 (4 KiB), ")
    assert len(crowd._repr_mimebundle_()[0]["text/html"]) < 50_000


def test_a_group_is_opened_down_to_its_cards():
    """By button, side by side, and back; what is no group of these cards is named."""
    src = Layout(Mesh(tp=1024), "tp -")
    dst = Layout(Mesh(tp=64), "- tp")
    view = PlanView(plan_reshard(Strategy({"w": src}, {"w": (1024, 256)}), Strategy({"w": dst})))
    view.selected = "move:64-127>4-7"
    view.open.click()
    assert view.opened == "move:64-127>4-7"
    assert "cards 64-127 to 4-7 of 1,024 x 64, neighbours summed" in view.picture.svg
    view.selected = "train:64-67"
    view.open.click()
    assert view.opened == "move:64-67>4-7"
    cards = {f"train:{card}" for card in range(64, 68)} | {f"infer:{card}" for card in range(4, 8)}
    assert {key for key in view.picture.sentences if key[0] != "m"} == cards
    assert view.picture.sentences["move:65>6"] == "16 B from card 65 to card 6."
    view.selected = "train:65"
    assert view.open.disabled
    view.kind.value = "Bands"
    assert "cards 64-67 to 4-7 of 1,024 x 64" in view.picture.svg
    view.back.click()
    assert (view.opened, view.selected) == ("", "move:64-127>4-7")
    assert "train:960-1023" in view.picture.sentences
    view.opened = "train:0-15"
    view.back.click()
    assert (view.opened, view.selected) == ("", "")
    for key in ("train:1000-1024", "move:0-7", "infer:x", "card:0-7", "train:7-0"):
        with pytest.raises(LayoutError, match=f"opened='{key}' is no group of 1024 training and 64"):
            view.opened = key


def test_an_empty_plan_says_so():
    """No tensors: a sentence with the way out, and no steps to go through."""
    empty = PlanView(plan_reshard(Strategy({}, {}), Strategy({})))
    assert "This plan has no tensors" in empty.summary.value
    assert empty.scrubber.disabled


def test_warnings_stand_above():
    """What should be known before it is run."""
    src = Layout(Mesh(tp=4), "tp -")
    dst = Layout(Mesh(tp=2), "- tp")
    view = PlanView(plan_reshard(Strategy({"w": src}, {"w": (4096, 4)}), Strategy({"w": dst})))
    assert view.warnings
    assert "Before you run it" in view.summary.value
    assert "many short reads" in view.summary.value


def test_words_and_picture_are_the_same_each_time(view):
    """Text without an address; the still picture needs no kernel."""
    data = view._repr_mimebundle_()[0]
    assert data["text/plain"] == "PlanView(3 tensors, 8 -> 4 cards, moved 27 KiB, least possible 27 KiB)"
    assert data["text/html"] == PlanView(plan_reshard(SRC, DST))._repr_mimebundle_()[0]["text/html"]


def test_what_is_not_there_is_refused(view):
    """The text names the value and what there is."""
    with pytest.raises(LayoutError, match="parameter='x' is not a tensor of the plan"):
        view.parameter = "x"
    with pytest.raises(LayoutError, match=r"step=9: the schedule has steps 0\.\.3"):
        view.step = 9
    with pytest.raises(LayoutError, match="'move:9>9': the picture has no such card"):
        view.selected = "move:9>9"
    with pytest.raises(ArgumentTypeError, match="plan is a Strategy, and should be a ReshardPlan"):
        PlanView(SRC)


def test_choosing_a_tensor_leaves_the_step(view):
    """The scrubber was at a step, which shows all its tensors."""
    view.step = 1
    view.parameter = next(iter(view.plan))
    assert (view.step, view.scrubber.value) == (0, 0)
    view.step = 1
    assert view.parameter == view.choice.value == ""  # nor does a step leave the tensor's mark
    assert view.step == 1
    view.every.click()
    assert (view.step, view.parameter) == (0, "")


def test_a_late_word_of_the_page_changes_nothing(view):
    """A card that the picture has no more, as the page may send it."""
    view.selected = "infer:0"
    view.picture.set_state({"selected": "infer:77", "hover": "train:77"})
    assert (view.picture.selected, view.selected, view.hover) == ("infer:0", "infer:0", "")
    view.picture.set_state({"selected": "train:1"})
    assert view.selected == "train:1"
