"""One JupyterLab and one Chromium for all tests in here; a notebook for each module or test."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from .lab import CHROMIUM, REQUIRED, Lab, Notebook


# Of this package, not of the session: while Playwright runs, nothing else can use asyncio in this thread.
@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    """The server."""
    if CHROMIUM is None and not REQUIRED:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    with Lab(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="package")
def browser(lab):
    """The browser."""
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def open_notebook(lab, browser):
    """Opens notebooks of given cells; at the end nothing may have gone wrong in any of them."""
    opened = []

    def open_one(*cells, **options):
        opened.append(Notebook(lab, browser, cells, **options))
        return opened[-1]

    yield open_one
    troubles = [trouble for notebook in opened for trouble in notebook.troubles]
    for notebook in opened:
        notebook.close()
    assert troubles == []


@pytest.fixture(scope="session")
def axe():
    """The text of axe-core, which `.ci/run` fetches; `DISTINFER_AXE` says where it is."""
    path = os.environ.get("DISTINFER_AXE")
    if path is None and not REQUIRED:
        pytest.skip("no axe-core here; npm install axe-core, and name its axe.min.js by DISTINFER_AXE")
    assert path is not None, "DISTINFER_AXE does not say where axe.min.js is"
    return Path(path).read_text()
