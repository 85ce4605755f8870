"""Programs on cards that are processes: what they hold and send is what was predicted."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.flow.placing import place_initial
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Parameter, Spec, initializer
from distinfer_lab.parallel import CardProgram, Held, Program, Redistribute, unshard

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
