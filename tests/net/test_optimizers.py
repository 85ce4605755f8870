"""Optimizers: every value of 50 steps as MindSpore's, and arguments that are not supported."""

import numpy as np
import pytest

from distinfer_lab.errors import ArgumentTypeError, ContextError, GraphError
from distinfer_lab.net import Graph, GraphBuilder, Parameter, Tensor, evaluate, nn

from ..data.oracle.training import optimizers as oracle
from ..oracle import ORACLE

ADAM_TOLERANCE = 5e-7
"""MindSpore may fuse a product and a sum into one rounding; all else agrees to the last bit."""


@pytest.fixture(scope="module")
def recorded():
    """Case -> name -> what MindSpore had after some steps."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for key, array in np.load(ORACLE / "training" / "optimizers.npz").items():
        case, _, name = key.partition("/")
        out.setdefault(case, {})[name] = array
    return out


def step_graph(optimizer) -> tuple[Graph, dict[str, str]]:
    """One step of an optimizer alone, and parameter -> the input that is its gradient."""
    build = GraphBuilder()
    grads = {p.name: build.input(f"gradient of {p.name}", p.spec) for p in optimizer.params}
    return build.graph([], optimizer.update(build, grads)), grads


def trajectory(optimizer, gradients):
    """All parameters and states after each step."""
    graph, inputs = step_graph(optimizer)
    values = {p.name: p.asnumpy() for p in (*optimizer.params, *optimizer.states.values())}
    assert set(graph.params) == set(graph.updates) == set(values)
    for step in gradients:
        new = evaluate(graph, values, {inputs[name]: grad for name, grad in step.items()})
        values = {name: new[name] for name in graph.updates}
        yield values


def make(case):
    """The optimizer of a case of the oracle."""
    kind, arguments = oracle.CASES[case]
    params = [Parameter(value, name=name) for name, value in oracle.start_values(case).items()]
    return getattr(nn, kind)(params, **arguments)


@pytest.mark.parametrize("case", oracle.CASES)
def test_fifty_steps_are_those_of_mindspore(case, recorded):
    """Names, shapes, dtypes and values of all parameters and states; exactly, but for Adam's roundings."""
    expected = recorded[case]
    for step, values in enumerate(trajectory(make(case), oracle.gradients(case)), 1):
        if step not in oracle.RECORDED:
            continue
        assert set(values) == set(expected)
        for name, value in values.items():
            right = expected[name][oracle.RECORDED.index(step)]
            assert (value.dtype, value.shape) == (right.dtype, right.shape)
            atol = ADAM_TOLERANCE * np.abs(right).max() if case.startswith("adam") else 0
            np.testing.assert_allclose(value, right, rtol=0, atol=atol, err_msg=f"{name}, step {step}")


def test_the_nesterov_momentum_is_that_of_sgd(recorded):
    """MindSpore's CPU kernel of Momentum ignores use_nesterov; that of SGD does not."""
    case = "sgd, nesterov, decay"
    arguments = {**oracle.CASES[case][1], "use_nesterov": True}
    del arguments["nesterov"]
    optimizer = nn.Momentum(make(case).params, **arguments)
    *_, values = trajectory(optimizer, oracle.gradients(case))
    for name in oracle.SHAPES:
        np.testing.assert_array_equal(values[name], recorded[case][name][-1])
        np.testing.assert_array_equal(values[f"moments.{name}"], recorded[case][f"accum.{name}"][-1])


def test_a_float64_parameter_is_updated_in_float64():
    """Its moments too; only the shared numbers are float32."""
    random = np.random.default_rng(3)
    start, grads = random.normal(size=(4,)), random.normal(size=(3, 4))
    beta1, beta2, rate = (float(np.float32(number)) for number in (0.9, 0.999, 0.1))
    value, mean, square = start, np.zeros(4), np.zeros(4)
    for grad in grads:
        mean = mean + (grad - mean) * (1 - beta1)
        square = square + (grad * grad - square) * (1 - beta2)
    optimizer = nn.Adam([Parameter(start, name="w")], 0.1)
    *_, values = trajectory(optimizer, [{"w": grad} for grad in grads])
    np.testing.assert_allclose(values["moment1.w"], mean, rtol=1e-14)
    np.testing.assert_allclose(values["moment2.w"], square, rtol=1e-13)
    for grad in grads:
        value = value - rate * grad
    *_, values = trajectory(nn.SGD([Parameter(start, name="w")], 0.1), [{"w": grad} for grad in grads])
    np.testing.assert_allclose(values["w"], value, rtol=1e-15)


def test_a_parameter_that_the_loss_does_not_reach_decays():
    """Its gradient is zeros, as in MindSpore."""
    params = [Parameter(np.full((2, 3), 8.0, np.float32), name="w"), Parameter(np.float32(8), name="b")]
    optimizer = nn.SGD(params, 0.5, momentum=0.5, weight_decay=0.5)
    build = GraphBuilder()
    graph = build.graph([], optimizer.update(build, {}))
    values = {p.name: p.asnumpy() for p in (*params, *optimizer.states.values())}
    new = evaluate(graph, values, {})
    np.testing.assert_array_equal(new["w"], np.full((2, 3), 6.0, np.float32))
    np.testing.assert_array_equal(new["b"], np.float32(6))


def test_the_first_step_of_sgd_takes_no_older_velocity():
    """Where `stat` is 1 the gradient replaces `accum`, whatever it was, and is not dampened."""
    optimizer = nn.SGD([Parameter(np.ones(2, np.float32), name="w")], 0.5, momentum=0.5, dampening=0.25)
    optimizer.states["accum.w"].set_data(np.full(2, 8, np.float32))
    first, second = trajectory(optimizer, [{"w": np.full(2, 2, np.float32)}] * 2)
    np.testing.assert_array_equal([first["accum.w"], first["stat.w"], first["w"]], [[2, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(second["accum.w"], np.full(2, 0.5 * 2 + 0.75 * 2, np.float32))


W = [Parameter(np.zeros((2, 2), np.float32), name="w")]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: nn.Momentum([], 0.1, 0.9), GraphError, "Momentum has no parameters to train"),
        (lambda: nn.SGD([*W, *W]), GraphError, "SGD: two parameters are called 'w'"),
        (
            lambda: nn.SGD([{"params": W, "lr": 0.1}]),
            ArgumentTypeError,
            "groups of parameters are not supported",
        ),
        (lambda: nn.SGD(["w"]), ArgumentTypeError, "SGD trains Parameters: 'w'; pass net.trainable_params"),
        (lambda: nn.SGD(W, -0.1), ContextError, "SGD: learning_rate=-0.1 is out of range"),
        (lambda: nn.SGD(W, [0.1, -0.1]), ContextError, "SGD: learning_rate=-0.1 is out of range"),
        (lambda: nn.SGD(W, []), ContextError, "SGD: learning_rate has no values"),
        (lambda: nn.SGD(W, float("nan")), ContextError, "SGD: learning_rate=nan is out of range"),
        (lambda: nn.SGD(W, [[0.1]]), ArgumentTypeError, r"SGD: learning_rate=\[0.1\] is not supported"),
        (lambda: nn.SGD(W, "fast"), ArgumentTypeError, "SGD: learning_rate='fast' is not supported"),
        (lambda: nn.SGD(W, weight_decay=[0.1]), ArgumentTypeError, r"SGD: weight_decay=\[0.1\] is not supp"),
        (lambda: nn.SGD(W, weight_decay=-1), ContextError, "SGD: weight_decay=-1.0 is out of range"),
        (lambda: nn.SGD(W, loss_scale=1024.0), ContextError, "SGD: loss_scale=1024.0 is not supported"),
        (lambda: nn.SGD(W, momentum=-1), ContextError, "SGD: momentum=-1.0 is out of range"),
        (lambda: nn.SGD(W, dampening=-1), ContextError, "SGD: dampening=-1.0 is out of range"),
        (lambda: nn.SGD(W, nesterov=True), ContextError, "SGD: nesterov=True with momentum=0.0"),
        (
            lambda: nn.SGD(W, momentum=0.9, dampening=0.1, nesterov=True),
            ContextError,
            "momentum=0.9 and dampening=0.1; it needs a momentum above 0 and no dampening",
        ),
        (lambda: nn.Momentum(W, 0.1, None), ArgumentTypeError, "Momentum: momentum=None is not supported"),
        (lambda: nn.Adam(W, beta1=1.0), ContextError, "Adam: beta1=1.0, beta2=0.999"),
        (lambda: nn.Adam(W, beta2=1 - 1e-12), ContextError, "betas must be between 0 and 1"),
        (lambda: nn.Adam(W, eps=0.0), ContextError, "eps above 0"),
        (lambda: nn.Adam(W, 0.1, 0.9, 0.999, 1e-8, 0.01), ArgumentTypeError, "use_locking=0.01 is not True"),
        (lambda: nn.Adam(W, use_amsgrad=True), ContextError, "use_amsgrad=True is not supported"),
        (lambda: nn.Adam(W, use_lazy=True), ContextError, "use_lazy=True is not supported"),
        (lambda: nn.Adam(W, use_offload=True), ContextError, "use_offload=True is not supported"),
    ],
)
def test_arguments_that_are_not_supported_are_named(make, error, text):
    """With the optimizer, the argument and its value."""
    with pytest.raises(error, match=text):
        make()


def test_learning_rates_of_each_step_may_come_in_many_forms():
    """A list, an iterator, an array and a Tensor; and one number of no dims."""
    for rates in ([0.1, 0.2], iter([0.1, 0.2]), np.array([0.1, 0.2]), Tensor([0.1, 0.2])):
        state = nn.SGD(W, rates).states["learning_rate"]
        np.testing.assert_array_equal(state.asnumpy(), np.array([0.1, 0.2], np.float32))
    for rate in (0.5, np.float32(0.5), np.array(0.5), Tensor(0.5)):
        assert nn.SGD(W, rate).states["learning_rate"].asnumpy() == np.float32(0.5)


def test_a_step_without_a_learning_rate_is_refused():
    """Two rates, three steps."""
    optimizer = nn.SGD(W, [0.1, 0.2])
    grads = [{"w": np.ones((2, 2), np.float32)}] * 3
    with pytest.raises(GraphError, match="learning_rate has 2 values, one for each step, and this is step 3"):
        list(trajectory(optimizer, grads))
