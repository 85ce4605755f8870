"""Card groups: real Dask workers, in this process and in processes, that hold shards and are lost and found."""

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from distinfer_lab.cards import CancelledError, CardGroup, CardRestartedError, current_group
from distinfer_lab.errors import ArgumentTypeError, CardError, CheckpointError, ContextError


class Numbers:
    """A source: card r gets [r, r, r] as w."""

    nbytes = 12

    def __init__(self, rank):
        self.rank = rank

    def read(self):
        return {"w": np.full(3, self.rank, np.float32)}


class Broken(Numbers):
    """A source that cannot be read on card 1."""

    def read(self):
        if self.rank == 1:
            raise CheckpointError("rank 1: the file is damaged")
        return super().read()


def at_odd_address(array):
    """The same elements one byte off, as a message may leave them."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


class Crooked(Numbers):
    """A source whose array begins at an odd address."""

    def read(self):
        return {"w": at_odd_address(np.ones((2, 2), np.float32))}


def say_aligned(rank, values, inputs, card):
    """A program that tells whether its operands lie where numpy computes fast."""
    return {"y": np.array([values["w"].flags.aligned, inputs["x"].flags.aligned])}, {}, None


def add_all(rank, values, inputs, card):
    """A program: the sum of all cards' w + x; it also makes w one more, and counts the bytes that it sends."""
    before = card.channels.sent_bytes
    total = card.channels.all_reduce(values["w"] + inputs["x"], range(len(card.epoch.peers)))
    return {"y": total}, {"w": values["w"] + 1}, card.channels.sent_bytes - before


def wait_for_ever(rank, values, inputs, card):
    """A program whose card 0 waits for a card that never sends."""
    if rank == 0:
        card.channels.exchange({}, {1: ((1,), np.dtype("f4"))})
    return {}, {}, None


def fail_on_two(rank, values, inputs, card):
    """A program that fails on card 2 while the others wait for it."""
    if rank == 2:
        raise CheckpointError("card 2 found something wrong")
    return add_all(rank, values, inputs, card)


def fail_late_on_two(rank, values, inputs, card):
    """A program that all cards finish but card 2, which fails after the last collective."""
    out = add_all(rank, values, inputs, card)
    if rank == 2:
        time.sleep(0.3)
        raise CheckpointError("card 2 failed at the end")
    return out


def die_on_two(rank, values, inputs, card):
    """A program in which the process of card 2 is killed, once."""
    flag = Path(str(inputs["flag"]))
    if rank == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return add_all(rank, values, {"x": inputs["x"]}, card)


def inputs(count, **more):
    return [{"x": np.ones(3, np.float32), **more} for _ in range(count)]


def wanted(count):
    return [["y"], *([] for _ in range(count - 1))]


@pytest.fixture(scope="module", params=["in process", "processes", "given"])
def cards(request):
    """Four cards of each kind."""
    if request.param == "given":
        with LocalCluster(
            n_workers=4, processes=False, threads_per_worker=1, dashboard_address=":0", protocol="tcp://"
        ) as cluster:
            with CardGroup(4, address=cluster.scheduler_address) as group:
                yield group
        return
    with CardGroup(4, processes=request.param == "processes") as group:
        yield group


def test_shards_are_placed_run_pulled_and_dropped(cards):
    """The whole life of a placement; memory tells what is held."""
    before = cards.memory().held_bytes
    placement = cards.place([Numbers(r) for r in range(4)])
    assert (cards.memory().held_bytes - before).tolist() == [12] * 4
    found, sent = cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
    assert found[1:] == [{}, {}, {}]
    # A sum of so few numbers sends all of each card's 3 to the 3 others.
    assert sent == [36, 36, 36, 36]
    pulled = cards.pull(placement, {2: ["w"]})
    np.testing.assert_array_equal(pulled[2]["w"], [2, 2, 2])
    cards.drop(placement)
    assert (cards.memory().held_bytes - before).tolist() == [0] * 4
    with pytest.raises(CardError, match="this placement was dropped"):
        cards.pull(placement, {2: ["w"]})


def test_updates_count_once_all_cards_are_done(cards):
    """A training step replaces values on all cards, a failed one on none, predictions never."""
    placement = cards.place([Numbers(r) for r in range(4)])
    cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(cards.pull(placement, {3: ["w"]})[3]["w"], [3, 3, 3])
    for _ in range(2):
        cards.run(add_all, placement, inputs(4), wanted(4), training=True)
    with pytest.raises(CheckpointError, match="card 2 found something wrong"):
        cards.run(fail_on_two, placement, inputs(4), wanted(4), training=True)
    with pytest.raises(CheckpointError, match="card 2 failed at the end"):
        cards.run(fail_late_on_two, placement, inputs(4), wanted(4), training=True)
    found = cards.pull(placement, {r: ["w"] for r in range(4)})
    assert [found[r]["w"][0] for r in range(4)] == [2, 3, 4, 5]
    cards.refill(placement)
    assert cards.pull(placement, {3: ["w"]})[3]["w"][0] == 3
    cards.drop(placement)


def test_the_first_cause_is_told(cards):
    """Not that other cards found their channels closed; and the group works on."""
    with pytest.raises(CheckpointError, match="rank 1: the file is damaged"):
        cards.place([Broken(r) for r in range(4)])
    placement = cards.place([Numbers(r) for r in range(4)])
    with pytest.raises(CheckpointError, match="card 2 found something wrong"):
        cards.run(fail_on_two, placement, inputs(4), wanted(4))
    found, _ = cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
    cards.drop(placement)


def test_a_run_can_be_cancelled(cards):
    """Within a second, also while a card waits for another; the group is usable after."""
    placement = cards.place([Numbers(r) for r in range(4)])
    run = cards.start(lambda run: cards.run(wait_for_ever, placement, inputs(4), [[]] * 4))
    time.sleep(0.5)
    started = time.monotonic()
    run.cancel()
    with pytest.raises(CancelledError, match="was cancelled"):
        run.result(timeout=30)
    assert time.monotonic() - started < 10
    found, _ = cards.run(add_all, placement, inputs(4), wanted(4))
    np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
    cards.drop(placement)


def test_two_threads_take_turns(cards):
    """Gangs of two threads never mix, and both get their own answers."""
    placement = cards.place([Numbers(r) for r in range(4)])
    found = {}

    def work(number):
        given = [{"x": np.full(3, number, np.float32)}] * 4
        found[number] = [cards.run(add_all, placement, given, wanted(4))[0][0]["y"][0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: [6.0] * 5, 10: [46.0] * 5}
    cards.drop(placement)


def test_too_many_shards_are_refused(cards):
    """The text says which group would do."""
    with pytest.raises(CardError, match=r"shards for 5 cards, but the group has 4; use CardGroup\(5\)"):
        cards.place([Numbers(r) for r in range(5)])


def test_a_killed_card_comes_back_with_its_shards(tmp_path):
    """Its worker starts again, reads its share again, and the prediction is repeated."""
    with CardGroup(4, processes=True) as cards:
        placement = cards.place([Numbers(r) for r in range(4)])
        given = inputs(4, flag=np.array(str(tmp_path / "killed")))
        found, _ = cards.run(die_on_two, placement, given, wanted(4))
        np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
        assert (tmp_path / "killed").exists()
        assert cards.memory().held_bytes.tolist() == [12] * 4


def test_a_killed_card_never_leaves_half_a_training_step(tmp_path):
    """The step is not applied anywhere; what was trained on the lost card is said to be lost."""
    with CardGroup(4, processes=True) as cards:
        placement = cards.place([Numbers(r) for r in range(4)])
        cards.run(add_all, placement, inputs(4), wanted(4), training=True)
        given = inputs(4, flag=np.array(str(tmp_path / "killed")))
        with pytest.raises(CardRestartedError, match="card 2 was lost with shards that were trained since"):
            cards.run(die_on_two, placement, given, wanted(4), training=True)
        with pytest.raises(CardRestartedError, match="card 2 was lost with shards that were trained since"):
            cards.pull(placement, {0: ["w"]})
        cards.refill(placement)
        found = cards.pull(placement, {r: ["w"] for r in range(4)})
        assert [found[r]["w"][0] for r in range(4)] == [0, 1, 2, 3]


def test_the_current_group_is_that_of_the_own_thread():
    """A group that another thread works inside of, as a panel that trains does, is not the current one here."""
    inside, done = threading.Event(), threading.Event()
    found = []

    def train():
        with CardGroup(1) as own:
            found.append(current_group() is own)
            inside.set()
            done.wait(60)

    with CardGroup(2) as cards:
        thread = threading.Thread(target=train)
        thread.start()
        try:
            assert inside.wait(60)
            assert current_group() is cards
        finally:
            done.set()
            thread.join()
        assert current_group() is cards
        assert cards.start(lambda run: current_group()).result() is cards
    assert found == [True]


def test_groups_stand_for_themselves():
    """A deterministic repr, the current group, closing twice, and a closed group."""
    with pytest.raises(ContextError, match=r"there are no cards; work inside `with CardGroup\(8\):`"):
        contextvars.Context().run(current_group)  # whatever blocks are around this test
    with CardGroup(2) as outer:
        with CardGroup(3) as inner:
            assert current_group() is inner
            assert (repr(outer), len(inner)) == ("CardGroup(2 cards in this process)", 3)
        assert current_group() is outer
        assert repr(inner) == "CardGroup(closed)"
    outer.close()
    with pytest.raises(CardError, match="the card group is closed; make a new one"):
        outer.place([Numbers(0)])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ContextError, "the number of cards is missing"),
        ({"cards": 0}, ContextError, "cards=0: a group has at least 1 card"),
        ({"cards": "8"}, ArgumentTypeError, "cards='8' should be an integer or None"),
        ({"cards": 2, "client": "x"}, ArgumentTypeError, "client='x' should be a Client or None"),
        (
            {"address": "tcp://a:1", "scheduler_file": "a"},
            ContextError,
            "address and scheduler_file both name a cluster",
        ),
        (
            {"address": "tcp://a:1", "processes": True},
            ContextError,
            "processes=True is for an embedded cluster",
        ),
        ({"address": "tcp://127.0.0.1:9"}, CardError, "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_bad_arguments_are_named(arguments, error, text):
    """Each with what to write instead."""
    with pytest.raises(error, match=text):
        CardGroup(**arguments)


def test_a_cluster_with_too_few_workers_is_refused():
    """One worker is one card."""
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        with pytest.raises(CardError, match="has 2 workers, too few for 3 cards"):
            CardGroup(3, client=client)
        with CardGroup(client=client) as cards:
            assert repr(cards) == "CardGroup(2 cards of a given cluster)"


def test_no_process_stays_behind():
    """A script that ends, or is interrupted, takes its card processes with it."""
    script = (
        "from distinfer_lab.cards import CardGroup\n"
        "if __name__ == '__main__':\n"
        "    with CardGroup(2, processes=True) as g:\n"
        "        pids = g.client.run(__import__('os').getpid)\n"
        "        print(*pids.values(), flush=True)\n"
    )
    path = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=path, check=True
    )
    pids = [int(p) for p in done.stdout.split()]
    assert len(pids) == 2
    assert done.stderr == ""
    for _ in range(50):
        alive = [p for p in pids if Path(f"/proc/{p}").exists()]
        if not alive:
            break
        time.sleep(0.1)
    assert not alive


def test_a_run_is_a_handle(cards):
    """Its progress and result can be had from a script, and awaited in a cell."""
    placement = cards.place([Numbers(r) for r in range(4)])
    run = cards.start(lambda run: cards.pull(placement, {1: ["w"]})[1]["w"].tolist())

    async def wait():
        return await run

    assert asyncio.run(wait()) == [1, 1, 1]
    assert run.done
    assert run.result() == [1, 1, 1]
    run.cancel()
    assert not run.cancelled
    cards.drop(placement)


def test_under_tls_the_channels_are_tls():
    """On a cluster with TLS the cards' own sockets use its certificates, and a plain stranger gets nowhere."""
    with LocalCluster(
        n_workers=2,
        processes=False,
        threads_per_worker=1,
        protocol="tls://",
        security=True,
        dashboard_address=":0",
    ) as cluster:
        client = cluster.get_client()
        with CardGroup(2, client=client) as group:
            placement = group.place([Numbers(r) for r in range(2)])
            found, _ = group.run(add_all, placement, inputs(2), wanted(2))
            np.testing.assert_array_equal(found[0]["y"], [3, 3, 3])
            host, port, _ = group.runtime.gangs.epoch.peers[0].address
            with socket.create_connection((host, port), timeout=20) as stranger:
                stranger.sendall(bytes(60))
                with contextlib.suppress(ConnectionResetError):
                    assert not stranger.recv(100).startswith(b"ok")
        client.close()


def test_a_script_without_its_guard_is_told(tmp_path):
    """Card processes import the script; the error says what to write."""
    path = tmp_path / "script.py"
    path.write_text(
        "import distinfer_lab as dl\nwith dl.CardGroup(2, processes=True) as cards:\n    print(cards)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    assert done.returncode == 1
    assert "CardError: the 2 card processes could not be started" in done.stderr
    assert "must be under `if __name__ == '__main__':`" in done.stderr


def test_programs_compute_on_aligned_arrays():
    """However a message left them: else sums come in another order than in one process."""
    with CardGroup(1) as group:
        placement = group.place([Crooked(0)])
        x = at_odd_address(np.ones(3, np.float32))
        (output,), _ = group.run(say_aligned, placement, [{"x": x}], [["y"]])
    assert not x.flags.aligned
    assert output["y"].tolist() == [True, True]
