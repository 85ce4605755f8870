"""The sample of MindSpore 1.3's tutorial "Distributed inference", on cards.

One weight `matmul_weight` of shape (96, 16), all 0.5; y = -(x @ w). Trained on 8 cards under
((2, 1), (1, 4)): the rows of x in 2 parts, the columns of w in 4, so that cards 0..3 and 4..7
hold the same four slices of 4 columns.

References
----------
The net, the data and the settings are those of the tutorial's training script, release 1.3.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import CardGroup
from ..net import Cell, NodeStrategy, Parameter, Tensor, ops
from ..net.nn import Momentum, SoftmaxCrossEntropyWithLogits
from .callbacks import Callback, CheckpointConfig, ModelCheckpoint
from .context import auto_parallel_context
from .model import Model

__all__ = [
    "SampleNet",
    "create_ckpt_file_list",
    "create_predict_data",
    "sample_dataset",
    "train_sample",
]

TRAIN_CARDS = 8
STRATEGY = ((2, 1), (1, 4))


class SampleNet(Cell):
    """y = -(x @ matmul_weight).

    Parameters
    ----------
    strategy
        How the product is cut; None leaves it to the training strategy file, as the predict
        script of the tutorial does.
    """

    def __init__(self, strategy: NodeStrategy | None = None) -> None:
        super().__init__()
        self.matmul = ops.MatMul()
        if strategy is not None:
            self.matmul.shard(strategy)
        self.neg = ops.Neg()
        self.weight = Parameter(Tensor(np.full((96, 16), 0.5, np.float32)), name="matmul_weight")

    def construct(self, x: Any) -> Any:
        return self.neg(self.matmul(x, self.weight))


def sample_dataset() -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Two batches, stacked per rank: data (8, 16, 96) and one-hot labels (8, 16, 16), float32."""
    batches = []
    for i in range(2):
        random = np.random.RandomState(i)
        data = random.randn(TRAIN_CARDS, 16, 96).astype(np.float32)
        labels = random.randint(0, 16, (TRAIN_CARDS, 16))
        batches.append((data, np.eye(16, dtype=np.float32)[labels]))
    return batches


def create_predict_data(seed: int = 2) -> np.ndarray[Any, Any]:
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
    net = SampleNet(STRATEGY)
    loss = SoftmaxCrossEntropyWithLogits(reduction="mean")
    model = Model(net, loss, Momentum(net.trainable_params(), 0.01, 0.9), cards=cards)
    config = CheckpointConfig(keep_checkpoint_max=1, integrated_save=False)
    checkpoints = ModelCheckpoint(prefix="parallel", directory=folder, config=config)
    with auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=False,
        device_num=TRAIN_CARDS,
        strategy_ckpt_save_file=folder / "train_strategy.ckpt",
        strategy_ckpt_load_file="",
    ):
        model.train(2, sample_dataset(), callbacks=[*(callbacks or []), checkpoints])
    return model
