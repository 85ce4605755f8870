"""Cards: a Dask cluster as a card group. It knows who holds what; it draws nothing."""

from .group import CardGroup, current_group
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
    "GroupMemory",
    "Placement",
    "Progress",
    "Run",
    "current_group",
]
