"""A placement: one net's values on one group of cards, as the controller knows it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from ..display import Displayed, counted, format_bytes
from ..layout import Strategy
from .run import Run
from .tasks import Source

__all__ = ["Placement"]


@dataclass(eq=False, repr=False)
class Placement(Displayed):
    """Where a placement came from, and what has become of it; the values are on the cards."""

    key: str
    sources: tuple[tuple[Source, ...], ...]
    """For each card what it was filled from, in order, to fill it again if it is lost."""
    committed_run: int = -1
    """The last training step that every card finished, whose values are in force; -1 before one."""
    lost: set[int] = field(default_factory=set)
    """Cards that restarted since and hold nothing of it."""
    strategy: Strategy | None = None
    """Its layouts on the cards, if known: what a lost card held can be copied from one that holds the same."""
    fetch: Callable[[list[int], Run[object]], None] | None = None
    """For what came over channels: brings some cards' part once more; None where a card reads it by itself."""

    @property
    def nbytes(self) -> tuple[int, ...]:
        """Bytes of the shards of each card."""
        return tuple(sum(source.nbytes for source in sources) for sources in self.sources)

    @property
    def trained(self) -> bool:
        """Whether training has changed the values since they were filled."""
        return self.committed_run >= 0

    def extend(self, more: tuple[tuple[Source, ...], ...], strategy: Strategy | None) -> None:
        """Add further shards: for each card their sources, and their layouts."""
        both = itertools.zip_longest(self.sources, more, fillvalue=())
        self.sources = tuple(known + new for known, new in both)
        if self.strategy is None or strategy is None:
            self.strategy = None
        else:
            known = self.strategy
            self.strategy = Strategy(
                {**known, **strategy},
                {**known.shapes, **strategy.shapes},
                max(known.ranks, strategy.ranks),
            )

    def commit(self, run: int) -> None:
        """Every card has finished this training step."""
        self.committed_run = run

    def __repr__(self) -> str:
        lost = f", lost on card {', '.join(map(str, sorted(self.lost)))}" if self.lost else ""
        most = format_bytes(max(self.nbytes, default=0))
        return f"Placement on {counted(len(self.sources), 'card')}, at most {most} a card{lost}"
