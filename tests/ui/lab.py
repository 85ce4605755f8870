"""A real JupyterLab and a page of it, for tests: private settings, loopback only, no waiting by the clock."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("DISTINFER_REQUIRE_BROWSER") == "1"

SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
        "windowingMode": "none",
        "autoStartDefaultKernel": True,
    },
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
NOT_OURS = ("/favicon", "/api/kernels?")
"""Requests of JupyterLab's own that may fail: the server answers 500 to a page that asks for its list of kernels
just when the kernel of another page is being started (jupyter_server 2.21: `last_activity` is not set yet)."""
SECONDS = 1000
"""Of playwright's waits, which are told in milliseconds."""


class Lab:
    """A JupyterLab server of its own; a context manager."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.token, self.base = secrets.token_hex(16), f"http://127.0.0.1:{port}"
        names = ("CONFIG", "DATA", "RUNTIME")
        private = {f"JUPYTER_{name}_DIR": str(self.folder / name.lower()) for name in names}
        private["JUPYTERLAB_SETTINGS_DIR"] = str(self.folder / "settings")
        private["JUPYTERLAB_WORKSPACES_DIR"] = str(self.folder / "workspaces")
        for name, values in SETTINGS.items():
            path = self.folder / "settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        self.log = (self.folder / "server.log").open("w")
        options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
        options += [f"--ServerApp.port={port}", f"--IdentityProvider.token={self.token}"]
        options += [f"--ServerApp.root_dir={self.folder}", "--LabApp.expose_app_in_browser=True"]
        options += ["--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *options],
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **private},
        )

    def __enter__(self):
        for _ in range(600):
            if self._answers():
                return self
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        raise AssertionError("JupyterLab does not answer")

    def _answers(self):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.base}/api?token={self.token}", timeout=1),
        ):
            return True
        return False

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Notebook:
    """A notebook that was made of these cells, or is a copy of a file; opened in a page of its own and run.

    Attributes
    ----------
    page
        Playwright's.
    troubles : list of str
        Errors in the console or of callbacks, and requests to anywhere but this machine.
    """

    def __init__(self, lab, browser, cells, *, width=1200, dark=False, run=True):
        self.base = lab.base
        name = f"{secrets.token_hex(4)}.ipynb"
        if isinstance(cells, Path):
            shutil.copy(cells, lab.folder / name)
        else:
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            made = [nbformat.v4.new_code_cell(source.strip()) for source in cells]
            nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), lab.folder / name)
        self.page = browser.new_page(viewport={"width": width, "height": 1000})
        self.page.set_default_timeout(60 * SECONDS)
        self.troubles = []
        self.unanswered = 0
        self.page.on("pageerror", lambda err: self.troubles.append(f"page: {err}"))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)
        self.page.goto(f"{lab.base}/lab/tree/{name}?token={lab.token}&reset", timeout=120 * SECONDS)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120 * SECONDS)
        self.page.wait_for_function(f"{KERNEL}?.status === 'idle'", timeout=120 * SECONDS)
        # The server remembers the theme of the page before.
        self.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
        light = "false" if dark else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        self.page.evaluate("window.jupyterapp.shell.collapseLeft()")
        self._hear_callbacks()
        if run:
            self.command("notebook:run-all-cells")
            self.wait_idle()

    def _heard(self, message):
        url = message.location.get("url", "")
        if message.type == "error" and not url.startswith(tuple(f"{self.base}{path}" for path in NOT_OURS)):
            self.troubles.append(f"console: {message.text} ({url})")

    def _asked(self, request):
        if not request.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            self.troubles.append(f"request: {request.url}")

    def _told(self, words):
        # The page asks a kernel for the states of widgets as soon as it runs: it opens a comm, asks, and closes the
        # comm after 4 s without an answer. A kernel that has not imported ipywidgets yet answers each so. A notebook
        # of one IntSlider does the same.
        if words.startswith(
            ("stderr: No such comm target registered: jupyter.widget.control", "stderr: No such comm: ")
        ):
            self.unanswered += 1
            if self.unanswered <= 3:
                return
        self.troubles.append(words)

    def _hear_callbacks(self):
        """What no cell shows: errors of widgets' callbacks, and what they write to stderr."""
        self.page.expose_function("trouble", self._told)
        self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.sessionContext.iopubMessage.connect((_, m) => {
                const kind = m.header.msg_type, of = m.parent_header.msg_type;
                if (kind === "error") window.trouble(`kernel: ${m.content.ename}: ${m.content.evalue}`);
                if (kind === "stream" && m.content.name === "stderr") window.trouble(`stderr: ${m.content.text}`);
            })"""
        )

    def command(self, name, arguments=None):
        """Let JupyterLab do something."""
        call = f"window.jupyterapp.commands.execute({json.dumps(name)}, {json.dumps(arguments or {})})"
        self.page.evaluate(f"void {call}")

    def wait_idle(self):
        """Wait until all cells have run."""
        self.page.wait_for_function(
            f"""() => {{
                const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
                return {KERNEL}?.status === 'idle' && cells.every(cell => /\\d/.test(cell.textContent));
            }}""",
            timeout=120 * SECONDS,
        )

    def python(self, expression):
        """The value of an expression in the kernel, which JSON must be able to say."""
        code = f"__import__('json').dumps({expression})"
        reply = self.page.evaluate(
            f"""async (code) => (await {KERNEL}.requestExecute(
                {{code: '', user_expressions: {{value: code}}, store_history: false}}).done).content""",
            code,
        )["user_expressions"]["value"]
        assert reply["status"] == "ok", reply
        text = reply["data"]["text/plain"]
        return json.loads(eval(text))  # the repr of a text that json made

    def run(self, code):
        """Run statements in the kernel, in no cell."""
        reply = self.page.evaluate(
            f"async (code) => (await {KERNEL}.requestExecute({{code, store_history: false}}).done).content",
            code,
        )
        assert reply["status"] == "ok", reply

    def wait_python(self, expression):
        """Wait until an expression is true in the kernel."""
        deadline = time.monotonic() + 120
        while not self.python(f"bool({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}"

    def find(self, selector, **options):
        """Playwright's locator of what is in the notebook's outputs."""
        return self.page.locator(f".jp-OutputArea-output >> {selector}", **options)

    def tile(self, key):
        """The tile of a picture."""
        return self.page.locator(f'[data-key="{key}"]')

    def tiles(self, mark):
        """The keys of the tiles that are marked so, sorted."""
        script = "tiles => tiles.map(tile => tile.dataset.key)"
        return sorted(self.page.eval_on_selector_all(f"[data-key].{mark}", script))

    def button(self, words):
        """The button with these words."""
        return self.find("button", has_text=words)

    def audit(self, axe):
        """What axe-core finds in the outputs that is serious, in words."""
        self.page.evaluate(axe)
        found = self.page.evaluate(
            """async () => (await axe.run({include: [['.jp-OutputArea-output']]},
                {resultTypes: ['violations']})).violations"""
        )
        return [
            f"{rule['id']}: {node['html'][:120]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    def overflowing(self):
        """Elements of outputs that reach beyond the page though nothing around them scrolls."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.jp-OutputArea-output .distinfer-panel *')].filter(node => {
                const edge = node.closest('.jp-OutputArea-output').getBoundingClientRect().right;
                if (node.getBoundingClientRect().right <= edge + 1) return false;
                for (let up = node.parentElement; !up.matches('.jp-OutputArea-output'); up = up.parentElement)
                    if (['auto', 'scroll'].includes(getComputedStyle(up).overflowX)) return false;
                return true;
            }).map(node => node.outerHTML.slice(0, 100))"""
        )

    def cells(self):
        """How many cells the notebook has."""
        return self.page.locator(".jp-Notebook .jp-Cell").count()

    def close(self):
        """Close the page and end its kernel."""
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()
