"""Cards that are killed, at any moment: nobody hangs, the shards come back, and the results are the same."""

import os
import signal
import threading

import dask
import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, CardRestartedError, gang, membership
from distinfer_lab.errors import CardError

from ..strategies import examples
from .clusters import cluster_of, kill_later, local_cluster, pids_of, until
from .test_group import Numbers, add_all, inputs, wanted

ROUNDS = 60


def many_sums(rank, values, inputs, card):
    """A program of many small sums, with something to compute between them."""
    total = values["w"] + inputs["x"]
    for _ in range(ROUNDS):
        np.linalg.norm(np.ones((60, 60)) @ np.ones((60, 60)))
        total = card.channels.all_reduce(total, range(4)) / 4
    return {"y": total}, {"w": values["w"] + 1}, None


def large_sum(rank, values, inputs, card):
    """A program that is inside one collective nearly all of its time."""
    total = card.channels.all_reduce(np.full(4 << 20, values["w"][0] + inputs["x"][0], np.float32), range(4))
    return {"y": total[:: 1 << 20]}, {}, None


def die_within(rank, values, inputs, card):
    """A program whose card 1 is killed while all are inside a collective, every time."""
    if rank == 1:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
    for _ in range(200):
        large_sum(rank, values, inputs, card)
    return {"y": np.zeros(1)}, {}, None


PROGRAMS = {
    "anywhere": (many_sums, [2.5, 2.5, 2.5], 0.5),
    "in a collective": (large_sum, [10.0] * 4, 0.3),
}


@pytest.fixture(scope="module", params=["embedded", "given", "given with a spare"])
def cards(request):
    """Four process cards, whose workers come back or have somebody to take their place."""
    if request.param == "embedded":
        with CardGroup(4, processes=True) as group:
            yield group
        return
    workers = 5 if request.param == "given with a spare" else 4
    with local_cluster(workers) as address, CardGroup(4, address=address) as group:
        yield group


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", PROGRAMS)
def test_a_card_killed_in_predict_changes_nothing(cards, moment):
    """A worker is killed at random moments: the prediction comes, bit for bit as without it."""
    program, expected, seconds = PROGRAMS[moment]
    random = np.random.default_rng(4)
    placement = cards.place([Numbers(r) for r in range(4)])
    for _ in range(examples(1, 20)):
        killer = kill_later(pids_of(cards)[random.integers(4)], random.uniform(0, seconds))
        found, _ = cards.run(program, placement, inputs(4), wanted(4))
        np.testing.assert_array_equal(found[0]["y"], expected)
        killer.join()
        found, _ = cards.run(program, placement, inputs(4), wanted(4))
        np.testing.assert_array_equal(found[0]["y"], expected)
        assert cards.memory().held_bytes.tolist() == [12] * 4
    cards.drop(placement)


def test_a_card_that_is_lost_with_its_result_is_noticed(cards, monkeypatch):
    """Killed after its task was seen to be done, before that gave its result: the work is done once more."""
    placement = cards.place([Numbers(r) for r in range(4)])
    pids, wait, killed = pids_of(cards), gang.wait, []

    def then_kill(futures, **options):
        found = wait(futures, **options)
        if found.done and not killed:
            future = next(iter(found.done))
            killed.append(pids[int(future.key.rpartition("-")[2])])
            os.kill(killed[0], signal.SIGKILL)
            until(lambda: future.status != "finished")
        return found

    monkeypatch.setattr(gang, "wait", then_kill)
    found, _ = cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
    assert len(killed) == 1
    cards.drop(placement)


def test_a_second_loss_is_told(cards):
    """A program that kills a card whenever it runs: the error names the card; the group is usable after."""
    placement = cards.place([Numbers(r) for r in range(4)])
    with pytest.raises(CardRestartedError, match=r"card 1 \(t(cp|ls)://.*\) was lost"):
        cards.run(die_within, placement, inputs(4), wanted(4))
    found, _ = cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
    cards.drop(placement)


def test_a_card_that_is_away_for_long_comes_back():
    """Dask dismisses the nanny of a worker that is not back in time; here it never does."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}),
        CardGroup(2, processes=True, replace_seconds=20) as cards,
    ):
        placement = cards.place([Numbers(r) for r in range(2)])
        os.kill(pids_of(cards)[1], signal.SIGKILL)
        found, _ = cards.run(add_all, placement, inputs(2), wanted(2))
        np.testing.assert_array_equal(found[0]["y"], [3, 3, 3])


def test_the_card_that_does_not_answer_is_named(monkeypatch):
    """Though all are asked at once, and one that hangs keeps back the answers of the others."""
    monkeypatch.setattr(membership, "ANSWER_SECONDS", 2.0)
    with cluster_of(3) as given, CardGroup(3, address=given.address) as cards:
        hanging = pids_of(cards)[2]
        os.kill(hanging, signal.SIGSTOP)
        try:
            with pytest.raises(CardError, match=r"card 2 \(.*\) was lost \(no answer\)") as info:
                cards.runtime.membership.ask(os.getpid)
            assert info.value.rank == 2
        finally:
            os.kill(hanging, signal.SIGCONT)


def test_a_cluster_without_a_spare_is_waited_for():
    """Up to a limit, which the error tells; a worker that comes later takes the place."""
    with cluster_of(2) as given, CardGroup(2, address=given.address, replace_seconds=0.5) as cards:
        placement = cards.place([Numbers(r) for r in range(2)])
        os.kill(pids_of(cards)[1], signal.SIGKILL)
        with pytest.raises(
            CardError,
            match=r"card 1 \(.*\) was lost.* no worker took its place within 0.5 seconds; start a worker",
        ):
            cards.run(add_all, placement, inputs(2), wanted(2))
        given.add()
        until(lambda: len(cards.client.scheduler_info(n_workers=-1)["workers"]) == 2)
        found, _ = cards.run(add_all, placement, inputs(2), wanted(2))
        np.testing.assert_array_equal(found[0]["y"], [3, 3, 3])
