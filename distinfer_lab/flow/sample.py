"""The sample of MindSpore 1.3's tutorial "Distributed inference", on cards.

One weight `matmul_weight` of shape (96, 16), all 0.5; y = -(x @ w). Trained on 8 cards under
((2, 1), (1, 4)): the rows of x in 2 parts, the columns of w in 4, so that cards 0..3 and 4..7
hold the same four slices of 4 columns.

References
----------
The net, the data and the settings are those of the tutorial's training script, release 1.3.
"""

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cards import CardGroup
from ..errors import ContextError
from ..net import Cell, Parameter, Tensor, Value, ops
from ..net.nn import Momentum, SoftmaxCrossEntropyWithLogits
from .callbacks import Callback, CheckpointConfig, ModelCheckpoint
from .context import auto_parallel_context
from .model import Model

__all__ = [
    "SampleNet",
    "create_ckpt_file_list",
    "create_predict_data",
    "sample_dataset",
    "strategy_for",
    "train_sample",
]

Array = NDArray[np.float32]

TRAIN_CARDS = 8
STRATEGY = ((2, 1), (1, 4))
ROWS, COLUMNS = 128, 16


def strategy_for(cards: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """How the product is sharded on a number of cards: the columns over at most 4, then the rows.

    Examples
    --------
    >>> strategy_for(8), strategy_for(4), strategy_for(3)
    (((2, 1), (1, 4)), ((1, 1), (1, 4)), ((1, 1), (1, 1)))
    """
    columns = math.gcd(cards, 4)
    return ((math.gcd(cards // columns, ROWS), 1), (1, columns))


class SampleNet(Cell):
    """y = -(x @ matmul_weight).

    Parameters
    ----------
    strategy
        How the product is sharded; None leaves it to the training strategy file, as the predict
        script of the tutorial does.
    """

    def __init__(self, strategy: ops.InStrategy | None = None) -> None:
        super().__init__()
        self.matmul = ops.MatMul()
        if strategy is not None:
            self.matmul.shard(strategy)
        self.neg = ops.Neg()
        self.weight = Parameter(Tensor(np.full((96, 16), 0.5, np.float32)), name="matmul_weight")

    def construct(self, x: Value) -> Value:
        return self.neg(self.matmul(x, self.weight))


def sample_dataset(cards: int = TRAIN_CARDS) -> list[tuple[Array, Array]]:
    """Two batches of 128 rows, stacked per card: data (8, 16, 96) and one-hot labels (8, 16, 16), float32.

    Raises
    ------
    ContextError
        If the cards cannot share 128 rows evenly.
    """
    if cards < 1 or ROWS % cards:
        raise ContextError(
            f"{cards} cards cannot share the sample's {ROWS} rows evenly; use {math.gcd(cards, ROWS)}"
        )
    batches = []
    for i in range(2):
        random = np.random.RandomState(i)
        data = random.randn(TRAIN_CARDS, 16, 96).astype(np.float32)
        labels = random.randint(0, 16, (TRAIN_CARDS, 16))
        one_hot = np.eye(COLUMNS, dtype=np.float32)[labels]
        batches.append((data.reshape(cards, -1, 96), one_hot.reshape(cards, -1, COLUMNS)))
    return batches


def create_predict_data(seed: int = 2) -> Array:
    """A batch to predict on, float32, shape (128, 96)."""
    return np.random.RandomState(seed).randn(128, 96).astype(np.float32)


def create_ckpt_file_list(directory: str | os.PathLike[str], ranks: int = TRAIN_CARDS) -> list[str]:
    """The slice files that `train_sample` writes, in rank order."""
    return [os.fspath(Path(directory) / f"rank_{r}_ckpt" / "parallel-2_2.ckpt") for r in range(ranks)]


def train_sample(
    directory: str | os.PathLike[str],
    cards: CardGroup,
    callbacks: list[Callback] | None = None,
) -> Model:
    """Step 1: train for two epochs of two steps; slices and `train_strategy.ckpt` go to `directory`."""
    folder = Path(directory)
    net = SampleNet(strategy_for(len(cards)))
    loss = SoftmaxCrossEntropyWithLogits(reduction="mean")
    model = Model(net, loss, Momentum(net.trainable_params(), 0.01, 0.9), cards=cards)
    config = CheckpointConfig(keep_checkpoint_max=1, integrated_save=False)
    checkpoints = ModelCheckpoint(prefix="parallel", directory=folder, config=config)
    with auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=False,
        device_num=len(cards),
        strategy_ckpt_save_file=folder / "train_strategy.ckpt",
        strategy_ckpt_load_file="",
    ):
        model.train(2, sample_dataset(len(cards)), callbacks=[*(callbacks or []), checkpoints])
    return model
