"""Propagation: MindSpore's answers to 97 nets, layouts and refusals."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from distinfer_lab.errors import ShardingError
from distinfer_lab.layout.dialects.mindspore import layout_from_tuple, layout_tuple
from distinfer_lab.net import AxisStrategy, Graph, GraphBuilder, Spec, operators
from distinfer_lab.parallel import Sharding, partition, propagate, same_layout

from ..oracle import ORACLE

QUESTIONS = {q["name"]: q for q in json.loads((ORACLE / "infer_layout" / "layouts.json").read_text())}

# What the flow refuses before it propagates (see tests/flow): a mode, and a file that is not there.
OF_THE_FLOW = {"bad_mode_standalone", "bad_load_missing"}
# What MindSpore cannot do, and we can.
SERVED = {"bad_n6", "bad_n24"}


def is_auto(question: dict[str, Any]) -> bool:
    return question["settings"].get("mode") == "auto_parallel"


SEMI = [n for n, q in QUESTIONS.items() if not is_auto(q) and n not in OF_THE_FLOW]
AUTO = [n for n, q in QUESTIONS.items() if is_auto(q)]


def read_strategy(given: Any) -> Any:
    if isinstance(given, dict):
        dims = tuple(
            tuple(() if d == "None" else (d,) if isinstance(d, str) else tuple(d) for d in dims)
            for dims in given["in"]
        )
        return AxisStrategy(tuple(given["names"]), tuple(given["dev"]), dims)
    return None if given is None else tuple(map(tuple, given))


def graph_of(net: dict[str, Any]) -> Graph:
    build = GraphBuilder()
    for name, (shape, dtype) in net["inputs"].items():
        build.input(name, Spec(tuple(shape), np.dtype(dtype)))
    for name, (shape, dtype) in net["params"].items():
        build.param(name, Spec(tuple(shape), np.dtype(dtype)))
    names = {}
    for output, kind, attributes, inputs, strategy in net["nodes"]:
        named = {k: v for k, v in attributes.items() if k != "_args"}
        op = getattr(operators, kind)(*attributes.get("_args", ()), **named)
        operands = [names.get(i, i) for i in inputs]
        names[output] = build.add(op, *operands, strategy=read_strategy(strategy))
    return build.graph([names[net["out"]]])


@cache
def ask(name: str) -> Sharding:
    question = QUESTIONS[name]
    settings = question["settings"]
    options: dict[str, Any] = {
        "full_batch": settings.get("full_batch", True),
        "mode": settings.get("mode", "semi_auto_parallel"),
    }
    if "train_net" in question:
        options["loaded"] = propagate(graph_of(question["train_net"]), question["devices"]).operators
    return propagate(graph_of(question["net"]), question["devices"], **options)


def is_refused(question: dict[str, Any]) -> bool:
    return "error" in question["layout"] if "layout" in question else "error" in question


@pytest.mark.parametrize("name", [n for n in SEMI if not is_refused(QUESTIONS[n])])
def test_layouts_are_mindspores(name):
    """All 12 items of every parameter's and every input's tuple; the operators' strategies too."""
    question, found = QUESTIONS[name], ask(name)
    for value, theirs in question["layout"].items():
        is_input = value in question["net"]["inputs"]
        layout = found.inputs[value] if is_input else found.strategy[value]
        shape = tuple(theirs[6])
        if name == "layout_3" and not is_input:
            # MindSpore flattens [[0, 1], [-1]] there, and gives the slice before shards 3 dims.
            assert same_layout(layout, layout_from_tuple(theirs)[0], shape)
            assert layout_tuple(layout, shape)[2] == theirs[2]
        else:
            assert list(layout_tuple(layout, shape)) == theirs
    for node, item in (question["strategy_items"] or {}).items():
        if item["strategy"]:
            assert [list(dims) for dims in found.operators[node]] == item["strategy"]


REFUSALS = {
    "tied_first_only": r"w: its readers need it in different layouts",
    "tied_second_only": r"w: its readers need it in different layouts",
    "bad_over": r"MatMul of 'w': m 4 x n 4 makes 16 parts for 8 cards; the product must divide 8",
    "bad_kmismatch": r"MatMul of 'w': dim 0 of input 1 is sharded into 4 parts, but .* factor 'k'.* into 2",
    "bad_count": r"MatMul of 'w' has 2 inputs, but 1 strategy",
    "bad_zero": r"MatMul of 'w': input 0, dim 0 is sharded into 0 parts",
    "bad_notpow2": r"MatMul of 'w': input 0, dim 0 has 128 elements, which 3 parts cannot share evenly; use 2",
}


def test_all_refusals_are_known():
    """What MindSpore refuses is refused here too, by the flow, or served; nothing else."""
    refused = {n for n, q in QUESTIONS.items() if is_refused(q) and not is_auto(q)}
    assert refused == set(REFUSALS) | OF_THE_FLOW | SERVED


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_why(name):
    """Where MindSpore says "operator init failed", ours names the dim and the way out."""
    with pytest.raises(ShardingError, match=REFUSALS[name]):
        ask(name)


@pytest.mark.parametrize("name", sorted(SERVED))
def test_card_counts_that_mindspore_refuses_are_served(name):
    """6 and 24 cards: the first dim in as many parts as it and the cards have in common."""
    found, devices = ask(name), QUESTIONS[name]["devices"]
    layout = found.nodes[next(iter(found.nodes))].inputs[0]
    assert layout.mesh.size == devices
    assert layout.parts[0] == np.gcd(128, devices)
    partition(graph_of(QUESTIONS[name]["net"]), found)


@pytest.mark.parametrize("name", AUTO)
def test_auto_parallel_honours_what_the_user_set(name):
    """A valid layout for every parameter, and every strategy that was set is kept."""
    question, found = QUESTIONS[name], ask(name)
    graph = graph_of(question["net"])
    for param, spec in graph.params.items():
        assert found.strategy[param].boxes(spec.shape).shape[0] == question["devices"]
    for node in graph.nodes:
        if node.strategy is not None:
            assert tuple(layout.parts for layout in found.nodes[node.output].inputs) == node.strategy
    partition(graph, found)


DIFFERS = {
    # No strategy was set: MindSpore's search cuts the weight; ours takes data parallel.
    "auto_dynamic_programming_mm_big",
    "auto_recursive_programming_emb",
    "auto_sharding_propagation_mm",
    "auto_sharding_propagation_mm_big",
    "auto_sharding_propagation_dense2",
    "auto_sharding_propagation_attn",
    "auto_sharding_propagation_emb",
    # MindSpore ignores the strategy that was set; ours keeps it.
    "auto_recursive_programming_mm_set",
}


def test_where_auto_parallel_differs_is_known():
    """12 of the 20 automatic answers are MindSpore's; the others are listed above, with the reason."""
    differs = set()
    for name in AUTO:
        for value, theirs in QUESTIONS[name]["layout"].items():
            if value in ask(name).strategy:
                ours = layout_tuple(ask(name).strategy[value], tuple(theirs[6]))
                differs |= {name} if list(ours) != theirs else set()
    assert len(AUTO) == 20
    assert differs == DIFFERS
