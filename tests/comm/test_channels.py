"""Channels: what is sent arrives, in any amount; strangers stay out; a peer that goes is reported at once."""

import contextlib
import re
import threading

import numpy as np
import pytest

from distinfer_lab.comm import ChannelClosedError
from distinfer_lab.comm.frames import FRAME
from distinfer_lab.comm.listener import HELLO, MAGIC

from .peers import NONCE, TRANSPORTS, Net


@pytest.fixture(params=TRANSPORTS)
def net(request):
    """Makes nets of cards that reach each other in one of several ways."""
    made = []

    def make(count):
        made.append(Net(count, request.param))
        return made[-1]

    yield make
    for one in made:
        one.close()


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
    with listener._endpoint.connect(listener.address, 10) as stranger:
        stranger.sendall(hello)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(2) == b""
    assert not listener._arrived
    assert FRAME.size == 16
