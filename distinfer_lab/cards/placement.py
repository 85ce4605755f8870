"""A placement: one net's values on one group of cards, as the controller knows it."""

from dataclasses import dataclass, field

from .tasks import Source

__all__ = ["Placement"]


@dataclass(eq=False)
class Placement:
    """Where a placement came from, and what has become of it; the values are on the cards."""

    key: str
    sources: tuple[tuple[Source, ...], ...]
    """For each card what it was filled from, in order, to fill it again if it is lost."""
    complete: int = -1
    """The last training step that every card finished; its values are in force."""
    lost: set[int] = field(default_factory=set)
    """Cards that restarted since and hold nothing of it."""
    moved: bool = False
    """Whether it came over channels, so that one card alone cannot fill its part again."""

    @property
    def trained(self) -> bool:
        """Whether training has changed the values since they were filled."""
        return self.complete >= 0

    def confirm(self, run: int) -> None:
        """Every card has finished this training step."""
        self.complete = run
