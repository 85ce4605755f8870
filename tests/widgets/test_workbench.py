"""The workbench as Python sees it: the four steps, a user's own folder, a page opened again, and its code."""

import threading
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import sources, verify_folder
from distinfer_lab.errors import ArgumentTypeError, CheckpointFileError, ContextError
from distinfer_lab.flow.session import Session
from distinfer_lab.formats import save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.widgets import LayoutView, Workbench
from distinfer_lab.widgets.parts import Later
from tests.transformers import expected, folder_of

SECONDS = 100
ROWS = Layout(Mesh(tp=2), "tp -")


@pytest.fixture
def bench(tmp_path):
    made = Workbench(folder=tmp_path)
    yield made
    made.session.close()


@pytest.fixture
def folder(tmp_path):
    """Somebody's checkpoint: two slices of rows, and the strategy file beside them."""
    for rank in range(2):
        save_slice(tmp_path / f"mine/rank_{rank}/a.ckpt", {"w": np.ones((4, 8), np.float32)}, sync=False)
    write_strategy(tmp_path / "train_strategy.ckpt", Strategy({"w": ROWS}, {"w": (8, 8)}))
    (tmp_path / "other").mkdir()
    return tmp_path


def press_and_wait(panel):
    panel.button.click()
    assert panel.wait(SECONDS).state == "done", panel.outcome.value


def open_and_wait(bench):
    """By the button; until the editor of its layout is there."""
    press_and_wait(bench.opening)
    assert bench.cutting.wait(SECONDS).state == "done"


def test_each_step_says_why_it_is_not_ready(bench):
    """At the beginning only the first can be done; choosing another shows its reason and nothing else."""
    assert (
        repr(bench)
        == "Workbench(Train or bring: next, Lay out: not ready, Reshard: not ready, Predict: not ready)"
    )
    bench.picture.selected = "step:predict"
    assert bench.step == "predict"
    assert "There is no checkpoint yet: train the sample, or open a folder." in bench.titles["predict"].value
    assert bench.boxes["predict"].children == ()
    assert [box.layout.display for box in bench.boxes.values()] == ["none", "none", "none", None]


def test_the_sample_goes_through_all_steps(bench):
    """By its buttons; after each the page goes on by itself, and at the end the code does the same."""
    bench.train_cards.value = 4
    press_and_wait(bench.training)
    assert bench.step == "layout"
    bench.predict_cards.value = 2
    press_and_wait(bench.inferring)
    on, view = bench.layouts.children
    assert isinstance(view, LayoutView)
    assert len([key for key in view.picture.sentences if key.startswith("infer")]) == 2
    on.click()
    assert bench.step == "reshard"
    press_and_wait(bench.moving)
    assert bench.step == "predict"
    bench.predicting.button.click()
    assert bench.predicting.wait(SECONDS).state == "done"
    assert bench.predicting.prediction.comparison.ok
    assert "equal to one card" in bench.predicting.line.value
    assert repr(bench) == "Workbench(Train or bring: done, Lay out: done, Reshard: done, Predict: done)"
    found = {}
    exec(bench.code.value, found)
    np.testing.assert_array_equal(found["prediction"].asnumpy(), bench.predicting.prediction.output.asnumpy())


def test_a_page_follows_what_is_done_by_code(bench):
    """Each step of its session, done elsewhere; the page stays at the step that is looked at."""
    bench.session.train(4)
    assert "Lay out: next" in repr(bench)
    assert "✓ done" in bench.titles["source"].value
    assert "train_sample" in bench.code.value
    bench.step = "layout"
    bench.session.infer_layout(2)
    assert isinstance(bench.layouts.children[-1], LayoutView)
    bench.session.load()
    bench.session.predict()
    assert bench.picture.sentences["step:predict"] == "Predict: done."
    assert bench.step == "layout"
    bench.session.close()
    assert bench.picture.sentences["step:source"] == "Train or bring: next."


def test_a_folder_with_its_net_predicts_or_is_written(tmp_path):
    """A Hugging Face folder: laid out for cards, loaded, and gone on with; or cut by hand."""
    bench = Workbench(folder=tmp_path)
    bench.open_folder(folder_of("gpt2_tiny"))
    bench.predict_cards.value = 2
    press_and_wait(bench.inferring)
    assert isinstance(bench.layouts.children[-1], LayoutView)
    bench.step = "reshard"
    press_and_wait(bench.moving)
    assert bench.step == "predict"
    ids = expected("gpt2_tiny")["input_ids"][0]
    bench.predicting.tokens.value = " ".join(map(str, ids))
    bench.predicting.button.click()
    assert bench.predicting.wait(SECONDS).state == "done", bench.predicting.line.value
    found = bench.session.predicted.prediction.asnumpy()
    greedy = expected("gpt2_tiny")["greedy"][0]
    np.testing.assert_array_equal(found[0], greedy[: found.shape[1]])
    ran = {}
    exec(bench.code.value, ran)
    np.testing.assert_array_equal(ran["prediction"].asnumpy(), found)
    bench.step = "layout"
    bench.goal.value = "Write files"
    bench.cutting.wait(SECONDS)
    bench.use.click()
    assert bench.step == "reshard"
    bench.out.value = str(tmp_path / "out")
    press_and_wait(bench.moving)
    assert verify_folder(tmp_path / "out").ok
    bench.session.close()


def test_ones_own_folder_is_chosen_cut_anew_and_written(folder):
    """Folders are listed with their slices, the strategy is found; the output is whole, and so is the code's."""
    bench = Workbench(folder=folder)
    bench.kind.value = "Open a folder"
    assert [label for label, _ in bench.chooser.inside.options] == ["mine  (2 slice files)", "other"]
    bench.chooser.inside.value = "mine"
    bench.chooser.go_in.click()
    assert bench.chooser.path == str(folder / "mine")
    assert bench.chooser.strategy == str(folder / "train_strategy.ckpt")
    assert "Here: 2 slice files." in bench.chooser.said.value
    open_and_wait(bench)
    assert bench.step == "layout"
    bench.editor.dims.children[0].value = ()
    bench.editor.dims.children[1].value = ("a",)
    bench.use.click()
    assert bench.step == "reshard"
    assert bench.out.value == str(folder / "mine_cut_anew")
    press_and_wait(bench.moving)
    assert verify_folder(folder / "mine_cut_anew").ok
    assert "has no net" in bench.titles["predict"].value
    exec(bench.code.value.replace("mine_cut_anew", "again"), {})
    assert verify_folder(folder / "again").ok
    bench.session.close()


def test_a_folder_of_hugging_face_is_called_so(tmp_path):
    """Its files are no slices, however many they are."""
    (tmp_path / "net").symlink_to(folder_of("llama_gqa_tiny"))
    bench = Workbench(folder=tmp_path)
    assert [label for label, _ in bench.chooser.inside.options] == [
        "net  (a whole checkpoint of Hugging Face)"
    ]
    bench.chooser.path = str(tmp_path / "net")
    assert "Here: a whole checkpoint of Hugging Face." in bench.chooser.said.value


@pytest.mark.parametrize(
    ("field", "text", "keyword"),
    [("save", " 1_10 ", "step='1_10'"), ("pattern", "net-1_*, x*", "file=['net-1_*', 'x*']")],
)
def test_one_save_of_several_is_chosen(tmp_path, field, text, keyword):
    """By its step or by its files; a line says which, and the code has it. Another folder starts over."""
    for rank in range(2):
        for epoch in (1, 2):
            values = {"w": np.full((4, 8), epoch, np.float32)}
            save_slice(tmp_path / f"mine/rank_{rank}/net-{epoch}_10.ckpt", values, sync=False)
    write_strategy(tmp_path / "mine/strategy.ckpt", Strategy({"w": ROWS}, {"w": (8, 8)}))
    bench = Workbench(folder=tmp_path / "mine")
    bench.kind.value = "Open a folder"
    open_and_wait(bench)
    assert bench.session.opened.checkpoint.read(0, "w")[0, 0] == 2
    bench.step = "source"
    getattr(bench.chooser, field).value = text
    open_and_wait(bench)
    found = bench.session.opened.checkpoint
    assert found.read(0, "w")[0, 0] == 1
    assert keyword in bench.code.value
    bench.step = "source"
    assert all(note in bench.found.value for note in found.notes)
    bench.chooser.go_up.click()
    assert (bench.chooser.step, bench.chooser.file) == (None, None)
    bench.session.close()


def test_a_folder_that_is_none_is_told(folder):
    """A path that is not there, a folder without a checkpoint, a damaged file: the line says so; the page stays."""
    bench = Workbench(folder=folder)
    bench.chooser.field.value = str(folder / "nowhere")
    assert "No such file or directory. Check the path." in bench.chooser.said.value
    bench.chooser.field.value = str(folder / "other")
    bench.opening.button.click()
    assert bench.opening.wait(SECONDS).state == "failed"
    assert "no rank_0, rank_1 ... with .ckpt or .safetensors files" in bench.opening.outcome.value
    (folder / "mine/rank_1/a.ckpt").write_bytes(b"no checkpoint")
    bench.chooser.field.value = str(folder / "mine")
    bench.opening.button.click()
    assert bench.opening.wait(SECONDS).state == "failed"
    assert "rank_1/a.ckpt" in bench.opening.outcome.value
    assert (bench.step, bench.session.opened) == ("source", None)
    bench.chooser.go_up.click()
    assert bench.chooser.path == str(folder)


def test_a_page_opened_again_shows_the_same(bench, folder):
    """Another workbench on the same session: all that was done is there, and can be gone on with."""
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    again = Workbench(bench.session, folder=folder)
    assert repr(again) == repr(bench)
    again.step = "layout"
    again.cutting.wait(SECONDS)
    assert again.editor.strategy["w"].boxes((8, 8)).tolist() == ROWS.boxes((8, 8)).tolist()
    again.use.click()
    bench.step = "reshard"
    assert "next" in bench.titles["reshard"].value
    assert bench.moving in bench.boxes["reshard"].children


def test_a_given_group_does_all(folder):
    """Its cards train and predict; no other are made."""
    with CardGroup(2) as cards:
        bench = Workbench(cards=cards, folder=folder)
        press_and_wait(bench.training)
        press_and_wait(bench.inferring)
        assert bench.session.laid_out.model.cards is cards
        assert "on 2 cards" in repr(bench.session.laid_out.layout)
        bench.session.close()


def test_going_back_leaves_nothing_old(bench, folder):
    """After another source is opened, the later steps are made again."""
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    bench.cutting.wait(SECONDS)
    first = bench.editor
    bench.use.click()
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    bench.cutting.wait(SECONDS)
    assert bench.editor is not first
    assert "not ready" in bench.titles["reshard"].value


def test_the_code_is_saved_once(bench, tmp_path):
    """Under a new name; a file that exists is reported."""
    bench.file.value = str(tmp_path / "mine.py")
    bench.keep.click()
    assert (tmp_path / "mine.py").read_text() == bench.code.value
    assert "is written" in bench.kept.value
    bench.keep.click()
    assert "mine.py: File exists" in bench.errors.value
    with pytest.raises(CheckpointFileError, match="File exists"):
        bench.save_code(tmp_path / "mine.py")


def test_words_are_stable_and_misuses_refused(bench):
    """Text and a still picture; the text names the argument."""
    data = bench._repr_mimebundle_()[0]
    assert data["text/plain"] == repr(Workbench())
    assert data["text/html"].startswith("<img")
    with pytest.raises(ArgumentTypeError, match="session='mine' should be a Session"):
        Workbench("mine")
    with CardGroup(1) as cards:
        with pytest.raises(ContextError, match="cards are for a new session"):
            Workbench(Session(), cards=cards)


def test_a_layout_that_is_used_again_is_written_anew(bench, folder):
    """The same layout, once more: a panel that is ready, beside a folder of the checkpoint that was opened."""
    bench.chooser.path = str(folder / "other")
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    bench.cutting.wait(SECONDS)
    bench.use.click()
    assert bench.out.value == str(folder / "mine_cut_anew")
    first = bench.moving
    press_and_wait(first)
    bench.step = "layout"
    bench.use.click()
    assert bench.moving is not first
    assert bench.moving.state == "ready"
    assert first.comm is None  # closed, with what was in it


def test_a_step_that_ends_elsewhere_takes_nobody_along(bench, folder):
    """Who looks at another step by then stays there; a failure leaves what was done, and the page says so."""
    bench.train_cards.value = 4
    bench.training.button.click()
    bench.step = "predict"
    assert bench.training.wait(SECONDS).state == "done"
    assert bench.step == "predict"
    assert "✓ done" in bench.titles["source"].value
    bench.step = "source"
    bench.train_cards.value = 100
    bench.training.button.click()
    assert bench.training.wait(SECONDS).state == "failed"
    assert bench.session.opened is not None
    assert "✓ done" in bench.titles["source"].value


def test_the_step_that_is_shown_keeps_its_mark(bench):
    """Chosen once more, or let go of, its tile stays chosen."""
    bench.picture.selected = "step:layout"
    bench.picture.selected = ""
    assert bench.step == "layout"
    assert bench.picture.selected == "step:layout"


def test_the_code_tells_what_was_really_predicted(bench):
    """With random inputs, these; what someone writes into the field is what is saved."""
    bench.session.train(2)
    bench.session.infer_layout(2)
    bench.session.load()
    bench.step = "predict"
    bench.predicting.kind.value, bench.predicting.seed.value = "Random", 5
    press_and_wait(bench.predicting)
    found = {}
    exec(bench.code.value, found)
    np.testing.assert_array_equal(found["prediction"].asnumpy(), bench.session.predicted.prediction.asnumpy())
    assert "default_rng(5)" in bench.code.value


def test_a_closed_page_is_gone(folder):
    """With its parts and the session that it made; a session that was given goes on."""
    page, session = Workbench(folder=folder), Session()
    page.session.train(2)
    mine, chooser = page.session, page.chooser
    page.close()
    assert (page.comm, chooser.comm, chooser.field.comm) == (None, None, None)
    assert not mine.done("source")
    other = Workbench(session)
    other.close()
    session.open(folder / "mine", folder / "train_strategy.ckpt")
    assert session.done("source")


def test_a_folder_that_says_its_layout_itself_takes_none_from_elsewhere(bench, folder):
    """One that was written here has its manifest; a path may begin at home."""
    bench.chooser.path = str(folder / "mine")
    assert bench.chooser.strategy == str(folder / "train_strategy.ckpt")
    open_and_wait(bench)
    bench.use.click()
    press_and_wait(bench.moving)
    bench.chooser.path = str(folder / "mine_cut_anew")
    assert bench.chooser.strategy == ""
    bench.chooser.path = "~"
    assert bench.chooser.path == str(Path.home())


def test_the_strategy_for_as_many_ranks_is_chosen(bench, folder):
    """Of several beside the slices, though another one comes first by its name."""
    write_strategy(folder / "a_strategy.ckpt", Strategy({"w": Layout.replicated(4, 2)}, {"w": (8, 8)}))
    bench.chooser.path = str(folder / "mine")
    assert bench.chooser.strategy == str(folder / "train_strategy.ckpt")


def test_an_earlier_output_is_replaced_where_that_is_asked_for(bench, folder):
    """Else it is refused, and nothing is said to be kept; nowhere is no place."""
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    assert bench.cutting.wait(SECONDS).state == "done"
    bench.use.click()
    press_and_wait(bench.moving)
    bench.moving.button.click()
    assert bench.moving.wait(SECONDS).state == "failed"
    assert "exists" in bench.moving.outcome.value
    assert "kept" not in bench.moving.line.value
    assert bench.moving.lanes.children == ()
    bench.overwrite.value = True
    press_and_wait(bench.moving)
    assert "overwrite=True" in bench.code.value
    bench.out.value = " "
    bench.moving.button.click()
    assert bench.moving.wait(SECONDS).state == "failed"
    assert "choose a new folder to write to" in bench.moving.outcome.value


def test_opening_is_stopped_between_two_files(bench, folder, monkeypatch):
    """It runs beside the page; cancelled, it leaves the page as it was, and can be done once more."""
    began, goes_on = threading.Event(), threading.Event()
    as_always = sources.open_files

    def slow(path, **options):
        began.set()
        assert goes_on.wait(SECONDS)
        return as_always(path, **options)

    monkeypatch.setattr(sources, "open_files", slow)
    bench.chooser.path = str(folder / "mine")
    bench.opening.button.click()
    assert began.wait(SECONDS)
    assert bench.opening.state == "running"
    bench.opening.stop.click()
    goes_on.set()
    assert bench.opening.wait(SECONDS).state == "cancelled"
    assert "cancelled: 1 of 2 files were opened, and are closed again" in bench.opening.outcome.value
    assert (bench.step, bench.session.opened) == ("source", None)
    open_and_wait(bench)
    assert bench.step == "layout"


def test_a_plan_that_cannot_be_made_says_why(bench, folder, monkeypatch):
    """Where its picture would stand; one that is closed while it is made is gone when it comes."""
    bench.open_folder(folder / "mine", folder / "train_strategy.ckpt")
    bench.cutting.wait(SECONDS)
    monkeypatch.setattr(bench.session, "plan", lambda: bench.session.opened.checkpoint.plan("tp=3"))
    bench.use.click()
    assert bench.planning.wait(SECONDS).state == "failed"
    assert 'role="alert"' in bench.planning.children[0].value
    goes_on, part = threading.Event(), ipywidgets.HTML()
    later = Later("Something is being made", lambda: goes_on.wait(SECONDS) and (part,))
    assert "Something is being made ..." in later.children[0].value
    later.close()
    goes_on.set()
    assert later.wait(SECONDS).state == "done"
    assert part.comm is None
