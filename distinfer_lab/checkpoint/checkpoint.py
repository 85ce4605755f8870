"""A checkpoint, as `open_checkpoint` gives it: its files, and plans of what to make of them."""

import os
from typing import Any

from ..formats import as_strategy
from .conversion import plan_checkpoint
from .files import CheckpointFiles

__all__ = ["Checkpoint"]


class Checkpoint(CheckpointFiles):
    """Sliced checkpoint files, opened together (see `open_checkpoint`); a context manager."""

    def plan(self, dst: Any = None, **options: Any) -> Any:
        """Plan the way to another strategy; `plan.run(folder)` then goes it.

        Parameters
        ----------
        dst
            A Strategy, `Rules`, or the path of a strategy file or JSON layouts. None: one whole file.
        options
            See `plan_checkpoint`.

        Returns
        -------
        ConversionPlan

        Raises
        ------
        ReshardError, LayoutError
            If that is not possible.
        """
        given = as_strategy(dst) if isinstance(dst, str | os.PathLike) else dst
        return plan_checkpoint(self, given, **options)
