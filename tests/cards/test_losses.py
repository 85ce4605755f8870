"""A worker, the scheduler or the client is killed while cards reshard: the old state or the whole new one."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.errors import CardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..resharding import plan_and_write
from ..strategies import examples
from .clusters import ROOT, cluster_of

TENSORS = [f"layer{i}.weight" for i in range(24)]
SHAPE = (1024, 512)


def layout(*dims, **mesh):
    return Layout(Mesh(**mesh), dims)


SRC = Strategy(dict.fromkeys(TENSORS, layout(("tp",), (), tp=4)), dict.fromkeys(TENSORS, SHAPE))
DST = Strategy(dict.fromkeys(TENSORS, layout((), ("tp",), dp=2, tp=2)))


def whole(name):
    return np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE) * (1 + TENSORS.index(name))


@pytest.fixture
def source(tmp_path):
    """24 tensors of 2 MiB in four slices of rows."""
    for rank in range(4):
        values = {n: np.ascontiguousarray(whole(n)[256 * rank : 256 * rank + 256]) for n in TENSORS}
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values, sync=False)
    return tmp_path


def check_whole(folder):
    assert verify_folder(folder / "out").ok
    with open_checkpoint(folder / "out") as checkpoint:
        for name in (TENSORS[0], TENSORS[-1]):
            for rank in range(4):
                np.testing.assert_array_equal(
                    checkpoint.read(rank, name), whole(name)[:, 256 * (rank % 2) :][:, :256]
                )


def kill_at_work(folder, pid):
    """Kill a process as soon as some tensor of the stage is finished; gives the thread that waits for it."""

    def watch():
        while not any(folder.glob(".out.stage/journals/*/*")):
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("route", ["files", "channels"])
def test_a_killed_worker_comes_back_and_the_run_goes_on(source, route):
    """Of an embedded cluster: the gang is done once more, and takes over what was finished."""
    with CardGroup(4, processes=True) as cards, open_checkpoint(source / "src", SRC) as checkpoint:
        pids = list(cards.client.run(os.getpid).values())
        killer = kill_at_work(source, pids[2])
        result = checkpoint.plan(DST).write(source / "out", on=cards, route=route)
        killer.join(1)
        assert not killer.is_alive()
        assert len(result.files) == 4
        assert pids != list(cards.client.run(os.getpid).values())
    check_whole(source)


@pytest.fixture
def cluster():
    """A scheduler of its own, and two workers that have joined it."""
    with cluster_of(2) as given:
        yield given


def test_a_killed_scheduler_leaves_nothing_to_see(source, cluster):
    """The run fails with our own error; the next one, on whatever cards, completes."""
    with CardGroup(2, address=cluster.address) as cards, open_checkpoint(source / "src", SRC) as checkpoint:
        killer = kill_at_work(source, cluster.scheduler.pid)
        with pytest.raises(CardError, match="the cluster's scheduler"):
            checkpoint.plan(DST).write(source / "out", on=cards, route="channels")
        killer.join(1)
        assert not (source / "out").exists()
        plan_and_write(checkpoint, DST, source / "out")
    check_whole(source)


CLIENT = """
import sys
from pathlib import Path
from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint

from tests.cards.test_losses import DST, SRC

if __name__ == "__main__":
    folder, route = Path(sys.argv[1]), sys.argv[2]
    with CardGroup(2, processes=True) as cards, open_checkpoint(folder / "src", SRC) as checkpoint:
        print("ready", flush=True)
        checkpoint.plan(DST).write(folder / "out", on=cards, route=route)
"""


@pytest.mark.parametrize("route", ["files", "channels"])
def test_a_killed_client_leaves_nothing_to_see(source, route, tmp_path):
    """At random moments; its worker processes go too. The next run takes over what is there."""
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    random = np.random.default_rng(1)
    for _ in range(examples(1)):
        words = [sys.executable, str(script), str(source), route]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as client:
            assert client.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0, 0.6))
            client.kill()
        if not (source / "out").exists():
            with open_checkpoint(source / "src", SRC) as checkpoint:
                plan_and_write(checkpoint, DST, source / "out")
        check_whole(source)
        for path in sorted((source / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (source / "out").rmdir()
