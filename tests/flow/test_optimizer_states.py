"""What the cards hold is what a parameter and an optimizer's state say, before and after training."""

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.flow import Model, load_param_into_net, set_auto_parallel_context
from distinfer_lab.formats import open_slice
from distinfer_lab.net import Cell, Parameter, Tensor, nn, ops

from ..trained import MLP, MLP_CUTS, check_against_mindspore

X, Y = np.array([[1, 2], [3, -1]], np.float32), np.array([[0.5, 1], [1.5, 0]], np.float32)


@pytest.fixture(scope="module")
def cards():
    with CardGroup(2) as group:
        yield group


@pytest.fixture(autouse=True)
def context():
    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)


class Line(Cell):
    """x @ w, the columns of w cut in two."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(np.ones((2, 2), np.float32), name="w")
        self.matmul = ops.MatMul().shard(((1, 1), (1, 2)))

    def construct(self, x):
        return self.matmul(x, self.weight)


def train(net, optimizer, cards, steps=1):
    Model(net, nn.MSELoss(), optimizer, cards=cards).train(steps, [(X, Y)])


def gradient(w):
    return 2 * X.T @ (X @ w - Y) / Y.size


def test_states_after_training_are_those_of_the_cards():
    """MindSpore's moments and counters, gathered from eight cards."""
    net, loss, optimizer = MLP.make(MLP_CUTS["2-D"])
    with CardGroup(8) as cards:
        Model(net, loss, optimizer, cards=cards).train(MLP.epochs, MLP.batches())
        values = {n: p.asnumpy() for n, p in {**net.parameters_dict(), **optimizer.states}.items()}
    check_against_mindspore(MLP, values)
    assert values["global_step"] == 10


def test_states_that_nothing_changes_are_held_cut_and_saved(cards, tmp_path):
    """Plain SGD: `accum` and `stat` have the layout of their parameter, and every card's file has its slices."""
    net = Line()
    optimizer = nn.SGD(net.trainable_params(), 0.1)
    model = Model(net, nn.MSELoss(), optimizer, cards=cards)
    model.train(2, [(X, Y)])
    w = np.ones((2, 2), np.float32)
    for _ in range(2):
        w = w - np.float32(0.1) * gradient(w)
    np.testing.assert_allclose(net.weight.asnumpy(), w, rtol=1e-6)
    np.testing.assert_array_equal(optimizer.states["stat.w"].asnumpy(), np.ones((2, 2)))
    model.save(tmp_path, "line.ckpt", integrated=False)
    for rank in range(2):
        with open_slice(tmp_path / f"rank_{rank}_ckpt" / "line.ckpt") as file:
            assert sorted(file.entries) == sorted(["w", *optimizer.states])
            np.testing.assert_array_equal(file.read("accum.w"), np.zeros((2, 1)))
            np.testing.assert_array_equal(file.read("stat.w"), np.ones((2, 1)))


def test_another_optimizer_begins_with_its_own_states(cards):
    """Its learning rate and counter too; the one before keeps its own, and may go on."""
    net = Line()
    first = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    train(net, first, cards, steps=3)
    moments, w = first.states["moments.w"].asnumpy(), net.weight.asnumpy()
    second = nn.Momentum(net.trainable_params(), 0.01, 0.5)
    train(net, second, cards)
    np.testing.assert_allclose(net.weight.asnumpy(), w - 0.01 * gradient(w), rtol=1e-6)
    assert second.states["global_step"].asnumpy() == 1
    assert second.states["learning_rate"].asnumpy() == np.float32(0.01)
    assert first.states["global_step"].asnumpy() == 3
    np.testing.assert_array_equal(first.states["moments.w"].asnumpy(), moments)
    w = net.weight.asnumpy()
    train(net, first, cards)
    step = 0.1 * (0.9 * moments + gradient(w))
    np.testing.assert_allclose(net.weight.asnumpy(), w - step, rtol=1e-5)
    assert first.states["global_step"].asnumpy() == 4
    assert second.states["global_step"].asnumpy() == 1


def test_a_learning_rate_set_between_two_trainings_is_used(cards):
    """And so is a weight; the other states stay as they were."""
    net = Line()
    optimizer = nn.SGD(net.trainable_params(), 0.1)
    train(net, optimizer, cards, steps=2)
    optimizer.states["learning_rate"].set_data(0.5)
    w = np.array([[2, 1], [0, 3]], np.float32)
    net.weight.set_data(w)
    train(net, optimizer, cards)
    np.testing.assert_allclose(net.weight.asnumpy(), w - 0.5 * gradient(w), rtol=1e-6)
    assert optimizer.states["global_step"].asnumpy() == 3


def test_weights_set_after_a_prediction_are_predicted_with(cards):
    """By `set_data` or `load_param_into_net`, on a net that is on the cards."""
    net = Line()
    model = Model(net, cards=cards)
    np.testing.assert_array_equal(model.predict(Tensor(X)).asnumpy(), X @ np.ones((2, 2), np.float32))
    w = np.array([[2, 1], [0, 3]], np.float32)
    net.weight.set_data(w)
    np.testing.assert_array_equal(model.predict(Tensor(X)).asnumpy(), X @ w)
    load_param_into_net(net, {"w": Tensor(2 * w)})
    np.testing.assert_array_equal(model.predict(Tensor(X)).asnumpy(), X @ (2 * w))
    np.testing.assert_array_equal(net.weight.asnumpy(), 2 * w)


def test_learning_rates_of_each_step_are_used_on_cards(cards):
    """One after another; a step without one is refused by name."""
    net = Line()
    optimizer = nn.SGD(net.trainable_params(), [0.1, 0.2])
    train(net, optimizer, cards, steps=2)
    w = np.ones((2, 2), np.float32)
    for rate in (0.1, 0.2):
        w = w - np.float32(rate) * gradient(w)
    np.testing.assert_allclose(net.weight.asnumpy(), w, rtol=1e-6)
    with pytest.raises(ValueError, match="learning_rate has 2 values, one for each step, and this is step 3"):
        train(net, optimizer, cards)
