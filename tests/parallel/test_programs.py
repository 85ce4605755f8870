"""Programs: a net cut any way gives what it gives uncut, and sends what it says it sends."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from distinfer_lab.errors import GraphError, ShardingError
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.net import GraphBuilder, Spec, evaluate, operators, training_graph
from distinfer_lab.parallel import (
    AllReduce,
    partition,
    propagate,
    run_serial,
    shard_inputs,
    unshard,
)

from ..strategies import examples, random_nets
from ..trained import MLP, MLP_CUTS, SAMPLE, STRATEGY, check_against_mindspore
from .together import run_together


def run_whole(program, params, inputs):
    """Cut, run serially, and put together: outputs and updates by name."""
    outputs, updates = run_serial(program, shard_inputs(program, params), shard_inputs(program, inputs))
    whole = {name: unshard(program, name, outputs) for name in program.outputs}
    for param in program.updates:
        whole[param] = unshard(program, param, updates)
    return whole


@given(random_nets())
@settings(max_examples=examples(150))
def test_a_cut_net_equals_the_uncut_one(drawn):
    """Random nets of all operators with random valid strategies; outputs and gradients."""
    graph, devices, params, inputs = drawn
    program = partition(graph, propagate(graph, devices))
    found = run_whole(program, params, inputs)
    for name, expected in evaluate(graph, params, inputs).items():
        np.testing.assert_allclose(
            found[name], expected, rtol=1e-9, atol=1e-9, err_msg=f"{name}\n{program!r}"
        )


def train(job, cut_as, devices=8, **options):
    """A run of the oracle's training, all cards in one process; gives the program and whole values."""
    net, loss, optimizer = job.make(cut_as)
    batches = job.batches()
    graph = training_graph(net, loss, optimizer, *batches[0])
    program = partition(graph, propagate(graph, devices, **options))
    values = {n: p.asnumpy() for n, p in {**net.parameters_dict(), **optimizer.states}.items()}
    shards = shard_inputs(program, {n: values[n] for n in program.params})
    losses = []
    for data, label in batches * job.epochs:
        outputs, updates = run_serial(program, shards, shard_inputs(program, {"x": data, "label": label}))
        losses.append(float(outputs[0][program.outputs[0]]))
        for rank in range(devices):
            shards[rank] |= updates[rank]
    np.testing.assert_allclose(losses, job.expected["losses"], rtol=1e-5)
    return program, {name: unshard(program, name, shards) for name in program.params}


def test_the_sample_trains_as_mindspore_trained_it():
    """8 cards under ((2, 1), (1, 4)); each holds 4 columns of the weight and of its moments."""
    program, values = train(SAMPLE, STRATEGY)
    check_against_mindspore(SAMPLE, values)
    for name in ("matmul_weight", "moments.matmul_weight"):
        assert program.strategy[name].shard_shape((96, 16)) == (96, 4)
    # Two weights of 96 x 4 float32, two scalars, and the step.
    assert program.resident_bytes.tolist() == [2 * 96 * 4 * 4 + 3 * 4] * 8


def test_the_sample_gathers_no_weight():
    """The one sum over weights is that of a shard's gradient, over the two cards that share it."""
    program, _ = train(SAMPLE, STRATEGY)
    of_shards = [c for c in program.collectives if c.kind == "AllReduce" and c.sent_bytes.max() >= 96 * 4]
    assert [c.sent_bytes.tolist() for c in of_shards] == [[96 * 4 * 4] * 8]
    weights = [i for i in program.instructions if "weight" in str(i.inputs) and not hasattr(i, "op")]
    assert weights == []


@pytest.mark.parametrize("how", MLP_CUTS)
@pytest.mark.parametrize("zero", [False, True], ids=["plain", "parallel optimizer"])
def test_the_mlp_trains_alike_however_it_is_cut(how, zero):
    """By rows, by columns, both, data parallel; with whole optimizer states and with cut ones."""
    program, values = train(MLP, MLP_CUTS[how], parallel_optimizer=zero)
    check_against_mindspore(MLP, values)
    whole = sum(v.nbytes for v in values.values())
    if zero:
        assert program.resident_bytes.max() < 0.2 * whole
    elif how == "data parallel":
        assert program.resident_bytes.tolist() == [whole] * 8


@pytest.mark.parametrize("devices", [1, 2, 4, 6])
def test_other_counts_of_cards_train_alike(devices):
    """Data parallel on 1, 2, 4 and 6 cards."""
    _, values = train(MLP, None, devices=devices)
    check_against_mindspore(MLP, values)


@given(random_nets())
@settings(max_examples=examples(25))
def test_cards_that_run_at_once_equal_the_serial_interpreter(drawn):
    """Bit for bit: every card in a thread of its own, from a pickled program; each sends what was predicted."""
    graph, devices, params, inputs = drawn
    program = pickle.loads(pickle.dumps(partition(graph, propagate(graph, devices))))
    given_params, given_inputs = shard_inputs(program, params), shard_inputs(program, inputs)
    expected, _ = run_serial(program, given_params, given_inputs)
    found = run_together(program, given_params, given_inputs)
    for rank in range(devices):
        for name, shard in expected[rank].items():
            np.testing.assert_array_equal(found[rank].outputs[name], shard)
    counted = program.communication().with_counts([card.sent_bytes for card in found])
    assert counted == program.communication()
    assert counted.sent_bytes.tolist() == program.sent_bytes.tolist()


def linear(strategy, params=None):
    build = GraphBuilder()
    x = build.input("x", Spec((8, 4), np.dtype("float64")))
    w = build.param("w", Spec((4, 6), np.dtype("float64")))
    return build.graph([build.add(operators.MatMul(), x, w, strategy=strategy)])


def test_parameters_may_lie_otherwise_than_the_net_wants_them():
    """`held` says how they lie; they are redistributed on the way, also from one card to four."""
    graph = linear(((1, 2), (2, 2)))
    sharding = propagate(graph, 4)
    random = np.random.default_rng(0)
    params, inputs = {"w": random.normal(size=(4, 6))}, {"x": random.normal(size=(8, 4))}
    for held in (Layout.replicated(1, 2), Layout(Mesh(r=2), "r -"), Layout.replicated(4, 2)):
        program = partition(graph, sharding, {"w": held})
        found = run_whole(program, params, inputs)
        np.testing.assert_allclose(found[graph.outputs[0]], inputs["x"] @ params["w"], rtol=1e-12)
    with pytest.raises(ShardingError, match="w is held on ranks up to 7, but the program has 4 cards"):
        partition(graph, sharding, {"w": Layout.replicated(8, 2)})


def test_a_cut_inner_dim_costs_one_sum():
    """((1, 4), (4, 1)) on 4 cards: partial products of 8 x 6 float64, so few that each goes whole to the 3 others."""
    graph = linear(((1, 4), (4, 1)))
    program = partition(graph, propagate(graph, 4))
    assert [type(i) for i in program.instructions][1:] == [AllReduce]
    assert [c.sent_bytes.tolist() for c in program.collectives] == [[8 * 6 * 8 * 3] * 4]
    assert "AllReduce of MatMul.1: at most 1152 bytes from a card" in repr(program)


@dataclass(frozen=True)
class _RowSums(operators.ReduceSum):
    """Row sums, of which one method is wrong."""

    compute: Callable[..., Any] = field(default=lambda x: x.sum(axis=1))

    def forward(self, *inputs):
        return self.compute(*inputs)


@pytest.mark.parametrize("parts", [(4, 1), (1, 4)])
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda x: x.reshape(4, 8).sum(axis=1), "raised ValueError: cannot reshape"),
        (
            lambda x: x.sum(axis=1, keepdims=True),
            r"returned \[\d, 1\] float32, but infer says \[\d\] float32",
        ),
        (lambda x: x.sum(axis=1).astype("f8"), r"returned \[\d\] float64, but infer says \[\d\] float32"),
    ],
)
def test_an_operator_that_is_wrong_on_shards_is_named(parts, follow, wrong, problem):
    """Serially with its place and its shards; on cards only the values still held are looked at."""
    build = GraphBuilder()
    x = build.input("x", Spec((4, 8), np.dtype("f4")))
    y = build.add(_RowSums((1,), compute=wrong), x, strategy=(parts,))
    graph = build.graph([build.add(operators.Neg(), y) if follow else y])
    program = partition(graph, propagate(graph, 4))
    inputs = shard_inputs(program, {"x": np.ones((4, 8), np.float32)})
    shards = rf"given \[{4 // parts[0]}, {8 // parts[1]}\] float32"
    named = rf"_RowSums.forward at _RowSums.1.*, {shards}, {problem}"
    with pytest.raises(GraphError, match=f"^{named}"):
        run_serial(program, [{}] * 4, inputs)
    made = r"Neg.forward at Neg.2, given .* infer says" if follow and "raised" not in problem else named
    with pytest.raises(GraphError, match=rf"^(on card \d an operator is wrong, .*before it: )?{made}"):
        run_together(program, [{}] * 4, inputs)
