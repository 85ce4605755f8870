"""Reshards by the cards of a group: from files or cards, to files or cards.

::

    who holds what -> homes (see routes.py) -> one Move per card -> a gang (see moving.py)

A gang that lost a card is done once more when the card is back: what was finished is taken over.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from ..checkpoint import (
    Checkpoint,
    Control,
    Conversion,
    RankReadPlan,
    TensorRecord,
    UnreadableSlices,
    WriteTask,
    Written,
    probe_of,
)
from ..errors import CardError, Option
from ..layout import Strategy
from . import tasks
from .moving import Move, Moved, move
from .placement import Placement
from .routes import Taken, homes_of, jobs_of, spread
from .run import Run
from .runtime import CardRuntime
from .sources import CardSource
from .worker_calls import call_workers

__all__ = ["Resharding"]


class Resharding:
    """What a card group can do of reshards.

    Parameters
    ----------
    runtime
        The cards.
    """

    def __init__(self, runtime: CardRuntime) -> None:
        self._cards = runtime

    def checkpoint(self, placement: Placement, strategy: Strategy) -> Checkpoint:
        """See `CardGroup.checkpoint`."""
        kinds = self._cards.repeated(lambda run: self._dtypes(placement, run))
        tensors = {
            name: TensorRecord(name, kinds[name], strategy.shapes[name], layout, "parameter")
            for name, layout in strategy.items()
        }
        files = tuple(
            UnreadableSlices(f"card {rank}", "it is in the card's memory") for rank in range(strategy.ranks)
        )
        sources = (CardSource(self._cards.terms.name, placement.key),) * strategy.ranks
        return Checkpoint(files, tensors, {}, (), sources=sources, topology=self._cards.gangs.topology)

    def _dtypes(self, placement: Placement, run: Run[object]) -> dict[str, Any]:
        self._cards.recovery.ready(placement, run)
        cards = range(len(placement.sources))
        found = self._cards.gangs.run(tasks.dtypes, dict.fromkeys(cards, (placement.key,)), run)
        return {name: dtype for part in found.values() for name, dtype in part.items()}

    def write_files(
        self, files: Sequence[WriteTask], control: Callable[[int], Control], route: str
    ) -> Written:
        """See `CardGroup.write_files`."""
        if not files:
            return Written(())
        shares, cards = [task.share for task in files], len(self._cards)
        self._cards.memory_check.check([{}] * cards, scratch=files[0].buffer_bytes)

        def work(run: Run[object]) -> dict[int, Moved]:
            homes = self._homes(shares, route, run)
            self._check_output(files[0].folder)
            if _placements(shares):  # as the plan counts: rank r of both sides is the same card
                mine = [[i for i, s in enumerate(shares) if s.rank % cards == card] for card in range(cards)]
            else:
                mine = spread(shares, cards, homes)
            parts = [[files[i] for i in items] for items in mine]
            return self._move(jobs_of(parts, [()] * cards, homes, files[0].buffer_bytes), control, run)

        found = self._cards.repeated(work)
        reports = {(report.rank, report.path): report for moved in found.values() for report in moved.files}
        return Written(tuple(reports[task.share.rank, task.path] for task in files), *_sums(found))

    def load(
        self,
        conversion: Conversion,
        buffer_bytes: int,
        limit: int | None,
        route: str,
        control: Callable[[int], Control],
        into: Placement | None,
    ) -> tuple[Placement, Taken]:
        """See `CardGroup.load`."""
        plan = conversion.plan
        shares = [conversion.share(rank) for rank in range(plan.dst_count)]
        worst = max(shares, key=lambda share: share.nbytes)
        if limit is not None and worst.nbytes + buffer_bytes > limit:
            raise _above_limit(worst, buffer_bytes, limit)
        strategy = None if plan.placement else conversion.strategy
        key = f"placement-{uuid.uuid4().hex[:12]}" if into is None else into.key
        places: list[list[tuple[str, RankReadPlan]]] = [[] for _ in range(len(self._cards))]
        for card, share in zip(plan.placement or range(plan.dst_count), shares, strict=True):
            places[card].append((key, share))
        sources = tuple(tuple(share for _, share in place) for place in places)
        placement = Placement(key, sources, strategy=strategy) if into is None else into

        def bring(ranks: list[int], run: Run[object]) -> tuple[dict[int, int], dict[int, Moved]]:
            homes = self._homes(shares, route, run)
            wanted = [place if card in ranks else [] for card, place in enumerate(places)]
            return homes, self._move(jobs_of([()] * len(places), wanted, homes, buffer_bytes), control, run)

        def fetch(ranks: list[int], run: Run[object]) -> None:
            bring(ranks, run)

        def work(run: Run[object]) -> tuple[Placement, Taken]:
            if into is not None:  # until all is there, what the cards hold is neither the old nor the new
                into.sources, into.strategy, into.fetch, into.committed_run = sources, strategy, fetch, -1
                into.lost.update(range(len(places)))
            with self._cards.recovery.forgotten_on_failure(placement):
                homes, found = bring(list(range(len(places))), run)
            # From files that all see it can be filled again; what came over channels must be moved again.
            placement.fetch = fetch if homes else None
            placement.lost.clear()
            self._cards.recovery.keep(placement)
            return placement, Taken(worst.nbytes + buffer_bytes, *_sums(found))

        self._check_memory(places, strategy, buffer_bytes, into)
        return self._cards.repeated(work)

    def _check_memory(
        self,
        places: Sequence[Sequence[tuple[str, RankReadPlan]]],
        strategy: Strategy | None,
        buffer_bytes: int,
        into: Placement | None,
    ) -> None:
        """See that each card has room for its shards, and for what is buffered on their way."""
        wanted: list[dict[str, int]] = [{} for _ in places]
        for card, place in enumerate(places):
            for _, share in place:
                wanted[card].update(share.sizes)
        buffers = [
            max((_buffer_of(share, buffer_bytes) for _, share in place), default=0) for place in places
        ]
        self._cards.memory_check.check(wanted, strategy, scratch=buffers, replacing=into)

    def _homes(self, shares: Sequence[RankReadPlan], route: str, run: Run[object]) -> dict[int, int]:
        """The card of every source rank, unless all cards read all; makes sure that it is there."""
        placements = _placements(shares)
        for key in placements:
            self._ready_key(key, run)
        if placements:
            return {rank: rank for rank in range(len(self._cards))}
        sources = {rank: source for share in shares for rank, source in share.sources.items()}
        listed = {rank: source.files[0] for rank, source in sorted(sources.items())}
        names = [f"card {rank} ({address})" for rank, address in enumerate(self._cards.membership.addresses)]
        return homes_of(listed, self._cards.seen(listed.values()), route, names)

    def _ready_key(self, key: str, run: Run[object]) -> None:
        """Make sure that the placement which is the source is on the cards."""
        placements = self._cards.recovery.placements
        if key not in placements:
            raise CardError("the checkpoint's shards are no longer on these cards")
        self._cards.recovery.ready(placements[key], run)

    def _check_output(self, folder: str) -> None:
        """The files grow in a folder of this process, which renames it at the end."""
        probe = os.fspath(probe_of(folder))
        for card, seen in enumerate(self._cards.seen([probe])):
            if probe not in seen:
                address = self._cards.membership.addresses[card]
                raise CardError(
                    f"card {card} ({address}) does not see {folder}; the output must lie where all cards and this "
                    "process see it",
                    rank=card,
                    file=folder,
                )

    def _move(
        self, jobs: Mapping[int, Move], control: Callable[[int], Control], run: Run[object]
    ) -> dict[int, Moved]:
        control(0).check()
        reported: dict[int, int] = {}
        # Not waited for: to ask a card that was just lost takes its time.
        asked = [self._ask_progress()]

        def look() -> None:
            control(0).check()
            if asked[0].done():
                for rank, nbytes in _progress(asked[0]).items():
                    control(rank).advance(max(nbytes - reported.get(rank, 0), 0))
                    reported[rank] = max(nbytes, reported.get(rank, 0))
                asked[0] = self._ask_progress()

        work = {card: (job,) for card, job in jobs.items() if card < len(self._cards)}
        own = jobs.get(len(self._cards))
        serving: contextlib.AbstractContextManager[Callable[[], None]] = contextlib.nullcontext(_nothing)
        if own is not None:
            serving = self._cards.server.serving(own, self._cards.gangs.joined(run), run)
        try:
            with serving as check_served:

                def look_at_both() -> None:
                    check_served()
                    look()

                done = self._cards.gangs.run(move, work, run, look_at_both)
        finally:
            asked[0].cancel()
        for job in jobs.values():
            for rank, nbytes in job.nbytes_by_rank.items():
                control(rank).advance(max(nbytes - reported.get(rank, 0), 0))
        return done

    def _ask_progress(self) -> "Future[dict[str, Any]]":
        name = self._cards.terms.name
        return call_workers(
            self._cards.client, tasks.progress, (name,), list(self._cards.membership.addresses)
        )


def _above_limit(worst: RankReadPlan, buffer_bytes: int, limit: int) -> CardError:
    enough = Option("memory_limit", worst.nbytes + buffer_bytes)
    return CardError(
        f"rank {worst.rank} ends with {worst.nbytes} bytes and takes {buffer_bytes} more on the way, which "
        f"exceeds the limit of {limit}; use {enough}, or shard over more cards",
        enough,
        rank=worst.rank,
    )


def _buffer_of(share: RankReadPlan, buffer_bytes: int) -> int:
    """What a card needs in addition to its shards while reading them, one tensor at a time."""
    return min(buffer_bytes, max((tensor.nbytes for tensor in share.tensors), default=0))


def _nothing() -> None:
    """What there is to check where the controller serves nothing."""


def _progress(answers: "Future[dict[str, Any]]") -> dict[int, int]:
    """Destination rank -> bytes done, as far as the cards answered."""
    try:
        found = answers.result()
    except (OSError, TimeoutError, RuntimeError, ValueError, CancelledError):
        return {}
    return {rank: n for part in found.values() if isinstance(part, dict) for rank, n in part.items()}


def _sums(found: Mapping[int, Moved]) -> tuple[int, int, int | None]:
    """Bytes read in addition to what the files report, bytes moved, and the most private memory of a card."""
    private = [moved.private_bytes for moved in found.values() if moved.private_bytes is not None]
    return (
        sum(moved.read_bytes for moved in found.values()),
        sum(moved.sent_bytes for moved in found.values()),
        max(private, default=None),
    )


def _placements(shares: Sequence[RankReadPlan]) -> set[str]:
    """The placements that hold what is read; none if files do."""
    return {source.placement for share in shares for source in share.sources.values()} - {""}
