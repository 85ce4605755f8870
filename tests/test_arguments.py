"""What the public functions say of arguments of the wrong kind."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.arguments import accepts, checked, checked_on_error, described
from distinfer_lab.errors import ArgumentTypeError, DistinferError

from .oracle import case


class Nothing:
    """A value that fits no annotation."""

    def __repr__(self):
        return "Nothing()"


WRONG = (None, True, 5, -1, 2.5, "x", "a\0b", b"x", [], ["x"], [3], {}, {"x": 1}, {3: "x"}, Nothing())
DOORS = (
    "open_checkpoint",
    "open_slice",
    "save_slice",
    "read_strategy",
    "write_strategy",
    "Checkpoint.plan",
    "Checkpoint.read",
    "Checkpoint.digest",
    "Checkpoint.check_replicas",
    "Conversion.write",
    "Conversion.check",
    "Conversion.explain",
    "verify_folder",
    "plan_reshard",
    "explain",
    "cheapest_placement",
    "read_rules",
    "Rules",
    "Mesh.parse",
    "Mesh.from_axes",
    "Layout",
    "Strategy",
    "transform_checkpoints",
    "rank_list_for_transform",
    "build_searched_strategy",
    "merge_pipeline_strategys",
    "load_checkpoint",
    "load_param_into_net",
    "save_checkpoint",
    "load_distributed_checkpoint",
    "CheckpointConfig",
    "ModelCheckpoint",
    "LossMonitor",
    "Model",
    "CardGroup",
    "set_seed",
    "initializer",
    "Parameter",
    "LayoutView",
    "LayoutEditor",
    "PlanView",
    "RunPanel",
    "Workbench",
)
NOT_WALKED = {"get_auto_parallel_context", "init", "partition", "propagate", "write"}
"""They take one name, or what only other functions of the package make."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What is written to a path such as "x" goes to a folder of the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """Public function -> itself, with arguments that do."""
    found = case("tp_col8_to_row4")
    folder = tmp_path_factory.mktemp("doors")
    source, strategy = os.fspath(found.folder / "src"), os.fspath(found.src_strategy)
    file = os.fspath(next((found.folder / "src/rank_0").iterdir()))
    checkpoint = dl.open_checkpoint(source, strategy)
    train, infer = checkpoint.strategy, dl.build_searched_strategy(found.dst_strategy)
    plan = checkpoint.plan(infer)
    mesh = dl.Mesh(tp=4)
    layout = dl.Layout(mesh, "tp -")
    net = dl.sample.SampleNet()
    count = iter(range(1 << 30))

    def place():
        return os.fspath(folder / f"out{next(count)}")

    yield {
        "open_checkpoint": (dl.open_checkpoint, lambda: {"files": source, "strategy": strategy}),
        "open_slice": (dl.open_slice, lambda: {"path": file}),
        "save_slice": (dl.save_slice, lambda: {"path": place(), "values": {"w": np.ones(2)}}),
        "read_strategy": (dl.read_strategy, lambda: {"path": strategy}),
        "write_strategy": (dl.write_strategy, lambda: {"path": place(), "source": train}),
        "Checkpoint.plan": (checkpoint.plan, lambda: {"dst": infer}),
        "Checkpoint.read": (checkpoint.read, lambda: {"rank": 0, "name": "matmul_weight"}),
        "Checkpoint.digest": (checkpoint.digest, lambda: {"rank": 0, "name": "matmul_weight"}),
        "Checkpoint.check_replicas": (checkpoint.check_replicas, dict),
        "Conversion.write": (plan.write, lambda: {"folder": place()}),
        "Conversion.check": (plan.check, lambda: {"folder": place()}),
        "Conversion.explain": (plan.explain, dict),
        "verify_folder": (dl.verify_folder, lambda: {"folder": source}),
        "explain": (dl.explain, lambda: {"plan": plan.plan}),
        "plan_reshard": (dl.plan_reshard, lambda: {"src": train, "dst": infer}),
        "cheapest_placement": (dl.cheapest_placement, lambda: {"src": train, "dst": infer}),
        "read_rules": (dl.read_rules, lambda: {"name": "llama"}),
        "Rules": (dl.Rules, lambda: {"mesh": mesh, "rules": dl.read_rules("llama")}),
        "Mesh.parse": (dl.Mesh.parse, lambda: {"text": "tp=2"}),
        "Mesh.from_axes": (dl.Mesh.from_axes, lambda: {"names": ("tp",), "sizes": (4,)}),
        "Layout": (dl.Layout, lambda: {"mesh": mesh, "dims": "tp -"}),
        "Strategy": (dl.Strategy, lambda: {"layouts": {"w": layout}}),
        "transform_checkpoints": (
            dl.transform_checkpoints,
            lambda: {
                "src_checkpoints_dir": source,
                "dst_checkpoints_dir": place(),
                "ckpt_prefix": "p",
                "src_strategy_file": strategy,
            },
        ),
        "rank_list_for_transform": (
            dl.rank_list_for_transform,
            lambda: {"rank_id": 0, "src_strategy_file": strategy, "dst_strategy_file": None},
        ),
        "build_searched_strategy": (dl.build_searched_strategy, lambda: {"strategy_filename": strategy}),
        "merge_pipeline_strategys": (
            dl.merge_pipeline_strategys,
            lambda: {"src_strategy_dirs": source, "dst_strategy_file": place()},
        ),
        "load_checkpoint": (dl.load_checkpoint, lambda: {"ckpt_file_name": file}),
        "load_param_into_net": (dl.load_param_into_net, lambda: {"net": net, "parameter_dict": {}}),
        "save_checkpoint": (dl.save_checkpoint, lambda: {"save_obj": net, "ckpt_file_name": place()}),
        "load_distributed_checkpoint": (
            dl.load_distributed_checkpoint,
            lambda: {"network": net, "checkpoint_filenames": source, "train_strategy_filename": strategy},
        ),
        "CheckpointConfig": (dl.CheckpointConfig, dict),
        "ModelCheckpoint": (dl.ModelCheckpoint, dict),
        "LossMonitor": (dl.LossMonitor, dict),
        "Model": (dl.Model, lambda: {"network": net}),
        "CardGroup": (dl.CardGroup, lambda: {"cards": 0}),
        "set_seed": (dl.set_seed, lambda: {"seed": 0}),
        "initializer": (dl.initializer, lambda: {"init": "zeros", "shape": (2,)}),
        "Parameter": (dl.Parameter, lambda: {"default_input": dl.Tensor(np.ones(2))}),
        "LayoutView": (dl.LayoutView, lambda: {"train": layout, "infer": layout, "shape": (4, 4)}),
        "LayoutEditor": (dl.LayoutEditor, lambda: {"source": train}),
        "PlanView": (dl.PlanView, lambda: {"plan": plan}),
        "RunPanel": (dl.RunPanel, lambda: {"work": plan, "folder": place()}),
        "Workbench": (dl.Workbench, dict),
    }
    checkpoint.close()


@pytest.mark.parametrize("door", DOORS)
def test_wrong_kinds_are_refused_by_name(doors, door):
    """Any argument of any kind is taken, or refused by an error of the package; what fits nothing, by its name."""
    function, given = doors[door]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        for value in WRONG:
            text = refusal(function, {**given(), name: value})
            if text and isinstance(value, Nothing) and parameter.annotation is not Any:
                assert re.search(rf"\b{name}\b|\bNothing\b", text), (name, text)


def refusal(function, arguments):
    """What a call says by an error of the package; "" if it says nothing."""
    try:
        made = function(**arguments)
    except DistinferError as err:
        return str(err)
    getattr(made, "close", lambda: None)()
    return ""


@pytest.mark.parametrize("door", DOORS)
def test_an_argument_that_is_not_there_is_named(doors, door):
    """Not by Python's words for some inner function."""
    function, given = doors[door]
    with pytest.raises(TypeError, match="fooo"):
        function(**given(), fooo=1)


def test_every_function_of_the_package_is_walked():
    """Those of `__all__`; a class, or a function that takes only texts of settings, is walked where it is listed."""
    walked = {door.partition(".")[0] for door in DOORS}
    functions = {
        n for n in dl.__all__ if inspect.isfunction(getattr(dl, n)) and has_arguments(getattr(dl, n))
    }
    assert functions - walked == NOT_WALKED


def has_arguments(function):
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    return any(kind is not inspect.Parameter.VAR_KEYWORD for kind in kinds)


@checked
def door(
    path: str | os.PathLike[str],
    *,
    ranks: Collection[int] = (),
    threads: int = 1,
    dtype: str | np.dtype[Any] | None = None,
    rename: Mapping[str, str] | None = None,
    sync: bool = False,
    watch: Callable[[int], None] | None = None,
    dec_key: bytes | None = None,
):
    return threads


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"ranks": 1}, "door: ranks=1 should be a collection of integers; write ranks=[1]"),
        ({"ranks": ["1"]}, "door: ranks[0]='1' should be an integer; write ranks[0]=1"),
        ({"threads": "2"}, "door: threads='2' should be an integer; write threads=2"),
        ({"threads": True}, "door: threads=True should be an integer"),
        ({"sync": "False"}, "door: sync='False' should be True or False; write sync=False"),
        ({"dtype": 3}, "door: dtype=3 should be a string, a dtype or None"),
        ({"rename": ["a"]}, "door: rename=['a'] should be a mapping of strings to strings or None"),
        ({"rename": {"a": 1}}, "door: rename['a']=1 should be a string"),
        ({"rename": {1: "a"}}, "door: a key of rename=1 should be a string"),
        ({"watch": 3}, "door: watch=3 should be a function or None"),
        ({"path": b"x"}, "door: path=b'x' should be a path"),
        ({"path": "a\0b"}, r"door: path='a\x00b' has a NUL in it, which no path has"),
        ({"dec_key": "secret"}, "door: dec_key is a string, and should be bytes or None"),
        ({"treads": 1}, "door has no argument treads; did you mean threads?"),
        (
            {"x": 1},
            "door has no argument x; it takes path, ranks, threads, dtype, rename, sync, watch, dec_key",
        ),
    ],
)
def test_the_text_says_what_was_given_and_what_to_give(given, text):
    """With what was meant where that is plain; never the value of a key."""
    with pytest.raises(ArgumentTypeError) as caught:
        door(**{"path": "x", **given})
    assert str(caught.value) == text


def test_what_fits_passes_as_it_is():
    """Numbers of numpy are numbers, arrays are sequences, a text is no sequence of texts."""
    assert door("x", ranks=np.array([1, 2]), threads=np.int64(3), dtype=np.dtype("int8"), sync=np.True_) == 3
    assert accepts(np.arange(3), Sequence[int])
    assert not accepts("abc", Sequence[str])
    assert accepts({"a": (1, 2)}, Mapping[str, tuple[int, ...]])
    assert not accepts({"a": (1, "2")}, Mapping[str, tuple[int, ...]])
    assert described(Sequence[str | os.PathLike[str]]) == "a sequence of paths"


def test_records_are_checked_where_they_fail():
    """The error of Python is the cause of ours; what no annotation explains passes on as it was."""

    @checked_on_error
    def half(value: int) -> float:
        return value / 2 if value else 1 / value

    assert half(2.0) == 1.0
    with pytest.raises(ArgumentTypeError, match="half: value='x' should be an integer") as caught:
        half("x")
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(ZeroDivisionError):
        half(0)
