"""Channels: what is sent arrives, in any amount; strangers stay out; a peer that goes is told at once."""

import contextlib
import re
import socket
import threading

import ml_dtypes
import numpy as np
import pytest

from distinfer_lab.cards.channels import ChannelClosedError, Channels, Listener
from distinfer_lab.cards.channels.frames import FRAME
from distinfer_lab.cards.channels.listener import HELLO, MAGIC
from distinfer_lab.cards.records import Epoch, Peer
from distinfer_lab.errors import CardError

NONCE = bytes(range(32))


class Net:
    """Some cards in threads of this process, connected over loopback."""

    def __init__(self, count, sockets_only=False):
        self.listeners = [Listener("127.0.0.1", sockets_only=sockets_only) for _ in range(count)]
        self.epoch = Epoch(3, NONCE, tuple(Peer(li.host, li.port, "") for li in self.listeners), 1)
        for listener in self.listeners:
            listener.admit(self.epoch)
        self.cancelled = threading.Event()
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
            thread.join(30)
            assert not thread.is_alive()
        return out

    def close(self):
        for thing in (*self.cards, *self.listeners):
            thing.close()


@pytest.fixture(params=["sockets", "shared memory", "one process"])
def way(request, monkeypatch):
    """By which cards in threads of this process reach each other."""
    if request.param == "shared memory":
        # As between processes of one host.
        monkeypatch.setattr("distinfer_lab.cards.channels.channels.all_here", lambda epoch: False)
    return request.param


@pytest.fixture
def net(way):
    made = []

    def make(count):
        made.append(Net(count, sockets_only=way == "sockets"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, ml_dtypes.bfloat16])
def test_a_sum_is_added_in_rank_order(net, dtype):
    """Bit for bit the sum from left to right, of the group's cards only, for sizes that do not divide."""
    arrays = [(np.random.default_rng(r).normal(size=(3, 7)) * 100).astype(dtype) for r in range(5)]
    group = (4, 0, 2)

    def work(rank, channels):
        return channels.all_reduce(arrays[rank], group) if rank in group else None

    expected = arrays[0].copy()
    expected += arrays[2]
    expected += arrays[4]
    for rank, found in enumerate(net(5).run(work)):
        if rank in group:
            np.testing.assert_array_equal(found, expected, strict=True)


def test_a_sum_of_fewer_elements_than_cards(net):
    """Scalars and empty arrays pass too."""
    results = net(3).run(
        lambda rank, ch: (
            ch.all_reduce(np.float32([rank])[0:1].reshape(()), range(3)),
            ch.all_reduce(np.zeros(0), range(3)),
        )
    )
    for scalar, empty in results:
        assert scalar == 3
        assert scalar.shape == ()
        assert empty.shape == (0,)


def test_more_than_the_system_buffers_crosses_both_ways(net):
    """Each card sends 8 MiB to each other at once; nobody waits for ever, and the bytes are counted."""
    size = (1 << 20,)

    def work(rank, channels):
        others = [r for r in range(3) if r != rank]
        data = np.full(size, rank, np.float64)
        got = channels.exchange(dict.fromkeys(others, data), {r: (size, np.dtype("float64")) for r in others})
        return {r: (a[0], a[-1]) for r, a in got.items()}, channels.sent_bytes

    for rank, (got, sent) in enumerate(net(3).run(work)):
        assert got == {r: (r, r) for r in range(3) if r != rank}
        assert sent == 2 * (8 << 20)


def test_a_frame_of_another_size_is_refused(net):
    """Before its bytes are read: the cards would be running different programs."""

    def work(rank, channels):
        if rank == 0:
            return channels.exchange({1: np.zeros(3)}, {})
        return channels.exchange({}, {0: ((4,), np.dtype("float64"))})

    text = str(net(2).run(work)[1])
    assert re.match(r"card 0 (announces frame 0 of|hands over) 24 bytes; card 1 expects 32 bytes", text)


def test_a_peer_that_goes_away_is_told_at_once(net):
    """The others get an error, not silence."""

    def work(rank, channels):
        channels.all_reduce(np.zeros(4), range(3))
        if rank == 2:
            channels.close()
            return None
        return channels.all_reduce(np.zeros(4), range(3))

    results = net(3).run(work)
    assert isinstance(results[0], ChannelClosedError)
    assert isinstance(results[1], ChannelClosedError)


def test_a_waiting_card_looks_for_cancellation(net):
    """Whoever waits for a peer that never comes stops when the flag goes up."""
    made = net(2)
    threading.Timer(0.2, made.cancelled.set).start()
    results = made.run(lambda rank, ch: ch.exchange({}, {1: ((4,), np.dtype("f4"))}) if rank == 0 else None)
    assert str(results[0]) == "cancelled"


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(60),
        HELLO.pack(b"xxxx", NONCE, 3, 1),
        HELLO.pack(MAGIC, bytes(32), 3, 1),
        HELLO.pack(MAGIC, NONCE, 2, 1),
        HELLO.pack(MAGIC, NONCE, 3, 7),
    ],
    ids=["http", "another magic", "another nonce", "another epoch", "no member"],
)
def test_strangers_are_not_let_in(net, hello):
    """Without this epoch's nonce and a member's rank the connection is closed, with no answer."""
    listener = net(2).listeners[0]
    with socket.create_connection((listener.host, listener.port), timeout=10) as stranger:
        stranger.sendall(hello)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(2) == b""
    assert not listener._arrived
    assert FRAME.size == 16
