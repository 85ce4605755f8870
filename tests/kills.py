"""Workers, schedulers and clients killed at random moments; nothing may be lost, and nothing may block.

    python -m tests.kills --count 100 --seed 0

Each round reshards a checkpoint by a client process of its own: with threads, with process cards, or on a given
cluster, in turn. One process is killed (`kill -9`): a card, the scheduler or the client, most while the output is
written. Then the same reshard is run again. What is checked:

    the client ends, whether it succeeds or not, and tells no traceback but that of a package's error
    there is the old output or the new one, whole; after the second run the new one, equal to plain numpy
    no process of the client's, no stage, no private folder stays
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from .cards.clusters import ROOT, Cluster

TENSORS = [f"layer{i}.weight" for i in range(24)]
SHAPE = (1024, 512)
ROWS = Layout(Mesh(tp=4), "tp -")
COLUMNS = Layout(Mesh(tp=2), "- tp")
SRC = Strategy(dict.fromkeys(TENSORS, ROWS), dict.fromkeys(TENSORS, SHAPE))
DST = Strategy(dict.fromkeys(TENSORS, COLUMNS))
KINDS = ("threads", "processes", "given")
VICTIMS = {
    "threads": ("client",),
    "processes": ("worker", "client"),
    "given": ("worker", "scheduler", "client"),
}
END_SECONDS = 120


def whole(name):
    """A tensor before it was cut, float32."""
    return np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE) * (1 + TENSORS.index(name))


def make_source(folder):
    """24 tensors of 2 MiB in four slices of rows."""
    for rank in range(4):
        rows = slice(256 * rank, 256 * rank + 256)
        save_slice(folder / f"rank_{rank}/a.ckpt", {n: whole(n)[rows].copy() for n in TENSORS}, sync=False)


def client(folder, kind, address):
    """The work of one client: a reshard by two cards."""
    options = {"address": address} if kind == "given" else {"processes": kind == "processes"}
    with (
        CardGroup(2, replace_seconds=20, **options) as cards,
        open_checkpoint(folder / "src", SRC) as checkpoint,
    ):
        print("open", flush=True)
        checkpoint.plan(DST).write(folder / "out", on=cards, overwrite=(folder / "out").exists())


def start(folder, kind, address):
    words = [
        sys.executable,
        "-m",
        "tests.kills",
        "--client",
        kind,
        "--folder",
        str(folder),
        "--address",
        address,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def is_writing(folder):
    """Whether bytes of the output have been written, and it is not yet complete."""
    return any(folder.glob(".out.stage/journals/*/*"))


def worker_of(process, chance):
    """The process of a card of a client's own."""
    with contextlib.suppress(psutil.Error):
        cards = [
            p.pid
            for p in psutil.Process(process.pid).children(recursive=True)
            if p.num_threads() > 4  # the fork server and its tracker have one
        ]
        return chance.choice(cards) if cards else None
    return None


def victim_of(name, process, cluster, chance):
    """The process to kill; None where it does not run (any more)."""
    if name == "client":
        return process.pid
    if cluster is None:
        return worker_of(process, chance)
    return cluster.scheduler.pid if name == "scheduler" else chance.choice(cluster.workers).pid


def check(folder, complete):
    """The output is whole, and equal to plain numpy; or, if it need not be there, it is not."""
    if not complete and not (folder / "out").exists():
        return
    assert verify_folder(folder / "out").ok, "the output is not as written"
    with open_checkpoint(folder / "out") as checkpoint:
        for name in (TENSORS[0], TENSORS[-1]) if not complete else TENSORS:
            for rank in range(2):
                expected = whole(name)[:, 256 * rank : 256 * rank + 256]
                np.testing.assert_array_equal(checkpoint.read(rank, name), expected)


def tree_of(process):
    """The processes of a client; none once it has ended."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def finish(process, tree=()):
    """Wait for the end of a client: its status and stderr; none of its processes stays.

    Parameters
    ----------
    tree
        Its processes before it was killed: after that nothing tells whose they were.
    """
    tree = {*tree, *tree_of(process)}
    _, err = process.communicate(timeout=END_SECONDS)
    deadline = time.monotonic() + 20
    for one in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            while one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"a process of the client stays: {one}"
                time.sleep(0.05)
    return process.returncode, err


def kill_one(folder, process, name, cluster, chance):
    """Wait for the moment and kill; whether the output was being written, and the client's processes before."""
    writing = chance.random() < 0.9
    if writing:
        while process.poll() is None and not is_writing(folder):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
    else:
        time.sleep(chance.uniform(0.2, 4))
    victim = victim_of(name, process, cluster, chance)
    tree = tree_of(process)
    was_writing = process.poll() is None and is_writing(folder)
    if victim is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return was_writing, tree


def one_round(folder, kind, name, chance):
    """Kill and run again; gives whether the kill was during the writing."""
    cluster = None
    try:
        if kind == "given":
            cluster = Cluster(2)
            cluster.wait()
        address = "" if cluster is None else cluster.address
        process = start(folder, kind, address)
        writing, tree = kill_one(folder, process, name, cluster, chance)
        if name == "worker" and cluster is not None:
            cluster.add()
        status, err = finish(process, tree)
        allowed = {"worker": {0}, "scheduler": {0, 1}, "client": {0, -signal.SIGKILL}}[name]
        assert status in allowed, err[-3000:]
        assert status != 1 or err.splitlines()[-1].startswith("distinfer_lab."), err[-3000:]
        check(folder, complete=status == 0)
        if name == "scheduler":
            cluster.close()
            cluster = Cluster(2)
            cluster.wait()
        status, err = finish(start(folder, kind, "" if cluster is None else cluster.address))
        assert status == 0, err[-3000:]
    finally:
        if cluster is not None:
            cluster.close()
    check(folder, complete=True)
    rest = [p.name for p in folder.iterdir() if p.name not in ("src", "out")]
    assert not rest, f"left beside the output: {rest}"
    return writing


def campaign(count, seed):
    """Rounds in turn over all kinds and victims; gives how many kills were during the writing."""
    chance = random.Random(seed)
    writing = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_source(folder / "src")
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            victim = VICTIMS[kind][number // len(KINDS) % len(VICTIMS[kind])]
            if chance.random() < 0.5 and (folder / "out").exists():
                shutil.rmtree(folder / "out")
            began = time.monotonic()
            was = one_round(folder, kind, victim, chance)
            writing += was
            state = "writing" if was else "elsewhere"
            print(f"{number + 1}: {kind}, {victim}, {state}, {time.monotonic() - began:.1f} s", flush=True)
    return writing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", choices=KINDS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--address", default="")
    options = parser.parse_args()
    if options.client:
        client(options.folder, options.client, options.address)
        return
    writing = campaign(options.count, options.seed)
    print(f"{options.count} kills, {writing} of them during the writing: nothing lost, nothing left")


if __name__ == "__main__":
    main()
