"""The live widget in a real JupyterLab and a real Chromium: pointer, keyboard, Python and back."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("DISTINFER_REQUIRE_BROWSER") == "1"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="no chromium here; on Debian: apt-get install chromium"
)

MAKE_VIEW = """
import distinfer_lab as dl
from distinfer_lab.layout import Layout, Mesh
train = Layout(Mesh(("dp", "tp"), (2, 4)), ((), ("tp",)))
infer = Layout(Mesh(("tp",), (2,)), ((), ("tp",)))
view = dl.LayoutView(train, infer, shape=(96, 16))
view
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab with private settings, on loopback only; gives its address."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in (MAKE_VIEW.strip(), "print(view.selected, view.hover)")
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "view.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    private = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += [
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
    ]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--ServerApp.port_retries=0"]
    log = (folder / "server.log").open("w")
    lab = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **private})
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}/api?token={token}", timeout=1)
                break
            except OSError:
                assert lab.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield f"{base}/lab/tree/view.ipynb?token={token}"
    finally:
        lab.terminate()
        lab.wait(20)
        log.close()


@pytest.fixture(scope="module")
def page(server):
    """The notebook, its first cell run, the widget drawn."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 1000})
        opened.errors, opened.elsewhere = [], []
        opened.on("pageerror", lambda err: opened.errors.append(str(err)))
        opened.on("request", lambda r: opened.elsewhere.append(r.url) if is_elsewhere(r.url) else None)
        opened.goto(server, timeout=60_000)
        opened.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
        opened.wait_for_function(f"{kernel}?.status === 'idle'", timeout=60_000)
        run(opened, "notebook:run-all-cells")
        opened.wait_for_selector('[data-key="train:7"]', timeout=60_000)
        yield opened
        browser.close()


def is_elsewhere(url):
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))


def run(page, command):
    page.evaluate(f"void window.jupyterapp.commands.execute({json.dumps(command)})")


def keys_of(page, name):
    """The keys of the tiles of that class."""
    found = page.eval_on_selector_all(f"[data-key].{name}", "tiles => tiles.map(tile => tile.dataset.key)")
    return sorted(found)


def tile(page, key):
    return page.locator(f'[data-key="{key}"]')


def told_by_python(page, expected):
    """Run the second cell and wait for what it prints."""
    page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".jp-InputArea").click()
    run(page, "notebook:run-cell")
    page.locator(".jp-OutputArea-output", has_text=expected).wait_for(timeout=20_000)


def test_hovering_lights_the_cards_that_share_bytes(page):
    """Training card 5 holds columns 4..7: inference card 0 needs them. The line says it in words."""
    tile(page, "train:5").hover()
    page.wait_for_selector('[data-key="infer:0"].is-linked')
    assert keys_of(page, "is-hover") == ["train:5"]
    assert keys_of(page, "is-linked") == ["infer:0"]
    assert "Training card 5 holds [0:96, 4:8]" in page.locator(".distinfer-picture p").inner_text()
    tile(page, "infer:1").hover()
    page.wait_for_selector('[data-key="train:2"].is-linked')
    assert keys_of(page, "is-linked") == ["train:2", "train:3", "train:6", "train:7"]


def test_a_click_reaches_python_and_python_reaches_the_page(page):
    """A selected card is known in the kernel; one that the kernel selects is shown."""
    tile(page, "train:2").click()
    page.wait_for_selector('[data-key="train:2"][aria-selected="true"]')
    told_by_python(page, "train:2")
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    cell.locator(".cm-content").fill('view.selected = "infer:1"; print("set", view.linked)')
    run(page, "notebook:run-cell")
    page.wait_for_selector('[data-key="infer:1"].is-selected', timeout=20_000)
    assert keys_of(page, "is-selected") == ["infer:1"]


def test_the_keyboard_does_it_all_and_edits_no_cell(page):
    """Arrows move, Enter selects, Escape lets go; b and d d stay in the picture."""
    count = page.locator(".jp-Notebook .jp-Cell").count()
    tile(page, "train:0").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector('[data-key="train:5"].is-selected')
    for key in "bddx":
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.key") == "train:5"
    page.keyboard.press("Escape")
    page.wait_for_selector('[data-key="train:5"][aria-selected="false"]')
    assert keys_of(page, "is-selected") == []
    assert page.locator(".jp-Notebook .jp-Cell").count() == count


def test_nothing_went_wrong_and_nothing_left_the_machine(page):
    """No error in the page, no request to anywhere else."""
    assert page.errors == []
    assert page.elsewhere == []
