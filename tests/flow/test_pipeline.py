"""Pipeline stages by MindSpore's names: train, save, load, predict over stages, with and without micro-batches."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import ContextError, ShardingError
from distinfer_lab.flow import (
    CheckpointConfig,
    Model,
    ModelCheckpoint,
    auto_parallel_context,
    load_distributed_checkpoint,
    set_auto_parallel_context,
)
from distinfer_lab.formats import read_strategy
from distinfer_lab.net import Cell, Tensor, nn, ops

from ..parallel.test_stages import Language
from ..trained import MLP, check_against_mindspore
from ..transformers import NAMES, expected, folder_of, net_of

STAGED = {"parallel_mode": "semi_auto_parallel", "full_batch": True}


def make_mlp(cut_in):
    """The oracle's MLP, one layer on each of two stages."""
    cut = (((1, 1), (1, cut_in)), ((1, cut_in), (cut_in,)))
    net, loss, optimizer = MLP.make([cut, cut])
    net.fc1.pipeline_stage, net.fc2.pipeline_stage = 0, 1
    return net, loss, optimizer


@pytest.mark.parametrize(("cut_in", "processes"), [(2, False), (1, True)])
def test_the_mlp_trains_over_two_stages_and_its_slices_load_again(cut_in, processes, tmp_path):
    """MindSpore's weights; each card holds its stage's layer only, and saves it; any layout takes the slices."""
    net, loss, optimizer = make_mlp(cut_in)
    strategy = tmp_path / "strategy.ckpt"
    set_auto_parallel_context(**STAGED, pipeline_stages=2, strategy_ckpt_save_file=strategy)
    config = CheckpointConfig(integrated_save=False)
    x = Tensor(MLP.expected["predict/x"])
    with CardGroup(2 * cut_in, processes=processes) as cards:
        checkpoints = ModelCheckpoint("staged", tmp_path, config)
        model = Model(net, loss, optimizer, cards=cards)
        model.train(MLP.epochs, MLP.batches(), callbacks=checkpoints)
        assert model.last.communication == model.last.program.communication()
        held = cards.memory().held_bytes
        # Two of each layer: weights and moments; and three scalars or so.
        small = 16 * (64 + 1) * 4 * 2 // cut_in
        assert small <= held[-1] < small + 64
        y = model.predict(x)
    np.testing.assert_allclose(y.asnumpy(), MLP.expected["predict/y"], rtol=1e-5, atol=1e-5)
    written = read_strategy(strategy)
    assert {name.partition("-")[0] for name in written.layouts} == {"0", "1"}
    assert {name: item.stage for name, item in written.operators.items()}["MatMul_fc2.weight"] == 1
    files = checkpoints.latest_ckpt_file_names
    with open_checkpoint(files, strategy) as checkpoint:
        assert checkpoint.strategy["fc2.weight"].first_ranks == (cut_in,)
    again, _, _ = make_mlp(cut_in)
    with CardGroup(1) as cards, auto_parallel_context(parallel_mode="stand_alone"):
        load_distributed_checkpoint(again, files, None, strategy, cards=cards)
        values = {n: p.asnumpy() for n, p in again.parameters_dict().items()}
    check_against_mindspore(
        MLP, values | {k[6:]: v for k, v in MLP.expected.items() if k.startswith("state/")}
    )


@pytest.mark.parametrize(
    ("stages", "cut_in", "processes"), [(2, 2, False), (4, 1, False), (2, 2, True), (4, 1, True)]
)
def test_micro_batches_predict_what_one_card_predicts(stages, cut_in, processes):
    """1, 2 and 8 of them, on 4 cards in this process and in others; counted as predicted; placed once."""
    words = Tensor(np.random.default_rng(3).integers(0, 16, 8))
    net = Language(stages, cut_in)
    set_auto_parallel_context(**STAGED, pipeline_stages=stages)
    with CardGroup(4, processes=processes) as cards:
        model = Model(net, cards=cards)
        expected = model.predict_on_one_card(words).asnumpy()
        for count in (1, 2, 8):
            with auto_parallel_context(pipeline_micro_batches=count):
                found = model.predict(words).asnumpy()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            assert model.last.communication == model.last.program.communication().times(count)
        held = cards.memory().held_bytes
        assert (held == model.last.program.resident_bytes).all()


def test_a_staged_layout_is_inferred_and_loaded(tmp_path):
    """Step 2 and 3 over stages: trained on 4 stages, predicted on 2 stages of 2 cards."""
    net = Language(4, 1)
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    random = np.random.default_rng(0)
    batch = random.integers(0, 16, 8), np.eye(16, dtype=np.float32)[random.integers(0, 16, 8)]
    strategy = tmp_path / "strategy.ckpt"
    words = Tensor(batch[0])
    with CardGroup(4) as cards:
        set_auto_parallel_context(**STAGED, pipeline_stages=4, strategy_ckpt_save_file=strategy)
        checkpoints = ModelCheckpoint("s", tmp_path, CheckpointConfig(integrated_save=False))
        loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
        trained = Model(net, loss, optimizer, cards=cards)
        trained.train(2, [batch], callbacks=checkpoints)
        expected = trained.predict(words).asnumpy()
        again = Language(4, 2)
        for number, block in enumerate(again.blocks):
            block.pipeline_stage = number // 2
        set_auto_parallel_context(
            pipeline_stages=2, strategy_ckpt_save_file="", strategy_ckpt_load_file=strategy
        )
        model = Model(again, cards=cards)
        layout = model.infer_predict_layout(words)
        assert layout.strategy["block3.up"].first_ranks == (2,)
        assert layout.strategy["table"].first_ranks == (0, 2)
        load_distributed_checkpoint(again, checkpoints.latest_ckpt_file_names, layout, cards=cards)
        with auto_parallel_context(pipeline_micro_batches=4):
            np.testing.assert_allclose(model.predict(words).asnumpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
def test_transformers_go_over_stages_of_cut_tensors(name, processes):
    """Two stages of two cards, two micro-batches: logits and greedy tokens as transformers gave them."""
    answers = expected(name)
    set_auto_parallel_context(**STAGED, pipeline_stages=2)
    with CardGroup(4, processes=processes) as cards:
        net = net_of(name).shard_by(tp=2, pp=2)
        model = Model(net, cards=cards)
        ids = Tensor(np.tile(answers["input_ids"], (2, 1)))
        load_distributed_checkpoint(net, folder_of(name), model.infer_predict_layout(ids), cards=cards)
        with auto_parallel_context(pipeline_micro_batches=2):
            found = model.predict(ids).asnumpy()
        np.testing.assert_allclose(found, np.tile(answers["logits"], (2, 1, 1)), atol=2e-4)
        assert model.last.communication == model.last.program.communication().times(2)
        assert set(model.last.communication.by_kind()) == {"AllReduce", "Permute"}
        assert cards.memory().held_bytes.tolist() == model.last.program.resident_bytes.tolist()
        greedy = model.generate(answers["greedy"][:, :12], 8).asnumpy()
        np.testing.assert_array_equal(greedy, answers["greedy"])


class Centred(Cell):
    """Takes the mean over the batch off: its rows cannot be told apart."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Dense(4, 4)
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x):
        h = self.fc(x)
        return h - self.mean(h, (0,))


def test_settings_that_cannot_work_are_refused():
    """No number, more stages than cards, rows that mix, batches that cannot be shared."""
    with pytest.raises(ContextError, match=r"pipeline_stages is a number, 1 or more, not '2'"):
        set_auto_parallel_context(pipeline_stages="2")
    with pytest.raises(ContextError, match=r"pipeline_micro_batches is a number, 1 or more, not 0"):
        set_auto_parallel_context(pipeline_micro_batches=0)
    set_auto_parallel_context(**STAGED, pipeline_micro_batches=2)
    x = np.ones((6, 4), np.float32)
    with CardGroup(2) as cards:
        with (
            auto_parallel_context(pipeline_stages=3),
            pytest.raises(ShardingError, match="2 cards cannot be"),
        ):
            Model(Centred(), cards=cards).predict(Tensor(x))
        with pytest.raises(
            ShardingError, match=r"pipeline_micro_batches=2: ReduceMean .* does not work on each row"
        ):
            Model(Centred(), cards=cards).predict(Tensor(x))
        with (
            auto_parallel_context(pipeline_micro_batches=4),
            pytest.raises(ContextError, match=r"pipeline_micro_batches=4: input 0 has 6 rows"),
        ):
            Model(Centred(), cards=cards).predict(Tensor(x))
