"""Training graphs: the nets that MindSpore trained, and every optimizer against its formula."""

import numpy as np
import pytest

from distinfer_lab.errors import GraphError
from distinfer_lab.net import Cell, Graph, Parameter, Tensor, evaluate, nn, ops, training_graph

from ..trained import MLP, SAMPLE, check_against_mindspore


def run(graph: Graph, values: dict[str, np.ndarray], batches) -> list[float]:
    losses = []
    for data, label in batches:
        found = evaluate(graph, {n: values[n] for n in graph.params}, {"x": data, "label": label})
        losses.append(float(found[graph.outputs[0]]))
        values |= {name: found[name] for name in graph.updates}
    return losses


@pytest.mark.parametrize("job", [SAMPLE, MLP], ids=lambda job: job.name)
def test_training_on_whole_arrays_gives_mindspores_weights(job):
    """Weights, moments, counters and losses."""
    net, loss, optimizer = job.make()
    batches = job.batches()
    graph = training_graph(net, loss, optimizer, *batches[0])
    values = {n: p.asnumpy() for n, p in {**net.parameters_dict(), **optimizer.states}.items()}
    losses = run(graph, values, batches * job.epochs)
    np.testing.assert_allclose(losses, job.expected["losses"], rtol=1e-5)
    check_against_mindspore(job, values)


class Line(Cell):
    def __init__(self):
        super().__init__()
        self.weight = Parameter(np.array([[1.0, -2.0]]), name="w")

    def construct(self, x):
        return ops.MatMul(transpose_b=True)(x, self.weight)


X, Y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[0.5], [1.5]])


def steps(make, count=3):
    """The weight after some steps of an optimizer on a line."""
    net = Line()
    optimizer = make(net.trainable_params())
    graph = training_graph(net, nn.MSELoss(), optimizer, X, Y)
    values = {n: p.asnumpy() for n, p in {**net.parameters_dict(), **optimizer.states}.items()}
    run(graph, values, [(X, Y)] * count)
    return values["w"]


def slope(w):
    """By hand: the gradient of mean((x w' - y) ** 2)."""
    return 2 * (X @ w.T - Y).T @ X / Y.size


def test_sgd_is_its_formula():
    """Plain, with momentum, with Nesterov's look ahead, with weight decay."""
    w = np.array([[1.0, -2.0]])
    for _ in range(3):
        w = w - 0.1 * slope(w)
    np.testing.assert_allclose(steps(lambda p: nn.SGD(p, 0.1)), w, rtol=1e-6)
    w, v = np.array([[1.0, -2.0]]), np.zeros((1, 2))
    for _ in range(3):
        g = slope(w) + 0.01 * w
        v = 0.9 * v + g
        w = w - 0.1 * (g + 0.9 * v)
    made = steps(lambda p: nn.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True))
    np.testing.assert_allclose(made, w, rtol=1e-6)


def test_adam_is_its_formula():
    """Bias-corrected moments, in the order of the paper's efficient form."""
    w, m, v = np.array([[1.0, -2.0]]), np.zeros((1, 2)), np.zeros((1, 2))
    for t in range(1, 4):
        g = slope(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    # The powers of the betas are float32, as in MindSpore: 1 - 0.999 has five digits there.
    np.testing.assert_allclose(steps(lambda p: nn.Adam(p, 0.1)), w, rtol=2e-5)


def test_states_carry_mindspores_names():
    """As a checkpoint of MindSpore has them."""
    params = Line().trainable_params()
    momentum, adam = nn.Momentum(params, 0.1, 0.9), nn.Adam(params)
    assert set(momentum.states) == {"learning_rate", "momentum", "global_step", "moments.w"}
    assert set(adam.states) >= {"moment1.w", "moment2.w", "beta1_power", "beta2_power", "learning_rate"}


def test_what_cannot_be_trained_is_told():
    """A loss with dims; an optimizer of another net; a loss that does not use the net."""
    net = Line()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    with pytest.raises(GraphError, match=r"the loss has shape \[2\].*use reduction='mean' or 'sum'"):
        training_graph(net, nn.SoftmaxCrossEntropyWithLogits(), optimizer, X, Y)
    with pytest.raises(GraphError, match="the optimizer trains 'w', which is not a parameter of Line"):
        training_graph(Line(), nn.MSELoss(), optimizer, X, Y)
    with pytest.raises(GraphError, match="the loss function gave"):
        training_graph(net, lambda out, label: Tensor(1.0), optimizer, X, Y)


def test_sparse_labels_are_rows_of_an_identity():
    """Class numbers give the loss that one-hot rows give."""
    logits = Tensor(np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32))
    ids = np.array([0, 2, 1, 1], np.int32)
    dense = nn.SoftmaxCrossEntropyWithLogits(reduction="sum")(
        logits, Tensor(np.eye(3, dtype=np.float32)[ids])
    )
    sparse = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="sum")(logits, Tensor(ids))
    np.testing.assert_array_equal(sparse.asnumpy(), dense.asnumpy())
