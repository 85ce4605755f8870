"""The end of a controller, however it comes, leaves no process, traceback or shard; an interrupt ends a step only."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client

from distinfer_lab.cards import CardGroup

from .clusters import ROOT, cluster_of, until
from .test_group import Numbers, add_all, inputs, wanted

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import psutil
from distinfer_lab.cards import CardGroup
from tests.cards.test_closing import told_and_waiting
from tests.cards.test_group import Numbers, add_all, inputs, wanted

def listening(process):
    return [c.laddr.ip for c in process.net_connections("all") if c.status == psutil.CONN_LISTEN]

def tell(*words):
    print(*words, flush=True)

def predict(cards, placement, program=add_all, **more):
    return cards.run(program, placement, inputs(2, **more), wanted(2))[0][0]["y"].tolist()

if __name__ == "__main__":
    # As in a terminal: what is started in the background may have been told to ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    how, flag, *address = sys.argv[1:]
    given = {"address": address[0]} if address else {"processes": "in process" not in how}
    cards = CardGroup(2, **given)
    here = psutil.Process()
    tell(*(p.pid for p in [here, *here.children(recursive=True)]))
    placement = cards.place([Numbers(r) for r in range(2)])
    tell(predict(cards, placement))
    if "listens" in how:
        for _ in range(3):  # the system's table may change while it is read, and then tells less
            tell(*sorted({ip for p in [here, *here.children(recursive=True)] for ip in listening(p)}))
    if "raises" in how:
        with cards:
            raise ValueError("as it should")
    if "at work" in how:
        cards.start(lambda run: predict(cards, placement, told_and_waiting, flag=flag))
        while not Path(flag).exists():
            time.sleep(0.01)
        tell("at work")
    if "waits" in how:
        try:
            predict(cards, placement, told_and_waiting, flag=flag)
        except KeyboardInterrupt:
            tell("interrupted")
        tell(predict(cards, placement))
    if "stays" in how:
        time.sleep(100)
"""


def told_and_waiting(rank, values, inputs, card):
    """A program that tells by a file that it runs, and whose card 0 waits for ever."""
    Path(str(inputs["flag"])).touch()
    if rank == 0:
        card.channels.exchange({}, {1: ((1,), np.dtype("f4"))})
    return {}, {}, None


class Controller:
    """A script that makes two cards and goes on in one of some ways."""

    def __init__(self, folder, how, *address, **environment):
        path = folder / "script.py"
        path.write_text(SCRIPT)
        self.flag = folder / "flag"
        self.process = subprocess.Popen(
            [sys.executable, str(path), how, str(self.flag), *address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.tree = [psutil.Process(int(pid)) for pid in line.split()]
        assert self.process.stdout.readline() == "[3.0, 3.0, 3.0]\n"

    def end(self):
        """Wait for the end; gives what it still said on stdout and stderr. Nobody of its processes stays."""
        out, err = self.process.communicate(timeout=100)
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self.tree))
        return out, err


@pytest.mark.parametrize("how", ["ends", "ends in process", "ends at work", "ends at work in process"])
def test_a_script_that_ends_leaves_nothing(how, tmp_path):
    """Though it closes nothing, and even while the cards wait for each other."""
    controller = Controller(tmp_path, how)
    out, err = controller.end()
    assert err == ""
    assert controller.process.returncode == 0
    assert out == ("at work\n" if "at work" in how else "")


def test_an_error_in_the_block_is_all_that_is_told(tmp_path):
    """Its own traceback, and none of the cluster's."""
    controller = Controller(tmp_path, "raises")
    _, err = controller.end()
    assert err.count("Traceback") == 1
    assert err.endswith("ValueError: as it should\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_kernel_that_is_ended_leaves_nothing(number, tmp_path):
    """By the system or by Jupyter, while the cards work."""
    controller = Controller(tmp_path, "at work, stays")
    assert controller.process.stdout.readline() == "at work\n"
    controller.process.send_signal(number)
    _, err = controller.end()
    assert "Traceback" not in err
    assert controller.process.returncode == -number


@pytest.mark.parametrize("how", ["waits", "waits in process"])
def test_an_interrupt_ends_the_step_only(how, tmp_path):
    """Ctrl-C reaches all processes of the terminal; the group lives on, and answers as before."""
    controller = Controller(tmp_path, how)
    until(controller.flag.exists)
    os.killpg(controller.process.pid, signal.SIGINT)
    out, err = controller.end()
    assert err == ""
    assert out == "interrupted\n[3.0, 3.0, 3.0]\n"


OPENING = """
import signal
from distinfer_lab import CardGroup

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print("begins", flush=True)
        CardGroup(2, processes=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("begun", ["at once", "processes"])
def test_an_interrupt_while_a_group_opens_ends_it_quietly(begun, tmp_path):
    """No process stays, and none of them tells of its end; the system may be at any point of the start."""
    (tmp_path / "script.py").write_text(OPENING)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "begins\n"
    here = psutil.Process(process.pid)
    if begun == "processes":
        until(here.children)
    tree = here.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert (out, err) == ("interrupted\n", "")
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree))


@pytest.mark.parametrize(("how", "hosts"), [("listens", {"127.0.0.1"}), ("listens in process", set())])
def test_embedded_clusters_listen_on_loopback_at_most(how, hosts, tmp_path):
    """Scheduler, nannies and workers of processes; a group in this process listens nowhere."""
    out, err = Controller(tmp_path, how).end()
    assert set(out.split()) == hosts
    assert err == ""


def stores(client):
    """The names of the stores on a cluster's workers."""
    found = client.run(lambda dask_worker: [n for n in dask_worker.plugins if n.startswith("distinfer")])
    return [name for names in found.values() for name in names]


def test_a_killed_controller_leaves_no_shards_on_a_given_cluster(tmp_path):
    """What it held is freed, what it ran is stopped, and the next group has the workers to itself."""
    with cluster_of(2) as given:
        quick = {"DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT": "3s"}
        controller = Controller(tmp_path, "at work, stays", given.address, **quick)
        assert controller.process.stdout.readline() == "at work\n"
        with Client(given.address, set_as_default=False) as client:
            with CardGroup(2, client=client) as cards:
                assert len(stores(client)) == 4
                os.kill(controller.process.pid, signal.SIGKILL)
                controller.end()
                until(lambda: len(stores(client)) == 2)
                placement = cards.place([Numbers(r) for r in range(2)])
                found, _ = cards.run(add_all, placement, inputs(2), wanted(2))
                np.testing.assert_array_equal(found[0]["y"], [3, 3, 3])
                assert len(stores(client)) == 2
            until(lambda: not stores(client))


@pytest.mark.parametrize("kind", ["in process", "processes", "given"])
def test_nothing_grows(kind):
    """Over 200 runs: no thread, no open file, neither here nor on the cards."""
    with cluster_of(2 if kind == "given" else 0) as given:
        options = {"address": given.address} if kind == "given" else {"processes": kind == "processes"}
        with CardGroup(2, **options) as cards:
            placement = cards.place([Numbers(r) for r in range(2)])

            def count():
                pids = {os.getpid(), *cards.client.run(os.getpid).values()}
                return {p: (psutil.Process(p).num_threads(), psutil.Process(p).num_fds()) for p in pids}

            def runs(number):
                for _ in range(number):
                    cards.run(add_all, placement, inputs(2), wanted(2))
                cards.run(add_all, placement, inputs(2), wanted(2), training=True)

            def grown():
                before = count()
                runs(200)
                after = count()
                return {p: (before[p], after[p]) for p in after if max(np.subtract(after[p], before[p])) > 1}

            runs(30)
            # Dask opens a connection now and then, and keeps it; what leaks would leak in every round.
            rounds = []
            while len(rounds) < 3 and {} not in rounds:
                rounds.append(grown())
            assert {} in rounds, rounds
        assert all(not thread.name.startswith("cards") for thread in threading.enumerate())
