"""Operators: each means what numpy says, its gradient what finite differences say, its rule what cutting gives."""

from itertools import product

import numpy as np
import pytest
import scipy.special

from distinfer_lab.errors import GraphError
from distinfer_lab.net import Graph, GraphBuilder, Operator, Spec, differentiate, evaluate
from distinfer_lab.net import operators as ops

from . import known

RANDOM = np.random.default_rng(5)


def numbers(*shape: int) -> np.ndarray:
    return np.asarray(RANDOM.uniform(0.2, 1.7, shape) * RANDOM.choice([-1.0, 1.0], shape))


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.3, 2.0, shape)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return scipy.special.softmax(x, axis)


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-7)


IDS = RANDOM.integers(0, 8, (4, 2))
LABELS = softmax(RANDOM.normal(size=(4, 6)))

# name -> operator, inputs, the answer by numpy or scipy alone
KNOWN = {
    "MatMul": (ops.MatMul(), [a := numbers(4, 6), b := numbers(6, 2)], a @ b),
    "MatMul ta": (ops.MatMul(True), [a := numbers(6, 4), b := numbers(6, 2)], a.T @ b),
    "MatMul tb": (ops.MatMul(False, True), [a := numbers(4, 6), b := numbers(2, 6)], a @ b.T),
    "MatMul ta tb": (ops.MatMul(True, True), [a := numbers(6, 4), b := numbers(2, 6)], a.T @ b.T),
    "BatchMatMul": (
        ops.BatchMatMul(),
        [a := numbers(2, 4, 6), b := numbers(2, 6, 2)],
        np.einsum("bmk,bkn->bmn", a, b),
    ),
    "BatchMatMul ta": (
        ops.BatchMatMul(True),
        [a := numbers(2, 3, 6, 4), b := numbers(2, 1, 6, 2)],
        np.einsum("bhkm,bokn->bhmn", a, b),
    ),
    "BiasAdd": (ops.BiasAdd(), [a := numbers(4, 6), b := numbers(6)], a + b[None]),
    "BiasAdd 4d": (ops.BiasAdd(), [a := numbers(2, 4, 2, 2), b := numbers(4)], a + b[None, :, None, None]),
    "Add": (ops.Add(), [a := numbers(4, 6), b := numbers(6)], a + b),
    "Sub": (ops.Sub(), [a := numbers(6), b := numbers(4, 6)], a - b),
    "Mul": (ops.Mul(), [a := numbers(4, 6), b := numbers(4, 1)], a * b),
    "Mul 0-d": (ops.Mul(), [a := numbers(4, 6), b := numbers()], a * b),
    "Div": (ops.Div(), [a := numbers(4, 6), b := numbers(1, 6)], a / b),
    "Neg": (ops.Neg(), [a := numbers(4, 6)], -a),
    "ReLU": (ops.ReLU(), [a := numbers(4, 6)], np.where(a > 0, a, 0)),
    "GeLU": (
        ops.GeLU(),
        [a := numbers(4, 6)],
        a / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    ),
    "Sigmoid": (ops.Sigmoid(), [a := numbers(4, 6)], scipy.special.expit(a)),
    "Tanh": (ops.Tanh(), [a := numbers(4, 6)], np.tanh(a)),
    "Exp": (ops.Exp(), [a := numbers(4, 6)], np.exp(a)),
    "Log": (ops.Log(), [a := positive(4, 6)], np.log(a)),
    "Sqrt": (ops.Sqrt(), [a := positive(4, 6)], np.sqrt(a)),
    "Square": (ops.Square(), [a := numbers(4, 6)], a**2),
    "Identity": (ops.Identity(), [a := numbers(4, 6)], a),
    "Scale": (ops.Scale(2.5), [a := numbers(4, 6)], 2.5 * a),
    "AddScalar": (ops.AddScalar(2.5), [a := numbers(4, 6)], 2.5 + a),
    "Cast": (ops.Cast("float64"), [a := numbers(4, 6)], a),
    "Softmax": (ops.Softmax(), [a := numbers(4, 6)], softmax(a)),
    "Softmax axis 0": (ops.Softmax(0), [a := numbers(4, 6)], softmax(a, 0)),
    "LayerNorm": (
        ops.LayerNorm(),
        [a := numbers(4, 6), b := numbers(6), c := numbers(6)],
        normalised(a) * b + c,
    ),
    "Normalise": (ops.Normalise(), [a := numbers(2, 4, 6)], normalised(a)),
    "ReduceSum": (ops.ReduceSum((0,)), [a := numbers(4, 6)], a.sum(0)),
    "ReduceSum all": (ops.ReduceSum(), [a := numbers(4, 6)], a.sum()),
    "ReduceSum keep": (ops.ReduceSum((-1,), True), [a := numbers(4, 6)], a.sum(1, keepdims=True)),
    "ReduceMean": (ops.ReduceMean((1,)), [a := numbers(4, 6, 2)], a.mean(1)),
    "ReduceMean all": (ops.ReduceMean(), [a := numbers(4, 6)], a.mean()),
    "SumTo": (ops.SumTo((1, 6)), [a := numbers(2, 4, 6)], a.sum((0, 1))[None]),
    "BroadcastTo": (ops.BroadcastTo((2, 4, 6)), [a := numbers(4, 1)], np.stack([np.repeat(a, 6, 1)] * 2)),
    "Reshape join": (ops.Reshape((8, 6)), [a := numbers(4, 2, 6)], a.reshape(8, 6)),
    "Reshape split": (ops.Reshape((4, 2, 2, 3)), [a := numbers(8, 6)], a.reshape(4, 2, 2, 3)),
    "Flatten": (ops.Flatten(), [a := numbers(4, 2, 3)], a.reshape(4, 6)),
    "Transpose": (ops.Transpose((2, 0, 1)), [a := numbers(4, 2, 6)], np.moveaxis(a, 2, 0)),
    "Gather": (ops.Gather(), [a := numbers(8, 6), IDS], a[IDS]),
    "CrossEntropy": (
        ops.SoftmaxCrossEntropyWithLogits(),
        [a := numbers(4, 6), LABELS],
        -(LABELS * scipy.special.log_softmax(a, 1)).sum(1),
    ),
}
KNOWN |= known.KNOWN
SELDOM = {
    **known.SELDOM,
    "AtStep": (ops.AtStep(), [a := numbers(6), np.array([4], np.int32)], a[4]),
    "OneHot": (ops.OneHot(8, "float64"), [IDS], np.eye(8)[IDS]),
    "GatherGrad": (
        ops.GatherGrad(8),
        [IDS, b := numbers(4, 2, 6)],
        sum(np.outer(np.arange(8) == IDS[i, j], b[i, j]) for i, j in np.ndindex(4, 2)),
    ),
}


def spec_of(array: np.ndarray) -> Spec:
    return Spec(array.shape, array.dtype)


@pytest.mark.parametrize("name", [*KNOWN, *SELDOM, *known.FUSED])
def test_forward_is_the_formula(name):
    """Shape, dtype and values, against numpy and scipy."""
    op, inputs, answer = {**KNOWN, **SELDOM, **known.FUSED}[name]
    result = np.asarray(op.forward(*inputs))
    assert spec_of(result) == op.infer(*map(spec_of, inputs))
    np.testing.assert_allclose(result, answer, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", KNOWN)
def test_float32_stays_float32(name):
    """No operator widens its input, which would double the memory of a card; a cast gives what it says."""
    op, inputs, _ = KNOWN[name] if name != "Cast" else (ops.Cast("float32"), KNOWN[name][1], None)
    narrow = [a.astype(np.float32) if a.dtype == np.float64 else a for a in inputs]
    assert np.asarray(op.forward(*narrow)).dtype == np.float32


def weighted_sum(op: Operator, inputs: list[np.ndarray], weights: np.ndarray) -> tuple[Graph, dict[str, str]]:
    """A graph of sum(weights * op(inputs)) and the names of its gradients."""
    build = GraphBuilder()
    names = [build.input(f"x{i}", spec_of(a)) for i, a in enumerate(inputs)]
    w = build.input("w", spec_of(weights))
    loss = build.add(ops.ReduceSum(), build.add(ops.Mul(), build.add(op, *names), w))
    grads = differentiate(build, loss, [n for n, a in zip(names, inputs, strict=True) if a.dtype.kind == "f"])
    return build.graph([loss, *grads.values()]), grads


@pytest.mark.parametrize("name", [*KNOWN, *known.FUSED])
def test_gradient_is_the_slope(name):
    """Every gradient, against central differences of the loss, element by element."""
    op, inputs, answer = {**KNOWN, **known.FUSED}[name]
    weights = np.asarray(RANDOM.normal(size=np.shape(answer)))
    graph, grads = weighted_sum(op, inputs, weights)
    values = {f"x{i}": a for i, a in enumerate(inputs)} | {"w": weights}
    found = evaluate(graph, {}, values)
    loss = graph.outputs[0]
    assert grads
    for variable, grad in grads.items():
        if name == "CrossEntropy" and variable == "x1":
            continue  # labels are not trained
        whole = values[variable]
        for index in np.ndindex(*whole.shape):
            moved = []
            for step in (1e-5, -1e-5):
                shifted = whole.copy()
                shifted[index] += step
                moved.append(float(evaluate(graph, {}, {**values, variable: shifted})[loss]))
            slope = (moved[0] - moved[1]) / 2e-5
            np.testing.assert_allclose(found[grad][index], slope, rtol=2e-6, atol=2e-8)


def cut_run(op: Operator, inputs: list[np.ndarray], factor: str, parts: int) -> np.ndarray:
    """Run an operator with one factor cut, by the rule alone: shards in, whole answer out."""
    specs = [spec_of(a) for a in inputs]
    rule, whole = op.rule(*specs), op.infer(*specs)
    out = np.zeros(whole.shape, whole.dtype)
    for part in range(parts):

        def region(shape, factors, part=part):
            return tuple(
                (n * part // parts, n * (part + 1) // parts) if f == factor else (0, n)
                for n, f in zip(shape, factors, strict=True)
            )

        regions = [region(a.shape, f) for a, f in zip(inputs, rule.inputs, strict=True)]
        target = region(whole.shape, rule.output)
        shards = [a[tuple(slice(*r) for r in reg)] for a, reg in zip(inputs, regions, strict=True)]
        out[tuple(slice(*r) for r in target)] += op.local(specs, regions, target).forward(*shards)
    return out


@pytest.mark.parametrize("name", [*KNOWN, *SELDOM])
def test_every_factor_of_the_rule_can_be_cut(name):
    """Cut one factor in two, run the parts by themselves, add or join them: the uncut answer."""
    op, inputs, answer = {**KNOWN, **SELDOM}[name]
    rule = op.rule(*map(spec_of, inputs))
    named = {f for fs in (*rule.inputs, rule.output) for f in fs if f is not None}
    assert {*rule.order, *rule.within} == named
    sizes = {}
    for array, factors in [*zip(inputs, rule.inputs, strict=True), (np.asarray(answer), rule.output)]:
        sizes |= {f: n for f, n in zip(factors, array.shape, strict=True) if f is not None}
    for factor, size in sizes.items():
        if size % 2 == 0 and factor not in rule.within:
            np.testing.assert_allclose(cut_run(op, inputs, factor, 2), answer, rtol=1e-12, atol=1e-12)


def test_zeros_stand_for_rows_that_others_hold():
    """An id outside the table gives zeros, so that partial tables add up."""
    found = ops.Gather(first_row=4).forward(np.ones((4, 2)), np.array([3, 4, 7, 8]))
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [1, 1], [0, 0]])


def test_large_values_do_not_overflow():
    """Softmax, sigmoid and cross entropy at the ends of their range."""
    big = np.array([[1e4, -1e4, 0.0]])
    np.testing.assert_array_equal(ops.Softmax().forward(big), [[1, 0, 0]])
    np.testing.assert_array_equal(ops.Sigmoid().forward(big), [[1, 0, 0.5]])
    loss = ops.SoftmaxCrossEntropyWithLogits().forward(big, np.array([[0.0, 1.0, 0.0]]))
    np.testing.assert_array_equal(loss, [2e4])


F32, I32 = np.dtype("float32"), np.dtype("int32")
REFUSED = [
    (
        ops.MatMul(),
        [((4, 6), F32), (((5, 2)), F32)],
        r"MatMul: the inner dims of \[4, 6\] and \[5, 2\] are 6 and 5",
    ),
    (
        ops.MatMul(),
        [((4, 6, 1), F32), ((6, 2), F32)],
        r"MatMul: .*both need 2 dims \(BatchMatMul takes more\)",
    ),
    (ops.Add(), [((4, 6), F32), ((5,), F32)], r"Add: shapes \[4, 6\] and \[5\] do not broadcast"),
    (ops.Add(), [((4,), F32), ((4,), I32)], "Add: inputs of dtypes float32, int32; cast them to one dtype"),
    (
        ops.BiasAdd(),
        [((4, 6), F32), ((4,), F32)],
        r"BiasAdd: .*bias of shape \[4\]; the bias has one entry for each",
    ),
    (
        ops.Reshape((5, 5)),
        [((4, 6), F32)],
        r"Reshape: \[4, 6\] has 24 elements, which do not fit shape \[5, 5\]",
    ),
    (ops.Transpose((0, 0)), [((4, 6), F32)], r"Transpose: perm \[0, 0\] for an input of 2 dims"),
    (ops.Softmax(2), [((4, 6), F32)], r"Softmax: axis 2 for an input of 2 dims; use -2..1"),
    (ops.Gather(), [((4, 6), F32), ((2,), F32)], "Gather: ids of dtype float32; they must be integers"),
    (
        ops.LayerNorm(),
        [((4, 6), F32), ((4,), F32), ((6,), F32)],
        r"LayerNorm: gamma \[4\].*its last dims, \[6\]",
    ),
    (ops.SoftmaxCrossEntropyWithLogits(), [((4, 6), F32), ((4,), F32)], r"labels \[4\]; both have the shape"),
    (ops.BroadcastTo((3,)), [((2,), F32)], r"BroadcastTo: \[2\] does not broadcast to \[3\]"),
]


@pytest.mark.parametrize(("op", "specs", "text"), REFUSED)
def test_what_does_not_fit_is_named(op, specs, text):
    """The operator, the shapes, the rule and what to do."""
    with pytest.raises(GraphError, match=text):
        op.infer(*(Spec(*s) for s in specs))


def test_a_rule_never_names_a_factor_that_sums_in_the_output():
    """What is summed is not there any more: a partial dim would be read as a cut one."""
    for (op, inputs, _), _ in product([*KNOWN.values(), *SELDOM.values()], [0]):
        rule = op.rule(*map(spec_of, inputs))
        assert not rule.sums & set(rule.output)
