"""Every public class describes itself: text without addresses, HTML that needs no trust, never an error."""

import dataclasses
import importlib
import inspect
import re

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab import display
from distinfer_lab.checkpoint import MissingFile, open_checkpoint
from distinfer_lab.display import Displayed
from distinfer_lab.flow import sample
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy, box_at
from distinfer_lab.net import trace
from distinfer_lab.reshard import Topology
from distinfer_lab.trace import Span, Trace

LAYERS = (
    *("cards", "checkpoint", "flow", "formats", "layout", "net", "net.nn", "net.ops", "net.models"),
    *("parallel", "reshard", "rules", "trace", "views", "widgets"),
)
ADDRESS = re.compile(r"(object|function|method|module)?.{0,80} at 0x[0-9a-f]+", re.DOTALL)


def public_classes():
    """Every class of this package that some layer exports, by its name."""
    out = {}
    for layer in LAYERS:
        module = importlib.import_module(f"distinfer_lab.{layer}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("distinfer_lab"):
                out[f"{layer}.{name}"] = value
    return out


def is_made(cls):
    """Whether there are instances of a class: no protocol, no base without a meaning of its own, no namespace."""
    namespace = not any(inspect.isfunction(v) for v in vars(cls).values()) and cls.__init__ is object.__init__
    return not (
        getattr(cls, "_is_protocol", False)
        or inspect.isabstract(cls)
        or issubclass(cls, BaseException)
        or namespace
    )


@pytest.mark.parametrize("name", [n for n, cls in public_classes().items() if is_made(cls)])
def test_a_public_class_has_a_text_of_its_own(name):
    """No instance of what is exported is shown as "object at 0x"."""
    assert public_classes()[name].__repr__ is not object.__repr__


@pytest.mark.parametrize("name", [n for n in dl.__all__ if inspect.isclass(getattr(dl, n))])
def test_what_a_notebook_names_is_shown_in_it(name):
    """Every class of the top level with instances has a mimebundle: text and HTML."""
    cls = getattr(dl, name)
    if is_made(cls):
        assert callable(getattr(cls, "_repr_mimebundle_", None)), f"{name} should inherit display.Displayed"


def check(record):
    """Text and HTML as they must be, whatever has become of the record."""
    bundle = record._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    text, html = bundle["text/plain"], bundle["text/html"]
    assert "no picture" not in text
    assert "cannot be described" not in text
    assert not ADDRESS.search(text + re.sub(r'base64,[^"]*', "", html))
    assert len(text) < 30_000
    assert len(html) < 50_000
    assert not re.search(r"<(script|style|svg|link|iframe)\b", html)
    assert bundle == (
        record._repr_mimebundle_()[0]
        if isinstance(record._repr_mimebundle_(), tuple)
        else record._repr_mimebundle_()
    )
    return bundle


TP = Mesh(tp=4)
STRATEGY = Strategy({"w": Layout(TP, "- tp"), "b": Layout(TP, "-")}, {"w": (96, 16), "b": (16,)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Slice files of four ranks, and the strategy file that says so."""
    path = tmp_path_factory.mktemp("slices")
    whole = {name: np.ones(shape, np.float32) for name, shape in STRATEGY.shapes.items()}
    for rank in range(4):
        held = {name: box_at(STRATEGY.boxes(name), rank).of(whole[name]).copy() for name in STRATEGY}
        save_slice(path / f"rank_{rank}.ckpt", held)
    dl.write_strategy(path / "train.ckpt", dl.StrategyFile.from_strategy(STRATEGY))
    return path


@pytest.fixture
def checkpoint(folder):
    """The four files, open."""
    with open_checkpoint([folder / f"rank_{r}.ckpt" for r in range(4)], STRATEGY) as found:
        yield found


def net_records():
    """A net and what becomes of it on the way to a program."""
    net = sample.SampleNet(((2, 1), (1, 4)))
    graph = trace(net, dl.Tensor(np.ones((128, 96), np.float32)))
    sharding = dl.propagate(graph, 8)
    program = dl.partition(graph, sharding)
    optimizer = dl.nn.Momentum(net.trainable_params(), 0.01, 0.9)
    return {
        "net": net,
        "cells": dl.nn.SequentialCell([dl.nn.Dense(8, 4), dl.nn.ReLU()]),
        "a cell without parameters": dl.nn.ReLU(),
        "graph": graph,
        "sharding": sharding,
        "program": program,
        "communication": program.communication(),
        "optimizer": optimizer,
        "loss": dl.nn.SoftmaxCrossEntropyWithLogits(reduction="mean"),
        "operator": dl.ops.MatMul().shard(((1, 1), (1, 4))),
        "axes": dl.ops.Layout((2, 4), ("dp", "mp")),
        "dims": dl.ops.Layout((2, 4), ("dp", "mp"))("dp", "None"),
        "tensor": dl.Tensor(np.zeros((1000, 1000), np.float32)),
        "parameter": net.weight,
        "model": dl.Model(net, lambda y, t: y, optimizer),
    }


RECORDS = net_records() | {
    "mesh": TP,
    "layout": STRATEGY["w"],
    "fused layout": Layout(TP, "tp[8|4|4]"),
    "box": dl.Box((0, 4), (96, 8)),
    "box of no dims": dl.Box((), ()),
    "strategy": STRATEGY,
    "strategy file": dl.StrategyFile.from_strategy(STRATEGY),
    "empty strategy file": dl.StrategyFile(),
    "rules": dl.Rules(dl.Mesh.parse("tp=4"), dl.read_rules("llama"), {"num_attention_heads": 8}),
    "topology": Topology.of_hosts(1024, 8),
    "plan": dl.plan_reshard(STRATEGY, None),
    "explanation": dl.explain(dl.plan_reshard(STRATEGY, None)),
    "trace": Trace([Span(0, "read", "w", 0, 1)]),
    "callback": dl.LossMonitor(),
    "checkpoints": dl.ModelCheckpoint("net", "somewhere"),
    "configuration": dl.CheckpointConfig(enc_key=b"0123456789abcdef"),
    "drawing": dl.LayoutView(STRATEGY, None).static,
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_fresh_record_is_shown(record):
    """Text, HTML, bounded, the same each time."""
    check(record)


@pytest.mark.parametrize("record", [r for r in RECORDS.values() if isinstance(r, Displayed)])
def test_a_damaged_record_is_shown_all_the_same(record):
    """Whatever attribute is gone, showing raises nothing and says in words what failed."""
    names = (
        [f.name for f in dataclasses.fields(record)]
        if dataclasses.is_dataclass(record)
        else list(vars(record))
    )
    for name in names:
        broken = object.__new__(type(record))
        for key, value in vars(record).items():
            if key != name:
                object.__setattr__(broken, key, value)
        bundle = broken._repr_mimebundle_()
        assert bundle["text/plain"]


def test_a_secret_is_not_shown():
    """The key that files are encrypted with appears in no text."""
    words = str(check(RECORDS["configuration"]))
    assert "0123456789abcdef" not in words


def test_open_and_closed_files_are_shown_alike(folder):
    """What is shown of files comes from their headers: closing changes nothing, and nothing is read."""
    with open_checkpoint([folder / f"rank_{r}.ckpt" for r in range(4)], STRATEGY) as checkpoint:
        plan = checkpoint.plan(
            Strategy({n: Layout.replicated(2, len(s)) for n, s in STRATEGY.shapes.items()})
        )
        records = [checkpoint, checkpoint.files[0], plan, plan.explain()]
        fresh = [check(record) for record in records]
        assert sum(file.nbytes_read for file in checkpoint.files) == 0
    assert [check(record) for record in records] == fresh


def test_a_checkpoint_with_lost_slices_is_shown(folder, checkpoint):
    """The ranks that are gone are named, and what nobody else holds."""
    lost = dataclasses.replace(
        checkpoint, files=(*checkpoint.files[:3], MissingFile("rank_3.ckpt", "it is <missing>"))
    )
    bundle = check(lost)
    assert "rank 3 is lost: it is &lt;missing&gt;" in bundle["text/html"]
    assert "cannot be recovered: w" in bundle["text/html"]


def test_a_finished_reshard_and_its_check_are_shown(checkpoint, tmp_path):
    """Result and verification, also when the files have gone since."""
    result = checkpoint.plan(None).write(tmp_path / "out")
    verification = result.verify()
    before = check(result), check(verification)
    for path in result.paths:
        (tmp_path / "out" / path).unlink()
    assert (check(result), check(verification)) == before
    check(result.verify())
    check(open_slice(checkpoint.files[0].path))


def test_a_group_and_what_is_on_it_is_shown_used_and_closed(folder):
    """Cards, memory, layouts and results before, while and after a group works."""
    data = dl.Tensor(sample.create_predict_data())
    with dl.CardGroup(4) as group:
        net = sample.SampleNet(((1, 1), (1, 4)))
        model = dl.Model(net)
        records = [group, model, net, net.weight]
        for record in records:
            check(record)
        whole = Strategy({"matmul_weight": Layout.replicated(1, 2)}, {"matmul_weight": (96, 16)})
        dl.write_strategy(folder / "whole_strategy.ckpt", dl.StrategyFile.from_strategy(whole))
        save_slice(folder / "whole.ckpt", {"matmul_weight": np.ones((96, 16), np.float32)})
        with dl.auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            strategy_ckpt_load_file=str(folder / "whole_strategy.ckpt"),
        ):
            layout = model.infer_predict_layout(data)
            loaded = dl.load_distributed_checkpoint(net, [folder / "whole.ckpt"], layout)
            result = model.predict(data)
        run = group.start(lambda run: None)
        run.result()
        failing = group.start(lambda run: 1 // 0)
        with pytest.raises(ZeroDivisionError, match="by zero"):
            failing.result()
        records += [layout, loaded, result, run, failing, group.memory(), group.memory()[0]]
        records += [model.last, model.last.program, model.last.communication]
        for record in records:
            if hasattr(record, "_repr_mimebundle_"):
                check(record)
        assert "ZeroDivisionError" in repr(failing)
    for record in records:
        if hasattr(record, "_repr_mimebundle_"):
            check(record)
    assert repr(group) == "CardGroup(closed)"


def test_a_repr_that_fails_is_said_in_words():
    """A record whose text cannot be made is named, with the reason, and nothing is raised."""

    class Odd(Displayed):
        def __repr__(self):
            raise RuntimeError("no words")

    assert Odd()._repr_mimebundle_() == {
        "text/plain": "Odd (cannot be described: RuntimeError: no words)",
        "text/html": "<pre>Odd (cannot be described: RuntimeError: no words)</pre>",
    }


def test_long_texts_are_cut_by_lines():
    """Of very many lines the first are shown and the rest is counted; a line is never endless."""

    class Long(Displayed):
        def __repr__(self):
            return "\n".join(["x" * 1000] * 1000)

    lines = Long()._repr_mimebundle_()["text/plain"].split("\n")
    assert len(lines) == display.MOST_LINES + 1
    assert lines[-1] == "  ... and 940 lines more"
    assert len(lines[0]) == display.LONGEST_LINE
