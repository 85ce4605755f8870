"""What runs on a card: one function per kind of work, each one Dask task per card and gang."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from ..errors import CardError, listed
from .records import CardMemory, Epoch, Peer, Ticket
from .store import Placed, open_store

__all__ = [
    "CardProgram",
    "Source",
    "begin_epoch",
    "cancel",
    "drop",
    "dtypes",
    "introduce",
    "keep_program",
    "memory",
    "place",
    "progress",
    "pull",
    "run",
    "save",
    "sees",
]

Array = NDArray[Any]


class Source(Protocol):
    """Where one card's shards of a placement come from; it is pickled and read on the card."""

    @property
    def nbytes(self) -> int:
        """Bytes of the shards that `read` gives."""

    def read(self) -> Mapping[str, Array]:
        """The shards by name."""


class CardProgram(Protocol):
    """What a card runs; `parallel` gives programs of this form."""

    def __call__(self, rank: int, values: Mapping[str, Array], inputs: Mapping[str, Array], card: Any) -> Any:
        """Compute, by the collectives of `card`."""


def place(ticket: Ticket, key: str, sources: Sequence[Source], afresh: bool) -> int:
    """Fill a placement from its sources, beside what it holds or in place of it; gives the bytes read."""
    with open_store(ticket.store).work(ticket) as store:
        values: dict[str, Array] = {}
        for source in sources:
            store.check()
            values |= _settled(source.read())
        store.put(key, values, afresh)
        return sum(v.nbytes for v in values.values())


def _settled(values: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays as this process would have made them itself.

    A message leaves them at any address, odd ones too, where numpy's matmul goes another way, slower
    and with sums in another order.
    """
    return {name: np.require(value, None, ["C", "A"]) for name, value in values.items()}


def pull(ticket: Ticket, key: str, names: tuple[str, ...], complete: int) -> dict[str, Array]:
    """Some shards of a placement, as they are in force once run `complete` is confirmed."""
    with open_store(ticket.store).work(ticket) as store:
        placed = store.placed(key)
        placed.settle(complete)
        return {name: _value(placed, name, ticket.rank) for name in names}


def dtypes(ticket: Ticket, key: str) -> dict[str, Any]:
    """The dtype of each shard of a placement."""
    with open_store(ticket.store).work(ticket) as store:
        return {name: value.dtype for name, value in store.placed(key).values.items()}


def _value(placed: Placed, name: str, rank: int) -> Array:
    if name not in placed.values:
        raise CardError(f"card {rank} holds no shard of {name!r}; it holds {listed(placed.values)}")
    return placed.values[name]


def save(
    ticket: Ticket, key: str, complete: int, path: str, write: Callable[[Path, Mapping[str, Array]], None]
) -> str:
    """Write this card's shards to its own file; gives the path."""
    with open_store(ticket.store).work(ticket) as store:
        placed = store.placed(key)
        placed.settle(complete)
        write(Path(path), placed.values)
        return path


def drop(ticket: Ticket, key: str) -> None:
    """Forget a placement."""
    with open_store(ticket.store).work(ticket) as store:
        store.placements.pop(key, None)


def introduce(name: str, dask_worker: Any) -> Peer | None:
    """Where this worker's card listens; None if it has no store of the group (yet)."""
    store = dask_worker.plugins.get(name)
    if store is None:
        return None
    return Peer(store.listener.host, store.listener.port, store.incarnation)


def begin_epoch(name: str, epoch: Epoch, ranks: Mapping[str, int], dask_worker: Any) -> None:
    """Take a place in a new epoch (all cards together)."""
    dask_worker.plugins[name].join(epoch, ranks[dask_worker.address])


def cancel(name: str, run: int, dask_worker: Any) -> None:
    """Stop the given run, and those before it, at their next look."""
    store = dask_worker.plugins.get(name)
    if store is not None:
        store.cancelled = max(store.cancelled, run)


def memory(name: str, dask_worker: Any) -> CardMemory:
    """What this worker's card holds."""
    out: CardMemory = dask_worker.plugins[name].memory()
    return out


def progress(name: str, dask_worker: Any) -> dict[int, int]:
    """How far this worker's card is with a reshard: destination rank -> bytes done."""
    store = dask_worker.plugins.get(name)
    return {} if store is None else dict(store.progress)


def keep_program(name: str, key: str, program: Any, dask_worker: Any) -> None:
    """Keep a program for later runs."""
    dask_worker.plugins[name].programs[key] = program


def sees(paths: tuple[str, ...]) -> dict[str, tuple[int, int, bytes] | None]:
    """What this worker sees of files: size, mtime in ns and the first bytes; None where it sees none."""
    out: dict[str, tuple[int, int, bytes] | None] = {}
    for path in paths:
        try:
            stat = os.stat(path)
            with Path(path).open("rb") as file:
                out[path] = (stat.st_size, stat.st_mtime_ns, file.read(64))
        except OSError:
            out[path] = None
    return out


def run(
    ticket: Ticket,
    program_key: str,
    placement: str,
    inputs: Mapping[str, Array],
    wanted: tuple[str, ...],
    complete: int,
    training: bool,
) -> tuple[dict[str, Array], int]:
    """Run a kept program once; gives the outputs that the controller wants, and the bytes sent.

    Updates of a training step wait as pending values until a later task confirms this run;
    those of any other run are let go.
    """
    with open_store(ticket.store).work(ticket) as store:
        if program_key not in store.programs:
            raise CardError(f"card {ticket.rank} ({get_worker().address}) has no program {program_key!r}")
        placed = store.placed(placement)
        placed.settle(complete)
        assert store.channels is not None
        before = store.channels.sent_bytes
        outputs, updates = store.programs[program_key](ticket.rank, placed.values, _settled(inputs), store)
        if training:
            placed.pending, placed.pending_run = updates, ticket.run
        store.count(0)
        return {name: outputs[name] for name in wanted}, store.channels.sent_bytes - before
