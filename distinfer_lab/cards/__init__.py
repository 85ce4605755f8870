"""Cards: a Dask cluster as a card group. It knows who holds what; it draws nothing."""

from .dask_logging import silent
from .group import CardGroup, current_group
from .health import CardState, GroupState, kill_card, recover, state_of
from .placement import Placement
from .records import CardMemory, GroupMemory
from .run import Progress, Run
from .store import CancelledError, CardMemoryError, CardRestartedError

__all__ = [
    "CancelledError",
    "CardGroup",
    "CardMemory",
    "CardMemoryError",
    "CardRestartedError",
    "CardState",
    "GroupMemory",
    "GroupState",
    "Placement",
    "Progress",
    "Run",
    "current_group",
    "kill_card",
    "recover",
    "silent",
    "state_of",
]
