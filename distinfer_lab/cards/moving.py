"""One card's part of a reshard: what it reads, sends to others, receives from them, and keeps or writes.

::

    a card's own slices ----> its windows ----> its file, or its memory
           |                     ^
           +--> other cards      +--- other cards, in the order of its windows

Where all cards see all files, every slice is a card's own and nothing goes from card to card.
Otherwise a card cuts what it has by the windows of those who take it, and feeds each of them piece
after piece; both sides go through the same shares in the same order, so a piece needs no name.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import BoxReader, FileReport, FileWork, OpenSource, RankReadPlan, WriteTask
from ..comm import Channels
from ..layout import Box
from .records import Ticket
from .store import CardStore, open_store

__all__ = ["Move", "Moved", "move", "serve"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Move:
    """One card's part of a reshard; small, and can be pickled.

    Parameters
    ----------
    files
        What it writes.
    places
        What it keeps in its memory instead, and the placement's key.
    sends
        Other card -> that card's shares, cut down to what this card holds, in that card's order.
    homes
        Source rank -> the card that reads it; those that are not named this card reads itself.
    window_bytes
        The size of a window, on all cards alike.
    """

    files: tuple[WriteTask, ...]
    places: tuple[tuple[str, RankReadPlan], ...]
    sends: Mapping[int, tuple[RankReadPlan, ...]]
    homes: Mapping[int, int]
    window_bytes: int

    @property
    def shares(self) -> list[RankReadPlan]:
        """All that it reads or receives, in order."""
        return [task.share for task in self.files] + [share for _, share in self.places]

    @property
    def all_shares(self) -> list[RankReadPlan]:
        """All that it takes, and what it sends of the shares of others."""
        return [*self.shares, *(share for given in self.sends.values() for share in given)]

    @property
    def nbytes_by_rank(self) -> dict[int, int]:
        """Destination rank -> bytes of its shards."""
        out: dict[int, int] = {}
        for share in self.shares:
            out[share.rank] = out.get(share.rank, 0) + share.nbytes
        return out


class Moved(NamedTuple):
    """What one card did."""

    files: tuple[FileReport, ...]
    read_bytes: int
    """From files, for itself and for others, without what `files` report."""
    sent_bytes: int
    """To other cards."""
    private_bytes: int | None
    """The most private memory meanwhile, beyond that of the idle worker; None for in-process cards."""


class FromPeer(NamedTuple):
    """A `BoxReader` at the other end of a channel, which sends what is asked without being asked."""

    channels: Channels
    peer: int

    @property
    def by_bytes(self) -> None:
        """See `BoxReader`."""
        return None

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int) -> int:
        """See `BoxReader`."""
        self.channels.receive(self.peer, out)
        return 0


class StoreControl(NamedTuple):
    """`Control` of one destination rank on a card."""

    store: CardStore
    rank: int

    def advance(self, nbytes: int) -> None:
        """Enter it where the controller looks, and serve the others."""
        self.store.progress[self.rank] = self.store.progress.get(self.rank, 0) + nbytes
        assert self.store.channels is not None
        self.store.channels.serve()

    def check(self) -> None:
        """See `Control`."""
        self.store.check()


def move(ticket: Ticket, job: Move) -> Moved:
    """Do a card's part of a reshard."""
    with open_store(ticket.store).work(ticket) as store, ExitStack() as stack:
        channels = store.channels
        assert channels is not None
        before = channels.sent_bytes
        store.progress.clear()
        own = _opened(job, stack)
        works = []
        for task in job.files:
            works.append(stack.enter_context(FileWork(task, StoreControl(store, task.share.rank))))
            works[-1].reuse()
        left = [{tensor.name for tensor in work.left} for work in works]
        left += [{tensor.name for tensor in share.tensors} for _, share in job.places]
        for peer, wanted in _asked(job, left, channels).items():
            channels.feed(peer, _pieces(job.sends[peer], wanted, own, job.window_bytes))
        sources: dict[int, BoxReader] = {rank: FromPeer(channels, home) for rank, home in job.homes.items()}
        sources |= own
        for work in works:
            work.write(sources)
        for key, share in job.places:
            control = StoreControl(store, share.rank)
            store.put(key, share.read_from(sources, job.window_bytes, control.advance), replace=True)
        channels.drain()
        for source in own.values():
            source.check_unchanged()
        reports = tuple(work.complete() for work in works)
        served = sum(source.nbytes_read for source in own.values()) - sum(
            report.read_bytes for report in reports
        )
        buffers = [report.buffer_bytes for report in reports]  # one after another
        store.count(max(buffers, default=0) + len(job.sends) * job.window_bytes)
        return Moved(reports, served, channels.sent_bytes - before, store.private_of_work())


def serve(job: Move, channels: Channels) -> None:
    """Do the controller's part of a reshard: read files that no card sees, and send what the cards need of them."""
    with ExitStack() as stack:
        own = _opened(job, stack)
        for peer, wanted in _asked(job, [], channels).items():
            channels.feed(peer, _pieces(job.sends[peer], wanted, own, job.window_bytes))
        channels.drain()
        for source in own.values():
            source.check_unchanged()


def _opened(job: Move, stack: ExitStack) -> dict[int, OpenSource]:
    """What is read here itself, by source rank: files, or this card's own shards."""
    out: dict[int, OpenSource] = {}
    for share in job.all_shares:
        for rank, source in share.sources.items():
            if rank not in job.homes and rank not in out:
                out[rank] = source.open()
                stack.callback(out[rank].close)
    return out


def _asked(job: Move, left: Sequence[Collection[str]], channels: Channels) -> dict[int, list[list[bool]]]:
    """Tell each sender which tensors are left to do here; hear it from each receiver, share by share."""
    flags: dict[int, list[bool]] = {}
    for share, names in zip(job.shares, left, strict=True):
        for peer, given in share.by_sender(job.homes).items():
            flags.setdefault(peer, []).extend(tensor.name in names for tensor in given.tensors)
    sends = {peer: np.array(asked, np.uint8) for peer, asked in flags.items()}
    counts = {peer: [len(share.tensors) for share in shares] for peer, shares in job.sends.items()}
    got = channels.exchange(sends, {peer: ((sum(n),), np.dtype(np.uint8)) for peer, n in counts.items()})
    return {
        peer: [part.astype(bool).tolist() for part in np.split(asked, np.cumsum(counts[peer])[:-1])]
        for peer, asked in got.items()
    }


def _pieces(
    shares: Sequence[RankReadPlan],
    wanted: Sequence[Sequence[bool]],
    own: Mapping[int, BoxReader],
    window_bytes: int,
) -> Iterator[Array]:
    """What another card receives from this one, in order; each piece is valid until the next."""
    memory = np.empty(window_bytes, np.uint8)
    for share, flags in zip(shares, wanted, strict=True):
        for tensor, left in zip(share.tensors, flags, strict=True):
            for window in tensor.windows(window_bytes) if left else ():
                for src_rank, there, _ in tensor.cuts(window):
                    nbytes = there.size * tensor.source_dtype.itemsize
                    piece = memory[:nbytes].view(tensor.source_dtype).reshape(there.shape)
                    own[src_rank].read_into(tensor.source, there, piece, window_bytes)
                    yield piece
