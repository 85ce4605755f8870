"""A card group: one controller, n cards, one task per card and piece of work.

::

    with CardGroup(8) as cards:             in this process; processes=True for real ones
        ...                                 the flow finds the group by itself

A piece of work is a gang: one task on each card, which together may talk through direct
channels. Gangs run one after another, in one thread (see `runtime`).
"""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from distributed import Client, Security

from ..arguments import checked
from ..checkpoint import (
    BoxReader,
    Checkpoint,
    Control,
    Conversion,
    Unwatched,
    WriteTask,
    Written,
)
from ..display import Displayed, counted
from ..errors import CardError, ContextError, Option
from ..layout import Strategy
from ..sizes import BUFFER_BYTES, size_of
from . import cluster, tasks
from .gang import Work
from .memory_check import sizes_of
from .placement import Placement
from .records import GroupMemory
from .resharding import Resharding
from .routes import Taken
from .run import Run
from .runtime import open_runtime
from .store import CardRestartedError

__all__ = ["CardGroup", "current_group"]

Counts = TypeVar("Counts")
T = TypeVar("T")

_groups: ContextVar[tuple["CardGroup", ...]] = ContextVar(
    "the groups of the blocks around this code", default=()
)
"""Outermost first. A block is for its own thread, and for what it has the cards do, as the flow's settings are."""


@checked
class CardGroup(Displayed):
    """Cards that work together; a context manager.

    Parameters
    ----------
    cards
        How many; on a given cluster by default all its workers.
    processes
        For an embedded cluster: every card is a process of its own. Other users of the machine cannot reach them.
    address
        The scheduler of a Dask cluster that runs already, e.g. "tcp://10.0.0.5:8786".
    client
        A client of a Dask cluster.
    scheduler_file
        The file that names the scheduler (`dask scheduler --scheduler-file`), where all share a filesystem.
    security
        The certificates of a cluster with TLS, a `distributed.Security`; with `address` or `scheduler_file`.
    card_memory
        The memory of each card for shards, working values and buffers, in bytes or as "2 GiB"; what needs
        more is refused before it is loaded, or stopped. By default there is no limit of ours.
    replace_seconds
        How long to wait for another worker in place of one that was lost.

    Raises
    ------
    CardError
        If the cluster cannot be reached, is too small, or a worker runs other versions.
    ArgumentTypeError, ContextError
        If arguments are of the wrong kind, or exclude each other.

    Examples
    --------
    >>> with CardGroup(4) as cards:
    ...     cards
    CardGroup(4 cards in this process)
    """

    def __init__(
        self,
        cards: int | None = None,
        *,
        processes: bool = False,
        address: str | None = None,
        client: Client | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
        security: Security | None = None,
        card_memory: int | str | None = None,
        replace_seconds: float = 60.0,
    ) -> None:
        given = cluster.Given(address, client, scheduler_file, security)
        _check_arguments(cards, processes, given, replace_seconds)
        self.runtime = open_runtime(
            given,
            cards,
            processes=processes,
            card_bytes=None if card_memory is None else size_of(card_memory, "card_memory"),
            replace_seconds=replace_seconds,
        )

    def __len__(self) -> int:
        return len(self.runtime)

    def __repr__(self) -> str:
        if self.runtime.closed:
            return "CardGroup(closed)"
        where = "in processes" if self.processes else "in this process"
        if not self.embedded:
            where = "of a given cluster"
        return f"CardGroup({counted(len(self), 'card')} {where})"

    @property
    def embedded(self) -> bool:
        """Whether the cluster is the group's alone."""
        return self.runtime.terms.embedded

    @property
    def processes(self) -> bool:
        """Whether the cards are processes of their own."""
        return self.runtime.terms.processes

    @property
    def client(self) -> Client:
        """The Dask client behind the group.

        Another client of an embedded cluster of processes needs this one's certificate:
        `Client(cards.client.scheduler.address, security=cards.client.security)`.
        """
        return self.runtime.client

    @property
    def placement_keys(self) -> frozenset[str]:
        """The placements that are on the cards."""
        return frozenset() if self.runtime.closed else frozenset(self.runtime.recovery.placements)

    def close(self) -> None:
        """Forget all shards, and end the cluster if it is an embedded one. May be called twice.

        In a child made by fork it does nothing: the group is its parent's.
        """
        self.runtime.close()

    def start(self, work: Callable[[Run[object]], T]) -> Run[T]:
        """Begin work in the group's thread; returns a handle at once."""
        return self.runtime.start(work)

    def memory(self) -> GroupMemory:
        """What every card holds, and the most it held, in bytes."""
        ask, name = self.runtime.membership.ask, self.runtime.terms.name
        try:
            found = ask(tasks.memory, name)
        except CardRestartedError:
            found = self.runtime.repeated(lambda run: ask(tasks.memory, name))
        return GroupMemory(tuple(found))

    def __enter__(self) -> "CardGroup":
        _groups.set((*_groups.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        _groups.set(tuple(group for group in _groups.get() if group is not self))
        self.close()

    def place(self, sources: Sequence[tasks.Source], strategy: Strategy | None = None) -> Placement:
        """Let card r read its shards from `sources[r]`; cards without a source hold nothing of it.

        Parameters
        ----------
        strategy
            Their layouts, if known: what a lost card held can then be copied from one that holds the same.

        Raises
        ------
        CardError
            If there are more sources than cards.
        CardMemoryError
            If a card has no memory for its shards.
        """
        self._check_count(len(sources))
        self.runtime.memory_check.check([sizes_of((source,)) for source in sources], strategy)
        placement = Placement(
            f"placement-{uuid.uuid4().hex[:12]}", tuple((s,) for s in sources), strategy=strategy
        )

        def work(run: Run[object]) -> Placement:
            with self.runtime.recovery.forgotten_on_failure(placement):
                self.runtime.recovery.fill(placement, range(len(sources)), placement.sources, run)
            self.runtime.recovery.keep(placement)
            return placement

        return self.runtime.repeated(work)

    def extend(
        self, placement: Placement, sources: Sequence[tasks.Source], strategy: Strategy | None = None
    ) -> None:
        """Let card r read further shards of a placement from `sources[r]`."""
        self._check_count(len(sources))
        self.runtime.memory_check.check([sizes_of((source,)) for source in sources], strategy)
        more = tuple((s,) for s in sources)

        def work(run: Run[object]) -> None:
            self.runtime.recovery.ready(placement, run)
            self.runtime.recovery.fill(placement, range(len(more)), more, run, replace=False)

        self.runtime.repeated(work)
        placement.extend(more, strategy)

    def refill(self, placement: Placement) -> None:
        """Put a placement back to what its sources say, on all cards; training since is undone."""
        placement.committed_run = -1
        ranks = list(range(len(placement.sources)))

        def work(run: Run[object]) -> None:
            if placement.fetch is None:
                self.runtime.recovery.fill(placement, ranks, placement.sources, run)
            else:
                placement.fetch(ranks, run)

        self.runtime.repeated(work)

    def _check_count(self, count: int) -> None:
        if count > len(self):
            raise CardError(
                f"shards for {count} cards, but the group has {len(self)}; use CardGroup({count})"
            )

    def drop(self, placement: Placement) -> None:
        """Free a placement's memory on all cards."""
        known = self.runtime.recovery.placements.pop(placement.key, None)
        if known is not None and not self.runtime.closed:
            asked = dict.fromkeys(range(len(placement.sources)), (placement.key,))
            # In a run of its own: what is forgotten here has to go, also when what it was for was cancelled.
            self.runtime.repeated(lambda run: self.runtime.gangs.run(tasks.drop, asked))

    def pull(self, placement: Placement, names: Mapping[int, Sequence[str]]) -> dict[int, dict[str, Any]]:
        """Fetch shards to the controller: rank -> names; returns rank -> name -> array."""
        wanted = {r: tuple(n) for r, n in names.items() if n}
        out: dict[int, dict[str, Any]] = self._of_placement(
            placement,
            tasks.pull,
            lambda: {r: (placement.key, n, placement.committed_run) for r, n in wanted.items()},
        )
        return out

    def dtypes(self, placement: Placement, rank: int) -> dict[str, Any]:
        """The dtypes of what one card holds of a placement."""
        out: dict[str, Any] = self._of_placement(placement, tasks.dtypes, lambda: {rank: (placement.key,)})[
            rank
        ]
        return out

    def save(
        self, placement: Placement, paths: Mapping[int, str], write: Callable[..., None]
    ) -> dict[int, str]:
        """Let each card write its shards to its own path by `write(path, shards)`."""
        out: dict[int, str] = self._of_placement(
            placement,
            tasks.save,
            lambda: {r: (placement.key, placement.committed_run, path, write) for r, path in paths.items()},
        )
        return out

    def _of_placement(self, placement: Placement, task: Callable[..., Any], asked: Callable[[], Work]) -> Any:
        """Do work with a placement that changes nothing of it."""

        def work(run: Run[object]) -> Any:
            self.runtime.recovery.ready(placement, run)
            return self.runtime.gangs.run(task, asked(), run)

        return self.runtime.repeated(work)

    def run(
        self,
        program: tasks.CardFunction[Counts],
        placement: Placement,
        inputs: Sequence[Mapping[str, Any]],
        fetch: Sequence[Sequence[str]],
        *,
        training: bool = False,
        extra: Sequence[Placement] = (),
    ) -> tuple[list[dict[str, Any]], list[Counts]]:
        """Run a program on cards 0..n-1.

        Parameters
        ----------
        program
            A picklable callable (see `tasks.CardFunction`), the same for every card.
        placement
            Holds the values that the program reads.
        inputs
            For each card its shard of each input.
        fetch
            For each card the outputs whose shards are fetched.
        training
            The program's updates replace the placement's values, on all cards or on none.
        extra
            Further placements whose values it reads, and may change in place.

        Returns
        -------
        For each card the fetched shards, and what it counted meanwhile.
        """

        def work(run: Run[object]) -> Any:
            for read in (placement, *extra):
                self.runtime.recovery.ready(read, run)
            key = self._keep(program, placement)
            also = tuple(read.key for read in extra)
            cards = range(len(inputs))
            asked = {
                r: (key, placement.key, inputs[r], tuple(fetch[r]), placement.committed_run, training, also)
                for r in cards
            }
            number, got = self.runtime.gangs.run_numbered(tasks.run, asked, run)
            if training:
                placement.commit(number)
            return [got[r][0] for r in cards], [got[r][1] for r in cards]

        # A step of training counts on all cards or on none, so it may be done again too.
        out: tuple[list[dict[str, Any]], list[Counts]] = self.runtime.repeated(work)
        return out

    def checkpoint(self, placement: Placement, strategy: Strategy) -> Checkpoint:
        """The shards of a placement as a checkpoint, which can be planned and run like one of files.

        Parameters
        ----------
        strategy
            The layouts and full shapes of what card r holds as rank r.
        """
        return Resharding(self.runtime).checkpoint(placement, strategy)

    def write_files(
        self,
        tasks: Sequence[WriteTask],
        sources: Mapping[int, BoxReader],
        control: Callable[[int], Control],
        route: str = "auto",
    ) -> Written:
        """Let the cards write destination files (see `checkpoint.Executor`); they open the sources themselves.

        Raises
        ------
        CardError
            If a card does not see what it should, or is lost for good.
        """
        return Resharding(self.runtime).write_files(tasks, control, route)

    def load(
        self,
        conversion: Conversion,
        *,
        buffer: int | str = BUFFER_BYTES,
        memory_limit: int | str | None = None,
        route: str = "auto",
        control: Callable[[int], Control] = lambda rank: Unwatched(),
        into: Placement | None = None,
    ) -> tuple[Placement, Taken]:
        """Load what a conversion says into the cards: destination rank r into card r, or as its plan places it.

        Parameters
        ----------
        conversion
            From files, or from shards on these cards (see `checkpoint`).
        buffer
            The memory for data of each card in addition to its shards.
        memory_limit
            The most that a card may hold of both; what needs more is refused before a byte moves.
        route
            See `Executor.write_files`.
        control
            Gives what watches and stops the work of a destination rank.
        into
            A placement whose values are replaced; by default there is a new one.

        Raises
        ------
        CardError
            If the group or the limit is too small, a card does not see what it should, or is lost for good.
        """
        self._check_count(conversion.plan.dst_count)
        limit = None if memory_limit is None else size_of(memory_limit, "memory_limit")
        return Resharding(self.runtime).load(
            conversion, size_of(buffer, "buffer"), limit, route, control, into
        )

    def _keep(self, program: tasks.CardFunction[Any], placement: Placement) -> str:
        """Send a program to the cards, once; first make sure that they have room for its working values."""
        peaks = getattr(program, "peak_bytes", lambda rank: 0)
        if self.runtime.terms.card_bytes is not None and program not in self.runtime.programs:
            shards = [sizes_of(sources) for sources in placement.sources]
            scratch = [peaks(rank) for rank in range(len(shards))]
            self.runtime.memory_check.check(shards, placement.strategy, scratch=scratch, replacing=placement)
        return self.runtime.programs.keep(program)


def current_group() -> CardGroup:
    """The group of the innermost `with CardGroup(...)` block of this thread.

    Raises
    ------
    ContextError
        If there is none.
    """
    groups = _groups.get()
    if not groups:
        raise ContextError("there are no cards; work inside `with CardGroup(8):`, or pass cards= to Model")
    return groups[-1]


def _check_arguments(
    cards: int | None, processes: bool, given: cluster.Given, replace_seconds: float
) -> None:
    if cards is not None and cards < 1:
        wrong = Option("cards", cards)
        raise ContextError(f"{wrong}: a group has at least 1 card", wrong)
    given.check()
    if processes and given:
        raise ContextError(
            "processes=True is for an embedded cluster; an existing cluster has its own workers",
            Option("processes", True),
        )
    if not 0 <= replace_seconds < float("inf"):
        wrong = Option("replace_seconds", replace_seconds)
        raise ContextError(f"{wrong} is not 0 or more seconds, and finite", wrong)
    if cards is None and not given:
        raise ContextError(
            "the number of cards is missing; write CardGroup(8), or give the address of a Dask scheduler"
        )
