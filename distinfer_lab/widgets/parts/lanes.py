"""A bar for every card of a run."""

import ipywidgets
import numpy as np

from ...checkpoint import Progress
from ...display import counted, format_bytes

__all__ = ["MOST_LANES", "Lanes"]

MOST_LANES = 16
"""Above so many cards, runs of cards share a bar."""


class Lanes(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """How far each card is; empty until a run tells."""

    def __init__(self) -> None:
        super().__init__()
        self._ranks: tuple[int, ...] = ()

    def show(self, progress: Progress | None) -> None:
        """Bring the bars up to date; those of a run that has not reported anything yet stay as they are."""
        if progress is None:
            return
        ranks = tuple(sorted(progress.total_by_rank))
        runs = np.array_split(ranks, min(len(ranks), MOST_LANES)) if ranks else []
        if ranks != self._ranks:
            self.children = tuple(_lane(run.tolist()) for run in runs)
            self._ranks = ranks
        for lane, run in zip(self.children, runs, strict=True):
            done = sum(progress.by_rank.get(rank, 0) for rank in run.tolist())
            total = sum(progress.total_by_rank[rank] for rank in run.tolist())
            bar, words = lane.children
            bar.value = int(1000 * done / max(total, 1))
            words.value = f"{format_bytes(done)} of {format_bytes(total)}"

    def clear(self) -> None:
        """Show no bars, until a run tells."""
        self.children, self._ranks = (), ()

    def __repr__(self) -> str:
        return f"Lanes({counted(len(self._ranks), 'card')})"


def _lane(run: list[int]) -> ipywidgets.HBox:
    name = f"card {run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"
    return ipywidgets.HBox([ipywidgets.IntProgress(max=1000, description=name), ipywidgets.HTML()])
