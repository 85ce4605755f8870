"""Record what MindSpore's optimizers do to parameters and states over 50 steps of given gradients.

Needs MindSpore on a CPU, and writes `optimizers.npz` next to this file:

    pip install mindspore==2.10.0 && python tests/data/oracle/training/optimizers.py

The archive holds, for each case and each value of the optimizer, `<case>/<name>`: the values after
the steps of `RECORDED`, stacked. Tests read the cases and the gradients from here, and never import MindSpore.
"""

from pathlib import Path

import numpy as np

STEPS = 50
RECORDED = (1, 2, 3, 10, 50)
RATES = [round(0.01 / (1 + 0.1 * step), 6) for step in range(STEPS)]
SHAPES = {"fc.weight": (3, 4), "norm.gamma": (4,), "alphabet.weight": (2,)}
"""MindSpore's weight decay leaves out every name that contains "beta" or "gamma"."""

CASES = {
    "momentum": ("Momentum", {"learning_rate": 0.01, "momentum": 0.9}),
    "momentum 0": ("Momentum", {"learning_rate": 0.01, "momentum": 0.0}),
    "momentum, decay": ("Momentum", {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "momentum, rates": ("Momentum", {"learning_rate": RATES, "momentum": 0.9}),
    "momentum, float16": ("Momentum", {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "sgd": ("SGD", {}),
    "sgd, decay": ("SGD", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "sgd, momentum": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd, momentum, decay": ("SGD", {"learning_rate": 0.01, "momentum": 0.8, "weight_decay": 0.1}),
    "sgd, dampening": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "dampening": 0.3}),
    "sgd, dampening without momentum": ("SGD", {"learning_rate": 0.01, "dampening": 0.3}),
    "sgd, nesterov": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    "sgd, nesterov, decay": (
        "SGD",
        {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "sgd, rates": ("SGD", {"learning_rate": RATES, "momentum": 0.9, "dampening": 0.1}),
    "sgd, float16": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "dampening": 0.3}),
    "sgd 0, float16": ("SGD", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adam": ("Adam", {}),
    "adam, decay": ("Adam", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adam, betas": ("Adam", {"learning_rate": 0.01, "beta1": 0.5, "beta2": 0.95, "eps": 1e-3}),
    "adam, long memory": ("Adam", {"learning_rate": 0.01, "beta1": 0.99, "beta2": 0.99999, "eps": 1e-12}),
    "adam, nesterov": ("Adam", {"learning_rate": 0.01, "use_nesterov": True}),
    "adam, rates": ("Adam", {"learning_rate": RATES, "weight_decay": 0.01}),
    "adam, float16": ("Adam", {"learning_rate": 0.01}),
}


def dtype_of(case):
    """Of the parameters."""
    return np.float16 if "float16" in case else np.float32


def start_values(case):
    """Parameter -> its value before the first step."""
    random = np.random.RandomState(7)
    return {name: random.normal(size=shape).astype(dtype_of(case)) for name, shape in SHAPES.items()}


def gradients(case):
    """For each step: parameter -> its gradient, of sizes from 1e-4 to 10, and 0 now and then."""
    random = np.random.RandomState(8)
    out = []
    for _ in range(STEPS):
        sizes = {name: 10.0 ** random.randint(-4, 2, shape) for name, shape in SHAPES.items()}
        kept = {name: random.uniform(size=shape) > 0.1 for name, shape in SHAPES.items()}
        out.append(
            {n: (random.normal(size=s) * sizes[n] * kept[n]).astype(dtype_of(case)) for n, s in SHAPES.items()}
        )
    return out


def record(case):
    """Name -> its values after the steps of `RECORDED`, stacked."""
    from mindspore import Parameter, Tensor, nn

    kind, arguments = CASES[case]
    params = [Parameter(Tensor(value), name=name) for name, value in start_values(case).items()]
    optimizer = getattr(nn, kind)(params, **arguments)
    found = {}
    for step, grads in enumerate(gradients(case), 1):
        optimizer(tuple(Tensor(grads[param.name]) for param in params))
        if step in RECORDED:
            for value in optimizer.get_parameters():
                found.setdefault(value.name, []).append(value.asnumpy().copy())
    return {name: np.stack(values) for name, values in found.items()}


if __name__ == "__main__":
    arrays = {f"{case}/{name}": array for case in CASES for name, array in record(case).items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
