"""Groups that are closed, fail to open or are lost leave nothing: no thread, file, port, process or folder."""

import contextlib
import gc
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from distinfer_lab.cards import CardGroup, cluster
from distinfer_lab.cards.membership import Membership
from distinfer_lab.errors import CardError

from .clusters import cluster_of
from .test_group import Numbers, add_all, inputs, wanted


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch):
    """Groups of other processes come and go in the shared one."""
    with tempfile.TemporaryDirectory(prefix="left-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


def belongings():
    """What this process has: threads, open files, ports, children, and what it left in shared folders."""
    gc.collect()
    here = psutil.Process()
    folders = Path(tempfile.gettempdir()).glob("distinfer-cards-*")
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": here.num_fds(),
        "ports": sorted(c.laddr for c in here.net_connections() if c.status == psutil.CONN_LISTEN),
        "children": len(here.children(recursive=True)),
        "folders": sorted(folders),
    }


def settled(seconds=1.0):
    """What this process has once its children no longer change: card processes end a moment after their group."""
    before, since = belongings(), time.monotonic()
    while time.monotonic() < since + seconds:
        time.sleep(0.05)
        if (now := belongings()) != before:
            before, since = now, time.monotonic()
    return before


def stays_like(before, seconds=10):
    """Whether all that came since is gone, or goes in a moment."""
    deadline = time.monotonic() + seconds
    while (now := belongings()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    kept = {key: (before[key], now[key]) for key in before if before[key] != now[key]}
    assert {k: v for k, v in kept.items() if not (k == "files" and v[1] < v[0])} == {}


def use(cards):
    cards.run(add_all, cards.place([Numbers(r) for r in range(2)]), inputs(2), wanted(2))


def opened_and_closed(options):
    with CardGroup(2, **options) as cards:
        use(cards)


def closed_at_work(options):
    with CardGroup(2, **options) as cards:
        cards.start(lambda run: use(cards))


def failed_to_open(options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cluster, "check_versions", lambda *args: (_ for _ in ()).throw(CardError("as it should"))
        )
        with pytest.raises(CardError, match="as it should"):
            CardGroup(2, **options)


def failed_to_join(options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Membership, "renew", lambda *args: (_ for _ in ()).throw(CardError("as it should")))
        with pytest.raises(CardError, match="as it should"):
            CardGroup(2, **options)


WAYS = [opened_and_closed, closed_at_work, failed_to_open, failed_to_join]


@pytest.mark.parametrize("kind", ["in process", "processes", "given"])
def test_nothing_stays(kind):
    """However a group ends; only multiprocessing's own fork server stays, one for all groups."""
    with cluster_of(2 if kind == "given" else 0) as given:
        options = {"address": given.address} if kind == "given" else {"processes": kind == "processes"}
        opened_and_closed(options)
        before = settled()
        for way in WAYS:
            with contextlib.suppress(CardError):
                way(options)
        stays_like(before)


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
@pytest.mark.parametrize("step", ["warn_if_open", "check_versions", "renew"])
def test_a_loss_while_a_group_opens_is_named(victim, step, monkeypatch):
    """The error names what was lost, comes in bounded time, and nothing stays."""
    with cluster_of(2) as given:
        opened_and_closed({"address": given.address})
        before = belongings()
        owner = Membership if step == "renew" else cluster
        lost = given.workers[1] if victim == "worker" else given.scheduler

        real = getattr(owner, step)

        def kill(*args):
            lost.kill()
            lost.wait()
            return real(*args)

        monkeypatch.setattr(owner, step, kill)
        # A cluster that has lost a worker says how many it has.
        worker = r"card \d \(tcp://.* was lost|has 1 worker|worker tcp"
        match = "scheduler at tcp" if victim == "scheduler" else worker
        began = time.monotonic()
        with pytest.raises(CardError, match=match):
            CardGroup(2, address=given.address, replace_seconds=0.5)
        assert time.monotonic() < began + 25
        stays_like({**before, "children": before["children"] - 1})


def test_the_group_of_a_lost_scheduler_leaves_nothing():
    """Its work fails, and to close it takes no thread along."""
    before = belongings()
    with cluster_of(2) as given:
        with CardGroup(2, address=given.address) as cards:
            use(cards)
            given.scheduler.kill()
            with pytest.raises(CardError, match="scheduler at tcp"):
                use(cards)
    stays_like(before)
