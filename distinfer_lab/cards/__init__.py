"""Cards: a Dask cluster as a card group, one worker for each card. The only package that knows Dask.

::

    group           CardGroup, which users see             health       its state; cards killed and recovered
    runtime         what drives the cards; all hold it     run          a handle of work, with progress and cancel
    cluster         embedded and given clusters            membership   the workers behind the cards
    gang            one task on each card, at once         leases       workers that several groups share
    recovery        placements through losses              placement    a net's values on the cards
    memory_check    before anything is placed              programs     what the cards keep of programs
    resharding      from files or cards to files or cards  routes, moving, serving   the parts of each card
    store, tasks    what runs on the workers               records      what both sides exchange
    dask_patches, dask_logging                             what leans on Dask's private parts; its log
"""

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
