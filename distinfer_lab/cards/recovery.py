"""What a lost card held, brought back: its own shards and no others.

::

    as it was filled     read once more by the card that took the place, from its sources
    came over channels   from a card that holds the same; else moved there once more
    trained since        from a card that holds the same (a data-parallel copy); else it is lost

Work that may be repeated is then repeated, and so it is when further cards are lost meanwhile: up to
`MOST_LOSSES` times, for work that itself ends its process would be repeated for ever.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..comm import ChannelClosedError
from ..errors import CardError, listed
from ..layout import Strategy
from . import tasks
from .gang import Gangs
from .placement import Placement
from .run import Run
from .store import CardRestartedError

__all__ = ["MOST_LOSSES", "Recovery", "ShardsLostError", "givers"]

T = TypeVar("T")

MOST_LOSSES = 5
"""How many losses one piece of work survives."""


class ShardsLostError(CardRestartedError):
    """What a lost card held exists nowhere else, so repeating the work is of no use."""


class Recovery:
    """The placements of a group, through losses of its cards.

    Parameters
    ----------
    gangs
        The cards.
    """

    def __init__(self, gangs: Gangs) -> None:
        self.placements: dict[str, Placement] = {}
        self._gangs = gangs

    def keep(self, placement: Placement) -> None:
        """From now on the cards hold this placement."""
        self.placements[placement.key] = placement

    def mark_lost(self, ranks: Sequence[int]) -> None:
        """These cards hold nothing of any placement now."""
        for placement in self.placements.values():
            placement.lost.update(r for r in ranks if r < len(placement.sources))

    def repeat(self, work: Callable[[], T], run: Run) -> T:
        """Do work that may be repeated; whenever a card is lost meanwhile, join again and repeat it.

        Raises
        ------
        CardRestartedError
            If a card was lost in each of `MOST_LOSSES` + 1 attempts, or with it shards that exist nowhere else.
        """
        for attempt in itertools.count(1):
            try:
                if attempt > 1:
                    self._gangs.join(run)
                return work()
            except ShardsLostError:
                raise
            except (CardRestartedError, ChannelClosedError) as err:
                if attempt > MOST_LOSSES:
                    raise _repeated(err, attempt) from None
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def forgotten_on_failure(self, placement: Placement) -> Iterator[None]:
        """Let the cards free what they have of a new placement that cannot be completed."""
        try:
            yield
        except (CardRestartedError, ChannelClosedError):
            raise
        except Exception:
            asked = dict.fromkeys(range(len(placement.sources)), (placement.key,))
            with contextlib.suppress(CardError):
                self._gangs.run(tasks.drop, asked)
            raise

    def ready(self, placement: Placement, run: Run) -> None:
        """Join again after a loss, and bring back what the lost cards held.

        Raises
        ------
        ShardsLostError
            If it exists nowhere else.
        """
        if placement.key not in self.placements:
            raise CardError("this placement was dropped; load or initialise the net again")
        if self._gangs.epoch is None:
            self._gangs.join(run)
        if placement.lost:
            self._bring_back(placement, sorted(placement.lost), run)

    def _bring_back(self, placement: Placement, ranks: list[int], run: Run) -> None:
        if not placement.trained and placement.fetch is None:
            self.fill(placement, ranks, placement.sources, run)
            return
        found = givers(placement.strategy, ranks)
        if found is not None:
            self._copy(placement, found, run)
        elif placement.trained or placement.fetch is None:
            raise ShardsLostError(
                f"card {listed(map(str, ranks))} was lost with shards that were trained since they were loaded, and "
                "no other card holds the same; go back to the last checkpoint (load_distributed_checkpoint)"
            )
        else:
            placement.fetch(ranks, run)
        placement.lost.difference_update(ranks)

    def fill(
        self,
        placement: Placement,
        ranks: Sequence[int],
        sources: Sequence[tuple[tasks.Source, ...]],
        run: Run,
        replace: bool = True,
    ) -> None:
        """Let some cards read their shards of a placement, beside what they hold of it or in its place."""
        if replace:
            placement.lost.update(ranks)
        asked = {r: (placement.key, sources[r], replace, placement.complete) for r in ranks}
        self._gangs.run(tasks.place, asked, run)
        if replace:
            placement.lost.difference_update(ranks)

    def _copy(self, placement: Placement, found: Mapping[int, Mapping[int, list[str]]], run: Run) -> None:
        """Send shards from the cards that hold them to those that lost them.

        Parameters
        ----------
        found
            Taker -> giver -> names.
        """
        gives: dict[int, dict[int, list[str]]] = {}
        for taker, names_by_giver in found.items():
            for giver, names in names_by_giver.items():
                gives.setdefault(giver, {})[taker] = names
        asked = {
            giver: (placement.key, placement.complete, sorted(set(itertools.chain(*names.values()))))
            for giver, names in gives.items()
        }
        kinds = self._gangs.run(tasks.kinds, asked, run)
        work: dict[int, tuple[Any, ...]] = {
            giver: (placement.key, names, {}) for giver, names in gives.items()
        }
        for taker, names_by_giver in found.items():
            takes = {g: [(n, *kinds[g][n]) for n in names] for g, names in names_by_giver.items()}
            work[taker] = (placement.key, {}, takes)
        self._gangs.run(tasks.hand_over, work, run)


def _repeated(err: CardError, attempts: int) -> CardError:
    """The error of work in whose every attempt a card was lost."""
    return type(err)(
        f"{err}; {attempts} attempts ended like this, so the work itself may end the card's process; if the system "
        "killed it for its memory (see dmesg), cut the work over more cards"
    )


def givers(strategy: Strategy | None, lost: Sequence[int]) -> dict[int, dict[int, list[str]]] | None:
    """Who can give lost cards what they held: taker -> giver -> names; None if some shard is nowhere else.

    A card that gives to several takes turns with the others that hold the same.
    """
    if strategy is None:
        return None
    out: dict[int, dict[int, list[str]]] = {rank: {} for rank in lost}
    for name, layout in strategy.items():
        shards = _shards(layout.regions(strategy.shapes[name]))
        for turn, rank in enumerate(lost):
            if rank not in shards:
                continue
            same = [other for other, shard in shards.items() if shard == shards[rank] and other not in lost]
            if not same:
                return None
            out[rank].setdefault(same[turn % len(same)], []).append(name)
    return out


def _shards(regions: Any) -> dict[int, bytes]:
    """Rank -> what it holds, as something that can be compared."""
    rows = np.concatenate([regions.boxes.reshape(len(regions.ranks), -1), regions.starts], axis=1)
    return {int(rank): rows[regions.ranks == rank].tobytes() for rank in np.unique(regions.ranks)}
