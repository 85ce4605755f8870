"""The notebooks that come with the package: listed, copied, and opened in JupyterLab."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from distinfer_lab import lab
from distinfer_lab.cli import main

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def notebooks(*arguments):
    return CliRunner().invoke(main, ["notebooks", *map(str, arguments)])


def test_the_notebooks_are_listed_where_they_lie():
    """In a clone, those of the clone."""
    done = notebooks()
    assert done.exit_code == 0
    assert done.output.split() == [str(ROOT / "notebooks" / name) for name in NAMES]


def test_an_installation_has_them_within_the_package(tmp_path, monkeypatch):
    """Where the wheel put them; and where there are none, both places are named."""
    monkeypatch.setattr(lab, "PACKAGE", tmp_path / "site/distinfer_lab")
    done = notebooks()
    assert done.exit_code == 1
    assert "site/distinfer_lab/shipped nor in" in done.output
    shipped = tmp_path / "site/distinfer_lab/shipped"
    shipped.mkdir(parents=True)
    (shipped / lab.FIRST).write_text("{}")
    assert notebooks().output.split() == [str(shipped / lab.FIRST)]
    monkeypatch.chdir(tmp_path)
    assert lab.prepared_folder() == tmp_path / lab.COPY
    assert (tmp_path / lab.COPY / lab.FIRST).read_text() == "{}"


def test_copies_are_the_same_bytes(tmp_path):
    """All of them, into a folder that is made."""
    done = notebooks("--copy", tmp_path / "a/b")
    assert done.exit_code == 0
    assert done.output.split() == [str(tmp_path / "a/b" / name) for name in NAMES]
    for name in NAMES:
        assert (tmp_path / "a/b" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()


def test_a_copy_overwrites_nothing_unless_told(tmp_path):
    """One file that is there keeps all others out; --overwrite replaces it."""
    own = tmp_path / NAMES[-1]
    own.write_text("mine")
    done = notebooks("--copy", tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path} has {own.name} already; choose another folder, or pass --overwrite" in done.output
    assert [path.name for path in tmp_path.iterdir()] == [own.name]
    assert own.read_text() == "mine"
    assert notebooks("--copy", tmp_path, "--overwrite").exit_code == 0
    assert own.read_bytes() == (ROOT / "notebooks" / own.name).read_bytes()


def test_a_folder_to_open_gets_what_it_lacks(tmp_path):
    """A notebook that somebody worked in stays as it is; a clone's own folder is opened as it is."""
    own = tmp_path / NAMES[0]
    own.write_text("mine")
    assert lab.prepared_folder(tmp_path) == tmp_path
    assert own.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    assert lab.prepared_folder() == ROOT / "notebooks"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    done = notebooks("--copy", tmp_path / "file/sub")
    assert done.exit_code == 1
    assert "file/sub: Not a directory; choose a folder" in done.output


@pytest.fixture
def served(tmp_path):
    """`distinfer lab` without a browser on a port of its own: its base address, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "distinfer_lab", "lab", "--folder", tmp_path / "sheets", "--port", port]
    words += ["--no-browser", "--", "--allow-root", "--IdentityProvider.token=secret"]
    private = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **private}
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True, env=environment)
    said = []
    for line in process.stderr:
        said.append(line)
        if "is running at" in line:
            break
    else:
        pytest.fail("".join(said))
    while socket.socket().connect_ex(("127.0.0.1", port)):  # it says so a moment before it listens
        assert process.poll() is None
    yield f"http://127.0.0.1:{port}", process
    process.kill()
    process.communicate()


def asked(address):
    request = urllib.request.Request(address, headers={"Authorization": "token secret"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.geturl(), answer.read()


def test_the_lab_serves_the_notebooks_and_stops(served):
    """The first one is what opens, all are there, on loopback only; SIGTERM ends it, and leaves no process."""
    base, process = served
    found = asked(f"{base}/api/contents")
    assert sorted(item["name"] for item in json.loads(found[1])["content"]) == NAMES
    assert asked(f"{base}/")[0] == f"{base}/lab/tree/{lab.FIRST}"
    family = psutil.Process(process.pid)
    listening = [c.laddr.ip for c in family.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert set(listening) <= {"127.0.0.1", "::1"}
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert not psutil.pid_exists(process.pid)
