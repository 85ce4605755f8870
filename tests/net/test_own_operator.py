"""An operator of a user's own is one class in one file: traced, sharded, run on cards, differentiated."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.errors import GraphError
from distinfer_lab.net.graph import Operator, Rule, Spec, rule_of
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


@dataclass(frozen=True)
class RowSums(Operator):
    """x[m, n] -> [m]; its rule may be any."""

    sharding: Rule

    def infer(self, *inputs):
        return Spec(inputs[0].shape[:1], inputs[0].dtype)

    def forward(self, *inputs):
        return inputs[0].sum(axis=1)

    def rule(self, *inputs):
        return self.sharding


@pytest.mark.parametrize("parts", [(2, 2), (1, 4), (4, 1)])
def test_its_partial_sums_are_added_on_cards(parts):
    """A rule without an order takes its factors as they appear; integers add up exactly."""
    x = np.random.default_rng(2).integers(-9, 9, (4, 8)).astype(np.float32)
    dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    rule = Rule((("m", "n"),), ("m",), sums=frozenset("n"))
    sums = Fixed(RowSums(rule)).shard((parts,))

    class Sums(dl.Cell):
        def construct(self, x):
            return sums(x)

    with dl.CardGroup(4):
        model = dl.Model(Sums())
        np.testing.assert_array_equal(model.predict(dl.Tensor(x)).asnumpy(), x.sum(axis=1))
        assert model.last.communication if parts[1] > 1 else not model.last.communication


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (Rule((("m", "n"),), ("m",)), "output lacks 'n'"),
        (Rule((("m",),), ("m",)), r"shapes \[4, 8\], \[4\]"),
        (Rule((("m", None),), ("m", None)), r"shapes \[4, 8\], \[4\]"),
        (Rule((), ("m",)), r"shapes \[4, 8\], \[4\]"),
    ],
)
def test_a_rule_that_would_lose_shards_is_refused(rule, problem):
    """A reduced factor that is not summed, and a rule for other dims, name the operator."""
    with pytest.raises(GraphError, match=rf"RowSums.rule: .*{problem}"):
        rule_of(RowSums(rule), Spec((4, 8), np.dtype("f4")))


def test_the_example_of_contributing_predicts_on_cards():
    """The operator of CONTRIBUTING.md, executed as it stands there, equals numpy on 2 x 2 cards."""
    example = re.search(
        r"```python\n(.*?)```", Path(__file__).parents[2].joinpath("CONTRIBUTING.md").read_text(), re.DOTALL
    )
    names = {"__name__": __name__}
    exec(example[1], names)

    class Net(dl.Cell):
        def construct(self, x):
            return names["row_sums"](x)

    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    with dl.CardGroup(4):
        np.testing.assert_array_equal(dl.Model(Net()).predict(dl.Tensor(x)).asnumpy(), x.sum(axis=1))
