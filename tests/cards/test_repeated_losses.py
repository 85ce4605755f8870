"""Further cards are lost while the group recovers from a first loss, at each of its steps."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, CardRestartedError, kill_card, recover
from distinfer_lab.cards.gang import Gangs
from distinfer_lab.cards.membership import Membership
from distinfer_lab.cards.recovery import MOST_LOSSES
from distinfer_lab.layout import Layout, Mesh, Strategy

from .test_group import Numbers, add_all, inputs, wanted

STEPS = [(Membership, "renew"), (Membership, "ask"), (Gangs, "run_numbered")]
COPIES = Strategy({"w": Layout(Mesh(dp=3), "-")}, {"w": (3,)})


class Same(Numbers):
    """A source that is equal on all cards."""

    def read(self):
        return {"w": np.ones(3, np.float32)}


def count_calls(monkeypatch, before):
    """Call `before(number)` before each step of a recovery."""
    numbers = iter(range(10**6))

    def counted(real):
        def step(self, *args, **options):
            before(next(numbers))
            return real(self, *args, **options)

        return step

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.fixture(scope="module")
def cards():
    with CardGroup(3) as group:
        yield group


@pytest.mark.parametrize("how", ["from sources", "from a copy", "by recover()"])
def test_a_card_lost_at_any_step_of_a_recovery(cards, how, monkeypatch):
    """Before each step in turn a second card is lost: the result is that of an undisturbed group."""
    step = 0
    while True:
        copies = how == "from a copy"
        placement = cards.place(
            [(Same if copies else Numbers)(r) for r in range(3)], COPIES if copies else None
        )
        if copies:
            placement.commit(-1)
            placement.fetch = None
        reached = []

        def lose(number, step=step, reached=reached):
            if number == step:
                reached.append(number)
                kill_card(cards, 2)

        kill_card(cards, 1)
        with monkeypatch.context() as patch:
            count_calls(patch, lose)
            if how == "by recover()":
                recover(cards)
            else:
                cards.run(add_all, placement, inputs(3), wanted(3))
        found, _ = cards.run(add_all, placement, inputs(3), wanted(3))
        np.testing.assert_array_equal(found[0]["y"], [6, 6, 6])
        assert cards.memory().held_bytes.tolist() == [12] * 3
        cards.drop(placement)
        if not reached:
            break
        step += 1
    assert step >= 4


def test_losses_without_end_are_reported(cards, monkeypatch):
    """A card is lost before every run of the work: the error says how often, and the group works after."""
    placement = cards.place([Numbers(r) for r in range(3)])
    runs = []

    def lose(self, *args, _real=Gangs.run_numbered, **options):
        runs.append(args)
        kill_card(cards, 1)
        return _real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Gangs, "run_numbered", lose)
        with pytest.raises(CardRestartedError, match=rf"{MOST_LOSSES + 1} attempts ended like this"):
            cards.run(add_all, placement, inputs(3), wanted(3))
    assert len(runs) == MOST_LOSSES + 1
    found, _ = cards.run(add_all, placement, inputs(3), wanted(3))
    np.testing.assert_array_equal(found[0]["y"], [6, 6, 6])
    cards.drop(placement)
