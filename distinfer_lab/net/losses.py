"""Losses by MindSpore's names: cells of (prediction, label)."""

from ..errors import GraphError, Option
from . import ops
from .cell import Cell
from .tensor import Value

__all__ = ["MSELoss", "SoftmaxCrossEntropyWithLogits"]

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Cell):
    def __init__(self, reduction: str) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            given = Option("reduction", reduction)
            raise GraphError(f"{given} is not one of {', '.join(REDUCTIONS)}", given)
        self.reduction = reduction

    def _reduced(self, losses: Value) -> Value:
        if self.reduction == "none":
            return losses
        return (ops.ReduceMean() if self.reduction == "mean" else ops.ReduceSum())(losses)


class SoftmaxCrossEntropyWithLogits(_Loss):
    """Cross entropy of logits [rows, classes] with labels.

    Parameters
    ----------
    sparse
        True: labels are class numbers [rows]. False: they are rows of probabilities of the
        logits' dtype, [rows, classes].
    reduction
        "mean", "sum" or "none". To train, the loss must be one number.
    """

    def __init__(self, sparse: bool = False, reduction: str = "none") -> None:
        super().__init__(reduction)
        self.sparse = sparse
        self.cross_entropy = ops.SoftmaxCrossEntropyWithLogits()

    def construct(self, logits: Value, labels: Value) -> Value:
        if self.sparse:
            labels = ops.OneHot()(labels, logits.shape[-1])
        return self._reduced(self.cross_entropy(logits, labels))


class MSELoss(_Loss):
    """The square of the difference."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def construct(self, logits: Value, labels: Value) -> Value:
        return self._reduced(ops.Square()(logits - labels))
