"""Training programs: any cut, any optimizer, equals the uncut step; and nothing more is sent than must be."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.net import (
    Cell,
    GraphBuilder,
    Spec,
    differentiate,
    evaluate,
    nn,
    operators,
    training_graph,
)
from distinfer_lab.parallel import AllReduce, Held, partition, propagate, run_serial, shard_inputs, unshard

from ..strategies import divisors, examples

OPTIMIZERS = {
    "Momentum": lambda params: nn.Momentum(params, 0.05, 0.9, weight_decay=0.01),
    "Nesterov": lambda params: nn.SGD(params, 0.05, momentum=0.8, nesterov=True),
    "Adam": lambda params: nn.Adam(params, 0.01, weight_decay=0.02),
    "Adam, ahead": lambda params: nn.Adam(params, [0.01, 0.02], use_nesterov=True),
    "SGD": lambda params: nn.SGD(params, 0.05, weight_decay=0.01),
    "Dampened": lambda params: nn.SGD(params, [0.05, 0.1], momentum=0.8, dampening=0.5),
}


class Mlp(Cell):
    """12-24-8 with GeLU and normalisation, cut as told."""

    def __init__(self, seed: int, first: Any, second: Any, between: Any) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        self.fc1 = nn.Dense(12, 24, weight_init=random.normal(0, 0.3, (24, 12)).astype(np.float32))
        self.norm = nn.LayerNorm((24,))
        self.fc2 = nn.Dense(24, 8, weight_init=random.normal(0, 0.3, (8, 24)).astype(np.float32))
        self.gelu = nn.GELU()
        if first is not None:
            self.fc1.matmul.shard(first)
        if second is not None:
            self.fc2.matmul.shard(second)
        if between is not None:
            self.fc1.bias_add.shard(between)

    def construct(self, x):
        return self.fc2(self.norm(self.gelu(self.fc1(x))))


@st.composite
def products(draw: st.DrawFn, devices: int, sizes: tuple[int, int, int]) -> Any:
    """A strategy for x[m, k] @ w[n, k].T, or none."""
    if draw(st.integers(0, 3)) == 0:
        return None
    left, parts = devices, [1, 1, 1]
    for i in draw(st.permutations(range(3))):
        parts[i] = draw(st.sampled_from([n for n in divisors(sizes[i]) if left % n == 0]))
        left //= parts[i]
    m, k, n = parts
    return ((m, k), (n, k))


@st.composite
def jobs(draw: st.DrawFn) -> Any:
    """Cards, three strategies, an optimizer, with optimizer shards or without."""
    devices = draw(st.sampled_from([1, 2, 4, 6, 8]))
    first, second = draw(products(devices, (16, 12, 24))), draw(products(devices, (16, 24, 8)))
    rows = draw(st.sampled_from([n for n in divisors(16) if devices % n == 0]))
    columns = draw(st.sampled_from([n for n in divisors(24) if devices // rows % n == 0]))
    between = draw(st.sampled_from([None, ((rows, columns), (columns,))]))
    return devices, (first, second, between), draw(st.sampled_from(sorted(OPTIMIZERS))), draw(st.booleans())


@given(jobs(), st.integers(0, 2**16))
@settings(max_examples=examples(40))
def test_two_cut_steps_are_two_uncut_steps(job, seed):
    """Loss, parameters and states in float32; every update lies as its parameter does."""
    devices, cuts, optimizer_name, zero = job
    net = Mlp(seed, *cuts)
    optimizer = OPTIMIZERS[optimizer_name](net.trainable_params())
    random = np.random.default_rng(seed)
    data = random.normal(size=(16, 12)).astype(np.float32)
    label = np.eye(8, dtype=np.float32)[random.integers(0, 8, 16)]
    loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
    graph = training_graph(net, loss, optimizer, data, label)
    program = partition(graph, propagate(graph, devices, parallel_optimizer=zero))
    values = {n: p.asnumpy() for n, p in {**net.parameters_dict(), **optimizer.states}.items()}
    values = {n: values[n] for n in graph.params}
    inputs = {"x": data, "label": label}
    shards = shard_inputs(program, values)
    for _ in range(2):
        expected = evaluate(graph, values, inputs)
        outputs, updates = run_serial(program, shards, shard_inputs(program, inputs))
        for rank in range(devices):
            assert {n: a.shape for n, a in updates[rank].items()} == {
                n: shards[rank][n].shape for n in updates[rank]
            }
            shards[rank] |= updates[rank]
        values |= {n: expected[n] for n in graph.updates}
        loss_name = program.outputs[0]
        np.testing.assert_allclose(outputs[0][loss_name], expected[loss_name], rtol=1e-5)
    for name in graph.updates:
        # Adam divides by the root of a gradient's square: a gradient near 0 has its rounding magnified.
        atol = 1e-3 if optimizer_name.startswith("Adam") and not name.startswith("moment") else 1e-6
        found = unshard(program, name, shards)
        np.testing.assert_allclose(found, values[name], rtol=1e-4, atol=atol, err_msg=f"{name} {job}")


def test_the_parallel_optimizer_cuts_what_it_may():
    """Only the named parameter and its states; the others stay whole on each card."""
    net = Mlp(0, None, None, None)
    optimizer = OPTIMIZERS["Momentum"](net.trainable_params())
    data, label = np.zeros((16, 12), np.float32), np.zeros((16, 8), np.float32)
    graph = training_graph(net, nn.SoftmaxCrossEntropyWithLogits(reduction="mean"), optimizer, data, label)
    strategy = propagate(graph, 8, parallel_optimizer=["fc1.weight"]).strategy
    cut_ones = {name for name in strategy if strategy[name].replicas < 8}
    assert cut_ones == {"fc1.weight", "moments.fc1.weight"}
    assert strategy["moments.fc1.weight"].shard_shape((24, 12)) == (3, 12)


def blocks(data: int, model: int, count: int = 2, rows: int = 16, width: int = 8) -> Any:
    """Residual blocks, the first product cut by columns and the second by rows, and all gradients."""
    build, f64 = GraphBuilder(), np.dtype("float64")
    h, params = build.input("x", Spec((rows, width), f64)), []
    for i in range(count):
        up, down = f"{i}.up", f"{i}.down"
        build.param(up, Spec((width, 4 * width), f64))
        build.param(down, Spec((4 * width, width), f64))
        a = build.add(operators.MatMul(), h, up, strategy=((data, 1), (1, model)))
        a = build.add(operators.GeLU(), a, strategy=((data, model),))
        a = build.add(operators.MatMul(), a, down, strategy=((data, model), (model, 1)))
        h = build.add(operators.Add(), h, a, strategy=((data, 1), (data, 1)))
        params += [up, down]
    loss = build.add(operators.ReduceSum(), h)
    return build.graph([loss, *differentiate(build, loss, params).values()])


@pytest.mark.parametrize(("data", "model"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_blocks_cut_by_columns_then_rows_send_what_they_must(data, model):
    """No parameter, activation or gradient is ever redistributed.

    Per block one sum of activations forwards and one backwards over the model's cards, one sum of
    each shard's gradient over the data's; and the loss, one number.
    """
    graph = blocks(data, model)
    program = partition(graph, propagate(graph, data * model))
    activations, shard = 16 // data * 8 * 8, 8 * 32 // model * 8

    def sent(nbytes: int, cards: int) -> int:
        # So few that they go whole to all others.
        return nbytes * (cards - 1)

    expected: Counter[tuple[str, int]] = Counter()
    if model > 1:
        # The first block's input needs no gradient: one backward sum less.
        expected["AllReduce", sent(activations, model)] += 2 + 1
    if data > 1:
        expected["AllReduce", sent(shard, data)] += 4
    found = Counter((c.kind, int(c.sent_bytes.max())) for c in program.collectives)
    # The loss is one number, which each of the 8 cards sends to 7.
    assert found - expected == Counter({("AllReduce", 7 * 8): 1})
    assert not expected - found
    assert program.resident_bytes.tolist() == [4 * shard] * (data * model)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_groups_are_the_cards_that_differ_along_the_summed_axes_only(sizes, data):
    """Against plain coordinates, and each card in one group, in rank order."""
    mesh = Mesh.from_axes(tuple("abcd"[: len(sizes)]), tuple(sizes))
    summed = data.draw(st.sets(st.sampled_from(mesh.axis_names), min_size=1))
    instruction = AllReduce("y", ("x",), tuple(sorted(summed)))
    held = Held(Spec((), np.dtype("float32")), Layout(mesh, ""))
    kept = [i for i, name in enumerate(mesh.axis_names) if name not in summed]
    places = mesh.coordinates()[:, kept].tolist()
    for rank, place in enumerate(places):
        expected = tuple(r for r, other in enumerate(places) if other == place)
        assert instruction.group(held, rank) == expected
    assert sorted(instruction.groups(held).ravel().tolist()) == list(range(mesh.size))
