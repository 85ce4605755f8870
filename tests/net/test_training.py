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


def test_what_cannot_be_trained_is_told():
    """A loss with dims; an optimizer of another net; a loss that does not use the net."""
    net = Line()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    with pytest.raises(GraphError, match=r"the loss has shape \[2\].*use reduction='mean' or 'sum'"):
        training_graph(net, nn.SoftmaxCrossEntropyWithLogits(), optimizer, X, Y)
    with pytest.raises(GraphError, match="the optimizer trains 'w', which is not a parameter of Line"):
        training_graph(Line(), nn.MSELoss(), optimizer, X, Y)
    with pytest.raises(GraphError, match="the loss function returned"):
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
