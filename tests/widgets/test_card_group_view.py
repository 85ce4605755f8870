"""The view of a card group as Python sees it: what it shows, the question before a kill, the recovery."""

import threading

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ArgumentTypeError, CardError, LayoutError
from distinfer_lab.widgets import CardGroupView

SECONDS = 60


class Shards:
    """A source of 100 numbers."""

    nbytes = 400

    def __init__(self, rank):
        self.rank = rank

    def read(self):
        return {"w": np.full(100, self.rank, np.float32)}


@pytest.fixture(scope="module")
def group():
    with CardGroup(3, card_memory="1 MiB") as made:
        yield made


@pytest.fixture
def view(group):
    made = CardGroupView(group)
    yield made
    made.close()


def test_an_empty_group_says_what_to_do(view):
    """All there and idle, holding nothing: load or train."""
    assert "3 cards, all there and idle. They hold nothing yet" in view.line.value
    assert repr(view) == "CardGroupView(3 cards in this process: 3 there, 0 at work, 0 B held)"


def test_what_cards_hold_is_shown(group, view):
    """After a look: the bytes of each, before and now, and the limit."""
    placement = group.place([Shards(rank) for rank in range(3)])
    view.look.click()
    assert view.wait(SECONDS).state == "done"
    assert [card.memory.held_bytes for card in view.cards.cards] == [400] * 3
    assert view.picture.sentences["card:1"] == "card 1: idle, holds 400 B, held at most 400 B."
    assert "the limit, 1 MiB; no card goes over it" in view.picture.svg
    group.drop(placement)


def test_a_kill_is_asked_about_first(group, view):
    """Nothing happens before Yes; No leaves all as it is."""
    placement = group.place([Shards(rank) for rank in range(3)])
    view.refresh()
    assert view.kill.disabled
    view.selected = "card:1"
    assert view.kill.description == "Kill card 1"
    view.kill.click()
    assert view.confirm.layout.display is None
    assert "Kill card 1?" in view.question.value
    view.no.click()
    assert view.confirm.layout.display == "none"
    view.yes.click()
    view.refresh()
    assert view.cards.gone == ()
    view.kill.click()
    view.selected = "card:2"  # which ends the question about the other
    assert view.confirm.layout.display == "none"
    view.yes.click()
    view.refresh()
    assert view.cards.gone == ()
    view.selected = "card:1"
    view.kill.click()
    view.yes.click()
    assert view.wait(SECONDS).state == "done"
    assert view.cards.gone == (1,)
    assert "Card 1 is gone." in view.line.value
    view.back.click()
    assert view.wait(SECONDS).state == "done"
    assert view.cards.gone == ()
    np.testing.assert_array_equal(group.pull(placement, {1: ["w"]})[1]["w"], np.full(100, 1, np.float32))
    group.drop(placement)


def test_it_looks_by_itself_while_it_is_told_to(group, view):
    """What happens without a button is seen; then it stops."""
    view.watch.value = True
    placement = group.place([Shards(rank) for rank in range(3)])
    looked = view._watching
    while not any(card.memory and card.memory.held_bytes for card in view.cards.cards):
        assert not looked.wait(0.05)
    view.watch.value = False
    assert looked.is_set()
    group.drop(placement)


def test_a_closed_group_says_so_and_stops_the_watch():
    """No traceback: a sentence; the picture goes, the text stays well-formed."""
    with CardGroup(2) as group:
        view = CardGroupView(group)
        view.watch.value = True
    while view.watch.value:
        view._watching.wait(0.05)
    assert "the card group is closed; make a new one" in view.line.value
    assert repr(view) == "CardGroupView(closed)"
    assert view._repr_mimebundle_()[0]["text/plain"] == "CardGroupView(closed)"


def test_one_card_is_a_group(group):
    """Of one card, it is said of one."""
    with CardGroup(1) as single:
        assert "1 card, all there and idle" in CardGroupView(single).line.value


def test_what_cannot_be_is_refused(group, view):
    """The text names the value."""
    with pytest.raises(ArgumentTypeError, match="group=3 should be a CardGroup"):
        CardGroupView(3)
    with pytest.raises(LayoutError, match='selected=\'card:3\': choose "card:0" to "card:2"'):
        view.selected = "card:3"
    with pytest.raises(CardError, match=r"card 7: the group has cards 0\.\.2"):
        view.kill_card(7)


def test_bringing_back_can_be_stopped(group, view, monkeypatch):
    """Cancel ends it, without an alarm; the cards can be asked and used at once."""
    begun = threading.Event()

    def recover(group, tell):
        def wait(run):
            begun.set()
            while True:
                run.check()

        run = group.start(wait)
        tell(run)
        run.result()

    monkeypatch.setattr("distinfer_lab.widgets.card_group_view.recover", recover)
    view.back.click()
    assert begun.wait(SECONDS)
    assert not view.stop.disabled
    view.stop.click()
    assert view.wait(SECONDS).state == "cancelled"
    assert view.errors.value == ""
    monkeypatch.undo()
    assert view.recover()
    assert view.wait(SECONDS).state == "done"
