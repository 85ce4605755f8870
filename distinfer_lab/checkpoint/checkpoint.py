"""A checkpoint, as `open_checkpoint` gives it: its files, and plans of what to make of them."""

import os
from typing import Unpack

from ..arguments import checked
from ..formats import as_strategy
from ..layout import Strategy
from ..rules import Rules
from .conversion import Conversion
from .files import CheckpointFiles
from .planning import PlanOptions, plan_conversion

__all__ = ["Checkpoint"]


class Checkpoint(CheckpointFiles):
    """Sliced checkpoint files, opened together (see `open_checkpoint`); a context manager."""

    @checked
    def plan(
        self, dst: Strategy | Rules | str | os.PathLike[str] | None = None, **options: Unpack[PlanOptions]
    ) -> Conversion:
        """Plan what of the checkpoint goes where; `write(folder)` of the result then writes it.

        Parameters
        ----------
        dst
            A Strategy, `Rules`, or the path of a strategy file or JSON layouts. None: one whole file.
        options
            `states`, `dtype`, `select`, `rename`, `allow_missing` and `same_cards` of `plan_conversion`.

        Raises
        ------
        ReshardError, LayoutError
            If that is not possible.
        """
        return plan_conversion(
            self, as_strategy(dst) if isinstance(dst, str | os.PathLike) else dst, **options
        )
