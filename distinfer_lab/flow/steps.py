"""The four steps of a session as records: what each has come to, and the code that does the same.

::

    Opened -> LaidOut -> Loaded -> Predicted

A session keeps the steps that are done in this order. Going back to one forgets those after it, and closes
what they hold.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..checkpoint import Checkpoint, ReshardResult
from ..layout import Strategy
from ..net import Tensor
from .load import LoadResult
from .model import Model
from .predict_layout import PredictLayout
from .predictors import Predictor

__all__ = ["LaidOut", "Loaded", "Opened", "Predicted", "Step"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What all steps have."""

    code: Sequence[str]
    """Lines that do the same."""
    resources: ExitStack = field(default_factory=ExitStack, repr=False)
    """Closed when the step is forgotten."""
    version: int = 0
    """Another number each time that a session does a step; 0 before it is in one."""


@dataclass(frozen=True, eq=False)
class Opened(Step):
    """Step 1: a checkpoint."""

    checkpoint: Checkpoint
    folder: str
    predictor: Predictor | None = None
    """The net that goes with the checkpoint, if it is known."""
    no_net: str = ""
    """Why it is not known."""
    trained: bool = False
    """Whether the checkpoint is that of the sample, trained in this step."""


@dataclass(frozen=True, eq=False)
class LaidOut(Step):
    """Step 2: the layout that is wanted."""

    layout: PredictLayout | Strategy
    model: Model | None = None
    """The net on the cards that the layout was inferred for; None where the layout was set, for files."""

    @property
    def strategy(self) -> Strategy:
        """The layout of each tensor."""
        return self.layout.strategy if isinstance(self.layout, PredictLayout) else self.layout


@dataclass(frozen=True, eq=False)
class Loaded(Step):
    """Step 3: the checkpoint in that layout, on the cards or as files."""

    result: LoadResult | ReshardResult


@dataclass(frozen=True, eq=False)
class Predicted(Step):
    """Step 4: a prediction."""

    prediction: Tensor
