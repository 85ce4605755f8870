"""Cells, layers, losses and optimizers under MindSpore's name for them: `nn`."""

from .cell import Cell, SequentialCell
from .layers import GELU, Dense, Embedding, Flatten, LayerNorm, ReLU, RMSNorm, Sigmoid, SiLU, Softmax, Tanh
from .losses import MSELoss, SoftmaxCrossEntropyWithLogits
from .optimizers import SGD, Adam, Momentum, Optimizer

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "Cell",
    "Dense",
    "Embedding",
    "Flatten",
    "LayerNorm",
    "MSELoss",
    "Momentum",
    "Optimizer",
    "RMSNorm",
    "ReLU",
    "SequentialCell",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropyWithLogits",
    "Tanh",
]
