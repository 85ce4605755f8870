"""How cards are, and cards lost on purpose: in this process and in processes."""

import os
import signal
import threading

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, kill_card, recover, state_of
from distinfer_lab.errors import CardError


class Shards:
    """A source: some rows of ones."""

    def __init__(self, rank):
        self.rank = rank

    @property
    def nbytes(self):
        return 4 * 100

    def read(self):
        return {"w": np.full(100, self.rank, np.float32)}


@pytest.mark.parametrize("processes", [False, True], ids=["in-process", "processes"])
def test_a_killed_card_is_seen_to_be_gone_and_comes_back_with_what_it_held(processes):
    """Before: all hold their share; after: one holds nothing; recovered: as before."""
    with CardGroup(3, processes=processes) as group:
        placement = group.place([Shards(rank) for rank in range(3)])
        before = state_of(group)
        assert [card.memory.held_bytes for card in before.cards] == [400] * 3
        assert [(card.rank, card.there, card.busy) for card in before.cards] == [
            (r, True, False) for r in range(3)
        ]
        kill_card(group, 1)
        after = state_of(group)
        assert after.cards[1].memory is None or not after.cards[1].memory.held_bytes
        assert after.cards[0].memory.held_bytes == 400
        recover(group)
        found = state_of(group)
        assert [card.memory.held_bytes for card in found.cards] == [400] * 3
        assert found.gone == ()
        values = group.pull(placement, {1: ["w"]})
        np.testing.assert_array_equal(values[1]["w"], np.full(100, 1, np.float32))


def test_what_cannot_come_back_does_not_keep_the_rest_away():
    """Shards that were trained are lost with their card, which is reported; those of files are there again."""
    with CardGroup(3) as group:
        trained, loaded = (group.place([Shards(rank) for rank in range(3)]) for _ in range(2))
        trained.commit(0)
        kill_card(group, 1)
        with pytest.raises(CardError, match="card 1 was lost with shards that were trained"):
            recover(group)
        assert [card.memory.held_bytes for card in state_of(group).cards] == [800, 400, 800]
        np.testing.assert_array_equal(group.pull(loaded, {1: ["w"]})[1]["w"], np.full(100, 1, np.float32))


def test_a_card_that_hangs_does_not_hide_the_others():
    """It does not answer; what the others hold is reported."""
    with CardGroup(2, processes=True) as group:
        group.place([Shards(rank) for rank in range(2)])
        hanging = group.client.run(os.getpid, workers=[list(group.runtime.membership.addresses)[1]])
        (pid,) = hanging.values()
        os.kill(pid, signal.SIGSTOP)
        try:
            found = state_of(group)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert found.cards[0].memory.held_bytes == 400
        assert str(found.cards[1]) == "card 1: idle, does not answer"


READING, GO = threading.Event(), threading.Event()


class Slow(Shards):
    """A source that is read when the test says so; a message to a card of this process names it only."""

    def read(self):
        READING.set()
        GO.wait(60)
        return super().read()


def test_a_card_at_work_is_busy():
    """A source that is being read is work."""
    with CardGroup(2) as group:
        working = threading.Thread(target=lambda: group.place([Shards(0), Slow(1)]))
        working.start()
        assert READING.wait(60)
        assert state_of(group).cards[1].busy
        GO.set()
        working.join()
        assert not state_of(group).cards[1].busy


def test_its_words_are_the_same_each_time():
    """A line for each card, with what it holds."""
    with CardGroup(2) as group:
        group.place([Shards(0), Shards(1)])
        assert repr(state_of(group)) == (
            "GroupState of 2 cards\n"
            "  card 0: idle, holds 400 B, held at most 400 B\n"
            "  card 1: idle, holds 400 B, held at most 400 B"
        )


def test_what_cannot_be_killed_is_refused():
    """A card that is not there, a worker of a given cluster, a group that is closed."""
    with CardGroup(2) as group:
        with pytest.raises(CardError, match=r"card 2: the group has cards 0\.\.1"):
            kill_card(group, 2)
        with CardGroup(client=group.client) as given:
            with pytest.raises(
                CardError,
                match="card 1 is a worker of a given cluster, which was not started by this group; stop it there",
            ):
                kill_card(given, 1)
    for call in (state_of, recover, lambda closed: kill_card(closed, 0)):
        with pytest.raises(CardError, match="the card group is closed"):
            call(group)
