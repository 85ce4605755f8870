"""What Dask says and does of its own while groups come, go and wait: nothing."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.formats import save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy

SCRIPT = """
import logging
import distributed
from distinfer_lab.cards import CardGroup
if __name__ == "__main__":
    before = [handler.level for handler in logging.getLogger("distributed").handlers]
    assert before
    first, second = CardGroup(2, processes={processes}), CardGroup(2)
    first.close()
    second.close()
    assert [handler.level for handler in logging.getLogger("distributed").handlers] == before
    print("done")
"""


@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
def test_groups_that_overlap_end_in_silence(processes):
    """The end of one does not let the other one's cluster talk; after both the log is as it was."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(processes=processes)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
def test_idle_cards_do_not_keep_the_machine_at_work(processes):
    """Workers look at themselves rarely and at their threads never; the settings of others stay as they were."""
    before = copy.deepcopy(dask.config.config)
    with CardGroup(2, processes=processes) as cards:
        calls = cards.client.run(
            lambda dask_worker: {n: c.callback_time for n, c in dask_worker.periodic_callbacks.items()}
        )
        assert len(calls) == 2
        for found in calls.values():
            assert "profile" not in found
            assert min(found.values()) >= 250
    assert dask.config.config == before


def test_a_scheduler_that_is_lost_is_told_by_one_line(tmp_path):
    """Of `distinfer reshard`: our error, and nothing of Dask's log."""
    layout = Layout(Mesh(tp=2), "tp -")
    for rank in range(2):
        values = {f"w{i}": np.ones((512, 1024), np.float32) for i in range(16)}
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values, sync=False)
    named = {f"w{i}": layout for i in range(16)}
    write_strategy(tmp_path / "s.json", Strategy(named, dict.fromkeys(named, (1024, 1024))))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    file, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*dask, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        **quiet,
    )
    while not file.exists():
        time.sleep(0.01)
    dask[-1] = "distributed.cli.dask_worker"
    worker = subprocess.Popen([*dask, "--scheduler-file", str(file), "--no-nanny", "--no-dashboard"], **quiet)
    try:
        words = [
            "reshard",
            "src",
            "out",
            "--strategy",
            "s.json",
            "--scheduler-file",
            str(file),
            "--buffer",
            "64KiB",
        ]
        run = subprocess.Popen(
            [sys.executable, "-m", "distinfer_lab", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        files = tmp_path / ".out.stage/files"
        while run.poll() is None and not (files.exists() and list(files.iterdir())):
            time.sleep(0.01)
        scheduler.kill()
        out, err = run.communicate(timeout=100)
    finally:
        scheduler.kill()
        worker.kill()
    assert (run.returncode, out) == (1, "")
    assert err.startswith("Error: ")
    assert "scheduler" in err
    assert err.count("\n") == 1
