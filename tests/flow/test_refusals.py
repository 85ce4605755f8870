"""What the flow refuses before it computes: each time with what to set or to pass."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ArgumentTypeError, CheckpointFileError, ContextError, GraphError
from distinfer_lab.flow import (
    CheckpointConfig,
    LossMonitor,
    Model,
    ModelCheckpoint,
    auto_parallel_context,
    get_auto_parallel_context,
    reset_auto_parallel_context,
    set_auto_parallel_context,
)
from distinfer_lab.flow.sample import SampleNet, sample_dataset
from distinfer_lab.net import Tensor, nn

X = Tensor(np.zeros((128, 96), np.float32))


@pytest.fixture(scope="module")
def four():
    with CardGroup(4) as cards:
        yield cards


def ask(cards, *data, **settings):
    set_auto_parallel_context(**{"parallel_mode": "semi_auto_parallel", "full_batch": True, **settings})
    return Model(SampleNet(((1, 1), (1, 4))), cards=cards).infer_predict_layout(*data)


def test_inferring_a_layout_needs_its_settings(four, trained):
    """Data, Tensors, a mode that cuts, the whole batch, the training strategy: one after another."""
    strategy = str(trained / "train_strategy.ckpt")
    with pytest.raises(ArgumentTypeError, match="infer_predict_layout needs the predict data"):
        ask(four)
    with pytest.raises(ArgumentTypeError, match=r"takes Tensors, not ndarray; wrap the data in Tensor"):
        ask(four, np.zeros((128, 96), np.float32))
    for mode in ("stand_alone", "data_parallel"):
        with pytest.raises(ContextError, match=f"not {mode}; call set_auto_parallel_context.parallel_mode="):
            ask(four, X, parallel_mode=mode)
    with pytest.raises(ContextError, match=r"call set_auto_parallel_context\(full_batch=True\)"):
        ask(four, X, full_batch=False)
    with pytest.raises(
        ContextError, match=r"set_auto_parallel_context\(strategy_ckpt_load_file='train_strategy"
    ):
        ask(four, X)
    with pytest.raises(CheckpointFileError, match=r"nope\.ckpt: No such file"):
        ask(four, X, strategy_ckpt_load_file="nope.ckpt")
    with pytest.raises(ContextError, match="device_num=8, but the card group has 4 cards; set device_num=4"):
        ask(four, X, strategy_ckpt_load_file=strategy, device_num=8)
    assert dict(ask(four, X, strategy_ckpt_load_file=strategy, device_num=4)) == {
        "matmul_weight": ([4], [-1, 0], [96, 4], 0, True, "", [96, 16], [96, 4], False, False, 0, 0)
    }


def test_one_card_needs_no_training_strategy():
    """Nothing is distributed there."""
    with CardGroup(1) as cards:
        set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
        layout = Model(SampleNet(), cards=cards).infer_predict_layout(X)
        assert layout["matmul_weight"][2] == [96, 16]


def test_a_strategy_file_for_other_cards_says_so(four, trained):
    """A net without `shard` takes the file's 8 parts, which 4 cards cannot have; `shard` overrides it."""
    set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=True,
        strategy_ckpt_load_file=trained / "train_strategy.ckpt",
    )
    with pytest.raises(
        ValueError, match=r"\(by the training strategy file; `shard` in the net overrides it\): m 2"
    ):
        Model(SampleNet(), cards=four).infer_predict_layout(X)


def test_training_needs_its_parts(four):
    """A loss, an optimizer, epochs, batches that fit the cards."""
    net = SampleNet()
    loss, optimizer = (
        nn.SoftmaxCrossEntropyWithLogits(reduction="mean"),
        nn.Momentum(net.trainable_params(), 0.1, 0.9),
    )
    model = Model(net, loss, optimizer, cards=four)
    with pytest.raises(ContextError, match=r"to train, make Model\(network, loss_fn, optimizer\)"):
        Model(net, cards=four).train(1, sample_dataset())
    with pytest.raises(ContextError, match="epoch=0 is below 1"):
        model.train(0, sample_dataset())
    set_auto_parallel_context(parallel_mode="semi_auto_parallel")
    with pytest.raises(
        ContextError, match=r"stacked per rank, shape \(4, rows, ...\), but this one has shape \(8, 16"
    ):
        model.train(1, sample_dataset())
    with pytest.raises(ContextError, match=r"a dataset yields \(data, label\) pairs, not int"):
        model.train(1, [3])
    with pytest.raises(ContextError, match="the dataset yields no batches"):
        model.train(1, [])
    with pytest.raises(ArgumentTypeError, match="network is a Cell, not int"):
        Model(3)
    with pytest.raises(GraphError, match=r"SampleNet.construct takes 1 inputs \(x\), but 2 were given"):
        model.predict(X, X)


def test_settings_are_checked_and_none_is_half_set():
    """Unknown ones with the nearest name, values out of range, and the form for a while."""
    with pytest.raises(
        ContextError, match="there is no setting 'paralel_mode'; did you mean 'parallel_mode'"
    ):
        set_auto_parallel_context(paralel_mode="x")
    with pytest.raises(
        ContextError, match="parallel_mode='fast' is not one of 'stand_alone', 'data_parallel'"
    ):
        set_auto_parallel_context(full_batch=True, parallel_mode="fast")
    assert get_auto_parallel_context("full_batch") is False
    with pytest.raises(ContextError, match="device_num is a number of cards, 1 or more, not 0"):
        set_auto_parallel_context(device_num=0)
    with pytest.raises(ArgumentTypeError, match="full_batch is True or False, not 1"):
        set_auto_parallel_context(full_batch=1)
    with auto_parallel_context(dataset_strategy="full_batch", device_num=3) as context:
        assert (context.full_batch, get_auto_parallel_context("device_num")) == (True, 3)
    assert get_auto_parallel_context("device_num") is None
    set_auto_parallel_context(device_num=5)
    reset_auto_parallel_context()
    assert get_auto_parallel_context("device_num") is None
    with pytest.raises(ContextError, match="there is no setting 'speed'"):
        get_auto_parallel_context("speed")


def test_callbacks_check_what_they_are_given():
    """Numbers out of range, options that exclude each other, a prefix with a folder in it."""
    with pytest.raises(ContextError, match="save_checkpoint_steps=0 is below 1"):
        CheckpointConfig(save_checkpoint_steps=0)
    with pytest.raises(ContextError, match="keep_checkpoint_max=-1 is below 0"):
        CheckpointConfig(keep_checkpoint_max=-1)
    with pytest.raises(ContextError, match="format='zip' is not 'ckpt' or 'safetensors'"):
        CheckpointConfig(format="zip")
    with pytest.raises(ContextError, match="an encrypted file has no crc"):
        CheckpointConfig(enc_key=bytes(16), crc_check=True)
    with pytest.raises(ContextError, match="is the start of a file name"):
        ModelCheckpoint(prefix="../x")
    with pytest.raises(ContextError, match="per_print_times=0 is below 1"):
        LossMonitor(0)


def test_saving_needs_a_net_on_cards_and_options_that_there_are(four, tmp_path):
    """Both are refused before a file is made."""
    model = Model(SampleNet(), cards=four)
    with pytest.raises(
        ArgumentTypeError, match=r"Model\.save has no argument enckey; did you mean enc_key\?"
    ):
        model.save(tmp_path, "a.ckpt", integrated=False, enckey=b"0123456789abcdef")
    with pytest.raises(ContextError, match="the net is on no card yet; train it or load a checkpoint first"):
        model.save(tmp_path, "a.ckpt", integrated=False)
    assert not list(tmp_path.iterdir())


def test_another_group_does_not_start_from_the_initial_values_again():
    """What was trained on one group is not silently forgotten on the next; what was not trained may go anywhere."""
    net = SampleNet()
    loss, optimizer = nn.SoftmaxCrossEntropyWithLogits(reduction="mean"), nn.SGD(net.trainable_params(), 0.1)
    set_auto_parallel_context(parallel_mode="data_parallel", full_batch=True)
    batches = [(d.reshape(128, 96), la.reshape(128, 16)) for d, la in sample_dataset()]
    with CardGroup(2) as first:
        Model(net, cards=first).predict(X)
        with CardGroup(4) as second:
            Model(net, cards=second).predict(X)
        Model(net, loss, optimizer, cards=first).train(1, batches)
    with (
        CardGroup(2) as third,
        pytest.raises(
            ContextError, match=r"matmul_weight was trained on CardGroup\(closed\), and CardGroup\(2 cards"
        ),
    ):
        Model(net, cards=third).predict(X)
