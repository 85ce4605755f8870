"""Programs on cards that are processes: what they hold and send is what was predicted."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, kill_card
from distinfer_lab.flow.placing import place_initial
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Parameter, Spec, initializer
from distinfer_lab.parallel import CardProgram, Held, Program, Redistribute, unshard

from .test_group import Numbers

MIB = 1 << 20
MESH = Mesh(x=4, y=2)
SRC, DST = Layout(MESH, "y - x"), Layout(MESH, "- x+y -")


@pytest.fixture(scope="module")
def eight():
    with CardGroup(8, processes=True) as cards:
        yield cards


def move(cards, size, init, wanted):
    """A cube from SRC to DST; gives the program, what came back, what was counted, and the parameter."""
    shape, f32 = (size,) * 3, np.dtype("float32")
    values = {"w": Held(Spec(shape, f32), SRC), "v": Held(Spec(shape, f32), DST)}
    program = Program(8, (), ("w",), ("v",), {}, (Redistribute("v", ("w",)),), values)
    param = Parameter(initializer(init, shape), "w")
    placed = place_initial(cards, {"w": param}, Strategy({"w": SRC}, {"w": shape}))
    try:
        found, counts = cards.run(CardProgram(program), placed.placement, [{}] * 8, [wanted] * 8)
    finally:
        cards.drop(placed.placement)
    return program, found, counts, param


def test_the_array_that_xla_copies_six_times_moves_within_two_shards(eight):
    """384^3 float32, P('y', None, 'x') -> P(None, ('x', 'y'), None), 4 x 2: at most 33.75 MiB received per card.

    Nobody can receive less than 23.6 MiB, and that is what each card does. XLA takes 324 MiB of temporaries.
    Counted, and in the processes' private memory: two shards of 27 MiB, a window, and what Python itself takes.
    """
    shard = 384**3 * 4 // 8
    program, _, counts, _ = move(eight, 384, "zeros", [])
    memory = eight.memory()
    # Every card sends as much as it receives: an eighth of its shard to each of the others.
    sent = [card.sent_bytes.tolist() for card in counts]
    assert sent == [[nbytes] for nbytes in program.sent_bytes.tolist()] == [[shard * 7 // 8]] * 8
    assert max(sum(card) for card in sent) < 23.7 * MIB
    assert memory.peak_bytes.tolist() == [2 * shard] * 8
    assert max(card.private_bytes for card in memory) < 2 * shard + 16 * MIB


def test_every_element_arrives_in_its_place(eight):
    """The same cut of a smaller cube, whose elements all differ."""
    program, found, _, param = move(eight, 32, "normal", ["v"])
    np.testing.assert_array_equal(unshard(program, "v", found), param.initial.region(((0, 32),) * 3, "w"))


class Times:
    """A program: w times a number."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, rank, values, inputs, card):
        return {"y": values["w"] * self.factor}, {}, None


def kept_by(cards):
    """The numbers of the programs of this kind that each card keeps."""
    found = cards.client.run(
        lambda name, dask_worker: [p.factor for p in dask_worker.plugins[name].programs.values()],
        cards.runtime.terms.name,
    )
    return [sorted(found[address]) for address in cards.runtime.membership.addresses]


def test_cards_keep_the_programs_that_somebody_holds():
    """Of ten that ran, the one that is still held and the last; one that is held is not sent again."""
    with CardGroup(2, processes=True) as cards:
        placement = cards.place([Numbers(r) for r in range(2)])

        def run(program):
            return [card["y"].tolist() for card in cards.run(program, placement, [{}] * 2, [["y"]] * 2)[0]]

        held = Times(2)
        assert run(held) == [[0, 0, 0], [2, 2, 2]]
        for factor in range(10, 19):
            assert run(Times(factor))[1] == [factor] * 3
        assert kept_by(cards) == [[2, 18]] * 2
        assert run(held)[1] == [2, 2, 2]
        assert kept_by(cards) == [[2, 18]] * 2


def test_after_a_loss_no_card_keeps_what_nobody_names():
    """The cards that stayed forget their programs too, for all are sent again."""
    with CardGroup(2, processes=True) as cards:
        placement = cards.place([Numbers(r) for r in range(2)])
        held = Times(2)
        cards.run(held, placement, [{}] * 2, [["y"]] * 2)
        kill_card(cards, 1)
        cards.run(held, placement, [{}] * 2, [["y"]] * 2)
        assert kept_by(cards) == [[2]] * 2
