"""The layout view in a real JupyterLab: pointer, keyboard, search, Python and back."""

import pytest

MAKE_VIEW = """
import distinfer_lab as dl
from distinfer_lab.layout import Layout, Mesh, Strategy
grid, tp = Mesh(dp=2, tp=4), Mesh(tp=2)
train = Strategy({"w": Layout(grid, "- tp"), "bias": Layout(grid, "tp")}, {"w": (96, 16), "bias": (16,)})
infer = Strategy({"w": Layout(tp, "- tp"), "bias": Layout(tp, "tp")})
view = dl.LayoutView(train, infer)
view
"""


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """The view, drawn."""
    opened = open_notebook(MAKE_VIEW)
    opened.page.wait_for_selector('[data-key="train:7"]')
    return opened


def test_hovering_lights_the_cards_that_share_bytes(notebook):
    """Training card 5 holds columns 4..7: inference card 0 needs them. The line says it in words."""
    notebook.tile("train:5").hover()
    notebook.page.wait_for_selector('[data-key="infer:0"].is-linked')
    assert notebook.tiles("is-hover") == ["train:5"]
    assert notebook.tiles("is-linked") == ["infer:0"]
    assert "Training card 5 holds [0:96, 4:8]" in notebook.find(".distinfer-picture p").inner_text()
    notebook.tile("infer:1").hover()
    notebook.page.wait_for_selector('[data-key="train:2"].is-linked')
    assert notebook.tiles("is-linked") == ["train:2", "train:3", "train:6", "train:7"]


def test_a_click_reaches_python_and_python_reaches_the_page(notebook):
    """A selected card is known in the kernel; one that the kernel selects is shown."""
    notebook.tile("train:2").click()
    notebook.page.wait_for_selector('[data-key="train:2"][aria-selected="true"]')
    notebook.wait_python("view.selected == 'train:2'")
    notebook.run("view.selected = 'infer:1'")
    notebook.page.wait_for_selector('[data-key="infer:1"].is-selected')
    assert notebook.tiles("is-selected") == ["infer:1"]


def test_the_keyboard_does_it_all_and_edits_no_cell(notebook):
    """Arrows move, Enter selects, Escape lets go; b and d d stay in the picture."""
    count = notebook.cells()
    keyboard = notebook.page.keyboard
    notebook.tile("train:0").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        keyboard.press(key)
    notebook.page.wait_for_selector('[data-key="train:5"].is-selected')
    for key in "bddx":
        keyboard.press(key)
    assert notebook.page.evaluate("document.activeElement.dataset.key") == "train:5"
    keyboard.press("Escape")
    notebook.page.wait_for_selector('[data-key="train:5"][aria-selected="false"]')
    assert notebook.tiles("is-selected") == []
    assert notebook.cells() == count


def test_the_list_is_searched_and_chosen_by_keyboard(notebook):
    """Typing narrows it, a key chooses; b and d d in the list edit no cell either."""
    count = notebook.cells()
    search = notebook.find("input[type=text]")
    search.fill("BIA")
    notebook.find("select option", has_text="w  [96, 16]").wait_for(state="detached")
    notebook.find("select").focus()
    notebook.page.keyboard.press("Home")
    notebook.wait_python("view.parameter == 'bias'")
    notebook.page.wait_for_selector("text=bias [16]")
    for key in "bddx":
        notebook.page.keyboard.press(key)
    assert notebook.cells() == count
    search.fill("")
    notebook.run("view.parameter = 'w'")
    notebook.page.wait_for_selector("text=w [96, 16]")


def test_two_views_of_one_model_stay_in_step(notebook):
    """Linked by their traits, what is chosen in one is chosen in the other."""
    notebook.run("import traitlets\nview2 = dl.LayoutView(train, infer)")
    notebook.run("traitlets.link((view, 'selected'), (view2, 'selected'))")
    notebook.tile("train:6").click()
    notebook.wait_python("view2.selected == 'train:6' and view2.linked == ('infer:1',)")


def test_axe_finds_nothing_serious(notebook, axe):
    """In the widget as it stands, with a card selected."""
    assert notebook.audit(axe) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_scrolls_inside(open_notebook, axe, dark):
    """At 800 pixels nothing is clipped: what is wider than the page scrolls in the widget; dark, too."""
    narrow = open_notebook(MAKE_VIEW, width=800, dark=dark)
    narrow.page.wait_for_selector('[data-key="infer:1"]')
    assert narrow.overflowing() == []
    narrow.tile("infer:1").hover()
    assert narrow.audit(axe) == []


CROWD = """
from distinfer_lab import Layout, LayoutView, Mesh
grid = Layout(Mesh(dp=32, tp=32), "dp tp")
view = LayoutView(grid, Layout(Mesh(tp=256), "- tp"), shape=(64, 256))
view
"""

PAINT = """() => {
    const tiles = [...document.querySelectorAll('[data-key^="infer:"]')];
    const times = tiles.slice(0, 64).map(tile => {
        const began = performance.now();
        tile.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        getComputedStyle(document.querySelector('.is-linked')).opacity;
        return performance.now() - began;
    });
    return times.sort((a, b) => a - b);
}"""


def test_a_crowd_of_cards_lights_up(open_notebook, record_property):
    """1,024 training and 256 inference cards: the right ones light up; the time is recorded."""
    crowd = open_notebook(CROWD)
    crowd.page.wait_for_selector('[data-key="infer:255"]')
    crowd.tile("infer:200").dispatch_event("pointerover")
    crowd.page.wait_for_selector('[data-key="train:25"].is-linked')
    assert crowd.tiles("is-linked") == sorted(f"train:{32 * row + 25}" for row in range(32))
    times = crowd.page.evaluate(PAINT)
    record_property("hover_milliseconds", {"median": times[len(times) // 2], "most": times[-1]})
