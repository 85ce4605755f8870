"""What a checkpoint holds, tensor by tensor, and what stands in place of a file that is not there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointFileError
from ..formats import Entry
from ..layout import Box, Layout

__all__ = ["STATE_PREFIXES", "MissingFile", "TensorRecord", "followed_parameter", "is_state_of"]

STATE_PREFIXES = ("moments", "moment1", "moment2", "adam_m", "adam_v", "accu_grads", "accum", "stat")
"""How optimizers name the states of a parameter: `<prefix>.<parameter>`."""

OPTIMIZER_SCALARS = ("global_step", "beta1_power", "beta2_power", "learning_rate", "momentum", "loss_scale")
"""Parameters of MindSpore's optimizers that are single numbers."""


class TensorRecord(NamedTuple):
    """One tensor of a checkpoint."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """The full shape."""
    layout: Layout
    """Which rank holds which box."""
    kind: str
    """"parameter" (named by the strategy), "state" (of a parameter, as optimizers have) or "plain" (held whole)."""


@dataclass(frozen=True)
class MissingFile:
    """In place of a file: slices that no file holds, and why."""

    path: str
    reason: str

    @property
    def entries(self) -> Mapping[str, Entry]:
        """None."""
        return {}

    def read(self, name: str, box: Box | None = None) -> Any:
        """There is nothing to read.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    def read_into(self, name: str, box: Box, out: Any, buffer_bytes: int) -> int:
        """There is nothing to read.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    def entry(self, name: str) -> Entry:
        """There is none.

        Raises
        ------
        CheckpointFileError
            Always.
        """
        raise CheckpointFileError(f"{self.path}: {name} cannot be read: {self.reason}")

    @property
    def source(self) -> str:
        """The path at which it should be."""
        return self.path

    def check_unchanged(self) -> None:
        """There is nothing that could change."""

    def close(self) -> None:
        """There is nothing to close."""


def followed_parameter(name: str, parameters: Mapping[str, Any]) -> str | None:
    """The parameter whose layout a state follows; None if the name is not that of a state."""
    prefix, _, rest = name.partition(".")
    return rest if prefix in STATE_PREFIXES and rest in parameters else None


def is_state_of(name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a name is that of an optimizer's state, which is often left out when weights are passed on."""
    return name in OPTIMIZER_SCALARS or followed_parameter(name, parameters) is not None
