"""Cards without a cluster: in threads of this process, or in processes of their own."""

import contextlib
import itertools
import multiprocessing
import threading
import time
from unittest import mock

import numpy as np

from distinfer_lab.cards.certificates import temporary_security
from distinfer_lab.cards.dask_patches import PRELOADED
from distinfer_lab.cards.private_folder import private_folder
from distinfer_lab.comm import Channels, InProcessEndpoint, Listener, TcpEndpoint, UnixEndpoint
from distinfer_lab.comm.peers import Address, Epoch, Peer
from distinfer_lab.errors import CardError

NONCE = bytes(range(32))
TRANSPORTS = ("sockets", "shared memory", "private sockets", "one process", "tls")
"""By which cards reach each other."""
SECURITY = temporary_security()
CONTEXTS = [
    arguments["ssl_context"]
    for arguments in (SECURITY.get_listen_args("worker"), SECURITY.get_connection_args("worker"))
]
WARM_ROUNDS = 3


CALLS = {
    "all_reduce": lambda ch, array: ch.all_reduce(array, range(3)),
    "all_gather": lambda ch, array: ch.all_gather(array, range(3), [array.shape] * 3),
    "reduce_scatter": lambda ch, array: ch.reduce_scatter([array] * 3, range(3)),
    "all_to_all": lambda ch, array: ch.all_to_all([array] * 3, range(3), [array.shape] * 3),
    # All of a ring of broadcasts: a root alone does not wait for anyone.
    "broadcast": lambda ch, array: [
        ch.broadcast(array if ch.rank == root else None, root, range(3), array.shape, array.dtype)
        for root in range(3)
    ],
    "send and recv": lambda ch, array: (
        ch.send(array, (ch.rank + 1) % 3) if ch.rank != 1 else None,
        ch.recv((ch.rank - 1) % 3, array.shape, array.dtype),
        ch.send(array, 2) if ch.rank == 1 else None,
    ),
    "exchange_into": lambda ch, array: ch.exchange_into(
        {rank: array for rank in range(3) if rank != ch.rank},
        {rank: np.empty_like(array) for rank in range(3) if rank != ch.rank},
    ),
}


def call(name, size, rank, channels):
    """One call of a kind, on a card of a process of its own."""
    CALLS[name](channels, np.ones(size, np.float32))


class Net:
    """Some cards in threads of this process, connected over loopback."""

    def __init__(self, count, transport="one process"):
        self._folder = contextlib.ExitStack()
        folder = self._folder.enter_context(private_folder())
        endpoints = [_endpoint(transport, folder) for _ in range(count)]
        self.listeners = [Listener(endpoint, sockets_only=transport == "sockets") for endpoint in endpoints]
        self.epoch = Epoch(3, NONCE, tuple(Peer(li.address, "") for li in self.listeners), 1)
        for listener in self.listeners:
            listener.admit(self.epoch)
        self.cancelled = threading.Event()
        apart = transport != "one process"  # then as between processes of one host
        with mock.patch("distinfer_lab.comm.channels.all_here", return_value=not apart):
            self.cards = [Channels(r, self.epoch, li, self.check) for r, li in enumerate(self.listeners)]

    def check(self):
        if self.cancelled.is_set():
            raise CardError("cancelled")

    def run(self, work):
        """work(rank, channels) on every card at once; results or errors in rank order."""
        out = [None] * len(self.cards)

        def one(rank):
            try:
                out[rank] = work(rank, self.cards[rank])
            except Exception as err:
                out[rank] = err
                self.cards[rank].close()

        threads = [threading.Thread(target=one, args=(r,), daemon=True) for r in range(len(self.cards))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        return out

    def close(self):
        for thing in (*self.cards, *self.listeners):
            thing.close()
        self._folder.close()


def _endpoint(transport, folder):
    if transport == "one process":
        return InProcessEndpoint()
    if transport == "private sockets":
        return UnixEndpoint(str(folder))
    return TcpEndpoint("127.0.0.1", *(CONTEXTS if transport == "tls" else ()))


@contextlib.contextmanager
def net(count, transport="one process"):
    """A `Net` for a while."""
    made = Net(count, transport)
    try:
        yield made
    finally:
        made.close()


class Processes:
    """Some cards in processes of their own, each of which does a work over and over.

    Parameters
    ----------
    work
        work(rank, channels), a function of a module.
    """

    def __init__(self, count, work, sockets_only=False):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.ends = context.SimpleQueue()
        self._warm = context.Semaphore(0)
        self._ports = context.Array("i", count)
        self._all_bound = context.Barrier(count)
        self.cards = [
            context.Process(
                target=_card,
                args=(rank, work, sockets_only, self._ports, self._all_bound, self._warm, self.ends),
            )
            for rank in range(count)
        ]
        for card in self.cards:
            card.start()

    def wait_until_warm(self):
        """Until every card has done its work a few times."""
        for _ in self.cards:
            assert self._warm.acquire(timeout=60)

    def kill(self, rank):
        """As a machine that fails; gives when it was done."""
        self.cards[rank].kill()
        self.cards[rank].join(30)
        return time.monotonic()

    def close(self):
        for card in self.cards:
            card.kill()
            card.join(30)


def _card(rank, work, sockets_only, ports, all_bound, warm, ends):
    listener = Listener(TcpEndpoint("127.0.0.1"), sockets_only=sockets_only)
    ports[rank] = listener.address.port
    all_bound.wait(60)
    epoch = Epoch(3, NONCE, tuple(Peer(Address("127.0.0.1", port), "") for port in ports), 1)
    listener.admit(epoch)
    all_bound.wait(60)
    channels = Channels(rank, epoch, listener, lambda: None)
    try:
        for count in itertools.count():
            work(rank, channels)
            if count == WARM_ROUNDS:
                warm.release()
    except Exception as err:
        stopped = time.monotonic()
        shares = any(line.local_peer is not None for line in channels._sockets._peers.values())
        channels.close()
        ends.put((rank, stopped, type(err).__name__, str(err), shares))
