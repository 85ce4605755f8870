"""Frames and outboxes: what does not fit is refused before memory is taken for it; nothing is left behind."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.comm import Channels, Listener, TcpEndpoint
from distinfer_lab.comm.frames import FOLLOWS, FRAME, TOKEN
from distinfer_lab.comm.peers import Epoch, Peer
from distinfer_lab.comm.shared_memory import OFFER_BYTES, SLOT_BYTES, SLOTS, Offer, SharedOutbox
from distinfer_lab.comm.windows import blocks, bytes_of, pieces_to_fill, pieces_to_send
from distinfer_lab.errors import CardError

from .peers import net

FLOATS = np.dtype("f4")


def answer_to(transport, sent, expected=(100_000,)):
    """What card 0, which expects floats of a shape, says to bytes that card 1 sends it by hand."""
    with net(2, transport) as cards:

        def do(rank, channels):
            if rank == 0:
                return channels.exchange({}, {1: (expected, FLOATS)})[1]
            channels._sockets._peer(0).sock.sendall(sent)
            return None

        return cards.run(do)[0]


@pytest.mark.parametrize("transport", ["sockets", "shared memory"])
@pytest.mark.parametrize(
    ("head", "text"),
    [
        ((0, 2**63), "frame 0 of 9223372036854775808 bytes; card 0 expects 400000 bytes"),
        ((0, 399_996), "frame 0 of 399996 bytes"),
        ((0, 0), "frame 0 of 0 bytes"),
        ((1, 400_000), "frame 1 of 400000 bytes"),
        ((2**64 - 1, 400_000), "frame 18446744073709551615 of"),
    ],
    ids=["oversize", "too short", "empty", "out of turn", "far out of turn"],
)
def test_a_head_must_announce_what_the_program_expects(transport, head, text):
    """Of any other number of bytes, or in another order, nothing more is read; no memory is taken for it."""
    found = answer_to(transport, FRAME.pack(*head))
    assert isinstance(found, CardError)
    assert f"card 1 announces {text}" in str(found)
    assert "the cards run different programs" in str(found)


@pytest.mark.parametrize(
    ("slot", "count"),
    [(SLOTS, 400_000), (0, 0), (0, 400_001), (FOLLOWS, 400_001), (FOLLOWS, 0), (0, SLOT_BYTES + 1)],
)
def test_a_token_must_name_a_slot_and_bytes_that_are_still_to_come(slot, count):
    """Else nothing is copied."""
    found = answer_to("shared memory", FRAME.pack(0, 400_000) + TOKEN.pack(slot, count))
    assert isinstance(found, CardError)
    assert str(found).startswith(f"card 1 announces {count} bytes in slot {slot}, with 400000 bytes to come")


def test_the_bytes_of_a_frame_may_come_in_slots_and_by_socket():
    """A sender that finds no free slot sends them after their token."""
    array = np.arange(100_000, dtype=FLOATS)
    data = array.tobytes()
    tokens = [TOKEN.pack(FOLLOWS, n) + data[a : a + n] for a, n in ((0, 1), (1, 300_000), (300_001, 99_999))]
    np.testing.assert_array_equal(
        answer_to("shared memory", FRAME.pack(0, 400_000) + b"".join(tokens)), array
    )


def test_an_outbox_has_a_bounded_number_of_slots_for_each_peer():
    """A peer that takes nothing leaves slots to the others; what was taken is free again."""
    boxes = [SharedOutbox(rank, 3) for rank in range(3)]
    slow, quick = boxes[0].open(boxes[1].offer, 1), boxes[0].open(boxes[2].offer, 2)
    piece = np.arange(10, dtype=np.uint8)
    quota = SLOTS // 2
    taken = [boxes[0].publish(piece, (n, 0), slow) for n in range(quota + 1)]
    assert taken == [*range(quota), None]
    back = boxes[2].open(boxes[0].offer, 0)
    for n in range(3 * SLOTS):
        slot = boxes[0].publish(piece + n, (1000 + n, 0), quick)
        np.testing.assert_array_equal(back.slots[slot, :10], piece + n)
        back.acknowledge()
    assert boxes[0].publish(piece, (3, 0), quick) == taken[3], "what lies there already is not laid out again"
    boxes[1].open(boxes[0].offer, 0).acknowledge()
    assert boxes[0].publish(piece, (5000, 0), slow) == 0
    with pytest.raises(ValueError, match="read-only"):
        back.slots[0, 0] = 1
    for box in boxes:
        box.close()


def test_an_outbox_is_its_users():
    """Whatever the umask, and it has no name by which others could come to it."""
    box = SharedOutbox(0, 2)
    found = os.stat(f"/proc/self/fd/{box.offer.fd}")
    assert (found.st_uid, found.st_mode & 0o777, found.st_nlink) == (os.geteuid(), 0o600, 0)
    box.close()


def test_a_false_offer_is_not_opened(tmp_path):
    """Another token, size, process or file than that of an outbox: then sockets do."""
    mine, other, larger = SharedOutbox(0, 2), SharedOutbox(1, 2), SharedOutbox(1, 600)
    offer = other.offer
    path = tmp_path / "file"
    path.write_bytes(bytes(offer.nbytes))
    read, write = os.pipe()
    with path.open() as file:
        for false in (
            Offer(),
            offer._replace(token=bytes(16)),
            offer._replace(nbytes=offer.nbytes + 1),
            offer._replace(pid=2**31 - 1),
            offer._replace(fd=file.fileno()),
            offer._replace(fd=read),
            offer._replace(fd=2**20),
            larger.offer._replace(nbytes=offer.nbytes),
        ):
            assert Offer.unpack(false.pack()) == false
            assert len(false.pack()) == OFFER_BYTES
            assert mine.open(false, 1) is None
    assert mine.open(offer, 1) is not None
    os.close(read)
    os.close(write)
    for box in (mine, other, larger):
        box.close()


def test_cards_that_cannot_open_each_others_memory_use_sockets(monkeypatch):
    """One side that cannot is enough; the array arrives all the same."""
    array = np.arange(1_000_000.0)
    opened = SharedOutbox.open
    monkeypatch.setattr(
        SharedOutbox, "open", lambda box, offer, rank: None if rank == 0 else opened(box, offer, rank)
    )
    with net(2, "shared memory") as cards:
        found = cards.run(
            lambda rank, ch: ch.broadcast(array if rank else None, 1, range(2), array.shape, array.dtype)
        )
        assert all(line.local_peer is None for ch in cards.cards for line in ch._sockets._peers.values())
    np.testing.assert_array_equal(found[0], array)


def test_memory_of_an_epoch_goes_with_it():
    """A card that joins a hundred epochs has the files and threads of one; nothing lies in a file system."""
    listeners = [Listener(TcpEndpoint("127.0.0.1")) for _ in range(2)]

    def join(number):
        peers = tuple(Peer(li.address, "") for li in listeners)
        epoch = Epoch(number, os.urandom(32), peers, 1)
        for listener in listeners:
            listener.admit(epoch)
        cards = [Channels(r, epoch, li, lambda: None) for r, li in enumerate(listeners)]
        for card in cards:
            card._transport = card._sockets
        give = threading.Thread(target=cards[1].send, args=(np.ones(1_000_000), 0))
        give.start()
        assert cards[0].recv(1, (1_000_000,), np.dtype("f8"))[-1] == 1
        give.join()
        assert cards[0]._sockets._peers[1].local_peer is not None
        for card in cards:
            card.close()

    join(0)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(1, 100):
        join(number)
    assert len(os.listdir("/proc/self/fd")) <= files
    assert threading.active_count() <= threads + 1
    assert not any("distinfer" in name for name in os.listdir("/dev/shm"))
    for listener in listeners:
        listener.close()


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 9), st.integers(1, 200))
def test_blocks_follow_each_other_and_are_bounded(shape, itemsize, most):
    """Together all elements in C order; none larger than asked, but a single element."""
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    cut = [array[block] for block in blocks(tuple(shape), itemsize, most)]
    np.testing.assert_array_equal(
        np.concatenate([part.reshape(-1) for part in cut] or [[]]), array.reshape(-1)
    )
    assert all(part.size * itemsize <= max(most, itemsize) for part in cut)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 60), st.booleans())
def test_pieces_carry_an_array_over(shape, most, apart):
    """What is sent in pieces of one array, and filled into another, is the array, however both lie."""
    room = np.zeros([2 * n for n in shape], np.int32)
    every = tuple(slice(None, None, 2) for _ in shape)
    source = np.arange(np.prod(shape), dtype=np.int32).reshape(shape).T if apart else room[every].copy()
    out = room[every].T if apart else np.zeros_like(source)
    data = b"".join(pieces_to_send(source, most))
    assert data == bytes_of(np.ascontiguousarray(source)).tobytes()
    at = 0
    for piece in pieces_to_fill(out, most):
        piece[:] = data[at : at + len(piece)]
        at += len(piece)
    np.testing.assert_array_equal(out, source)
