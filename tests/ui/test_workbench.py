"""The workbench in a real JupyterLab: the four steps by mouse and by keyboard, and a user's own folder."""

import pytest

MAKE = """
import tempfile
import numpy as np
from distinfer_lab import Layout, Mesh, Strategy, Workbench, save_slice, write_strategy
folder = tempfile.mkdtemp()
rows = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, {"w": (8, 8)})
for rank in range(2):
    save_slice(f"{folder}/mine/rank_{rank}/a.ckpt", {"w": np.ones((4, 8), np.float32)}, sync=False)
write_strategy(f"{folder}/train_strategy.ckpt", rows)
bench = Workbench(folder=folder)
bench
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """The page, as it begins."""
    opened = open_notebook(MAKE)
    opened.page.wait_for_selector('[data-key="step:predict"]')
    yield opened
    opened.run("bench.session.close()")


def press(notebook, panel):
    """Press a button of the workbench, by keyboard."""
    notebook.find("button:visible", has_text=panel).first.focus()
    notebook.page.keyboard.press("Enter")


def test_a_step_that_is_not_ready_says_why(notebook):
    """Chosen in the picture; then back, by keyboard."""
    notebook.tile("step:predict").click()
    notebook.button("Train the sample").wait_for(state="hidden")
    notebook.find("text=There is no checkpoint yet: train the sample, or open a folder.").last.wait_for()
    notebook.tile("step:source").focus()
    notebook.page.keyboard.press("Enter")
    notebook.button("Train the sample").wait_for()


def test_the_sample_goes_through_all_four_steps(notebook):
    """By the keyboard alone: train, infer, load, predict; equal to one card; no cell is edited."""
    count = notebook.cells()
    press(notebook, "Train on cards")
    notebook.wait_python("bench.step == 'layout'")
    notebook.wait_python("bench.training.state == 'done'")
    press(notebook, "Lay out")
    notebook.page.wait_for_selector('[data-key="infer:3"]')
    press(notebook, "On to step 3")
    notebook.wait_python("bench.step == 'reshard'")
    press(notebook, "Load")
    notebook.wait_python("bench.step == 'predict'")
    press(notebook, "Predict")
    notebook.find("text=equal to one card").first.wait_for()
    notebook.wait_python("all(bench.session.done(s) for s in ('source', 'layout', 'reshard', 'predict'))")
    assert "model.predict(data)" in notebook.page.get_by_label("As code").input_value()
    assert notebook.cells() == count


def test_a_view_opened_again_shows_the_same(notebook):
    """The output is cleared and the widget shown once more: the step and its result are there."""
    notebook.command("notebook:clear-all-cell-outputs")
    notebook.page.wait_for_selector('[data-key="step:predict"]', state="detached")
    notebook.page.locator(".jp-Notebook .jp-CodeCell").first.locator(".cm-content").fill("bench")
    notebook.command("notebook:run-cell")
    notebook.find("text=equal to one card").first.wait_for()


def test_ones_own_folder_is_cut_anew(notebook):
    """Chosen among those that are listed; its strategy is found; the output is verified."""
    notebook.tile("step:source").click()
    notebook.button("Open a folder").click()
    notebook.page.get_by_label("In it").select_option(label="mine  (2 slice files)")
    notebook.button("Go in").click()
    notebook.find("text=Here: 2 slice files.").wait_for()
    notebook.find("button:visible", has_text="Open").last.click()
    notebook.button("Use this layout").wait_for()
    notebook.page.get_by_label("Mesh", exact=True).fill("a=4")
    notebook.page.keyboard.press("Enter")
    notebook.wait_python("bench.editor.strategy.ranks == 4")
    notebook.button("Use this layout").click()
    notebook.page.get_by_label("Write to").wait_for()
    press(notebook, "Write")
    notebook.find("text=4 of 4 shards").wait_for()
    notebook.run("from distinfer_lab import verify_folder")
    assert notebook.python("verify_folder(folder + '/mine_cut_anew').ok")


def test_a_damaged_file_is_told(notebook):
    """Which file, and what is the matter; the page stays usable."""
    notebook.run("open(f'{folder}/mine/rank_1/a.ckpt', 'wb').write(b'no checkpoint')")
    notebook.tile("step:source").click()
    notebook.find("button:visible", has_text="Open").last.click()
    alert = notebook.find("[role=alert]:visible", has_text="rank_1/a.ckpt")
    alert.first.wait_for()
    notebook.tile("step:layout").click()
    notebook.wait_python("bench.step == 'layout'")


def test_axe_finds_nothing_serious(notebook, axe):
    """With the editor open and an alert below."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels, with somebody's layout open."""
    made = MAKE + "\nbench.open_folder(f'{folder}/mine', f'{folder}/train_strategy.ckpt')"
    narrow = open_notebook(made.replace("\nbench\n", "\n") + "\nbench", width=800, dark=dark)
    narrow.button("Use this layout").wait_for()
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_wide_pictures_fit_a_narrow_page(open_notebook, axe, dark):
    """At 800 pixels those of a checkpoint of eight cards shrink: nothing of them is hidden, and no field moves."""
    train = "from distinfer_lab import Workbench\nbench = Workbench()\nbench.session.train(8)\nbench"
    narrow = open_notebook(train, width=800, dark=dark)
    pictures = narrow.page.get_by_role("region", name="The checkpoint")
    pictures.get_by_alt_text("Who holds what").wait_for()
    natural = "image => image.naturalWidth > image.getBoundingClientRect().width"
    assert pictures.get_by_alt_text("Who holds what").evaluate(natural)
    assert pictures.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert pictures.evaluate("box => box.getBoundingClientRect().right") <= 800
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
    narrow.run("bench.close()")
