"""The memory of cards: what does not fit is refused before a byte moves, and what grows too large is stopped."""

import numpy as np
import pytest
from distributed import LocalCluster

from distinfer_lab.cards import CardGroup, CardMemoryError
from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import ReshardError
from distinfer_lab.flow import Model, auto_parallel_context
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Cell, Parameter, Tensor, nn, ops

from .test_group import Numbers, add_all, inputs, wanted

TP2, TP4 = Mesh(tp=2), Mesh(tp=4)
MIB = 1 << 20


class Blank:
    """A source of zeros, which remembers whether it was read."""

    read_count = 0

    def __init__(self, **shapes):
        self.shapes = shapes

    @property
    def sizes(self):
        return {name: 4 * int(np.prod(shape)) for name, shape in self.shapes.items()}

    @property
    def nbytes(self):
        return sum(self.sizes.values())

    def read(self):
        Blank.read_count += 1
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}


class Net(Cell):
    """x @ w, with rows of x and columns of w cut."""

    def __init__(self, columns, cuts):
        super().__init__()
        self.matmul = ops.MatMul().shard(((1, 1), (1, cuts)))
        self.weight = Parameter(np.ones((1024, columns), np.float32), name="weight")

    def construct(self, x):
        return self.matmul(x, self.weight)


def test_what_does_not_fit_is_refused_before_a_byte_moves():
    """With the rank, its bytes, the limit, the largest parameters, and what would fit."""
    strategy = Strategy(
        {"embed": Layout(TP2, "- -"), "w": Layout(TP2, "- tp")},
        {"embed": (512, 1024), "w": (1024, 1024)},
    )
    sources = [Blank(embed=(512, 1024), w=(1024, 512)) for _ in range(2)]
    Blank.read_count = 0
    with CardGroup(2, card_memory="3 MiB") as cards:
        with pytest.raises(
            CardMemoryError,
            match=r"card 0 would need 4194304 bytes of shards \(embed 2097152, w 2097152\), which exceeds "
            r"card_memory=3145728, of which 0 are taken; on 2 cards it fits with embed sharded 2 ways; "
            r"or sharded the same way it fits on 4 cards",
        ):
            cards.place(sources, strategy)
        assert Blank.read_count == 0
        assert cards.memory().held_bytes.tolist() == [0, 0]
        held = cards.place([Blank(w=(512, 1024)) for _ in range(2)])
        with pytest.raises(CardMemoryError, match="of which 2097152 are taken"):
            cards.place([Blank(w=(512, 1024)) for _ in range(2)])
        cards.drop(held)
        cards.place([Blank(w=(512, 1024)) for _ in range(2)])
    with pytest.raises(ReshardError, match="card_memory='much' is not a valid size"):
        CardGroup(2, card_memory="much")


def test_what_the_error_says_would_fit_fits():
    """On so many cards, sharded the same way; and with these tensors sharded."""
    for cards, embed in ((4, (512, 1024)), (2, (256, 1024))):
        with CardGroup(cards, card_memory="3 MiB") as group:
            group.place([Blank(embed=embed, w=(1024, 1024 // cards)) for _ in range(cards)])


def test_a_net_is_refused_where_it_is_placed():
    """At predict and at train: weights, states, and the working values of the program."""
    x = Tensor(np.ones((64, 1024), np.float32))
    with (
        CardGroup(2, card_memory="5 MiB") as cards,
        auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True),
    ):
        net = Net(4096, 2)
        with pytest.raises(
            CardMemoryError, match=r"card 0 would need 8388608 bytes of shards \(weight 8388608\)"
        ):
            Model(net, cards=cards).predict(x)
        small = Net(1024, 2)
        model = Model(small, cards=cards)
        np.testing.assert_array_equal(model.predict(x).asnumpy(), np.full((64, 1024), 1024, np.float32))
        wide = Tensor(np.ones((1024, 1024), np.float32))
        with pytest.raises(
            CardMemoryError, match="2097152 bytes of shards .* bytes of working values and buffers"
        ):
            model.predict(wide)
        np.testing.assert_array_equal(model.predict(x).asnumpy(), np.full((64, 1024), 1024, np.float32))
        loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
        other = Net(1024, 2)
        trained = Model(other, loss, nn.Momentum(other.trainable_params(), 0.1, 0.9), cards=cards)
        with pytest.raises(CardMemoryError, match=r"weight 2097152"):
            trained.train(1, [(x, Tensor(np.ones((64, 1024), np.float32)))])


def test_a_reshard_is_refused_before_a_byte_moves(tmp_path):
    """Its shards and its buffer do not fit."""
    src = Strategy({"w": Layout(TP4, "tp -")}, {"w": (1024, 1024)})
    for rank in range(4):
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", {"w": np.zeros((256, 1024), np.float32)}, sync=False)
    with CardGroup(2, card_memory="3 MiB") as cards, open_checkpoint(tmp_path / "src", src) as checkpoint:
        plan = checkpoint.plan(Strategy({"w": Layout(TP2, "- tp")}))
        with pytest.raises(CardMemoryError, match="2097152 bytes of shards .* and 2097152 bytes of working"):
            cards.load(plan, buffer="2 MiB")
        placement, _ = cards.load(plan, buffer="512 KiB")
        with pytest.raises(CardMemoryError, match="4194304 bytes of working values and buffers"):
            plan.write(tmp_path / "out", on=cards, buffer="4 MiB")
        cards.drop(placement)


def hoard(rank, values, inputs, card):
    """A program that takes 8 MiB on card 1, and says so."""
    if rank == 1:
        held = np.ones(8 * MIB, np.uint8)
        card.count(held.nbytes)
    return add_all(rank, values, inputs, card)


def hoard_in_silence(rank, values, inputs, card):
    """A program that takes 256 MiB on card 1 without a word, and then waits for the others."""
    held = [np.ones(MIB, np.uint8) for _ in range(256 if rank == 1 else 0)]
    while held:
        card.check()
    return add_all(rank, values, inputs, card)


COUNTED, MEASURED = "shards and working values", "private memory"


@pytest.mark.parametrize(
    ("processes", "program", "kind"),
    [(False, hoard, COUNTED), (True, hoard, COUNTED), (True, hoard_in_silence, MEASURED)],
)
def test_a_card_that_takes_too_much_is_stopped(processes, program, kind):
    """By what is counted, and on process cards by what is measured; the group works on."""
    with CardGroup(4, processes=processes, card_memory="4 MiB") as cards:
        placement = cards.place([Numbers(r) for r in range(4)])
        with pytest.raises(
            CardMemoryError,
            match=rf"card 1 came to \d+ bytes of {kind}, 12 of them shards, which exceeds .* 4194304",
        ):
            cards.run(program, placement, inputs(4), wanted(4))
        found, _ = cards.run(add_all, placement, inputs(4), wanted(4))
        np.testing.assert_array_equal(found[0]["y"], [10, 10, 10])
        assert cards.memory().held_bytes.tolist() == [12] * 4


class Liar(Blank):
    """A source that gives more than it says."""

    sizes = {"w": 4}  # noqa: RUF012
    nbytes = 4


def test_a_load_that_takes_too_much_leaves_nothing():
    """What was read before it was noticed is freed again."""
    with CardGroup(2, card_memory="1 MiB") as cards:
        with pytest.raises(CardMemoryError, match="card . came to 4194304 bytes"):
            cards.place([Liar(w=(1024, 1024)), Liar(w=(1024, 1024))])
        assert cards.memory().held_bytes.tolist() == [0, 0]


def test_a_given_worker_s_own_limit_is_heeded():
    """Dask pauses a worker at a part of its memory limit, and would run no task there any more."""
    with LocalCluster(
        n_workers=1, processes=False, threads_per_worker=1, dashboard_address=None, memory_limit="6 GiB"
    ) as cluster:
        with CardGroup(1, address=cluster.scheduler_address) as cards:
            with pytest.raises(
                CardMemoryError,
                match=r"80% of the worker's memory limit of 6442450944, where Dask pauses it, of which",
            ):
                cards.place([Blank(w=(2048, 1024, 1024))])
            cards.place([Numbers(0)])
