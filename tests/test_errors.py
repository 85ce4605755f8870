"""Errors say in fields what their texts name, and no way up loses the fields."""

import ast
import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab import errors
from distinfer_lab.arguments import checked
from distinfer_lab.comm.frames import closed
from distinfer_lab.errors import DistinferError, GraphError, LayoutError, Option, Remark, options_of
from distinfer_lab.flow import set_auto_parallel_context
from distinfer_lab.formats import open_slice, read_strategy, save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import nn
from distinfer_lab.parallel import propagate
from distinfer_lab.rules import Rules, read_rules
from distinfer_lab.rules.cut import MisfitError
from tests.test_structure import TREES

FIELDS = ("file", "parameter", "dim", "rank")
CLASSES = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, DistinferError)
}
SHARDED = Strategy({"h.0.w": Layout(Mesh(tp=2), "tp -")}, {"h.0.w": (4, 6)})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint of two ranks, its strategy, and files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    for rank in range(2):
        (tmp_path / f"src/rank_{rank}").mkdir(parents=True)
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", {"h.0.w": np.zeros((2, 6), np.float32)})
    write_strategy("two.json", SHARDED)
    Path("bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    Path("bad.json").write_text("{")
    Path("uneven.json").write_text(
        '{"tensors": {"h.0.w": {"shape": [4, 7], "layout": {"mesh": {"tp": 2}, "dims": [[], ["tp", "tp"]]}}}}'
    )
    save_slice("whole.ckpt", {"h.0.w": np.zeros((4, 6), np.float32)})
    return tmp_path


def opened(rebuild=False, **options):
    return dl.open_checkpoint("src", "two.json", rebuild=rebuild, **options)


def boxes_of(shape, layout="- tp", **options):
    return Strategy({"h.0.w": Layout(Mesh(tp=4), layout, **options)}, {"h.0.w": shape}).boxes("h.0.w")


def without_rank_1():
    Path("src/rank_1").rename("src/rank_2")
    return opened()


def with_a_slice_of_another_shape():
    save_slice("src/rank_1/a.ckpt", {"h.0.w": np.zeros((3, 6), np.float32)})
    return opened()


def with_a_rank_of_another_net():
    save_slice("src/rank_1/a.ckpt", {"v": np.zeros((3, 6), np.float32)})
    return opened()


def with_a_cut_file():
    path = Path("src/rank_1/a.ckpt")
    path.write_bytes(path.read_bytes()[:-7])
    return opened()


def to_a_strategy_of_another_net():
    with opened() as checkpoint:
        return checkpoint.plan(Strategy({"v": Layout.replicated(1, 2)}))


def planned(**options):
    with opened() as checkpoint:
        return checkpoint.plan(**options)


def written(**options):
    with opened() as checkpoint:
        return checkpoint.plan().write(**options)


def sharded(*in_strategy):
    from distinfer_lab.net import Tensor, trace

    net = nn.Dense(6, 4)
    net.matmul.shard(in_strategy)
    return propagate(trace(net, Tensor(np.zeros((3, 6), np.float32))), 2)


@checked
def takes_an_int(count: int) -> int:
    return count


# What fails, and the fields of its error; a file is relative to the folder.
FAILURES = {
    "a tensor that cannot be shared": (lambda: boxes_of((4, 6)), {"parameter": "h.0.w", "dim": 1}),
    "sizes of a dim": (
        lambda: boxes_of((4, 6), sizes=(None, (1, 1, 1, 1))),
        {"parameter": "h.0.w", "dim": 1},
    ),
    "more sizes than parts": (
        lambda: Layout(Mesh(tp=2), "tp", sizes=((1, 2, 3),)),
        {"dim": 0},
    ),
    "fused parts below 1": (lambda: Layout(Mesh(tp=2), "tp", fused=((0,),)), {"dim": 0}),
    "a dim that does not parse": (lambda: Layout(Mesh(tp=2), "- )"), {"dim": 1}),
    "a rank without a shard": (lambda: Layout(Mesh(tp=2), "tp").shard_shape((4,), rank=5), {"rank": 5}),
    "a tensor that a strategy lacks": (lambda: SHARDED.boxes("v"), {"parameter": "v"}),
    "too few ranks": (
        lambda: Strategy({"w": Layout(Mesh(tp=2), "tp")}, ranks=1),
        {"options": (Option("ranks", 2),)},
    ),
    "an unknown split": (
        lambda: Layout(Mesh(tp=2), "tp", split="x"),
        {"options": (Option("split", "x"),)},
    ),
    "a plan of an uneven tensor": (
        lambda: dl.plan_reshard(SHARDED, Strategy({"h.0.w": Layout(Mesh(tp=4), "- tp")}, {"h.0.w": (4, 6)})),
        {"parameter": "h.0.w", "dim": 1},
    ),
    "a damaged file": (lambda: open_slice("bad.safetensors"), {"file": "bad.safetensors"}),
    "no such file": (lambda: open_slice("none.ckpt"), {"file": "none.ckpt"}),
    "a file that is not encrypted": (
        lambda: open_slice("whole.ckpt", dec_key=bytes(16)),
        {"file": "whole.ckpt", "options": (Option("dec_key"),)},
    ),
    "an entry that a file lacks": (
        lambda: open_slice("whole.ckpt").read("v"),
        {"file": "whole.ckpt", "parameter": "v"},
    ),
    "a dtype that no .ckpt file holds": (
        lambda: save_slice("out.ckpt", {"w": np.zeros(2, "M8[s]")}),
        {"parameter": "w"},
    ),
    "a strategy that is no JSON": (lambda: read_strategy("bad.json"), {"file": "bad.json"}),
    "a layout that a strategy file has wrong": (
        lambda: dl.open_checkpoint(["whole.ckpt"], "uneven.json"),
        {"file": "uneven.json", "parameter": "h.0.w"},
    ),
    "rules that are no JSON": (lambda: read_rules("bad.json"), {"file": "bad.json"}),
    "a mesh that does not divide": (
        lambda: Rules(Mesh(tp=4), read_rules("llama")).strategy(
            {"model.layers.0.mlp.up_proj.weight": (6, 3)}
        ),
        {"parameter": "model.layers.0.mlp.up_proj.weight"},
    ),
    "a rank without files": (without_rank_1, {"file": "src", "rank": 1}),
    "a slice of another shape": (with_a_slice_of_another_shape, {"parameter": "h.0.w"}),
    "a rank of another net": (with_a_rank_of_another_net, {"file": "src/rank_1/a.ckpt", "rank": 1}),
    "a cut file": (with_a_cut_file, {"file": "src/rank_1/a.ckpt"}),
    "a rank that is not there": (lambda: opened(without=[7]), {"options": (Option("without", [7]),)}),
    "a destination of another net": (to_a_strategy_of_another_net, {"parameter": "h.0.w"}),
    "an unknown dtype": (lambda: planned(dtype="float7"), {"options": (Option("dtype", "float7"),)}),
    "an entry that nothing is called": (lambda: planned(select=["x*"]), {"options": (Option("select"),)}),
    "a folder that exists": (
        lambda: written(folder="src"),
        {"options": (Option("overwrite", True),)},
    ),
    "an unknown format": (
        lambda: written(folder="out", format="pt"),
        {"options": (Option("format", "pt"),)},
    ),
    "an argument of another type": (lambda: takes_an_int("x"), {"options": (Option("count", "x"),)}),
    "a setting of another value": (
        lambda: set_auto_parallel_context(device_num=0),
        {"options": (Option("device_num", 0),)},
    ),
    "a strategy that an operator cannot take": (lambda: sharded((2, 1), (1, 1)), {"dim": 0}),
    "a card that is gone": (lambda: (_ for _ in ()).throw(closed(3)), {"rank": 3}),
}


def failing(name):
    try:
        FAILURES[name][0]()
    except DistinferError as err:
        return err
    raise AssertionError(f"{name}: nothing failed")


def fields_of(err):
    return {name: getattr(err, name) for name in (*FIELDS, "options")}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_has_in_fields_what_its_text_names(name, folder):
    """Each failure has the fields that are known, its text names them, and pickle keeps them."""
    err = failing(name)
    expected = FAILURES[name][1]
    found = fields_of(err)
    for field, value in expected.items():
        assert found[field] == value, str(err)
    for field in FIELDS:
        if found[field] is not None:
            assert str(found[field]) in str(err), field
    copy = pickle.loads(pickle.dumps(err))
    assert (type(copy), str(copy), fields_of(copy)) == (type(err), str(err), found)


def test_fields_survive_a_process(folder):
    """What a worker raises has its fields where it is caught, and notes and other fields of its class stay."""
    with ProcessPoolExecutor(1, get_context("spawn")) as workers:
        with pytest.raises(DistinferError, match="whole.ckpt is not encrypted") as caught:
            workers.submit(open_slice, folder / "whole.ckpt", dec_key=bytes(16)).result()
    assert caught.value.file == str(folder / "whole.ckpt")
    assert caught.value.options == (Option("dec_key"),)
    misfit = MisfitError(Layout(Mesh(tp=2), "- tp"), 1, "3")
    misfit.add_note("a note")
    copy = pickle.loads(pickle.dumps(misfit))
    assert (str(copy), copy.axis, copy.dim, copy.__notes__) == (str(misfit), "tp", 1, ["a note"])


def test_an_error_that_quotes_another_names_what_that_names():
    """What is given anew counts; the rest is the quoted one's. `restated` keeps the class and its fields."""
    option = Option("tp", 2)
    inner = LayoutError("dim 1 is uneven", option, dim=1, parameter="w", rank=0)
    outer = GraphError(f"net.w: {inner}", Option("pp"), of=inner, parameter="net.w", file=Path("a"))
    assert fields_of(outer) == {
        "file": "a",
        "parameter": "net.w",
        "dim": 1,
        "rank": 0,
        "options": (option, Option("pp")),
    }
    assert fields_of(GraphError("x", of=ValueError("y"))) == {**dict.fromkeys(FIELDS), "options": ()}
    misfit = MisfitError(Layout(Mesh(tp=2), "- tp"), 1, "3", reason="why")
    misfit.add_note("a note")
    again = misfit.restated(f"w: {misfit}", parameter="w")
    assert (type(again), again.reason, again.axis, again.parameter, again.dim) == (
        MisfitError,
        "why",
        "tp",
        "w",
        1,
    )
    assert str(again) == "w: tp=2 does not divide dim 1 (3)"
    assert not hasattr(again, "__notes__")
    assert options_of(misfit) == ()


def test_a_note_that_a_copy_gets_is_its_own():
    """So that two places that restate one error do not speak for each other."""
    error = LayoutError("3 rows", dim=0)
    error.add_note("first")
    other = copy.copy(error)
    other.add_note("second")
    assert (error.__notes__, other.__notes__) == (["first"], ["first", "second"])


def test_a_remark_names_things_as_an_error_does():
    """And what quotes it names them; it stays a text."""
    option = Option("without", [3])
    remark = Remark("rank 3 is cut", option, file=Path("a"), rank=3)
    assert remark == "rank 3 is cut"
    outer = Remark(f"net: {remark}", of=remark, parameter="w")
    assert fields_of(GraphError(f"{outer}", of=outer)) == {
        "file": "a",
        "parameter": "w",
        "dim": None,
        "rank": 3,
        "options": (option,),
    }
    assert pickle.loads(pickle.dumps(outer)).file == "a"


def quotes(node, name):
    """Whether the text of a call shows the error of this name."""
    shown = [n.value for n in ast.walk(node) if isinstance(n, ast.FormattedValue)]
    shown += [n.args[0] for n in ast.walk(node) if isinstance(n, ast.Call) and n.args]
    return any(isinstance(one, ast.Name) and one.id == name for one in shown)


def made(tree):
    """The calls that make an error of the package."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES
    ]


def test_no_error_is_raised_anew_without_the_fields_of_the_one_it_quotes():
    """Whoever quotes an error passes it as `of=`, or restates it: `type(err)(text)` loses the fields."""
    lost = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("type("):
                lost.append(f"{module}:{node.lineno}")
            if isinstance(node, ast.ExceptHandler) and node.name:
                lost += [
                    f"{module}:{call.lineno}"
                    for call in made(node)
                    if any(quotes(arg, node.name) for arg in call.args)
                    and "of" not in {keyword.arg for keyword in call.keywords}
                ]
    assert [place for place in lost if not place.startswith("distinfer_lab.errors:")] == []


KNOWN = {
    "path": "file",
    "self.path": "file",
    "folder": "file",
    "target": "file",
    "dim": "dim",
    "rank": "rank",
}


def test_an_error_whose_text_names_a_file_a_dim_or_a_rank_has_the_field():
    """Where a raise shows the `path`, the `dim` or the `rank` at hand, it gives it as a field, too."""
    lacking = []
    for module, tree in TREES.items():
        for call in made(tree):
            text = call.args[0] if call.args else call
            shown = {ast.unparse(n.value) for n in ast.walk(text) if isinstance(n, ast.FormattedValue)}
            given = {keyword.arg for keyword in call.keywords}
            two_ranks = {"rank"} if {"first", "rank"} <= shown else set()
            named = {KNOWN[one] for one in shown & set(KNOWN)} - two_ranks
            lacking += [f"{module}:{call.lineno}: {field}" for field in sorted(named - given)]
    assert lacking == []
