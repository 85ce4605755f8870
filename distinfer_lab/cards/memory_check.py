"""The check that each card has memory for its shards, done before a byte moves.

::

    declared   card_memory: shards, working values and buffers together
    given      the worker's own memory limit, at part of which Dask pauses it; shards are no Dask results, so it
               cannot spill them, and a paused worker would run no task

The error names the rank, its bytes, its largest parameters, and what would fit.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import dask
import numpy as np

from ..errors import listed
from ..layout import Strategy
from .placement import Placement
from .store import CardMemoryError
from .tasks import Source

__all__ = ["MemoryCheck", "sizes_of"]

MOST_CARDS = 1 << 16
Sizes = Mapping[str, int]
"""Name of a shard -> its bytes."""


class Limit(NamedTuple):
    """What one card may take on now."""

    nbytes: int
    why: str


def sizes_of(sources: Iterable[Source]) -> dict[str, int]:
    """The bytes of every shard that some sources give; a source that cannot tell them apart is one."""
    out: dict[str, int] = {}
    for number, source in enumerate(sources):
        out |= getattr(source, "sizes", {f"source {number}": source.nbytes})
    return out


class MemoryCheck:
    """The memory of a group's cards.

    Parameters
    ----------
    card_bytes
        The declared memory of each card; None where none is.
    placements
        What the cards hold.
    workers
        Gives what the scheduler knows of each card's worker, in rank order; empty on an embedded cluster.
    """

    def __init__(
        self,
        card_bytes: int | None,
        placements: Mapping[str, Placement],
        workers: Callable[[], list[Mapping[str, Any]]],
    ) -> None:
        self._card_bytes, self._placements, self._workers = card_bytes, placements, workers

    def check(
        self,
        wanted: Sequence[Sizes],
        strategy: Strategy | None = None,
        *,
        scratch: Sequence[int] | int = 0,
        replacing: Placement | None = None,
    ) -> None:
        """Make sure that every card has memory for its shards.

        Parameters
        ----------
        wanted
            For each card the shards that it should hold in addition to what it holds.
        strategy
            Their layouts, to say what would fit.
        scratch
            Bytes of working values or buffers on the way, of each card or all alike.
        replacing
            A placement whose shards are given up for the new ones, or whose pending ones are.

        Raises
        ------
        CardMemoryError
            If one has not; the one that lacks most is named.
        """
        limits = self._limits(len(wanted), replacing)
        extra = [scratch] * len(wanted) if isinstance(scratch, int) else list(scratch)
        lacking = {
            rank: sum(shards.values()) + extra[rank] - limits[rank].nbytes
            for rank, shards in enumerate(wanted)
            if limits[rank] is not None
        }
        worst = max(lacking, key=lambda rank: lacking[rank], default=-1)
        if worst >= 0 and lacking[worst] > 0:
            raise _too_little(worst, wanted, extra[worst], limits[worst], strategy)

    def _limits(self, cards: int, replacing: Placement | None) -> list[Any]:
        held = [0] * cards
        for placement in self._placements.values():
            if placement is not replacing:
                # After a step of training the values before it are there too, until they are let go.
                times = 2 if placement.trained else 1
                for rank, nbytes in enumerate(placement.nbytes[:cards]):
                    held[rank] += times * nbytes
        declared, infos = self._card_bytes, self._workers()
        out: list[Limit | None] = []
        for rank in range(cards):
            found = None
            if declared is not None:
                found = Limit(
                    declared - held[rank], f"card_memory={declared}, of which {held[rank]} are taken"
                )
            paused = _before_pause(infos[rank]) if rank < len(infos) else None
            if paused is not None and (found is None or paused.nbytes < found.nbytes):
                found = paused
            out.append(found)
        return out


def _before_pause(worker: Mapping[str, Any]) -> Limit | None:
    """What a worker may take on before Dask pauses it."""
    part, limit = dask.config.get("distributed.worker.memory.pause"), worker.get("memory_limit")
    if not part or not limit:
        return None
    taken = int(worker.get("metrics", {}).get("memory", 0))
    return Limit(
        int(part * limit) - taken,
        f"{part:.0%} of the worker's memory limit of {limit}, where Dask pauses it, of which {taken} are taken",
    )


def _too_little(
    rank: int, wanted: Sequence[Sizes], scratch: int, limit: Limit, strategy: Strategy | None
) -> CardMemoryError:
    shards = wanted[rank]
    largest = sorted(shards, key=lambda name: (-shards[name], name))
    named = listed([f"{name} {shards[name]}" for name in largest], most=4)
    needs = [f"{sum(shards.values())} bytes of shards ({named})"] if shards else []
    needs += [f"{scratch} bytes of working values and buffers"] if scratch else []
    return CardMemoryError(
        f"card {rank} would need {' and '.join(needs)}, which exceeds {limit.why}; "
        + _way_out(wanted, limit.nbytes - scratch, strategy),
        rank=rank,
    )


def _way_out(wanted: Sequence[Sizes], budget: int, strategy: Strategy | None) -> str:
    """What would fit: other shardings on these cards, or more cards."""
    if budget <= 0:
        return "drop other nets from the cards, take a smaller batch or buffer, or use cards with more memory"
    cards = len(wanted)
    wholes = _wholes(wanted, strategy)
    most = {name: max(shards.get(name, 0) for shards in wanted) for name in wholes}
    ways = []
    names = _to_be_sharded(wholes, most, budget, cards)
    if names:
        ways.append(f"on {cards} cards it fits with {listed(names, most=4)} sharded {cards} ways")
    parts = {name: max(wholes[name] // max(most[name], 1), 1) for name in wholes}
    same = (
        n
        for n in range(2 * cards, MOST_CARDS + 1, cards)
        if _sharded_further(wholes, parts, n / cards) <= budget
    )
    more = next(same, None)
    if more is not None:
        ways.append(f"sharded the same way it fits on {more} cards")
    elif not names:
        ways.append(
            f"with everything sharded evenly it fits on {math.ceil(sum(wholes.values()) / budget)} cards"
        )
    return "; or ".join(ways)


def _wholes(wanted: Sequence[Sizes], strategy: Strategy | None) -> dict[str, int]:
    """Bytes of every whole tensor; where no layout is known, of all its shards."""
    out: dict[str, int] = {}
    for shards in wanted:
        for name, nbytes in shards.items():
            out[name] = out.get(name, 0) + nbytes
    for name in out:
        if strategy is not None and name in strategy:
            out[name] //= strategy[name].replicas
    return out


def _to_be_sharded(wholes: Sizes, most: Sizes, budget: int, cards: int) -> list[str]:
    """The fewest tensors that must be sharded over all cards for the rest to fit; none if that is not enough."""
    needed = sum(most.values())
    gains = {name: most[name] - math.ceil(wholes[name] / cards) for name in wholes}
    chosen = []
    for name in sorted(gains, key=lambda n: (-gains[n], n)):
        if needed <= budget or gains[name] <= 0:
            break
        needed -= gains[name]
        chosen.append(name)
    return chosen if needed <= budget else []


def _sharded_further(wholes: Sizes, parts: Sizes, times: float) -> int:
    """Bytes of a card when all that is sharded now is divided into `times` as many shards."""
    shards = [whole / (parts[n] * times if parts[n] > 1 else 1) for n, whole in wholes.items()]
    return int(np.ceil(sum(shards)))
