"""The layout editor in a real JupyterLab: mesh, cuts, reasons, undo, code; all by keyboard too."""

import pytest

MAKE = """
from distinfer_lab import Layout, LayoutEditor, Mesh, Strategy
grid = Mesh(dp=2, tp=4)
shapes = {"layers.0.weight": (96, 16), "layers.1.weight": (32, 64), "bias": (16,)}
src = Strategy({n: Layout(grid, "- tp" if len(s) > 1 else ((),)) for n, s in shapes.items()}, shapes)
editor = LayoutEditor(src)
editor
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """The editor, as it begins."""
    opened = open_notebook(MAKE)
    opened.page.wait_for_selector('[data-key="infer:7"]')
    return opened


def labelled(notebook, words):
    """The field with this label."""
    return notebook.page.get_by_label(words, exact=True)


def test_a_mesh_and_a_cut_change_the_plan_at_once(notebook):
    """Typed and chosen in the page: the sums, the picture and Python follow."""
    labelled(notebook, "Mesh").fill("tp=2")
    notebook.page.keyboard.press("Enter")
    notebook.find("text=8 -> 2 cards").wait_for()
    notebook.page.wait_for_selector('[data-key="infer:2"]', state="detached")
    labelled(notebook, "dim 0 (96)").select_option("tp")
    notebook.find("[role=alert]", has_text="'tp' is used more than once").wait_for()
    labelled(notebook, "dim 1 (16)").select_option("whole")
    notebook.find("[role=alert]").wait_for(state="detached")
    notebook.wait_python("editor.strategy['layers.0.weight'].dims == (('tp',), ())")
    labelled(notebook, "Sharding").fill("tp(64,32) -")
    notebook.page.keyboard.press("Enter")
    notebook.wait_python("editor.strategy['layers.0.weight'].sharding == 'tp(64,32) -'")
    labelled(notebook, "Sharding").fill("tp -")
    notebook.page.keyboard.press("Enter")
    notebook.wait_python("editor.strategy['layers.0.weight'].sharding == 'tp -'")


def test_undo_takes_it_back_step_by_step(notebook):
    """By its button; the fields show what counts again, and Redo does it once more."""
    for _ in range(5):
        notebook.button("Undo").click()
    notebook.wait_python("editor.draft.mesh.size == 8")
    assert labelled(notebook, "Mesh").input_value() == "dp=2,tp=4"
    assert notebook.button("Undo").is_disabled()
    notebook.button("Redo").click()
    notebook.find("text=8 -> 2 cards").wait_for()
    notebook.button("Undo").click()
    notebook.wait_python("editor.strategy == src")


def test_a_pattern_cuts_many(notebook):
    """All weights at once, by the keyboard alone; no cell is edited."""
    count, keyboard = notebook.cells(), notebook.page.keyboard
    labelled(notebook, "Cut of").fill("layers.*")
    keyboard.press("Enter")
    notebook.wait_python("editor.match.value == 'layers.*'")
    labelled(notebook, "dim 0 (96)").focus()
    for key in ("b", "d", "d"):
        keyboard.press(key)
    labelled(notebook, "dim 0 (96)").select_option("dp")
    notebook.wait_python("all(editor.strategy[n].dims[0] == ('dp',) for n in list(src)[:2])")
    assert notebook.cells() == count
    notebook.button("Forget").click()
    notebook.wait_python("editor.strategy == src")


def test_reasons_why_not_are_told(notebook):
    """Parts that do not come out even: which tensor, which dim, what to do; the picture goes."""
    labelled(notebook, "Mesh").fill("dp=2,tp=5")
    notebook.page.keyboard.press("Enter")
    alert = notebook.find("[role=alert]")
    alert.wait_for()
    assert (
        "layers.0.weight: dim 1 (cut by tp) has 16 elements, which 5 parts cannot share evenly"
        in alert.inner_text()
    )
    assert not notebook.page.locator("[data-key]").first.is_visible()
    labelled(notebook, "Mesh").fill("five")
    notebook.page.keyboard.press("Enter")
    notebook.find("[role=alert]", has_text="'five' is not a mesh").wait_for()
    labelled(notebook, "Mesh").fill("dp=2,tp=4")
    notebook.page.keyboard.press("Enter")
    notebook.page.wait_for_selector('[data-key="infer:7"]')


def test_the_code_is_there_to_copy(notebook):
    """In three notations."""
    notebook.button("torch").click()
    notebook.wait_python("'init_device_mesh' in editor.code.value")
    assert "[Replicate(), Shard(1)]" in labelled(notebook, "To copy").input_value()
    notebook.button("JAX").click()
    notebook.wait_python("'NamedSharding' in editor.code.value")


def test_axe_finds_nothing_serious(notebook, axe):
    """As it stands."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels, with reasons shown."""
    narrow = open_notebook(MAKE + "\neditor.on('dp=2,tp=5')", width=800, dark=dark)
    narrow.find("[role=alert]").wait_for()
    assert narrow.overflowing() == []
    assert narrow.audit(axe) == []
