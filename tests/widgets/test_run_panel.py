"""The run panel as Python sees it: states, progress, cancel, resume, proof, refusals."""

import threading

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.errors import ArgumentTypeError, ContextError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.widgets import RunPanel

SECONDS = 60
NAMES = [f"layers.{i}.weight" for i in range(6)]
SHAPE = (64, 48)
ROWS = Layout(Mesh(tp=4), "tp -")
COLUMNS = Layout(Mesh(tp=2), "- tp")
SRC = Strategy(dict.fromkeys(NAMES, ROWS), dict.fromkeys(NAMES, SHAPE))
DST = Strategy(dict.fromkeys(NAMES, COLUMNS), dict.fromkeys(NAMES, SHAPE))


def whole(name):
    return np.random.default_rng(NAMES.index(name)).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def plan(tmp_path):
    """Six tensors, from four cards to two; it is planned, and its files are open."""
    for rank in range(4):
        values = {name: whole(name)[16 * rank :][:16].copy() for name in NAMES}
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values, sync=False)
    with open_checkpoint(tmp_path / "src", SRC) as checkpoint:
        yield checkpoint.plan(DST)


def test_a_plan_is_run_and_proved(plan, tmp_path):
    """The output is right, the bar full, and the proof has the figures of the result."""
    panel = RunPanel(plan, tmp_path / "out")
    assert (panel.state, panel.stop.disabled, panel.verify.disabled) == ("ready", True, True)
    assert panel.bar.layout.display == "none"
    panel.button.click()
    assert panel.wait(SECONDS).state == "done"
    assert (panel.bar.value, panel.bar.bar_style, panel.button.disabled) == (1000, "success", False)
    assert panel.bar.layout.display is None
    words = panel.outcome.value
    assert "12 of 12 shards" in words
    assert f"{panel.result.read_bytes / (6 * 64 * 48 * 4):.2f} times the 72 KiB needed" in words
    assert f"at most {panel.result.predicted_peak_bytes >> 20} MiB were predicted" in words
    assert [lane.children[1].value for lane in panel.lanes.children] == ["36 KiB of 36 KiB"] * 2
    with open_checkpoint(tmp_path / "out") as found:
        np.testing.assert_array_equal(found.read(1, NAMES[2]), whole(NAMES[2])[:, 24:])


def test_verify_reads_all_again(plan, tmp_path):
    """Its button is there when there is something to verify; damage is reported."""
    panel = RunPanel(plan, tmp_path / "out")
    panel.run()
    panel.wait(SECONDS)
    file = tmp_path / "out/rank_0/checkpoint_0.ckpt"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    panel.verify.click()
    panel.wait(SECONDS)
    assert not panel.verification.ok
    assert len(panel.result.files) == 2
    assert "rank_0/checkpoint_0.ckpt" in panel.outcome.value


def test_cancel_keeps_what_is_finished_and_resume_goes_on(plan, tmp_path):
    """A stopped run leaves no folder; the next one takes over what has the right digest."""
    panel = RunPanel(plan, tmp_path / "out", buffer="64 KiB")
    pressed = threading.Event()

    def stop_once(snapshot):
        if not pressed.is_set() and any((tmp_path / ".out.stage").glob("journals/*/*")):
            pressed.set()
            panel.cancel()

    original = panel._job

    def watched(control):
        told = control.progress

        def progress(found):
            told(found)
            stop_once(found)

        control.progress = progress
        return original(control)

    panel._job = watched
    panel.button.click()
    last = panel.wait(SECONDS)
    assert last.state == "cancelled"
    assert not (tmp_path / "out").exists()
    assert panel.button.description == "Resume"
    assert "resumes it" in panel.outcome.value
    assert "alert" not in panel.outcome.value
    panel.button.click()
    assert panel.wait(SECONDS).state == "done"
    assert panel.result.resumed
    assert panel.result.reused_bytes > 0
    assert "from an earlier run" in panel.outcome.value
    assert verify_folder(tmp_path / "out").ok


def test_a_failure_is_told_in_words(plan, tmp_path):
    """A folder that exists: what it is, and the way out; then the panel is usable again."""
    (tmp_path / "out").mkdir()
    panel = RunPanel(plan, tmp_path / "out")
    panel.button.click()
    assert panel.wait(SECONDS).state == "failed"
    assert "out exists; choose another folder" in panel.outcome.value
    assert panel.bar.bar_style == "danger"
    (tmp_path / "out").rmdir()
    panel.button.click()
    assert panel.wait(SECONDS).state == "done"


def test_cards_do_it_too(plan, tmp_path):
    """Options go to the plan's run."""
    with CardGroup(2) as cards:
        panel = RunPanel(plan, tmp_path / "out", on=cards, route="channels")
        panel.run()
        assert panel.wait(SECONDS).state == "done"
        assert panel.result.moved_bytes > 0


def test_any_callable_is_run_and_its_result_shown():
    """A text is escaped; a record shows itself."""
    panel = RunPanel(lambda control: "<b>")
    panel.run()
    panel.wait(SECONDS)
    assert panel.outcome.value == "<pre>&#x27;&lt;b&gt;&#x27;</pre>"
    panel = RunPanel(lambda control: ROWS)
    panel.run()
    panel.wait(SECONDS)
    assert panel.outcome.value.startswith("<img")


def test_a_callable_has_its_words_as_a_picture():
    """What stands where there is no kernel is no broken image."""
    panel = RunPanel(len)
    assert "RunPanel(len)" in panel.static.svg
    assert panel._repr_mimebundle_()[0]["text/html"].startswith(
        '<img alt="RunPanel(len)" style="max-width:100%;height:auto" src="data:image/svg+xml;base64,PHN2'
    )


def test_its_words_are_the_same_each_time(plan):
    """Text without an address, and the still picture of what is moved."""
    bundles = [RunPanel(plan, "out")._repr_mimebundle_()[0] for _ in range(2)]
    assert bundles[0]["text/plain"] == "RunPanel(6 tensors, 72 KiB, 4 -> 2 ranks, to out)"
    assert bundles[0]["text/html"] == bundles[1]["text/html"]
    assert len(bundles[0]["text/html"]) < 50_000


def test_what_does_not_go_together_is_refused(plan):
    """The text names the argument."""
    with pytest.raises(ContextError, match=r"a plan needs a folder to write to"):
        RunPanel(plan)
    with pytest.raises(ContextError, match="folder, buffer: only a plan takes these"):
        RunPanel(lambda control: 1, "out", buffer=2)
    with pytest.raises(ArgumentTypeError, match="work='out' should be a Conversion or a function"):
        RunPanel("out")


def test_an_unknown_option_is_refused_by_name(plan, tmp_path):
    """Before anything is shown."""
    with pytest.raises(ArgumentTypeError, match="RunPanel has no argument bufer; did you mean buffer"):
        RunPanel(plan, tmp_path / "out", bufer="1 MiB")


def test_work_that_does_not_go_on_does_not_say_so():
    """A callable that was stopped is run again from its beginning, under the name that it has."""
    begun = threading.Event()

    def job(control):
        begun.set()
        while not control.cancelled():
            pass
        raise ReshardError("the run was cancelled")

    panel = RunPanel(job, verb="Train")
    panel.run()
    assert begun.wait(SECONDS)
    panel.cancel()
    assert panel.wait(SECONDS).state == "cancelled"
    assert panel.button.description == "Train"
    assert "kept" not in panel.line.value


def test_a_result_that_shows_nothing_is_shown_as_text():
    """Its mimebundle may be None."""

    class Plain:
        def __repr__(self):
            return "Plain <1>"

        def _repr_mimebundle_(self, **kwargs):
            return None

    panel = RunPanel(lambda control: Plain())
    panel.run()
    assert panel.wait(SECONDS).state == "done"
    assert "Plain &lt;1&gt;" in panel.outcome.value
