"""What runs on a card: one function per kind of work, each one Dask task per card and gang."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import xxhash
from distributed import Worker, get_worker
from numpy.typing import NDArray

from ..comm import Epoch, Peer
from ..errors import CardError, listed
from ..untrusted import open_regular
from .records import CardMemory, GroupTerms, Ticket
from .store import CardRestartedError, CardStore, Placed, open_store

__all__ = [
    "CardFunction",
    "Source",
    "admit",
    "anchor",
    "begin_epoch",
    "cancel",
    "drop",
    "dtypes",
    "exchange_shards",
    "forget_programs",
    "keep_program",
    "kinds",
    "leave",
    "memory",
    "place",
    "progress",
    "pull",
    "run",
    "save",
    "sees",
]

Array = NDArray[Any]
Shards = Mapping[str, Array]
Counts_co = TypeVar("Counts_co", covariant=True)

SAMPLES, SAMPLE_BYTES = 16, 4 << 10


class Source(Protocol):
    """Where one card's shards of a placement come from; it is pickled and read on the card."""

    @property
    def nbytes(self) -> int:
        """Bytes of the shards that `read` returns."""

    def read(self) -> Mapping[str, Array]:
        """The shards by name."""


class CardFunction(Protocol[Counts_co]):
    """What a card is asked to run: a `parallel.CardProgram`, or any picklable function of this form."""

    def __call__(
        self, rank: int, values: Shards, inputs: Shards, card: Any
    ) -> tuple[Shards, Shards, Counts_co]:
        """Compute, by the collectives of `card`: outputs, updates of values, and what the card counted meanwhile."""


def place(ticket: Ticket, key: str, sources: Sequence[Source], replace: bool, committed_run: int) -> int:
    """Fill a placement from its sources, in addition to what it holds or in place of it; returns the bytes read."""
    with open_store(ticket.store).work(ticket) as store:
        if replace:
            store.placements.pop(key, None)
        elif key in store.placements:
            # Else the last step's values would later replace what is placed now.
            store.placements[key].commit_or_rollback(committed_run)
        values: dict[str, Array] = {}
        for source in sources:
            store.check()
            values |= _settled(source.read())
        store.put(key, values, replace)
        return sum(v.nbytes for v in values.values())


def _settled(values: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays as this process would have made them itself.

    A message leaves them at any address, odd ones too, where numpy's matmul goes another way, slower
    and with sums in another order.
    """
    return {name: np.require(value, None, ["C", "A"]) for name, value in values.items()}


def pull(ticket: Ticket, key: str, names: tuple[str, ...], committed_run: int) -> dict[str, Array]:
    """Some shards of a placement, as they are in force once run `committed_run` is committed."""
    with open_store(ticket.store).work(ticket) as store:
        placed = store.placed(key)
        placed.commit_or_rollback(committed_run)
        return {name: _value(placed, name, ticket.rank) for name in names}


def dtypes(ticket: Ticket, key: str) -> dict[str, Any]:
    """The dtype of each shard of a placement."""
    with open_store(ticket.store).work(ticket) as store:
        return {name: value.dtype for name, value in store.placed(key).values.items()}


def kinds(
    ticket: Ticket, key: str, committed_run: int, names: Sequence[str]
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """The shape and dtype of some shards of a placement."""
    with open_store(ticket.store).work(ticket) as store:
        placed = store.placed(key)
        placed.commit_or_rollback(committed_run)
        found = {name: _value(placed, name, ticket.rank) for name in names}
        return {name: (value.shape, value.dtype) for name, value in found.items()}


def exchange_shards(
    ticket: Ticket,
    key: str,
    sends: Mapping[int, Sequence[str]],
    receives: Mapping[int, Sequence[tuple[str, tuple[int, ...], np.dtype[Any]]]],
) -> None:
    """Send shards to cards that lost them, or receive them; other card -> shards, in one order on both sides."""
    with open_store(ticket.store).work(ticket) as store:
        channels = store.channels
        assert channels is not None
        values: dict[str, Array] = {}
        held = store.placed(key).values if sends else {}
        for peer, names in sends.items():
            channels.feed(peer, iter([held[name] for name in names]))
        for peer, shards in receives.items():
            for name, shape, dtype in shards:
                values[name] = np.empty(shape, dtype)
                channels.receive(peer, values[name])
        channels.drain()
        if receives:
            store.put(key, values, replace=True)


def _value(placed: Placed, name: str, rank: int) -> Array:
    if name not in placed.values:
        raise CardError(
            f"card {rank} holds no shard of {name!r}; it holds {listed(placed.values)}",
            rank=rank,
            parameter=name,
        )
    return placed.values[name]


def save(
    ticket: Ticket,
    key: str,
    committed_run: int,
    path: str,
    write: Callable[[Path, Mapping[str, Array]], None],
) -> str:
    """Write this card's shards to its own file; returns the path."""
    with open_store(ticket.store).work(ticket) as store:
        placed = store.placed(key)
        placed.commit_or_rollback(committed_run)
        write(Path(path), placed.values)
        return path


def drop(ticket: Ticket, key: str) -> None:
    """Forget a placement."""
    with open_store(ticket.store).work(ticket) as store:
        store.placements.pop(key, None)


async def admit(terms: GroupTerms, dask_worker: Worker) -> Peer:
    """Make this worker a card of the group, unless it is one; returns where the card listens."""
    store = dask_worker.plugins.get(terms.name)
    if store is None:
        store = CardStore(terms, f"anchor-{terms.name}-{dask_worker.address}")
        await dask_worker.plugin_add(store, name=terms.name, catch_errors=False)
    return Peer(store.listener.address, store.incarnation)


async def leave(name: str, dask_worker: Worker) -> None:
    """Be a card of the group no more."""
    store = dask_worker.plugins.get(name)
    if store is not None:
        await store.leave()


def anchor() -> None:
    """A result that Dask keeps on a card for as long as the controller is there (see `CardStore`)."""


def begin_epoch(name: str, epoch: Epoch, ranks: Mapping[str, int], dask_worker: Worker) -> None:
    """Take a place in a new epoch (all cards together)."""
    _store_on(dask_worker, name).join(epoch, ranks[dask_worker.address])


def cancel(name: str, run: int, dask_worker: Worker) -> None:
    """Stop the given run, and those before it, at their next look."""
    store = dask_worker.plugins.get(name)
    if store is not None:
        store.cancelled = max(store.cancelled, run)


def memory(name: str, dask_worker: Worker) -> CardMemory:
    """What this worker's card holds."""
    return _store_on(dask_worker, name).memory()


def progress(name: str, dask_worker: Worker) -> dict[int, int]:
    """How far this worker's card is with a reshard: destination rank -> bytes done."""
    store = dask_worker.plugins.get(name)
    return {} if store is None else dict(store.progress)


def keep_program(name: str, key: str, program: Any, dask_worker: Worker) -> None:
    """Keep a program for later runs."""
    _store_on(dask_worker, name).programs[key] = program


def forget_programs(name: str, keys: Collection[str], dask_worker: Worker) -> None:
    """Let programs go that no run will name any more."""
    programs = _store_on(dask_worker, name).programs
    for key in keys:
        programs.pop(key, None)


def _store_on(worker: Worker, name: str) -> CardStore:
    store = worker.plugins.get(name)
    if store is None:
        raise CardRestartedError(f"worker {worker.address} is not a card of this group (any more)")
    assert isinstance(store, CardStore)
    return store


def sees(paths: tuple[str, ...]) -> dict[str, tuple[int, int, str] | None]:
    """What this worker sees of files: size, mtime in ns and the digest of samples; None where it sees none."""
    out: dict[str, tuple[int, int, str] | None] = {}
    for path in paths:
        try:
            with open_regular(path) as file:
                stat = os.fstat(file.fileno())
                out[path] = (stat.st_size, stat.st_mtime_ns, _sampled(file.fileno(), stat.st_size))
        except OSError:
            out[path] = None
    return out


def _sampled(fd: int, size: int) -> str:
    """The digest of bytes from all over a file: copies of two models may have equal sizes and times."""
    digest = xxhash.xxh3_128()
    for number in range(SAMPLES):
        digest.update(os.pread(fd, SAMPLE_BYTES, max(size - SAMPLE_BYTES, 0) * number // (SAMPLES - 1)))
    return digest.hexdigest()


def run(
    ticket: Ticket,
    program_key: str,
    placement: str,
    inputs: Mapping[str, Array],
    wanted: tuple[str, ...],
    committed_run: int,
    training: bool,
    extra: tuple[str, ...] = (),
) -> tuple[dict[str, Array], Any]:
    """Run a kept program once; returns the outputs that the controller wants, and what the program counted.

    Updates of a training step wait as pending values until a later task confirms this run;
    those of any other run are let go.
    """
    with open_store(ticket.store).work(ticket) as store:
        if program_key not in store.programs:
            raise CardError(
                f"card {ticket.rank} ({get_worker().address}) has no program {program_key!r}",
                rank=ticket.rank,
            )
        placed = store.placed(placement)
        placed.commit_or_rollback(committed_run)
        values = dict(placed.values)
        for key in extra:
            values.update(store.placed(key).values)
        outputs, updates, counts = store.programs[program_key](ticket.rank, values, _settled(inputs), store)
        if training:
            placed.pending, placed.pending_run = updates, ticket.run
        store.count(0)
        return {name: outputs[name] for name in wanted}, counts
