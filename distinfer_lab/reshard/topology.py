"""Which cards share a host: bytes between them are cheaper than over the network."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import ReshardError
from .classes import numbered

__all__ = ["Topology"]


@dataclass(frozen=True, repr=False)
class Topology(Displayed):
    """The host of every card.

    Parameters
    ----------
    hosts
        For card 0, 1, ... the name of its host.

    Examples
    --------
    >>> Topology.of_hosts(8, cards_per_host=4).hosts
    ('host-0', 'host-0', 'host-0', 'host-0', 'host-1', 'host-1', 'host-1', 'host-1')
    """

    hosts: tuple[str, ...]

    @classmethod
    def of_hosts(cls, cards: int, cards_per_host: int) -> "Topology":
        """Hosts of so many consecutive cards each."""
        return cls(tuple(f"host-{card // cards_per_host}" for card in range(cards)))

    def host_numbers(self, cards: int) -> NDArray[np.int64]:
        """The number of the host of each of `cards` cards, int64, shape (cards,).

        Raises
        ------
        ReshardError
            If the topology knows fewer cards.
        """
        if len(self.hosts) < cards:
            raise ReshardError(
                f"the topology has {len(self.hosts)} cards, but the plan {cards}; name all hosts"
            )
        return numbered(self.hosts[:cards])

    def __repr__(self) -> str:
        counts = Counter(self.hosts)
        lines = [f"Topology of {counted(len(self.hosts), 'card')} on {counted(len(counts), 'host')}"]
        return "\n".join([*lines, *(f"  {host}  {counted(count, 'card')}" for host, count in counts.items())])
