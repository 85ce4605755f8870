"""The plan view in a real JupyterLab, beside a layout view that keeps in step with it."""

import pytest

MAKE = """
import traitlets
from distinfer_lab import Layout, LayoutView, Mesh, PlanView, Strategy, plan_reshard
grid, four = Mesh(dp=2, tp=4), Mesh(tp=4)
shapes = {"w": (96, 16), "up": (192, 32), "bias": (16,)}
src = Strategy({n: Layout(grid, "- tp" if len(s) > 1 else (("tp",),)) for n, s in shapes.items()}, shapes)
dst = Strategy({n: Layout(four, "tp -" if len(s) > 1 else ((),)) for n, s in shapes.items()}, shapes)
plans = PlanView(plan_reshard(src, dst))
plans
"""
BESIDE = """
layouts = LayoutView(src, dst)
plans.link(layouts)
layouts
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """Both views, linked."""
    opened = open_notebook(MAKE, BESIDE)
    opened.page.wait_for_selector('[data-key="infer:3"] >> nth=1')
    return opened


def of_plan(notebook, selector):
    return notebook.page.locator(f".jp-Notebook .jp-Cell >> nth=0 >> {selector}")


def of_layout(notebook, selector):
    return notebook.page.locator(f".jp-Notebook .jp-Cell >> nth=1 >> {selector}")


def test_hovering_a_card_lights_its_moves(notebook):
    """Those that start at it, and the cards that they go to; the sentence says how much."""
    of_plan(notebook, '[data-key="infer:2"]').hover()
    of_plan(notebook, '[data-key="train:0"].is-linked').wait_for()
    lit = notebook.tiles("is-linked")
    assert {key for key in lit if key.startswith("move")} == set(
        notebook.python("[k for k in plans.picture.sentences if k.endswith('>2')]")
    )
    assert "Card 2 gets" in of_plan(notebook, ".distinfer-picture p").inner_text()


def test_what_is_chosen_here_is_chosen_there(notebook):
    """A card by click, in both directions; a tensor from either list."""
    of_plan(notebook, '[data-key="train:6"]').click()
    of_layout(notebook, '[data-key="train:6"].is-selected').wait_for()
    of_layout(notebook, '[data-key="infer:1"]').click()
    of_plan(notebook, '[data-key="infer:1"].is-selected').wait_for()
    of_plan(notebook, "select >> nth=1").select_option(index=1)
    of_layout(notebook, "text=up [192, 32]").first.wait_for()
    notebook.wait_python("layouts.parameter == 'up' == plans.parameter")


def test_the_matrix_is_walked_by_keyboard(notebook):
    """Arrows pass over what cannot be chosen; Enter chooses; no cell is edited."""
    count = notebook.cells()
    of_plan(notebook, "button:has-text('All tensors')").click()
    of_plan(notebook, ".distinfer-picture text:has-text('all tensors: 8 training cards')").wait_for()
    of_plan(notebook, '[data-key="train:0"]').focus()
    for key in ("ArrowRight", "ArrowRight", "b", "Enter"):
        notebook.page.keyboard.press(key)
    of_plan(notebook, ".is-selected").wait_for()
    notebook.wait_python("plans.selected.startswith('move:0>')")
    notebook.page.keyboard.press("Escape")
    notebook.wait_python("plans.selected == ''")
    assert notebook.cells() == count


def test_a_group_is_opened_by_keyboard(open_notebook):
    """The focus goes on to the way back, and from there to the group that was opened."""
    crowd = """
from distinfer_lab import Layout, Mesh, PlanView, Strategy, plan_reshard
src, dst = Layout(Mesh(tp=256), "tp -"), Layout(Mesh(tp=4), "- tp")
view = PlanView(plan_reshard(Strategy({"w": src}, {"w": (256, 64)}), Strategy({"w": dst})))
view
"""
    notebook = open_notebook(crowd)
    keyboard = notebook.page.keyboard
    notebook.find('[data-key="train:0-15"]').focus()
    keyboard.press("Enter")
    notebook.find("button:has-text('Open the group'):not([disabled])").focus()
    keyboard.press("Enter")
    notebook.find("button:has-text('All cards'):focus").wait_for()
    notebook.find('[data-key="train:7"]').wait_for()
    keyboard.press("Enter")
    notebook.find("button:has-text('Open the group'):focus").wait_for()
    notebook.find('[data-key="train:0-15"].is-selected').wait_for()


def test_the_scrubber_goes_through_the_steps(notebook):
    """By keyboard: each step names its tensors, and says what is done by then."""
    of_plan(notebook, "[role=slider]").focus()
    notebook.page.keyboard.press("ArrowRight")
    of_plan(notebook, "text=step 1 of").first.wait_for()
    assert "in this step; with it " in of_plan(notebook, "[role=status]").inner_text()
    notebook.page.keyboard.press("Home")
    of_plan(notebook, "text=all steps together").wait_for()


def test_bands_are_another_picture_of_the_same(notebook):
    """By their button; a band can be chosen as a cell can."""
    of_plan(notebook, "button:has-text('Bands')").click()
    of_plan(notebook, "text=edge stay on their card").wait_for()
    key = notebook.python("next(k for k in plans.picture.sentences if k.startswith('move:7'))")
    of_plan(notebook, f'[data-key="{key}"]').dispatch_event("click")
    notebook.wait_python(f"plans.selected == '{key}' and layouts.selected == 'train:7'")


def test_axe_finds_nothing_serious(notebook, axe):
    """In bands and in the matrix."""
    assert notebook.audit(axe) == []
    of_plan(notebook, "button:has-text('Matrix')").click()
    of_plan(notebook, "text=stays on its card").wait_for()
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels."""
    narrow = open_notebook(MAKE, width=800, dark=dark)
    narrow.page.wait_for_selector('[data-key="infer:3"]')
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
