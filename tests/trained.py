"""The two nets that MindSpore trained: how to make them, their data, and what must come out."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from distinfer_lab.flow.sample import STRATEGY, SampleNet
from distinfer_lab.net import Cell, Parameter, nn, ops

from .oracle import ORACLE

TRAINING = ORACLE / "training"


class Layer(Cell):
    """x @ weight + bias, with weight [in, out], as the oracle's MLP has it."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.weight = Parameter(weight, name="weight")
        self.bias = Parameter(bias, name="bias")
        self.matmul, self.add = ops.MatMul(), ops.Add()

    def construct(self, x):
        return self.add(self.matmul(x, self.weight), self.bias)


class OracleMlp(Cell):
    """96-64-16 with ReLU; `strategies` for the two products and the two sums."""

    def __init__(self, strategies: Any = None) -> None:
        super().__init__()
        init = np.load(TRAINING / "mlp_init.npz")
        self.fc1 = Layer(init["fc1.weight"], init["fc1.bias"])
        self.fc2 = Layer(init["fc2.weight"], init["fc2.bias"])
        self.relu = ops.ReLU()
        if strategies is not None:
            for layer, (product, addition) in zip((self.fc1, self.fc2), strategies, strict=True):
                layer.matmul.shard(product)
                layer.add.shard(addition)

    def construct(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def seeded_batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """128 rows and their one-hot labels, as the tutorial's generator makes them."""
    random = np.random.RandomState(seed)
    data = random.randn(8, 16, 96).astype(np.float32)
    labels = random.randint(0, 16, (8, 16))
    return data.reshape(128, 96), np.eye(16, dtype=np.float32)[labels].reshape(128, 16)


class Job(NamedTuple):
    """A training run of the oracle."""

    name: str
    net: Callable[..., Cell]
    learning_rate: float
    epochs: int
    seeds: tuple[int, ...]

    @property
    def expected(self) -> Mapping[str, np.ndarray]:
        return np.load(TRAINING / f"{self.name}.npz")

    def make(self, *args: Any) -> tuple[Cell, Any, nn.Momentum]:
        net = self.net(*args)
        loss = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")
        return net, loss, nn.Momentum(net.trainable_params(), self.learning_rate, 0.9)

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [seeded_batch(seed) for seed in self.seeds]

    def stacked(self, ranks: int = 8) -> list[tuple[np.ndarray, ...]]:
        """The batches with the rank in front, as full_batch=False takes them."""
        return [tuple(a.reshape(ranks, -1, a.shape[1]) for a in pair) for pair in self.batches()]


SAMPLE = Job("sample_r13", SampleNet, 0.01, 2, (0, 1))
MLP = Job("mlp_momentum", OracleMlp, 0.05, 5, (3, 4))

MLP_CUTS = {
    "data parallel": None,
    "columns": [(((1, 1), (1, 8)), ((1, 8), (8,))), (((1, 1), (1, 8)), ((1, 8), (8,)))],
    "rows": [(((1, 8), (8, 1)), ((8, 1), (1,))), (((1, 8), (8, 1)), ((8, 1), (1,)))],
    "columns then rows": [(((1, 1), (1, 8)), ((1, 8), (8,))), (((1, 8), (8, 1)), ((8, 1), (1,)))],
    "2-D": [(((2, 1), (1, 4)), ((2, 4), (4,))), (((2, 4), (4, 1)), ((2, 1), (1,)))],
    "2-D, inner cut": [(((2, 2), (2, 2)), ((2, 2), (2,))), (((2, 2), (2, 2)), ((2, 2), (2,)))],
}


def check_against_mindspore(job: Job, values: Mapping[str, np.ndarray]) -> None:
    """Every parameter and state, within the oracle's tolerances."""
    for key, expected in job.expected.items():
        kind, _, name = key.partition("/")
        if kind == "param":
            np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        elif kind == "state":
            np.testing.assert_allclose(values[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)


__all__ = [
    "MLP",
    "MLP_CUTS",
    "SAMPLE",
    "STRATEGY",
    "Job",
    "OracleMlp",
    "check_against_mindspore",
    "seeded_batch",
]
