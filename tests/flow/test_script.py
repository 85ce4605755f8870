"""Scripts: MindSpore's tutorial with its import changed, the README's example, a model larger than a card."""

import contextvars
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ContextError
from distinfer_lab.flow import Callback, Model, auto_parallel_context
from distinfer_lab.flow.sample import sample_dataset
from distinfer_lab.net import Cell, Parameter, Tensor, initializer, nn, ops

ROOT = Path(__file__).parents[2]

TUTORIAL = """
import numpy as np
import distinfer_lab as mindspore
import distinfer_lab.net.nn as nn
from distinfer_lab import Model, Parameter, Tensor, context, init, get_rank, get_group_size
from distinfer_lab import CheckpointConfig, ModelCheckpoint, LossMonitor, load_distributed_checkpoint
from distinfer_lab.net import ops as P

context.set_context(mode=context.GRAPH_MODE, device_target="Ascend", save_graphs=False)
init()
assert (get_rank(), get_group_size()) == (0, 8)
mindspore.set_seed(1)


class Network(nn.Cell):
    def __init__(self, matmul_size, strategy=None):
        super().__init__()
        weight = np.full(matmul_size, 0.5, dtype=np.float32)
        self.matmul_weight = Parameter(Tensor(weight))
        self.matmul = P.MatMul()
        self.neg = P.Neg()
        if strategy is not None:
            self.matmul.shard(strategy)

    def construct(self, inputs):
        return self.neg(self.matmul(inputs, self.matmul_weight))


context.set_auto_parallel_context(
    parallel_mode=context.ParallelMode.SEMI_AUTO_PARALLEL,
    device_num=get_group_size(),
    strategy_ckpt_save_file="./train_strategy.ckpt",
)
net = Network((96, 16), ((2, 1), (1, 4)))
loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
model = Model(net, loss, nn.Momentum(net.trainable_params(), learning_rate=0.01, momentum=0.9))
ckpt_config = CheckpointConfig(keep_checkpoint_max=1, integrated_save=False)
saved = ModelCheckpoint(prefix="parallel", directory=".", config=ckpt_config)
model.train(2, dataset, callbacks=[saved], dataset_sink_mode=False)

context.reset_auto_parallel_context()
context.set_auto_parallel_context(
    full_batch=True, parallel_mode="semi_auto_parallel", strategy_ckpt_load_file="./train_strategy.ckpt", device_num=8
)
predict_net = Network((96, 16))
predict_data = Tensor(np.random.RandomState(9).randn(128, 96), mindspore.float32)
model = Model(predict_net)
predict_layout = model.infer_predict_layout(predict_data)
ckpt_files = [f"./rank_{i}_ckpt/parallel-2_2.ckpt" for i in range(8)]
load_distributed_checkpoint(predict_net, ckpt_files, predict_layout)
output = model.predict(predict_data)
"""


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tutorials_script_runs_with_its_import_changed(inside):
    """And a card group around it; on 8 cards the predict net takes the training strategy back."""
    names = {"dataset": sample_dataset(), "__name__": "script"}
    with CardGroup(8):
        exec(TUTORIAL, names)
        trained = names["net"].matmul_weight.asnumpy()
    expected = -(names["predict_data"].asnumpy() @ trained)
    np.testing.assert_allclose(names["output"].asnumpy(), expected, rtol=1e-5, atol=1e-5)
    assert names["predict_layout"]["matmul_weight"][:3] == ([2, 4], [-1, 0], [96, 4])


def readme_s(kind, words):
    """The README's only block of a kind of code in which these words stand."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (found,) = [block for block in blocks if words in block]
    return found


def test_the_readme_s_four_steps_run(inside):
    """Its first Python, word for word: in not many more than ten lines, the answer of one card."""
    source = readme_s("python", "train_sample")
    assert len([line for line in source.splitlines() if line and not line.startswith("import")]) <= 12
    names = {"__name__": "readme"}
    exec(source, names)
    weight = np.concatenate(
        [dl.open_slice(f).read("matmul_weight") for f in dl.sample.create_ckpt_file_list("trained")[:4]],
        axis=1,
    )
    expected = -(names["data"].asnumpy() @ weight)
    np.testing.assert_allclose(names["result"].asnumpy(), expected, rtol=1e-5, atol=1e-5)


def in_bash(commands, folder):
    """What commands of the README do in a folder, `distinfer` being that of this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_readme_s_reshard_runs(inside, capsys):
    """After its four steps, word for word: the inferred strategy as a file; commands and Python that take it."""
    names = {"__name__": "readme"}
    exec(readme_s("python", "train_sample"), names)
    (writing,) = re.findall(r"`(dl\.write_strategy\(.*?\))`", (ROOT / "README.md").read_text())
    exec(writing, names)
    os.symlink(inside / "trained", inside / "ckpt")
    os.symlink(inside / "trained/train_strategy.ckpt", inside / "train_strategy.ckpt")
    assert "all as written" in in_bash(readme_s("bash", "distinfer inspect"), inside).stdout
    (inside / "out").rename(inside / "by_commands")
    exec(readme_s("python", "open_checkpoint"), {"__name__": "readme"})
    told = capsys.readouterr().out
    assert "8 -> 4 ranks" in told
    assert "all as written" in told
    for rank in range(4):
        name = f"rank_{rank}/checkpoint_{rank}.ckpt"
        assert (inside / "out" / name).read_bytes() == (inside / "by_commands" / name).read_bytes()


def test_the_readme_s_round_trip_runs(tmp_path):
    """Its commands for Hugging Face, word for word: four slices, two, and back, and cmp finds no difference."""
    os.symlink(ROOT / "tests", tmp_path / "tests")
    done = in_bash(readme_s("bash", "llama_gqa_tiny"), tmp_path)
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) == 10
    assert "differ" not in done.stdout


def test_the_readme_s_transformer_runs(inside):
    """Its Python for Hugging Face folders, word for word: the logits of one card, and the most probable tokens."""
    os.symlink(ROOT / "tests", inside / "tests")
    names = {"__name__": "readme"}
    exec(readme_s("python", "from_pretrained_config"), names)
    whole = names["model"].network
    with CardGroup(1) as one:
        net = type(whole)(names["folder"]).shard_by(tp=1)
        dl.load_distributed_checkpoint(net, names["folder"], cards=one)
        expected = dl.Model(net, cards=one).predict(names["generated"]).asnumpy()
    np.testing.assert_allclose(names["logits"].asnumpy(), expected[:, :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(names["generated"].asnumpy()[:, 4:], expected.argmax(-1)[:, 3:-1])


def test_the_readme_s_example_runs(inside, trained):
    """Its Python with a net of its own, word for word, on the files that the four steps leave."""
    os.symlink(trained, inside / "trained")
    source = readme_s("python", "class Net(")
    names = {"__name__": "readme"}
    exec(source, names)
    weight = np.concatenate([dl.open_slice(f).read("matmul_weight") for f in names["files"][:4]], axis=1)
    np.testing.assert_allclose(names["result"].asnumpy(), np.ones((128, 96)) @ weight, rtol=1e-5)


def test_mindspores_words_need_cards():
    """init, get_rank and get_group_size say what is missing."""
    for word in (dl.init, dl.get_rank, dl.get_group_size):
        with pytest.raises(ContextError, match="there are no cards"):
            contextvars.Context().run(word)  # whatever blocks are around this test


class Wide(Cell):
    """One product with a weight of 128 MiB."""

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul().shard(((1, 1), (1, 4)))
        self.weight = Parameter(initializer("normal", (4096, 8192)), name="w")

    def construct(self, x):
        return self.matmul(x, self.weight)


def test_a_model_larger_than_a_card_or_the_controller():
    """128 MiB on 4 process cards: each makes and holds its 32 MiB, and the controller a few hundred kB."""
    mib = 1 << 20
    net, x = Wide(), np.ones((2, 4096), np.float32)
    with (
        CardGroup(4, processes=True) as cards,
        auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True),
    ):
        tracemalloc.start()
        y = Model(net).predict(Tensor(x)).asnumpy()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        memory = cards.memory()
        columns = net.weight.region(((0, 4096), (8000, 8001)))
    assert memory.held_bytes.tolist() == [32 * mib] * 4
    assert peak < 8 * mib
    for card in memory:
        assert card.private_bytes < 72 * mib
    np.testing.assert_allclose(y[:, 8000:8001], x @ columns, rtol=1e-4, atol=1e-4)


def test_parameters_that_the_net_never_reads_are_whole(inside, trained):
    """They are in the layout, so that a checkpoint with them loads."""

    class Spare(Wide):
        def __init__(self):
            super().__init__()
            self.spare = Parameter(np.zeros(3, np.float32), name="spare")

    with CardGroup(4) as cards:
        dl.set_auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            strategy_ckpt_load_file=trained / "train_strategy.ckpt",
        )
        layout = Model(Spare(), cards=cards).infer_predict_layout(Tensor(np.ones((2, 4096), np.float32)))
    assert layout["spare"][2] == [3]
    assert layout["w"][2] == [4096, 2048]


def test_callbacks_are_told_where_training_stands():
    """Epochs, steps and the loss, from 1, also for a dataset that only iterates."""

    class Notes(Callback):
        def __init__(self):
            self.notes = []

        def on_train_begin(self, run):
            self.notes.append(("begin", run.epoch, run.step))

        def on_train_step_end(self, run):
            self.notes.append((run.epoch, run.step_in_epoch, run.step, run.steps_per_epoch))

        def on_train_epoch_end(self, run):
            self.notes.append(f"epoch {run.epoch}")

        def on_train_end(self, run):
            self.notes.append("end")

    class Stream:
        def __iter__(self):
            return ((d.reshape(128, 96), la.reshape(128, 16)) for d, la in sample_dataset())

    notes = Notes()
    net = dl.sample.SampleNet()
    loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
    with CardGroup(1) as cards:
        Model(net, loss, nn.SGD(net.trainable_params(), 0.1), cards=cards).train(2, Stream(), callbacks=notes)
    steps = [(1, 1, 1, 0), (1, 2, 2, 0), "epoch 1", (2, 1, 3, 0), (2, 2, 4, 0), "epoch 2"]
    assert notes.notes == [("begin", 0, 0), *steps, "end"]


def test_a_callback_saves_what_the_cards_hold(tmp_path):
    """After any step; before the first one a net that was never placed has nothing to save."""

    class Keep(Callback):
        def on_train_begin(self, run):
            with pytest.raises(ContextError, match="the net is on no card yet"):
                run.save(tmp_path, "begin.ckpt", integrated=True)

        def on_train_step_end(self, run):
            (self.file,) = run.save(tmp_path, f"{run.step}.ckpt", integrated=True)

    keep, net = Keep(), dl.sample.SampleNet()
    loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
    batches = [(data.reshape(128, 96), label.reshape(128, 16)) for data, label in sample_dataset()]
    with CardGroup(1) as cards:
        Model(net, loss, nn.SGD(net.trainable_params(), 0.1), cards=cards).train(1, batches, callbacks=keep)
        assert keep.file == tmp_path / "2.ckpt"
        saved = dl.load_checkpoint(keep.file)["matmul_weight"].asnumpy()
        np.testing.assert_array_equal(saved, net.weight.asnumpy())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.ckpt", "2.ckpt"]
