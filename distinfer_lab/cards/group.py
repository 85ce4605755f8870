"""A card group: one controller, n cards, one task per card and piece of work.

    with CardGroup(8) as cards:             in this process; processes=True for real ones
        ...                                 the flow finds the group by itself

A piece of work is a gang: one task on each card, which together may talk through direct
channels. Gangs run one after another, in one owner thread.
"""

import contextlib
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import Client

from ..checkpoint import Checkpoint
from ..display import Displayed
from ..errors import ArgumentTypeError, CardError, ContextError
from ..layout import Strategy
from ..reshard import BUFFER_BYTES, Control, ConversionPlan, Unwatched, WriteTask, Written, size_of
from . import cluster, tasks
from .channels import ChannelClosedError
from .gang import Gangs
from .placement import Placement
from .records import GroupMemory
from .resharding import Resharding
from .routes import Taken
from .run import Run
from .store import CardRestartedError, CardStore

__all__ = ["CardGroup", "current_group"]

_groups: list["CardGroup"] = []


class CardGroup(Displayed):
    """Cards that work together; a context manager.

    Parameters
    ----------
    cards
        How many; with `address` or `client` by default all workers of the cluster.
    processes
        For an embedded cluster: every card is a process of its own.
    address
        The scheduler of a Dask cluster that runs already, e.g. "tcp://10.0.0.5:8786".
    client
        A client of a Dask cluster.

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
    ) -> None:
        _check_arguments(cards, processes, address, client)
        self.embedded = address is None and client is None
        self.processes = processes or not self.embedded
        self._owns_client = client is None
        self._client = (
            cluster.embed(cards or 1, processes) if self.embedded else cluster.attach(address, client)
        )
        self._name = f"distinfer-{uuid.uuid4().hex[:12]}"
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="cards")
        self._owner_id = self._owner.submit(threading.get_ident).result()
        self._placements: dict[str, Placement] = {}
        self._programs: dict[str, Any] = {}
        self._closed = self._registered = False
        try:
            self._open(cards)
        except BaseException:
            self.close()
            raise

    def _open(self, cards: int | None) -> None:
        if not self.embedded:
            cluster.warn_if_open(self._client)
        with contextlib.suppress(TimeoutError):  # too few of them have a text of their own
            self._client.wait_for_workers(cards or 1, timeout=60 if self.embedded else 5)
        addresses = cluster.ranked_addresses(self._client, cards)
        cluster.check_versions(self._client, addresses)
        self._client.register_plugin(
            CardStore(self._name, (os.uname().nodename, os.getpid())), name=self._name
        )
        self._registered = True
        self._gangs = Gangs(
            self._client,
            self._name,
            addresses,
            embedded=self.embedded,
            processes=self.processes,
            on_loss=self._mark_lost,
        )
        self._gangs.join()

    def __len__(self) -> int:
        return len(self._gangs.addresses)

    def __repr__(self) -> str:
        if self._closed:
            return "CardGroup(closed)"
        where = "in processes" if self.processes else "in this process"
        if not self.embedded:
            where = "of a given cluster"
        return f"CardGroup({len(self)} cards {where})"

    def __enter__(self) -> "CardGroup":
        _groups.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ValueError):
            _groups.remove(self)
        self.close()

    @property
    def client(self) -> Client:
        """The Dask client behind the group."""
        return self._client

    @property
    def placement_keys(self) -> frozenset[str]:
        """The placements that are on the cards."""
        return frozenset() if self._closed else frozenset(self._placements)

    def close(self) -> None:
        """Forget all shards, and end the cluster if it is an embedded one. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._owner.shutdown(wait=True, cancel_futures=True)
        if self._registered and self._client.status == "running":
            # A cluster that goes away meanwhile needs nothing of us.
            with contextlib.suppress(OSError, TimeoutError, AttributeError, RuntimeError):
                self._client.unregister_worker_plugin(self._name)
        if self.embedded:
            owned = self._client.cluster
            self._client.close()
            owned.close()
        elif self._owns_client:
            self._client.close()

    def start(self, work: Callable[[Run], Any]) -> Run:
        """Begin work in the owner thread; gives a handle at once."""
        if self._closed:
            raise CardError("the card group is closed; make a new one")
        run = Run(self._gangs.cancel)
        run.bind(self._owner.submit(run.carry_out, work))
        return run

    def wait_for(self, work: Callable[[Run], Any]) -> Any:
        """Do work in the owner thread and wait for it; an interrupt cancels it."""
        if threading.get_ident() == self._owner_id:
            return work(Run(self._gangs.cancel))
        return self.start(work).result()

    def place(self, sources: Sequence[tasks.Source]) -> Placement:
        """Let card r read its shards from `sources[r]`; cards without a source hold nothing of it.

        Raises
        ------
        CardError
            If there are more sources than cards.
        """
        self._check_count(len(sources))
        placement = Placement(f"placement-{uuid.uuid4().hex[:12]}", tuple((s,) for s in sources))

        def work(run: Run) -> Placement:
            self._repeat(lambda: self._fill(placement, range(len(sources)), placement.sources, run))
            self._placements[placement.key] = placement
            return placement

        out: Placement = self.wait_for(work)
        return out

    def extend(self, placement: Placement, sources: Sequence[tasks.Source]) -> None:
        """Let card r read further shards of a placement from `sources[r]`."""
        self._check_count(len(sources))

        def work(run: Run) -> None:
            self._ready(placement)
            more = tuple((s,) for s in sources)
            self._fill(placement, range(len(more)), more, run, afresh=False)
            known = placement.sources + ((),) * (len(more) - len(placement.sources))
            placement.sources = tuple(a + b for a, b in itertools.zip_longest(known, more, fillvalue=()))

        self.wait_for(work)

    def refill(self, placement: Placement) -> None:
        """Put a placement back to what its sources say, on all cards; training since is undone."""

        def work(run: Run) -> None:
            ranks = range(len(placement.sources))
            self._repeat(lambda: self._fill(placement, ranks, placement.sources, run))
            placement.complete = -1

        self.wait_for(work)

    def replace(self, placement: Placement, sources: Sequence[tasks.Source]) -> None:
        """Give a placement other values, from other sources."""
        self._check_count(len(sources))
        placement.sources = tuple((s,) for s in sources)
        self.refill(placement)

    def _check_count(self, count: int) -> None:
        if count > len(self):
            raise CardError(
                f"shards for {count} cards, but the group has {len(self)}; use CardGroup({count})"
            )

    def drop(self, placement: Placement) -> None:
        """Free a placement's memory on all cards."""
        if self._placements.pop(placement.key, None) is not None and not self._closed:
            ranks = range(len(placement.sources))
            self.wait_for(lambda run: self._gangs.run(tasks.drop, dict.fromkeys(ranks, (placement.key,))))

    def pull(self, placement: Placement, names: Mapping[int, Sequence[str]]) -> dict[int, dict[str, Any]]:
        """Fetch shards to the controller: rank -> names, gives rank -> name -> array."""

        def work(run: Run) -> dict[int, dict[str, Any]]:
            self._ready(placement)
            asked = {r: (placement.key, tuple(n), placement.complete) for r, n in names.items() if n}
            return self._gangs.run(tasks.pull, asked)

        out: dict[int, dict[str, Any]] = self.wait_for(work)
        return out

    def dtypes(self, placement: Placement, rank: int) -> dict[str, Any]:
        """The dtypes of what one card holds of a placement."""

        def work(run: Run) -> dict[str, Any]:
            self._ready(placement)
            found: dict[str, Any] = self._gangs.run(tasks.dtypes, {rank: (placement.key,)})[rank]
            return found

        out: dict[str, Any] = self.wait_for(work)
        return out

    def save(
        self, placement: Placement, paths: Mapping[int, str], write: Callable[..., None]
    ) -> dict[int, str]:
        """Let each card write its shards to its own path by `write(path, shards)`."""

        def work(run: Run) -> dict[int, str]:
            self._ready(placement)
            asked = {r: (placement.key, placement.complete, path, write) for r, path in paths.items()}
            return self._gangs.run(tasks.save, asked)

        out: dict[int, str] = self.wait_for(work)
        return out

    def run(
        self,
        program: Any,
        placement: Placement,
        inputs: Sequence[Mapping[str, Any]],
        wanted: Sequence[Sequence[str]],
        *,
        training: bool = False,
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """Run a program on cards 0..n-1.

        Parameters
        ----------
        program
            A picklable callable (see `tasks.CardProgram`), the same for every card.
        placement
            Holds the values that the program reads.
        inputs
            For each card its shard of each input.
        wanted
            For each card the outputs whose shards shall come back.
        training
            The program's updates replace the placement's values, on all cards or on none.

        Returns
        -------
        The wanted shards per card, and the bytes that each card sent to others.
        """

        def work(run: Run) -> Any:
            self._ready(placement)
            key = self._keep(program)
            cards = range(len(inputs))
            asked = {
                r: (key, placement.key, inputs[r], tuple(wanted[r]), placement.complete, training)
                for r in cards
            }
            number, got = self._gangs.run_numbered(tasks.run, asked)
            if training:
                placement.confirm(number)
            return [got[r][0] for r in cards], [got[r][1] for r in cards]

        def once_more(run: Run) -> Any:
            return work(run) if training else self._repeat(lambda: work(run))

        out: tuple[list[dict[str, Any]], list[int]] = self.wait_for(once_more)
        return out

    def memory(self) -> GroupMemory:
        """What every card holds, and the most it held, in bytes."""
        found = self._client.run(tasks.memory, self._name, workers=self._gangs.addresses)
        return GroupMemory(tuple(sorted(found.values(), key=lambda card: card.rank)))

    def sees(self, paths: Sequence[str]) -> bool:
        """Whether every card sees the same files under these paths as this process does."""
        return all(len(seen) == len(set(paths)) for seen in self._seen(paths))

    def _seen(self, paths: Iterable[str]) -> list[set[str]]:
        """For each card which of these files it sees as this process does."""
        asked = tuple(dict.fromkeys(paths))
        here = tasks.sees(asked)
        there = self._client.run(tasks.sees, asked, workers=self._gangs.addresses)
        return [
            {path for path in asked if here[path] is not None and there[address][path] == here[path]}
            for address in self._gangs.addresses
        ]

    def checkpoint(self, placement: Placement, strategy: Strategy) -> Checkpoint:
        """The shards of a placement as a checkpoint, which can be planned and run like one of files.

        Parameters
        ----------
        strategy
            The layouts and full shapes of what card r holds as rank r.
        """
        return Resharding(self).checkpoint(placement, strategy)

    def write_files(
        self, tasks: Sequence[WriteTask], control: Callable[[int], Control], route: str = "auto"
    ) -> Written:
        """Let the cards write destination files (see `reshard.Workers`).

        Raises
        ------
        CardError
            If a card does not see what it should, or is lost for good.
        """
        return Resharding(self).write_files(tasks, control, route)

    def take(
        self,
        plan: ConversionPlan,
        *,
        buffer: int | str = BUFFER_BYTES,
        memory_limit: int | str | None = None,
        route: str = "auto",
        control: Callable[[int], Control] = lambda rank: Unwatched(),
    ) -> tuple[Placement, Taken]:
        """Bring what a plan says to the cards: destination rank r to card r, or as the plan places it.

        Parameters
        ----------
        plan
            From files, or from shards on these cards (see `checkpoint`).
        buffer
            The memory for data of each card beside its shards.
        memory_limit
            The most that a card may hold of both; what needs more is refused before a byte moves.
        route
            See `reshard.Workers`.
        control
            Gives what watches and stops the work of a destination rank.

        Raises
        ------
        CardError
            If the group or the limit is too small, a card does not see what it should, or is lost for good.
        """
        self._check_count(plan.dst_count)
        limit = None if memory_limit is None else size_of(memory_limit, "memory_limit")
        return Resharding(self).take(plan, size_of(buffer, "buffer"), limit, route, control)

    def _fill(
        self,
        placement: Placement,
        ranks: Sequence[int],
        sources: Sequence[tuple[tasks.Source, ...]],
        run: Run,
        afresh: bool = True,
    ) -> None:
        self._gangs.run(tasks.place, {r: (placement.key, sources[r], afresh) for r in ranks}, run)
        placement.lost.difference_update(ranks)

    def _ready(self, placement: Placement) -> None:
        """Rejoin after a loss, and fill again what the lost cards held."""
        if placement.key not in self._placements:
            raise CardError("this placement was dropped; load or initialise the net again")
        if self._gangs.epoch is None:
            self._gangs.join()
        if placement.lost and (placement.trained or placement.moved):
            lost = ", ".join(map(str, sorted(placement.lost)))
            how = "came from other cards" if placement.moved else "were trained since they were loaded"
            raise CardRestartedError(
                f"card {lost} was lost with shards that {how}; go back to the last checkpoint"
            )
        if placement.lost:
            self._fill(placement, sorted(placement.lost), placement.sources, Run(self._gangs.cancel))

    def _ready_key(self, key: str) -> None:
        """Make sure that a placement is on the cards."""
        if key not in self._placements:
            raise CardError("the checkpoint's shards are not on these cards (any more)")
        self._ready(self._placements[key])

    def _keep_placement(self, placement: Placement) -> Placement:
        self._placements[placement.key] = placement
        return placement

    def _repeat(self, work: Callable[[], Any]) -> Any:
        """Do work that changes nothing; when a card was lost and is back, do it once more."""
        try:
            return work()
        except (CardRestartedError, ChannelClosedError):
            self._gangs.join()
            return work()

    def _keep(self, program: Any) -> str:
        """Send a program to all cards, once."""
        for key, known in self._programs.items():
            if known is program:
                return key
        key = f"program-{uuid.uuid4().hex[:12]}"
        self._client.run(tasks.keep_program, self._name, key, program, workers=self._gangs.addresses)
        self._programs[key] = program
        return key

    def _mark_lost(self, ranks: list[int]) -> None:
        """These cards restarted: they hold nothing of any placement, and no program."""
        for placement in self._placements.values():
            placement.lost.update(r for r in ranks if r < len(placement.sources))
        self._programs.clear()


def _check_arguments(cards: int | None, processes: bool, address: str | None, client: Client | None) -> None:
    if cards is not None and (not isinstance(cards, int) or isinstance(cards, bool)):
        raise ArgumentTypeError(f"cards is a number of cards, not {cards!r}")
    if cards is not None and cards < 1:
        raise ContextError(f"cards={cards}: a group has at least 1 card")
    if address is not None and client is not None:
        raise ContextError("address and client both name a cluster; give one of them")
    if processes and (address is not None or client is not None):
        raise ContextError(
            "processes=True is for an embedded cluster; a given one has the workers that it has"
        )
    if cards is None and address is None and client is None:
        raise ContextError("how many cards? Write CardGroup(8), or give the address of a Dask scheduler")


def current_group() -> CardGroup:
    """The group of the innermost `with CardGroup(...)` block.

    Raises
    ------
    ContextError
        If there is none.
    """
    if not _groups:
        raise ContextError("there are no cards; work inside `with CardGroup(8):`, or pass cards= to Model")
    return _groups[-1]
