"""Cards that are killed while a net is loaded or trained: what is learnt, and what is loaded, is the same."""

import time

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, CardRestartedError
from distinfer_lab.flow import (
    Callback,
    CheckpointConfig,
    Model,
    ModelCheckpoint,
    load_distributed_checkpoint,
    set_auto_parallel_context,
)
from distinfer_lab.flow.sample import SampleNet, sample_dataset
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Cell, Parameter, nn, ops

from ..cards.clusters import kill_later, local_cluster, pids_of
from ..strategies import examples

EPOCHS = 5
COPIES, SLICES = ((2, 1), (1, 2)), ((1, 1), (1, 4))


@pytest.fixture(scope="module", params=["embedded", "given"])
def cards(request):
    """Four process cards; a lost one's worker is started again, or a spare one takes the place."""
    if request.param == "embedded":
        with CardGroup(4, processes=True) as group:
            yield group
        return
    with local_cluster(5) as address, CardGroup(4, address=address, replace_seconds=150) as group:
        yield group


class Deep(Cell):
    """24 products, so that a load takes its time."""

    def __init__(self):
        super().__init__()
        self.layers = [ops.MatMul().shard(((1, 1), (1, 4))) for _ in range(24)]
        self.weights = [
            Parameter(np.zeros((1024, 512), np.float32), name=f"w{i}") for i in range(len(self.layers))
        ]
        for i, weight in enumerate(self.weights):
            setattr(self, f"w{i}", weight)
            setattr(self, f"product{i}", self.layers[i])

    def construct(self, x):
        return [product(x, weight) for product, weight in zip(self.layers, self.weights, strict=True)][-1]


MESH = Mesh(tp=4)
NAMES = [f"w{i}" for i in range(24)]
SRC = Strategy(dict.fromkeys(NAMES, Layout(MESH, "tp -")), dict.fromkeys(NAMES, (1024, 512)))
DST = Strategy(dict.fromkeys(NAMES, Layout(MESH, "- tp")), dict.fromkeys(NAMES, (1024, 512)))


def whole(name):
    return np.arange(1024 * 512, dtype=np.float32).reshape(1024, 512) * (1 + NAMES.index(name))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    for rank in range(4):
        shards = {n: np.ascontiguousarray(whole(n)[256 * rank : 256 * rank + 256]) for n in NAMES}
        save_slice(folder / f"rank_{rank}/a.ckpt", shards, sync=False)
    return [folder / f"rank_{rank}/a.ckpt" for rank in range(4)]


@pytest.mark.timeout(900)
def test_a_card_killed_in_a_load_changes_nothing(cards, slices):
    """At random moments, while it reads or just after: every shard is there, and no more than that."""
    random = np.random.default_rng(7)
    net = Deep()
    started = time.monotonic()
    load_distributed_checkpoint(net, slices, DST, SRC, cards=cards, check_replicas=False)
    seconds = time.monotonic() - started
    for _ in range(examples(1, 20 if cards.embedded else 5)):
        killer = kill_later(pids_of(cards)[random.integers(4)], random.uniform(0, 1.2 * seconds))
        load_distributed_checkpoint(net, slices, DST, SRC, cards=cards, check_replicas=False)
        killer.join()
        for name in (NAMES[0], NAMES[-1]):
            np.testing.assert_array_equal(getattr(net, name).asnumpy(), whole(name))
        assert cards.memory().held_bytes.tolist() == [24 * 1024 * 128 * 4] * 4


class Steps(Callback):
    """Which steps were told of, in order, and whether the last one was."""

    def __init__(self):
        self.told, self.ended = [], False

    def on_train_step_end(self, run):
        self.told.append(run.step)

    def on_train_end(self, run):
        self.ended = True


def train(cards, cut, callbacks=()):
    """The sample's weight after some epochs."""
    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    net = SampleNet(cut)
    optimizer = nn.Momentum(net.trainable_params(), 0.01, 0.9)
    batches = [(d.reshape(128, 96), la.reshape(128, 16)) for d, la in sample_dataset()]
    loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
    Model(net, loss, optimizer, cards=cards).train(EPOCHS, batches, callbacks=list(callbacks))
    return net.weight.asnumpy()


@pytest.fixture(scope="module")
def undisturbed():
    """What is learnt where nothing happens: cut -> weight."""
    with CardGroup(4) as group:
        return {cut: train(group, cut) for cut in (COPIES, SLICES)}


SAVINGS = {
    "nothing": None,
    "slices": CheckpointConfig(save_checkpoint_steps=3, integrated_save=False),
    "encrypted slices": CheckpointConfig(save_checkpoint_steps=3, integrated_save=False, enc_key=b"k" * 16),
    "one file": CheckpointConfig(save_checkpoint_steps=3, keep_checkpoint_max=1),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("cut", "saved"), [(COPIES, "nothing"), *((SLICES, saved) for saved in SAVINGS)])
def test_a_card_killed_in_training_changes_nothing(cards, undisturbed, cut, saved, tmp_path):
    """At random moments: the final weights equal those of an undisturbed run, bit for bit.

    Where another card holds the same, the step is done again and no other; else training goes back
    to what was saved, or to the beginning.
    """
    random = np.random.default_rng(6)
    config = SAVINGS[saved]
    saving = [ModelCheckpoint("f", tmp_path, config)] if config else []
    started = time.monotonic()
    train(cards, cut, saving)
    seconds = time.monotonic() - started
    for _ in range(examples(1, 20 if saved in {"nothing", "slices"} and cards.embedded else 2)):
        steps = Steps()
        saving = [ModelCheckpoint("f", tmp_path, config)] if config else []
        killer = kill_later(pids_of(cards)[random.integers(4)], random.uniform(0, seconds))
        try:
            np.testing.assert_array_equal(train(cards, cut, [steps, *saving]), undisturbed[cut])
        except CardRestartedError:
            # Killed after the last step, before its weight was read, which no other card holds.
            assert (cut, steps.ended) == (SLICES, True)
        assert set(steps.told) == set(range(1, 2 * EPOCHS + 1))
        if cut == COPIES:
            assert len(steps.told) == 2 * EPOCHS
        killer.join()
        np.testing.assert_array_equal(train(cards, cut), undisturbed[cut])
