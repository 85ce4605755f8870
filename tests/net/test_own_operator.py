"""An operator of a user's own is one class in one file: traced, sharded, run on cards, differentiated."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.errors import GraphError
from distinfer_lab.net import GraphBuilder, differentiate, evaluate
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


def _row_sums(**methods):
    """An operator x[m, n] -> [m] of which some methods are replaced."""
    rule = Rule((("m", "n"),), ("m",), sums=frozenset("n"))
    return type("Wrong", (RowSums,), methods)(rule)


X = np.arange(32, dtype=np.float32).reshape(4, 8)


@pytest.mark.parametrize(
    ("method", "wrong", "problem"),
    [
        ("infer", lambda self, *x: Spec(x[1].shape, x[0].dtype), "raised IndexError: tuple index"),
        ("infer", lambda self, *x: x[0].shape[:1], r"returned \(4,\); return the output's Spec"),
        ("infer", lambda self, *x: Spec(x[0].shape[:1], np.float32), r"returned Spec.*np\.dtype"),
        ("infer", lambda self, *x: Spec([4], x[0].dtype), r"returned Spec\(shape=\[4\]"),
        ("forward", lambda self, *x: x[0].reshape(3), r"raised ValueError: cannot reshape.*\(3,\)"),
        ("forward", lambda self, *x: x[0], r"returned \[4, 8\] float32, but infer says \[4\] float32"),
        ("forward", lambda self, *x: x[0].sum(1).astype("f8"), r"returned \[4\] float64, but infer says"),
        ("forward", lambda self, *x: (x[0], x[0]), r"returned \[2, 4, 8\] float32, but infer says"),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_a_wrong_operator_is_named(method, wrong, problem, traced):
    """At once, and in a net with its place: the method, what it was given and what is wrong."""
    op = _row_sums(**{method: wrong})
    place = r" at Wrong\.1" if traced else ""
    with pytest.raises(
        GraphError, match=rf"^Wrong\.{method}{place}, given \[4, 8\] float32, {problem}"
    ) as failure:
        if traced:
            build = GraphBuilder()
            x = build.input("x", Spec(X.shape, X.dtype))
            evaluate(build.graph([build.add(op, x)]), {}, {"x": X})
        else:
            Fixed(op)(dl.Tensor(X))
    assert ("raised" in problem) == (failure.value.__cause__ is not None)


def _gradient(op):
    build = GraphBuilder()
    x = build.param("x", Spec(X.shape, X.dtype))
    return differentiate(build, build.add(ReduceSum((0,)), build.add(op, x)), ["x"])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda self, build, inputs, output, grad: [grad, grad], r"returned \['BroadcastTo.5', 'Broadcast"),
        (lambda self, build, inputs, output, grad: grad, "returned 'BroadcastTo.5'; return one value name"),
        (lambda self, build, inputs, output, grad: [3], "returned 3; return one value name per input"),
        (lambda self, build, inputs, output, grad: None, "returned None; return one value name per input"),
        (lambda self, build, inputs, output, grad: [grad], r"\[4\] for 'x' of \[4, 8\]; return one value"),
        (lambda self, build, inputs, output, grad: inputs[1:][0], "raised IndexError: tuple index out of"),
    ],
)
def test_a_wrong_gradient_is_named(wrong, problem):
    """With the operator's place, and the shapes of its input and of the gradient."""
    given = r"given \[4, 8\] float32, \[4\] float32"
    with pytest.raises(GraphError, match=rf"^Wrong\.gradient at Wrong.1, {given}, .*{problem}"):
        _gradient(_row_sums(gradient=wrong))


def test_an_operator_without_a_gradient_says_how_to_add_one():
    """The method is named, with its arguments."""
    with pytest.raises(
        GraphError, match=r"Wrong has no gradient; .* gradient\(build, inputs, output, grad\)"
    ):
        _gradient(_row_sums())


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda self, *x: (("m", "n"),), r"returned \(\('m', 'n'\),\); return a Rule"),
        (lambda self, *x: None, "returned None; return a Rule"),
        (lambda self, *x: Rule(x[1], ()), "raised IndexError"),
    ],
)
def test_a_wrong_rule_is_named(wrong, problem):
    """What is not a Rule, and an error within the method."""
    with pytest.raises(GraphError, match=rf"^Wrong\.rule, given \[4, 8\] float32, {problem}"):
        rule_of(_row_sums(rule=wrong), Spec(X.shape, X.dtype))
