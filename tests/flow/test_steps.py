"""The four steps, as the tutorial has them, against what the real MindSpore trained and predicted."""

import os
import signal

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.flow import (
    Callback,
    CheckpointConfig,
    LossMonitor,
    Model,
    ModelCheckpoint,
    auto_parallel_context,
    load_checkpoint,
    load_distributed_checkpoint,
    save_checkpoint,
    set_auto_parallel_context,
)
from distinfer_lab.flow.sample import SampleNet, create_ckpt_file_list, sample_dataset, train_sample
from distinfer_lab.formats import open_slice, read_strategy
from distinfer_lab.net import Tensor, nn

from ..oracle import case
from ..trained import MLP, MLP_CUTS, SAMPLE, STRATEGY, check_against_mindspore

EXPECTED = SAMPLE.expected
WEIGHT = EXPECTED["param/matmul_weight"]


def test_training_writes_mindspores_files(trained):
    """One file per rank with its four columns, moments and counters; MindSpore's strategy file, byte for byte."""
    for rank, path in enumerate(create_ckpt_file_list(trained)):
        with open_slice(path) as found:
            columns = slice(4 * (rank % 4), 4 * (rank % 4) + 4)
            np.testing.assert_allclose(found.read("matmul_weight"), WEIGHT[:, columns], rtol=1e-5, atol=1e-6)
            moments = EXPECTED["state/moments.matmul_weight"][:, columns]
            np.testing.assert_allclose(found.read("moments.matmul_weight"), moments, rtol=1e-4, atol=1e-6)
            assert found.read("global_step") == 4
            assert found.read("learning_rate") == np.float32(0.01)
    theirs = read_strategy(case("sample_r13").src_strategy)
    ours = read_strategy(trained / "train_strategy.ckpt")
    assert dict(ours.layouts) == dict(theirs.layouts)
    assert dict(ours.operators) == dict(theirs.operators)
    assert sorted(p.name for p in trained.iterdir()) == [
        *(f"rank_{r}_ckpt" for r in range(8)),
        "train_strategy.ckpt",
    ]


@pytest.mark.parametrize(
    ("count", "processes"), [(8, False), (4, False), (2, False), (1, False), (4, True), (2, True), (1, True)]
)
def test_the_sample_predicts_on_any_group(trained, count, processes):
    """Weights bit for bit, predictions as MindSpore's, each card holding its columns and no more."""
    columns = min(count, 4)
    with (
        CardGroup(count, processes=processes) as cards,
        auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            strategy_ckpt_load_file=trained / "train_strategy.ckpt",
        ),
    ):
        net = SampleNet(None if count == 8 else ((1, 1), (1, columns)))
        model = Model(net)
        x = Tensor(EXPECTED["predict/x"])
        layout = model.infer_predict_layout(x)
        assert layout["matmul_weight"][2] == [96, 16 // columns]
        result = load_distributed_checkpoint(net, create_ckpt_file_list(trained), layout)
        assert result.held_bytes == (96 * 16 // columns * 4,) * count
        assert result.unused == ("learning_rate", "global_step", "momentum", "moments.matmul_weight")
        y = model.predict(x)
        np.testing.assert_allclose(y.asnumpy(), EXPECTED["predict/y"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(y.asnumpy(), model.predict_on_one_card(x).asnumpy(), rtol=1e-5, atol=1e-5)
        # No gathering behind the curtain: shards are all that is held, and no weight travelled.
        assert cards.memory().held_bytes.tolist() == [96 * 16 // columns * 4] * count
        assert model.last.communication.sent_bytes.tolist() == model.last.program.sent_bytes.tolist()
        assert all("weight" not in c.value for c in model.last.program.collectives)
        np.testing.assert_allclose(net.weight.asnumpy(), WEIGHT, rtol=1e-5, atol=1e-6)


def test_training_on_processes_is_training_in_process(trained, tmp_path):
    """Eight process cards leave the same bytes as eight cards in one process; and predict there too."""
    with CardGroup(8, processes=True) as cards:
        model = train_sample(tmp_path, cards)
        assert cards.memory().held_bytes.tolist() == [2 * 96 * 4 * 4 + 3 * 4] * 8
        assert model.last.communication.sent_bytes.tolist() == model.last.program.sent_bytes.tolist()
        with auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True):
            y = model.predict(Tensor(EXPECTED["predict/x"]))
        np.testing.assert_allclose(y.asnumpy(), EXPECTED["predict/y"], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(create_ckpt_file_list(tmp_path), create_ckpt_file_list(trained), strict=True):
        assert open(ours, "rb").read() == open(theirs, "rb").read()


@pytest.mark.parametrize("how", ["rows", "columns", "2-D"])
def test_the_mlp_trains_on_cards_and_merges(how, tmp_path):
    """However it is cut: MindSpore's weights; integrated_save writes them whole into one file."""
    net, loss, optimizer = MLP.make(MLP_CUTS[how])
    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    monitor = LossMonitor(100)
    checkpoints = ModelCheckpoint(
        "mlp", tmp_path, CheckpointConfig(save_checkpoint_steps=4, keep_checkpoint_max=2)
    )
    with CardGroup(8) as cards:
        model = Model(net, loss, optimizer, cards=cards)
        model.train(MLP.epochs, MLP.batches(), callbacks=[monitor, checkpoints])
        y = model.predict(Tensor(MLP.expected["predict/x"]))
    np.testing.assert_allclose(monitor.losses, MLP.expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(y.asnumpy(), MLP.expected["predict/y"], rtol=1e-5, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlp-4_2.ckpt", "mlp-5_2.ckpt"]
    values = {n: p.asnumpy() for n, p in load_checkpoint(tmp_path / "mlp-5_2.ckpt").items()}
    check_against_mindspore(MLP, values)


@pytest.mark.parametrize("mode", ["stand_alone", "data_parallel", "auto_parallel"])
def test_other_modes_train_alike(mode):
    """On one card of the group, data parallel, or by spreading strategies."""
    net, loss, optimizer = MLP.make(MLP_CUTS["2-D"] if mode == "auto_parallel" else None)
    set_auto_parallel_context(parallel_mode=mode, full_batch=True)
    with CardGroup(4 if mode != "auto_parallel" else 8) as cards:
        model = Model(net, loss, optimizer, cards=cards)
        model.train(MLP.epochs, MLP.batches())
        check_against_mindspore(
            MLP, {n: p.asnumpy() for n, p in net.parameters_dict().items()} | states_of(MLP.expected)
        )
        held = cards.memory().held_bytes
        assert (held[1:] == 0).all() if mode == "stand_alone" else (held > 0).all()


def states_of(expected):
    return {key[6:]: expected[key] for key in expected if key.startswith("state/")}


def test_the_parallel_optimizer_cuts_what_a_card_holds(tmp_path):
    """ZeRO by MindSpore's name: the same weights, an eighth of the bytes; its slices load again."""
    net, loss, optimizer = MLP.make()
    strategy = tmp_path / "strategy.ckpt"
    set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=True,
        enable_parallel_optimizer=True,
        strategy_ckpt_save_file=strategy,
    )
    config = CheckpointConfig(integrated_save=False)
    with CardGroup(8) as cards:
        checkpoints = ModelCheckpoint("z", tmp_path, config)
        Model(net, loss, optimizer, cards=cards).train(MLP.epochs, MLP.batches(), callbacks=checkpoints)
        whole = 2 * sum(p.asnumpy().nbytes for p in net.get_parameters())
        assert cards.memory().held_bytes.max() < 0.13 * whole + 100
    again, _, _ = MLP.make()
    with CardGroup(1) as cards:
        load_distributed_checkpoint(again, checkpoints.latest_ckpt_file_names, None, strategy, cards=cards)
        for name, param in again.parameters_dict().items():
            np.testing.assert_allclose(param.asnumpy(), MLP.expected[f"param/{name}"], rtol=1e-5, atol=1e-6)


def test_a_parameter_may_stay_out_of_the_parallel_optimizer(tmp_path):
    """`Parameter(parallel_optimizer=False)` and its states stay whole; data_parallel, too, says who holds what."""
    net, loss, optimizer = MLP.make()
    kept = next(iter(net.parameters_dict()))
    net.parameters_dict()[kept].parallel_optimizer = False
    strategy = tmp_path / "strategy.ckpt"
    set_auto_parallel_context(
        parallel_mode="data_parallel",
        full_batch=True,
        enable_parallel_optimizer=True,
        strategy_ckpt_save_file=strategy,
    )
    config = CheckpointConfig(integrated_save=False)
    with CardGroup(4) as cards:
        checkpoints = ModelCheckpoint("z", tmp_path, config)
        Model(net, loss, optimizer, cards=cards).train(MLP.epochs, MLP.batches(), callbacks=checkpoints)
    checkpoint = open_checkpoint(checkpoints.latest_ckpt_file_names, strategy)
    cut = {name for name, layout in checkpoint.strategy.items() if layout.optimizer_shards > 1}
    assert kept not in cut
    assert f"moments.{kept}" not in cut
    assert cut >= {n for n in net.parameters_dict() if n != kept}
    with CardGroup(1) as cards:
        load_distributed_checkpoint(net, checkpoints.latest_ckpt_file_names, None, strategy, cards=cards)
        for name, param in net.parameters_dict().items():
            np.testing.assert_allclose(param.asnumpy(), MLP.expected[f"param/{name}"], rtol=1e-5, atol=1e-6)


def test_a_net_lives_on_two_groups_at_once(trained):
    """Two placements share nothing: each predicts, and dropping one leaves the other."""
    files = create_ckpt_file_list(trained)
    x = Tensor(EXPECTED["predict/x"])
    set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=True,
        strategy_ckpt_load_file=trained / "train_strategy.ckpt",
    )
    net = SampleNet(((1, 1), (1, 2)))
    with CardGroup(4) as four:
        with CardGroup(2) as two:
            for group in (four, two):
                model = Model(net, cards=group)
                load_distributed_checkpoint(net, files, model.infer_predict_layout(x), cards=group)
            both = [Model(net, cards=group).predict(x).asnumpy() for group in (four, two)]
            assert four.memory().held_bytes.tolist() == [96 * 8 * 4] * 4
            assert two.memory().held_bytes.tolist() == [96 * 8 * 4] * 2
        np.testing.assert_allclose(Model(net, cards=four).predict(x).asnumpy(), both[1], rtol=1e-5, atol=1e-5)


def test_loading_again_frees_what_was_there(trained):
    """A net that is loaded twice on a group is held once."""
    files = create_ckpt_file_list(trained)
    with CardGroup(2) as cards:
        net = SampleNet()
        for _ in range(3):
            load_distributed_checkpoint(net, files, None, trained / "train_strategy.ckpt", cards=cards)
        assert cards.memory().held_bytes.tolist() == [96 * 16 * 4, 0]


def test_a_merged_file_is_cut_for_the_cards(trained, tmp_path):
    """One whole file, or the same whole file for each card of a data-parallel run."""
    save_checkpoint([{"name": "matmul_weight", "data": Tensor(WEIGHT)}], tmp_path / "whole.ckpt")
    net = SampleNet(((1, 1), (1, 4)))
    set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=True,
        strategy_ckpt_load_file=trained / "train_strategy.ckpt",
    )
    with CardGroup(4) as cards:
        model = Model(net)
        x = Tensor(EXPECTED["predict/x"])
        layout = model.infer_predict_layout(x)
        set_auto_parallel_context(strategy_ckpt_load_file="")
        for files in (tmp_path / "whole.ckpt", [tmp_path / "whole.ckpt"] * 4):
            result = load_distributed_checkpoint(net, files, layout)
            assert result.held_bytes == (96 * 4 * 4,) * 4
            np.testing.assert_array_equal(net.weight.asnumpy(), WEIGHT)
        assert cards.memory().held_bytes.tolist() == [96 * 4 * 4] * 4


def test_a_lost_card_does_not_change_what_is_learnt(tmp_path):
    """A process is killed in the second epoch; the final weights equal those of an undisturbed run, bit for bit."""

    class Kill(Callback):
        def __init__(self, cards):
            self.cards, self.done = cards, False

        def on_train_step_end(self, run):
            if run.step == 3 and not self.done:
                self.done = True
                pids = self.cards.client.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)

    weights = []
    for disturbed in (False, True):
        for saving in (False, True):
            net = SampleNet(((2, 1), (1, 2)))
            optimizer = nn.Momentum(net.trainable_params(), 0.01, 0.9)
            loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
            batches = [(d.reshape(128, 96), la.reshape(128, 16)) for d, la in sample_dataset()]
            set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
            config = CheckpointConfig(save_checkpoint_steps=2, integrated_save=False)
            with CardGroup(4, processes=disturbed) as cards:
                callbacks = [Kill(cards)] if disturbed else []
                if saving:
                    callbacks.append(ModelCheckpoint("k", tmp_path / str(disturbed), config))
                Model(net, loss, optimizer, cards=cards).train(2, batches, callbacks=callbacks)
                weights.append(net.weight.asnumpy())
                if disturbed:
                    assert callbacks[0].done
    for other in weights[1:]:
        np.testing.assert_array_equal(weights[0], other)
    assert STRATEGY == ((2, 1), (1, 4))
