"""The view of a card group in a real JupyterLab: a card is killed on purpose, and comes back."""

import pytest

MAKE = """
import numpy as np
from distinfer_lab import CardGroup, CardGroupView, Layout, Mesh, Strategy, open_checkpoint, save_slice
import tempfile
folder = tempfile.mkdtemp()
for rank in range(2):
    save_slice(f"{folder}/rank_{rank}/a.ckpt", {"w": np.ones((4, 64), np.float32)}, sync=False)
rows = Strategy({"w": Layout(Mesh(tp=2), "tp -")})
group = CardGroup(2, processes=True)
placement, taken = group.load(open_checkpoint(folder, rows).plan(rows))
view = CardGroupView(group)
view
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """Two process cards that hold a checkpoint."""
    opened = open_notebook(MAKE)
    opened.page.wait_for_selector('[data-key="card:1"]')
    yield opened
    opened.run("group.close()")


def test_a_card_is_chosen_and_asked_about(notebook):
    """A click chooses; the question comes before anything happens, and No leaves it alone."""
    pids = notebook.python("list(group.client.run(__import__('os').getpid).values())")
    notebook.tile("card:1").click()
    notebook.button("Kill card 1").click()
    notebook.find("text=Kill card 1? Its worker ends").wait_for()
    notebook.button("No, leave it").click()
    notebook.find("text=Kill card 1? Its worker ends").wait_for(state="hidden")
    assert notebook.python("list(group.client.run(__import__('os').getpid).values())") == pids


def test_a_killed_card_is_gone_and_comes_back(notebook):
    """Yes: it is told to be gone, or to hold nothing; Recover brings back what it held. By keyboard."""
    count, keyboard = notebook.cells(), notebook.page.keyboard
    notebook.button("Kill card 1").focus()
    keyboard.press("b")
    keyboard.press("Enter")
    yes = notebook.button("Yes, kill it")
    yes.wait_for()
    yes.focus()
    keyboard.press("Enter")
    notebook.wait_python("view.cards.gone == (1,) or not view.cards.cards[1].memory")
    notebook.button("Recover").click()
    notebook.find("text=2 cards, all there and idle.").wait_for()
    notebook.wait_python(
        "[card.memory and card.memory.held_bytes for card in view.cards.cards] == [1024, 1024]"
    )
    assert notebook.cells() == count


def test_it_can_watch_by_itself(notebook):
    """What happens elsewhere shows without a click."""
    notebook.button("Watch").click()
    notebook.run("group.drop(placement)")
    notebook.find("text=They hold nothing yet").wait_for()
    notebook.button("Watch").click()
    notebook.wait_python("not view.watch.value")


def test_axe_finds_nothing_serious(notebook, axe):
    """As it stands."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels, with a closed group after it."""
    made = MAKE.replace("CardGroup(2, processes=True)", "CardGroup(2)")
    narrow = open_notebook(made, "group.close()\nview.refresh()", width=800, dark=dark)
    narrow.find("[role=alert]", has_text="the card group is closed; make a new one").wait_for()
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
