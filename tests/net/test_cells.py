"""Cells, parameters, tensors and tracing: nets as people write them."""

import numpy as np
import pytest

from distinfer_lab.errors import ArgumentTypeError, GraphError
from distinfer_lab.net import (
    Cell,
    Parameter,
    SequentialCell,
    Tensor,
    evaluate,
    initializer,
    nn,
    ops,
    set_seed,
    trace,
)


class Mlp(Cell):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Dense(6, 4, activation="relu")
        self.fc2 = nn.Dense(4, 2, has_bias=False)
        self.scale = Parameter(np.float32(2), name="scale")

    def construct(self, x):
        return self.fc2(self.fc1(x)) * self.scale


def whole(net):
    return {name: param.asnumpy() for name, param in net.parameters_dict().items()}


def test_parameters_have_mindspores_names():
    """Inner cells put their path in front; a parameter of the net itself keeps its own name."""
    assert list(Mlp().parameters_dict()) == ["scale", "fc1.weight", "fc1.bias", "fc2.weight"]
    outer = SequentialCell(Mlp(), nn.LayerNorm(2))
    assert list(outer.parameters_dict())[:2] == ["0.scale", "0.fc1.weight"]
    assert list(outer.parameters_dict())[-2:] == ["1.gamma", "1.beta"]
    assert list(outer.parameters_dict()) == list(outer.parameters_dict())


def test_eager_traced_and_numpy_agree():
    """A net gives the same when called, when traced and evaluated, and by hand."""
    net, x = Mlp(), np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    p = whole(net)
    by_hand = np.maximum(x @ p["fc1.weight"].T + p["fc1.bias"], 0) @ p["fc2.weight"].T * p["scale"]
    np.testing.assert_allclose(net(Tensor(x)).asnumpy(), by_hand, rtol=1e-6)
    graph = trace(net, Tensor(x))
    assert list(graph.inputs) == ["x"]
    np.testing.assert_allclose(evaluate(graph, p, {"x": x})[graph.outputs[0]], by_hand, rtol=1e-6)


def test_a_gated_layer_of_plain_layers():
    """RMSNorm and SiLU as layers, and operators on parameters alone while a net is traced."""

    class Gated(Cell):
        def __init__(self):
            super().__init__()
            self.norm = nn.RMSNorm(4, 1e-5)
            self.gate = nn.Dense(4, 3, has_bias=False, activation="silu")
            self.half = Parameter(np.full(3, 0.5, np.float32))

        def construct(self, x):
            return self.gate(self.norm(x)) * (self.half + self.half)

    net, x = Gated(), np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) @ whole(net)["gate.weight"].T
    graph = trace(net, x)
    assert sorted(graph.params) == ["gate.weight", "half", "norm.gamma"]
    found = evaluate(graph, whole(net), {"x": x})[graph.outputs[0]]
    np.testing.assert_allclose(found, y / (1 + np.exp(-y)), rtol=1e-5)
    np.testing.assert_allclose(net(Tensor(x)).asnumpy(), found, rtol=1e-6)


def test_strategies_reach_the_graph():
    """`shard` on a primitive, on a layer's primitives, and by named axes."""
    net = Mlp()
    net.fc1.matmul.shard(((2, 1), (4, 1)))
    net.fc1.bias_add.shard(((2, 4), (4,)))
    grid = ops.Layout((2, 4), ("dp", "mp"))
    net.fc2.matmul.shard((grid("dp", "mp"), grid("None", "mp")))
    strategies = {
        node.op.name: node.strategy for node in trace(net, Tensor(np.zeros((8, 6), np.float32))).nodes
    }
    assert strategies["BiasAdd"] == ((2, 4), (4,))
    assert strategies["ReLU"] is None
    assert strategies["MatMul"].inputs == ((("dp",), ("mp",)), ((), ("mp",)))


def test_initial_values_do_not_depend_on_the_cut():
    """A random tensor made region by region is the tensor made whole, and another name has other values."""
    for kind in ("normal", "xavier_uniform", "he_uniform", "uniform"):
        init = initializer(kind, (6, 8))
        made = init.region(((0, 6), (0, 8)), "w")
        for rows, columns in (((0, 3), (2, 5)), ((3, 6), (0, 8)), ((5, 6), (7, 8))):
            part = init.region((rows, columns), "w")
            np.testing.assert_array_equal(part, made[slice(*rows), slice(*columns)])
        assert not np.array_equal(made, init.region(((0, 6), (0, 8)), "v"))


def test_random_values_are_spread_as_they_should_be():
    """Mean and spread of a big normal and a big uniform tensor; another seed, other values."""
    made = initializer("normal", (400, 500)).region(((0, 400), (0, 500)), "w")
    assert abs(made.mean()) < 1e-4
    assert abs(made.std() - 0.01) < 1e-4
    uniform = initializer("xavier_uniform", (400, 500)).region(((0, 400), (0, 500)), "w")
    bound = np.sqrt(6 / 900)
    assert np.abs(uniform).max() < bound
    assert abs(uniform.std() - bound / np.sqrt(3)) < 1e-3
    set_seed(1)
    assert not np.array_equal(initializer("normal", (4, 4)).region(((0, 4), (0, 4)), "w"), made[:4, :4])
    set_seed(0)


def test_tensors_compute_with_numbers_on_either_side():
    """+ - * / @ and neg, with numbers and with each other."""
    a = Tensor([[1.0, 2.0]])
    assert a.dtype == np.float32
    np.testing.assert_array_equal((3 - a * 2 + 1).asnumpy(), [[2, 0]])
    np.testing.assert_array_equal((-a / 2).asnumpy(), [[-0.5, -1]])
    np.testing.assert_array_equal((a @ Tensor([[1.0], [1.0]])).asnumpy(), [[3]])
    assert repr(a) == "Tensor(shape=[1, 2], dtype=float32, value=[[1. 2.]])"


class NoConstruct(Cell):
    pass


class Branches(Cell):
    def construct(self, x):
        return x if x else -x


class MakesTensors(Cell):
    def construct(self, x):
        return x + Tensor(np.ones(2, np.float32))


class GivesNumbers(Cell):
    def construct(self, x):
        return 7


class TwoOfOneName(Cell):
    def __init__(self):
        super().__init__()
        self.a = Parameter(np.zeros(2), name="w")
        self.b = Parameter(np.zeros(2), name="w")

    def construct(self, x):
        return x + self.a + self.b


X = Tensor(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    ("net", "inputs", "error", "text"),
    [
        (NoConstruct(), [X], GraphError, "NoConstruct has no `construct`"),
        (Branches(), [X], GraphError, "branches on a value of a tensor"),
        (MakesTensors(), [X], GraphError, "Add: a Tensor was made inside `construct`; make it a Parameter"),
        (GivesNumbers(), [X], GraphError, "GivesNumbers returned 7; `construct` must return tensors"),
        (TwoOfOneName(), [X], GraphError, "TwoOfOneName has two parameters named 'w'"),
        (Branches(), [X, X], GraphError, r"Branches.construct takes 1 inputs \(x\), but 2 were given"),
        (Branches(), [3], ArgumentTypeError, "a net takes Tensors, not int: 3"),
    ],
)
def test_nets_that_cannot_be_traced_are_told_why(net, inputs, error, text):
    """The class, what it did, and what to do instead."""
    with pytest.raises(error, match=text):
        trace(net, *inputs)


def test_bad_arguments_of_layers_are_named():
    """Shapes, names and numbers that cannot be."""
    with pytest.raises(GraphError, match=r"weight_init has shape \[2, 2\]; it must have \[4, 6\]"):
        nn.Dense(6, 4, weight_init=np.zeros((2, 2), np.float32))
    with pytest.raises(GraphError, match="activation 'swish' is not one of relu"):
        nn.Dense(6, 4, activation="swish")
    with pytest.raises(GraphError, match="initializer 'gauss' is not one of zeros"):
        nn.Dense(6, 4, weight_init="gauss")
    with pytest.raises(GraphError, match="reduction='max' is not one of mean, sum, none"):
        nn.MSELoss("max")
    with pytest.raises(GraphError, match="Momentum has no parameters to train"):
        nn.Momentum([], 0.1, 0.9)
    with pytest.raises(
        ArgumentTypeError, match=r"MatMul.shard takes a tuple of integers for each input, not 2"
    ):
        ops.MatMul().shard((2, (1, 4)))
    with pytest.raises(GraphError, match=r"w: a value of shape \[3\] for a parameter of shape \[2\]"):
        Parameter(np.zeros(2), name="w").set_data(np.zeros(3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Embedding(4, 2, True), "Embedding: use_one_hot=True is not supported"),
        (lambda: nn.Embedding(4, 2, "zeros"), "use_one_hot='zeros' is not supported; .* embedding_table="),
        (lambda: nn.LayerNorm(4, 1e-5), "LayerNorm: begin_norm_axis=1e-05 is not an integer"),
        (lambda: nn.LayerNorm((4,), gamma_init=np.zeros(3)), "gamma_init has shape"),
        (lambda: ops.OneHot(0), "OneHot: axis=0 is not supported"),
        (lambda: ops.Gather(1), "Gather: batch_dims=1 is not supported"),
        (
            lambda: ops.OneHot()(Tensor(np.arange(3)), 3, Tensor(0.75), Tensor(0.25)),
            "OneHot: on_value=0.75 and off_value=0.25 are not supported; use 1 and 0",
        ),
    ],
)
def test_what_mindspore_has_and_this_has_not_is_refused(make, text):
    """By name, where it was taken for another argument or left out."""
    with pytest.raises((GraphError, ArgumentTypeError), match=text):
        make()


def test_one_hot_has_the_dtype_of_its_values():
    """As MindSpore's takes them: Tensors of 1 and 0."""
    ids = Tensor(np.array([2, 0]))
    for dtype in ("float32", "float16", "int32"):
        found = ops.OneHot()(ids, 3, Tensor(1, dtype), Tensor(0, dtype)).asnumpy()
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.eye(3)[[2, 0]])
    assert ops.OneHot()(ids, 3).dtype == np.float32
