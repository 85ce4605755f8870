"""What a checkpoint holds, tensor by tensor."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..layout import Layout

__all__ = ["STATE_PREFIXES", "TensorRecord", "followed_parameter", "is_state_of"]

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


def followed_parameter(name: str, parameters: Mapping[str, Any]) -> str | None:
    """The parameter whose layout a state follows; None if the name is not that of a state."""
    prefix, _, rest = name.partition(".")
    return rest if prefix in STATE_PREFIXES and rest in parameters else None


def is_state_of(name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a name is that of an optimizer's state, which is often left out when weights are passed on."""
    return name in OPTIMIZER_SCALARS or followed_parameter(name, parameters) is not None
