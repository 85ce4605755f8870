"""Propagation beyond MindSpore's answers: every mode, named axes, shared parameters, bad strategies."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, ShardingError
from distinfer_lab.layout import SPLITS
from distinfer_lab.net import AxisStrategy, Graph, GraphBuilder, Node, Spec, evaluate, operators
from distinfer_lab.parallel import MODES, partition, propagate, run_serial, shard_inputs, unshard

from ..strategies import examples, random_nets, shared_sizes


def run_whole(program, params, inputs):
    outputs, _ = run_serial(program, shard_inputs(program, params), shard_inputs(program, inputs))
    return {name: unshard(program, name, outputs) for name in program.outputs}


def axis_strategy(draw: st.DrawFn, graph: Graph, node: Node, devices: int) -> AxisStrategy:
    """Named axes in any order, several on one dim, evenly or not, for the factors of a node's inputs."""
    specs = [graph.specs[name] for name in node.inputs]
    rule = node.op.rule(*specs)
    sizes = shared_sizes(node.op, *specs)
    split = draw(st.sampled_from(SPLITS))
    even = {*rule.within, *rule.within.values(), *(f for f, run in rule.runs.items() if run > 1)}
    dims = [
        (f, n)
        for spec, factors in zip(specs, rule.inputs, strict=True)
        for f, n in zip(factors, spec.shape, strict=True)
    ]
    dims += zip(rule.output, graph.specs[node.output].shape, strict=True)
    even |= {f for f, n in dims if any(f == g and n != m for g, m in dims)}  # a reshape's
    uneven = set() if split == "even" or rule.fused else sizes.keys() - even
    grids = [g for n in (1, 2, 3) for g in itertools.product(range(1, devices + 1), repeat=n)]
    grid = draw(st.sampled_from([g for g in grids if devices % math.prod(g) == 0]))
    names, axes = ("a", "b", "repeat")[: len(grid)], {}
    for axis, size in draw(st.permutations(list(zip(names, grid, strict=True)))):
        factor = draw(st.sampled_from([None, *sorted(sizes.keys() - rule.within.keys())]))
        if factor in uneven or (factor is not None and sizes[factor] % size == 0):
            axes[factor] = (*axes.get(factor, ()), axis)
            sizes[factor] //= size
    for inner, outer in rule.within.items():  # by none or by the leading ones of the other's axes
        first = draw(st.integers(0, len(axes.get(outer, ()))))
        cut_by = axes.get(outer, ())[:first]
        if sizes[inner] % math.prod(grid[names.index(a)] for a in cut_by) == 0:
            axes[inner] = cut_by
    dims = tuple(tuple(axes.get(f, ()) for f in factors) for factors in rule.inputs)
    return AxisStrategy(names, grid, dims, split)


@given(random_nets(), st.data())
@settings(max_examples=examples(150, 5000))
def test_every_mode_and_named_axes_compute_the_uncut_net(drawn, data):
    """Tuples, named axes and nothing, mixed over a net, in all four modes, optimizer shards or not."""
    graph, devices, params, inputs = drawn
    strategies = {node.output: node.strategy for node in graph.nodes}
    for node in graph.nodes:
        kind = data.draw(st.sampled_from(["as it is", "axes", "none"])) if node.origin is None else "as it is"
        if kind != "as it is":
            named = axis_strategy(data.draw, graph, node, devices) if kind == "axes" else None
            strategies[node.output] = named
    graph = replace(graph, nodes=tuple(replace(n, strategy=strategies[n.output]) for n in graph.nodes))
    mode, zero = data.draw(st.sampled_from(MODES)), data.draw(st.booleans())
    sharding = propagate(graph, devices, mode=mode, parallel_optimizer=zero)
    program = partition(graph, sharding)
    found = run_whole(program, params, inputs)
    for name, expected in evaluate(graph, params, inputs).items():
        np.testing.assert_allclose(
            found[name], expected, rtol=1e-10, atol=1e-10, err_msg=f"{name} {mode}\n{program!r}"
        )


def single(strategy, devices=8, op=None):
    build = GraphBuilder()
    x = build.input("x", Spec((8, 16), np.dtype("float64")))
    w = build.param("w", Spec((16, 16), np.dtype("float64")))
    return propagate(build.graph([build.add(op or operators.MatMul(), x, w, strategy=strategy)]), devices)


def axes(names, sizes, x, w):
    return AxisStrategy(names, sizes, (x, w))


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (((10**15, 1), (1, 1)), "dim 0 has 8 elements, which 1000000000000000 parts cannot .*; use 8 parts"),
        (((-2, 1), (1, 1)), "input 0, dim 0 is sharded into -2 parts"),
        (
            ((2, 1, 1), (1, 1)),
            r"strategy \(2, 1, 1\) for input 0 of shape \[8, 16\]; give one number per dim",
        ),
        (axes(("a",), (8,), (("b",), ()), ((), ())), "its layout has no axis 'b'; the axes are a"),
        (axes(("a",), (8,), (("a",), ("a",)), (("a",), ())), "axis 'a' is used more than once .factor m, k."),
        (axes(("a",), (8,), (("a",), ()), ((), ("a",))), "axis 'a' is used more than once .factor m, n."),
        (axes(("a", "b"), (0, 2), ((), ()), ((), ())), "a layout of 0 x 2 = 0 cards for 8"),
        (axes(("a", "b"), (4, 4), ((), ()), ((), ())), "a layout of 4 x 4 = 16 cards for 8"),
        (axes(("a",), (8,), ((),), ((), ())), r"a layout of 1 dims for input 0 of shape \[8, 16\]"),
        (axes(("a", "b"), (2, 4), ((), ("a",)), (("b",), ())), "another dim of factor 'k'"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_by_its_operator(strategy, text):
    """The operator, the parameter, the dim and the way out, whatever number was typed."""
    with pytest.raises(ShardingError, match=f"^MatMul of 'w'.*{text}"):
        single(strategy)


@pytest.mark.parametrize("strategy", [((2.0, 1), (1, 1)), (("2", 1), (1, 1)), ((True, 1), (1, 1)), (2, 1), 8])
def test_a_strategy_of_other_things_than_integers_is_refused(strategy):
    """A float, a text, a bool, a flat tuple, a bare number: a TypeError that shows the form."""
    with pytest.raises(ArgumentTypeError, match=r"MatMul of 'w': strategy .* e\.g\. \(\(2, 1\), \(1, 4\)\)"):
        single(strategy)


def test_an_axis_may_be_called_repeat():
    """The axis of the cards left over takes another name."""
    sharding = single(axes(("repeat", "b"), (2, 2), (("repeat",), ("b",)), (("b",), ())))
    assert sharding.strategy["w"].parts == (2, 1)
    assert sharding.strategy["w"].replicas == 4


def shared(first, second):
    """An embedding table that is also the head: h = table[ids], y = h @ table.T."""
    build = GraphBuilder()
    ids = build.input("ids", Spec((8,), np.dtype("int64")))
    table = build.param("table", Spec((32, 16), np.dtype("float64")))
    h = build.add(operators.Gather(), table, ids, strategy=first)
    return build.graph([build.add(operators.MatMul(False, True), h, table, strategy=second)])


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        (None, ((1, 1), (8, 1)), (8, 1)),
        (None, ((1, 4), (2, 4)), (2, 4)),
        (((1, 8), (1,)), None, (1, 8)),
        (((8, 1), (1,)), None, (8, 1)),
        (((1, 1), (8,)), None, (1, 1)),
    ],
)
def test_automatic_readers_of_one_parameter_follow_the_one_that_was_set(first, second, parts):
    """In auto_parallel a tied table lies once, as the user cut one of its readers; the net computes the same."""
    graph = shared(first, second)
    sharding = propagate(graph, 8, mode="auto_parallel")
    assert sharding.strategy["table"].parts == parts
    random = np.random.default_rng(1)
    params, inputs = {"table": random.normal(size=(32, 16))}, {"ids": random.integers(0, 32, 8)}
    program = partition(graph, sharding)
    assert not [c for c in program.collectives if "table" in c.value]
    expected = params["table"][inputs["ids"]] @ params["table"].T
    np.testing.assert_allclose(run_whole(program, params, inputs)[graph.outputs[0]], expected, rtol=1e-12)


def test_what_one_reader_holds_whole_no_neighbour_cuts():
    """The user has the table whole; a product behind a cut by columns would like its columns cut."""
    build = GraphBuilder()
    ids = build.input("ids", Spec((8,), np.dtype("int64")))
    x = build.input("x", Spec((8, 16), np.dtype("float64")))
    table = build.param("table", Spec((32, 16), np.dtype("float64")))
    rows = build.add(operators.Gather(), table, ids, strategy=((1, 1), (8,)))
    columns = build.add(operators.Neg(), x, strategy=((1, 8),))
    product = build.add(operators.MatMul(False, True), columns, table)
    sharding = propagate(build.graph([rows, product]), 8, mode="auto_parallel")
    assert sharding.strategy["table"].replicas == 8
    assert sharding.nodes[product].sums == ()


def test_two_readers_that_the_user_set_apart_are_refused_in_auto_parallel_too():
    """No one's strategy is dropped."""
    with pytest.raises(ShardingError, match="table: its readers need it in different layouts"):
        propagate(shared(((1, 8), (1,)), ((1, 1), (8, 1))), 8, mode="auto_parallel")


def test_data_parallel_cuts_the_batch_and_no_parameter():
    """A parameter with the batch's own first dim, one that comes first, and one with two readers."""
    build = GraphBuilder()
    x = build.input("x", Spec((8, 8), np.dtype("float64")))
    p, w = (build.param(name, Spec((8, 8), np.dtype("float64"))) for name in "pw")
    h = build.add(operators.Mul(), build.add(operators.Add(), x, p), w)
    graph = build.graph([build.add(operators.MatMul(), w, h)])
    sharding = propagate(graph, 4, mode="data_parallel")
    assert [sharding.strategy[name].replicas for name in "pw"] == [4, 4]
    assert sharding.nodes["Add.1"].output.parts == (4, 1)
    random = np.random.default_rng(2)
    values = {name: random.normal(size=(8, 8)) for name in "pwx"}
    found = run_whole(partition(graph, sharding), values, {"x": values["x"]})
    expected = values["w"] @ ((values["x"] + values["p"]) * values["w"])
    np.testing.assert_allclose(found[graph.outputs[0]], expected, rtol=1e-12)


def test_a_sharding_for_one_cards_share_is_for_reading_only():
    """full_batch=False tells layouts; a program of it would take one card's rows for all, and is refused."""
    build = GraphBuilder()
    x = build.input("x", Spec((2, 16), np.dtype("float32")))
    graph = build.graph([build.add(operators.ReLU(), x)])
    sharding = propagate(graph, 8, full_batch=False)
    assert sharding.inputs["x"].parts == (8, 1)
    assert sharding.nodes["ReLU.1"].output.parts == (8, 1)
    with pytest.raises(ShardingError, match="full_batch=False, for a graph of one card's share"):
        partition(graph, sharding)


def test_cards_and_mode_are_checked():
    """No cards, and a mode that is none."""
    with pytest.raises(ShardingError, match="devices=0: a net runs on 1 card or more"):
        single(None, devices=0)
    build = GraphBuilder()
    graph = build.graph([build.add(operators.Neg(), build.input("x", Spec((2,), np.dtype("float32"))))])
    with pytest.raises(ShardingError, match="mode='fast' is not one of stand_alone"):
        propagate(graph, 2, mode="fast")


@pytest.mark.parametrize("mode", MODES)
def test_a_part_of_a_part_is_the_uncut_one(mode):
    """What a neighbour takes apart is no cut that this operator can make by itself."""
    nodes = (
        Node("half", operators.Part(0, (4, 4), 0), ("x",)),
        Node("quarter", operators.Part(0, (2, 2), 0), ("half",), ((2, 1),)),
    )
    graph = Graph({"x": Spec((8, 3), np.dtype("float64"))}, {}, nodes, ("quarter",))
    x = np.arange(24.0).reshape(8, 3)
    found = run_whole(partition(graph, propagate(graph, 2, mode=mode)), {}, {"x": x})
    np.testing.assert_array_equal(found["quarter"], x[:2])


def classified(parts, product, loss=None, classes=8):
    """Cross entropy of x @ w, its classes in so many runs; with strategies for both."""
    build = GraphBuilder()
    x = build.input("x", Spec((8, 4), np.dtype("float64")))
    w = build.param("w", Spec((4, classes), np.dtype("float64")))
    labels = build.input("labels", Spec((8,), np.dtype("int64")))
    logits = build.add(operators.MatMul(), x, w, strategy=product)
    runs = build.add(operators.PartialLogSumExp(parts), logits, labels, strategy=loss)
    return build.graph([build.add(operators.SparseCrossEntropy(), runs)])


@pytest.mark.parametrize("classes", [3, 5, 7, 8, 9, 12, 16])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("split", ["even", "gspmd_ceil", "torch_chunk"])
def test_a_spread_cut_leaves_runs_of_classes_whole(classes, parts, split):
    """A product cut in four, evenly or not, before a loss that takes its classes in runs."""
    product = AxisStrategy(("a", "b"), (2, 2), (((), ()), ((), ("a", "b"))), split)
    if split == "even" and classes % 4:
        return
    graph = classified(parts, product, classes=classes)
    random = np.random.default_rng(classes)
    params = {"w": random.normal(size=(4, classes))}
    inputs = {"x": random.normal(size=(8, 4)), "labels": np.arange(8) % classes}
    sharding = propagate(graph, 4, mode="auto_parallel")
    found = run_whole(partition(graph, sharding), params, inputs)
    expected = evaluate(graph, params, inputs)
    np.testing.assert_allclose(found[graph.outputs[0]], expected[graph.outputs[0]], rtol=1e-12)


def test_as_many_cards_as_runs_share_the_classes():
    """The cut of a product spreads to a loss with as many runs, and one sum is all that is sent."""
    graph = classified(4, ((1, 1), (1, 4)))
    sharding = propagate(graph, 4, mode="auto_parallel")
    assert sharding.nodes["PartialLogSumExp.2"].inputs[0].parts == (1, 4)
    program = partition(graph, sharding)
    assert [c.kind for c in program.collectives] == ["ReduceScatter"]


def reshaped(shape, *strategies):
    """A negated input of shape [5, 4], reshaped."""
    build = GraphBuilder()
    x = build.input("x", Spec((5, 4), np.dtype("float64")))
    h = build.add(operators.Neg(), x, strategy=strategies[0])
    return build.graph([build.add(operators.Reshape(shape), h, strategy=strategies[-1])])


@pytest.mark.parametrize("split", ["gspmd_ceil", "torch_chunk"])
def test_an_uneven_cut_does_not_spread_to_dims_of_another_size(split):
    """Rows 3 and 2 of five are not elements 10 and 10 of twenty."""
    graph = reshaped((20,), AxisStrategy(("a",), (2,), ((("a",), ()),), split), None)
    x = np.arange(20.0).reshape(5, 4)
    found = run_whole(partition(graph, propagate(graph, 2, mode="auto_parallel")), {}, {"x": x})
    np.testing.assert_array_equal(found[graph.outputs[0]], -x.ravel())


def part_of(sizes, strategy):
    """The first part of eight or so rows."""
    build = GraphBuilder()
    x = build.input("x", Spec((sum(sizes), 2), np.dtype("float64")))
    return build.graph([build.add(operators.Part(0, sizes, 0), x, strategy=strategy)])


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (
            classified(1, None, ((1, 2), (1,))),
            "input 0, dim 1 has 8 elements in runs of 8, which 2 parts do not leave whole; use 1 parts",
        ),
        (classified(2, None, ((1, 4), (1,))), "in runs of 4, which 4 parts do not leave whole; use 2 parts"),
        (
            classified(4, None, AxisStrategy(("a",), (2,), (((), ("a",)), ((),)), "gspmd_ceil"), classes=10),
            "in runs of 3, which 2 parts do not leave whole; use 1 parts",
        ),
        (
            reshaped((20,), None, AxisStrategy(("a",), (2,), ((("a",), ()),), "gspmd_ceil")),
            "input 0, dim 0 has 5 elements, which 2 parts cannot share evenly; use 1 parts",
        ),
        (part_of((4, 6, 2), ((4, 1),)), "consists of 4, 6, 2 elements, .* 4 cards cannot .*, use 2 parts"),
    ],
)
def test_a_cut_through_runs_or_parts_is_refused_by_its_operator(graph, text):
    """While it is propagated, with a number of parts that is possible."""
    with pytest.raises(ShardingError, match=text):
        propagate(graph, 4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "reader", [operators.Reshape((96,)), operators.Reshape((8, 3, 4)), operators.Transpose((1, 0))]
)
def test_a_neighbour_of_a_part_need_not_be_fused(mode, reader):
    """A table whose rows are cut part by part, looked up by row and reshaped."""
    build = GraphBuilder()
    table = build.param("table", Spec((8, 12), np.dtype("float64")))
    ids = build.input("ids", Spec((8,), np.dtype("int64")))
    h = build.add(operators.Gather(), table, ids)
    half = build.add(operators.Part(0, (2, 6), 1), h, strategy=((2, 1),))
    columns = build.add(operators.Part(1, (4, 8), 0), h, strategy=((1, 4),))
    shaped = build.add(reader, h)
    graph = build.graph([half, columns, shaped])
    random = np.random.default_rng(4)
    params, inputs = {"table": random.normal(size=(8, 12))}, {"ids": random.integers(0, 8, 8)}
    found = run_whole(partition(graph, propagate(graph, 8, mode=mode)), params, inputs)
    for name, expected in evaluate(graph, params, inputs).items():
        if name in graph.outputs:
            np.testing.assert_array_equal(found[name], expected)
