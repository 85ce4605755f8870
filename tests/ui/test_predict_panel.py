"""The predict panel in a real JupyterLab."""

import pytest

MAKE = """
import numpy as np
import distinfer_lab as dl
dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
cards = dl.CardGroup(2)
model = dl.Model(dl.sample.SampleNet(((1, 2), (2, 1))), cards=cards)
panel = dl.PredictPanel(model, np.random.default_rng(3).normal(size=(128, 96)).astype(np.float32))
panel
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """A model on two cards, which predicted nothing yet."""
    opened = open_notebook(MAKE)
    opened.button("Predict").wait_for()
    yield opened
    opened.run("cards.close()")


def test_a_prediction_is_shown_beside_one_cards(notebook):
    """By keyboard; the output, the difference, and the bytes of its collective."""
    count = notebook.cells()
    notebook.find("text=Nothing is predicted yet").wait_for()
    notebook.button("Predict").focus()
    for key in ("b", "Enter"):
        notebook.page.keyboard.press(key)
    notebook.find("text=equal to one card").wait_for()
    notebook.find("text=MatMul of 'matmul_weight'").first.wait_for()
    assert notebook.cells() == count


def test_an_error_is_told_in_words(notebook):
    """The cards are gone: a sentence, and no traceback in the page."""
    notebook.run("cards.close()")
    notebook.button("Predict").click()
    notebook.find("[role=alert]", has_text="card group is closed").wait_for()


def test_axe_finds_nothing_serious(notebook, axe):
    """As it stands."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels, after a prediction."""
    narrow = open_notebook(MAKE, "panel.predict()\npanel.wait(60)\ncards.close()", width=800, dark=dark)
    narrow.find("text=equal to one card").first.wait_for()
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
