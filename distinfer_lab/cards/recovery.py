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
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..comm import ChannelClosedError
from ..errors import CardError, listed
from ..layout import Layout, Regions, Strategy, volumes
from ..layout.senders import least_busy
from ..reshard import Topology
from . import tasks
from .gang import Gangs
from .placement import Placement
from .run import Run
from .store import CardRestartedError

__all__ = ["MOST_LOSSES", "Recovery", "ShardsLostError", "shard_senders"]

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

    def repeat(self, work: Callable[[], T], run: Run[object]) -> T:
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

    def ready(self, placement: Placement, run: Run[object]) -> None:
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

    def _bring_back(self, placement: Placement, ranks: list[int], run: Run[object]) -> None:
        if not placement.trained and placement.fetch is None:
            self.fill(placement, ranks, placement.sources, run)
            return
        found = shard_senders(placement.strategy, ranks, self._gangs.topology)
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
        run: Run[object],
        replace: bool = True,
    ) -> None:
        """Let some cards read their shards of a placement, in addition to what they hold of it or in its place."""
        if replace:
            placement.lost.update(ranks)
        asked = {r: (placement.key, sources[r], replace, placement.committed_run) for r in ranks}
        self._gangs.run(tasks.place, asked, run)
        if replace:
            placement.lost.difference_update(ranks)

    def _copy(
        self, placement: Placement, found: Mapping[int, Mapping[int, list[str]]], run: Run[object]
    ) -> None:
        """Send shards from the cards that hold them to those that lost them.

        Parameters
        ----------
        found
            Lost card -> sender -> names.
        """
        sends: dict[int, dict[int, list[str]]] = {}
        for lost, names_by_sender in found.items():
            for sender, names in names_by_sender.items():
                sends.setdefault(sender, {})[lost] = names
        asked = {
            sender: (placement.key, placement.committed_run, sorted(set(itertools.chain(*names.values()))))
            for sender, names in sends.items()
        }
        kinds = self._gangs.run(tasks.kinds, asked, run)
        work: dict[int, tuple[Any, ...]] = {
            sender: (placement.key, names, {}) for sender, names in sends.items()
        }
        for lost, names_by_sender in found.items():
            receives = {s: [(n, *kinds[s][n]) for n in names] for s, names in names_by_sender.items()}
            work[lost] = (placement.key, {}, receives)
        self._gangs.run(tasks.exchange_shards, work, run)


def _repeated(err: CardError, attempts: int) -> CardError:
    """The error of work in whose every attempt a card was lost."""
    return err.restated(
        f"{err}; {attempts} attempts ended like this, so the work itself may end the card's process; if the system "
        "killed it for its memory (see dmesg), shard the work over more cards"
    )


class _LostShard(NamedTuple):
    """A shard of a lost card, of all tensors of one layout and shape."""

    rank: int
    elements: int
    holders: tuple[int, ...]
    """The cards that may send it; none if it exists nowhere else."""


def shard_senders(
    strategy: Strategy | None, lost: Sequence[int], topology: Topology
) -> dict[int, dict[int, list[str]]] | None:
    """Who sends lost cards what they held: lost card -> sender -> names; None if some shard is nowhere else.

    Of the cards that hold the same shard the least busy on the same host sends it, or of all if none is there
    (`layout.senders`).
    """
    if strategy is None:
        return None
    kinds: dict[tuple[Layout, tuple[int, ...]], list[_LostShard]] = {}
    wanted: list[tuple[str, _LostShard]] = []
    for name, layout in strategy.items():
        kind = (layout, strategy.shapes[name])
        if kind not in kinds:
            kinds[kind] = _lost_shards(*kind, lost, topology)
        wanted += [(name, shard) for shard in kinds[kind]]
    if not all(shard.holders for _, shard in wanted):
        return None
    groups = {holders: i for i, holders in enumerate(dict.fromkeys(shard.holders for _, shard in wanted))}
    found = least_busy(
        np.array([shard.elements for _, shard in wanted], np.int64),
        np.array([groups[shard.holders] for _, shard in wanted], np.int64),
        _padded(list(groups)),
        np.zeros(strategy.ranks, np.int64),
    )
    senders: dict[int, dict[int, list[str]]] = {rank: {} for rank in lost}
    for (name, shard), sender in zip(wanted, found.tolist(), strict=True):
        senders[shard.rank].setdefault(sender, []).append(name)
    return senders


def _lost_shards(
    layout: Layout, shape: tuple[int, ...], lost: Sequence[int], topology: Topology
) -> list[_LostShard]:
    regions = layout.regions(shape)
    shards, elements = _shards(regions), np.bincount(regions.ranks, volumes(regions.boxes))
    found = []
    for rank in lost:
        if rank in shards:
            same = [r for r, shard in shards.items() if shard == shards[rank] and r not in lost]
            near = [r for r in same if topology.hosts[r] == topology.hosts[rank]]
            found.append(_LostShard(rank, int(elements[rank]), tuple(near or same)))
    return found


def _padded(groups: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Groups of ranks as rows of one length, -1 beyond the last."""
    rows = np.full((len(groups), max(map(len, groups), default=0)), -1, np.int64)
    for row, ranks in zip(rows, groups, strict=True):
        row[: len(ranks)] = ranks
    return rows


def _shards(regions: Regions) -> dict[int, bytes]:
    """Rank -> what it holds, as something that can be compared."""
    rows = np.concatenate([regions.boxes.reshape(len(regions.ranks), -1), regions.starts], axis=1)
    return {int(rank): rows[regions.ranks == rank].tobytes() for rank in np.unique(regions.ranks)}
