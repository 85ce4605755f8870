"""The run panel in a real JupyterLab: one run at a time, progress, cancel, resume, proof, errors."""

import pytest

MAKE_PLAN = """
import shutil, tempfile, threading
import numpy as np
from distinfer_lab import Layout, Mesh, RunPanel, Strategy, open_checkpoint, save_slice
from distinfer_lab.errors import ReshardError
from distinfer_lab.checkpoint import Progress
folder = tempfile.mkdtemp()
rows = Layout(Mesh(tp=4), "tp -")
names = [f"layers.{i}.weight" for i in range(6)]
src = Strategy(dict.fromkeys(names, rows), dict.fromkeys(names, (64, 48)))
for rank in range(4):
    save_slice(f"{folder}/src/rank_{rank}/a.ckpt", {n: np.ones((16, 48), np.float32) for n in names}, sync=False)
plan = open_checkpoint(f"{folder}/src", src).plan(Strategy(dict.fromkeys(names, Layout.replicated(2, 2))))
panel = RunPanel(plan, f"{folder}/out")
panel
"""

MAKE_LONG = """
starts, release = [], threading.Event()

def job(control):
    starts.append(1)
    control.progress(Progress(512, 1024, {0: 512, 1: 0}, {0: 512, 1: 512}, 1.0))
    while not release.wait(0.01):
        if control.cancelled():
            raise ReshardError("the run was cancelled; the next run of the same work resumes it")
    return "finished"

long = RunPanel(job, resumes=True)
long
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """A plan's panel, and below it one whose work ends when the test says so."""
    opened = open_notebook(MAKE_PLAN, MAKE_LONG)
    opened.page.wait_for_selector(".jp-Cell:nth-child(2) button")
    return opened


def of_plan(notebook, selector, **options):
    return notebook.page.locator(f".jp-Notebook .jp-Cell >> nth=0 >> {selector}", **options)


def of_long(notebook, selector, **options):
    return notebook.page.locator(f".jp-Notebook .jp-Cell >> nth=1 >> {selector}", **options)


def test_a_double_click_starts_one_run_and_others_stay_live(notebook):
    """It says at once that it runs; the other panel's buttons and the kernel still answer."""
    of_long(notebook, "button:has-text('Run')").dblclick()
    of_long(notebook, "text=Running. 512 B of 1 KiB.").wait_for()
    of_long(notebook, "text=512 B of 512 B").wait_for()
    assert notebook.python("len(starts)") == 1
    assert of_long(notebook, "button:has-text('Run')").is_disabled()
    assert of_plan(notebook, "button:has-text('Run')").is_enabled()


def test_cancel_stops_and_resume_goes_on(notebook, record_property):
    """The line says what happened to what was done; no alarm is raised; Resume runs it again."""
    began = notebook.page.evaluate("performance.now()")
    of_long(notebook, "button:has-text('Cancel')").click()
    of_long(notebook, "text=Stopped. What is finished is kept").wait_for()
    record_property("cancel_milliseconds", notebook.page.evaluate("performance.now()") - began)
    assert of_long(notebook, "[role=alert]").count() == 0
    of_long(notebook, "button:has-text('Resume')").click()
    of_long(notebook, "text=Running.").wait_for()
    assert notebook.python("len(starts)") == 2
    notebook.run("release.set()")
    of_long(notebook, "text=Done.").wait_for()
    of_long(notebook, "pre:has-text('finished')").wait_for()


def test_a_plan_ends_with_its_proof(notebook):
    """Digests, bytes, memory; and Verify reads it all again. By keyboard, and no cell is edited."""
    count = notebook.cells()
    of_plan(notebook, "button:has-text('Run')").focus()
    for key in ("b", "d", "d"):
        notebook.page.keyboard.press(key)
    notebook.page.keyboard.press("Enter")
    of_plan(notebook, "text=12 of 12 shards").wait_for()
    of_plan(notebook, "button:has-text('Verify')").click()
    of_plan(notebook, "text=all as written").wait_for()
    assert notebook.cells() == count


def test_an_error_is_told_in_words(notebook):
    """The folder exists now: an alert says so, its details folded, and the panel can be used again."""
    of_plan(notebook, "button:has-text('Run')").click()
    alert = of_plan(notebook, "[role=alert]")
    alert.wait_for()
    assert "exists; choose another folder, or pass overwrite=True" in alert.inner_text()
    assert not of_plan(notebook, "pre").is_visible()
    notebook.run("shutil.rmtree(f'{folder}/out')")
    of_plan(notebook, "button:has-text('Run')").click()
    of_plan(notebook, "text=12 of 12 shards").wait_for()


def test_a_bug_of_the_users_is_told_too(notebook):
    """A callable that fails with any error: its class and text."""
    notebook.run("release.clear()\njob.__code__ = (lambda control: [][3]).__code__")
    of_long(notebook, "button:has-text('Run')").click()
    of_long(notebook, "[role=alert]:has-text('IndexError: list index out of range')").wait_for()


def test_axe_finds_nothing_serious(notebook, axe):
    """With a proof and an alert in the page."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_shows_it_all(open_notebook, axe, dark):
    """At 800 pixels, before and after a run."""
    narrow = open_notebook(MAKE_PLAN, width=800, dark=dark)
    narrow.button("Run").click()
    narrow.find("text=12 of 12 shards").wait_for()
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
