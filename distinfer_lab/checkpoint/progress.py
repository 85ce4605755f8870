"""The progress of a run, reported while it runs; and how it is stopped."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import ReshardError

__all__ = ["Progress", "RankWatch", "Watch"]


class Progress(NamedTuple):
    """How far a run is."""

    done_bytes: int
    total_bytes: int
    """Bytes of all destination shards."""
    by_rank: Mapping[int, int]
    """Destination rank -> bytes done."""
    total_by_rank: Mapping[int, int]
    """Destination rank -> bytes of its shards."""
    seconds: float
    """Since the run began."""

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the speed so far; None before there is any."""
        if not self.done_bytes:
            return None
        return self.seconds * (self.total_bytes - self.done_bytes) / self.done_bytes


class Watch:
    """Counts what is done, reports it, and stops the work when that is asked for."""

    def __init__(
        self,
        totals: Mapping[int, int],
        tell: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._totals, self._tell, self._cancelled = totals, tell, cancelled
        self._total = sum(totals.values())
        self._done: dict[int, int] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def of_rank(self, rank: int) -> "RankWatch":
        """The control of one destination rank's work."""
        return RankWatch(self, rank)

    def advance(self, rank: int, nbytes: int) -> None:
        """So many more bytes of a rank are done."""
        with self._lock:
            self._done[rank] = self._done.get(rank, 0) + nbytes
            if self._tell is not None:
                done = dict(self._done)
                self._tell(Progress(sum(done.values()), self._total, done, self._totals, self.seconds))

    def check(self) -> None:
        """Raise if the work was cancelled."""
        if self._cancelled is not None and self._cancelled():
            raise ReshardError("the run was cancelled; the next run of the same work resumes it")


class RankWatch(NamedTuple):
    """`Control` for one destination rank."""

    watch: Watch
    rank: int

    def advance(self, nbytes: int) -> None:
        """See `Control`."""
        self.watch.advance(self.rank, nbytes)

    def check(self) -> None:
        """See `Control`."""
        self.watch.check()
