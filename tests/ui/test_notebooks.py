"""Every notebook in a real JupyterLab, light and dark: it runs clean; and before it runs, it shows its pictures."""

import json
import re
from pathlib import Path

import pytest

from .lab import Notebook

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NOT_SHOWN = re.compile(
    r"Error displaying widget|Loading widget|Error creating widget|Traceback|object at 0x|^VBox\("
)


@pytest.fixture
def open_file(lab, browser):
    """Opens a notebook's file; at the end its page is closed and its kernel ended."""
    opened = []

    def open_one(path, **options):
        opened.append(Notebook(lab, browser, path, **options))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.close()


def meant_errors(path):
    """The names of the errors that cells of a notebook are there to show."""
    cells = json.loads(path.read_text())["cells"]
    meant = [cell for cell in cells if "raises-exception" in cell["metadata"].get("tags", [])]
    return [out["ename"] for cell in meant for out in cell["outputs"] if out["output_type"] == "error"]


def other_complaints(notebook, path, ran):
    """The complaints but for the errors that are meant, each once in the kernel and once on the page."""
    found = complaints(notebook)
    for name in meant_errors(path):
        for start in ([f"kernel: {name}: "] if ran else []) + [f"{name}: "]:
            one = next((text for text in found if text.startswith(start)), None)
            if one is None:
                return [*found, f"{start}was not raised"]
            found.remove(one)
    return found


def complaints(notebook):
    """What went wrong: in the console, in callbacks and cells, in what the page could not show."""
    page = notebook.page
    wrong = page.locator(
        '.jp-Notebook [data-mime-type$="vnd.jupyter.stderr"], .jp-Notebook [data-mime-type$="error"]'
    )
    texts = page.locator(".jp-Notebook .jp-OutputArea-output").all_inner_texts()
    broken = "images => images.filter(i => i.complete && !i.naturalWidth).map(i => i.alt)"
    return [
        *notebook.troubles,
        *wrong.all_inner_texts(),
        *[text for text in texts if NOT_SHOWN.search(text)],
        *page.eval_on_selector_all(".jp-Notebook img", broken),
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_clean(open_file, path, dark):
    """No error but those that are meant, no stderr, no console error, no request off the machine, nothing broken."""
    notebook = open_file(path, dark=dark)
    assert other_complaints(notebook, path, ran=True) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_fresh_clone_shows_a_picture_in_every_section(open_file, path):
    """Untrusted and not run: from heading to heading there is a whole picture, but for what only says where next."""
    notebook = open_file(path, run=False)
    assert other_complaints(notebook, path, ran=False) == []
    found = notebook.page.eval_on_selector_all(
        ".jp-Notebook .jp-Cell",
        "cells => cells.map(c => [c.querySelector('.jp-RenderedMarkdown :is(h1, h2)')?.textContent ?? '',"
        " c.querySelectorAll('.jp-OutputArea-output img').length])",
    )
    sections = {"": 0}
    for heading, pictures in found:
        name = heading or list(sections)[-1]
        sections[name] = sections.get(name, 0) + pictures
    bare = [name for name, pictures in list(sections.items())[2:] if not pictures]
    assert [name.rstrip("¶") for name in bare] == ["Where next"]


def test_the_first_five_minutes(open_file):
    """On the start page: hover a card, ask for other cards, press Run; each answers on the page, in words."""
    notebook = open_file(NOTEBOOKS[0])
    page = notebook.page
    page.locator('[data-key="train:5"]').first.hover()
    page.locator(".distinfer-picture p", has_text="needed by inference card 1").first.wait_for()
    mesh = page.get_by_label("Mesh")
    mesh.fill("tp=2")
    mesh.press("Enter")
    page.locator(".jp-OutputArea-output", has_text="8 -> 2 cards").wait_for()
    mesh.fill("tp=5")
    mesh.press("Enter")
    page.locator(
        ".jp-OutputArea-output", has_text="16 elements, which 5 parts cannot share evenly"
    ).first.wait_for()
    notebook.button("Run").click()
    page.locator(".jp-OutputArea-output", has_text="Done.").wait_for()
    assert complaints(notebook) == []
