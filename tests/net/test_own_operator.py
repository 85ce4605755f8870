"""An operator of a user's own is one class in one file: traced, sharded, run on cards, differentiated."""

from dataclasses import dataclass

import numpy as np

import distinfer_lab as dl
from distinfer_lab.net.graph import Operator, Rule
from distinfer_lab.net.operators import Mul, ReduceSum
from distinfer_lab.net.ops import Fixed


@dataclass(frozen=True)
class ScaleColumns(Operator):
    """x[m, n] * s[n]."""

    def infer(self, *inputs):
        return inputs[0]

    def forward(self, *inputs):
        return inputs[0] * inputs[1]

    def rule(self, *inputs):
        return Rule((("m", "n"), ("n",)), ("m", "n"), order=("m", "n"))

    def gradient(self, build, inputs, output, grad):
        by_column = build.add(ReduceSum((0,)), build.add(Mul(), inputs[0], grad))
        return [build.add(ScaleColumns(), grad, inputs[1]), by_column]


class Net(dl.Cell):
    """The operator, with its columns in four shards."""

    def __init__(self):
        super().__init__()
        self.scale = Fixed(ScaleColumns()).shard(((1, 4), (4,)))
        self.factors = dl.Parameter(np.arange(8, dtype=np.float32), name="factors")

    def construct(self, x):
        return self.scale(x, self.factors)


def test_it_predicts_on_cards():
    """What numpy says, each card with its columns."""
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    with dl.CardGroup(4):
        model = dl.Model(Net())
        layout = model.infer_predict_layout(dl.Tensor(x))
        assert layout.strategy["factors"].shard_shape((8,)) == (2,)
        np.testing.assert_array_equal(
            model.predict(dl.Tensor(x)).asnumpy(), x * np.arange(8, dtype=np.float32)
        )


def test_it_trains():
    """A step of gradient descent: the gradient of a factor is the sum of its column of x * label."""
    rng = np.random.default_rng(1)
    x, label = rng.normal(size=(2, 4, 8)).astype(np.float32)

    class Weighted(dl.Cell):
        def __init__(self):
            super().__init__()
            self.mul, self.sum = dl.ops.Mul(), dl.ops.ReduceSum()

        def construct(self, output, label):
            return self.sum(self.mul(output, label), (0, 1))

    net = Net()
    with dl.CardGroup(1):
        model = dl.Model(net, Weighted(), dl.nn.SGD(net.trainable_params(), 0.5))
        model.train(1, [(x, label)])
        after = net.factors.asnumpy()
    expected = np.arange(8) - 0.5 * (x * label).sum(axis=0)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)
