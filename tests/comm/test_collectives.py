"""Collectives: equal to plain numpy, bit for bit, by every transport and algorithm; and what goes wrong in them."""

import contextlib
import functools
import threading
import tracemalloc
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.comm import Counted
from distinfer_lab.comm.traffic import AT_ONCE_BYTES
from distinfer_lab.errors import CardError

from ..strategies import examples
from .peers import CALLS, TRANSPORTS, Processes, call, net

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint64, np.bool_, np.complex64]
COMM = "distinfer_lab.comm"


@contextlib.contextmanager
def everything_is_large():
    """Windows, slots and thresholds of some bytes, so that small arrays go the ways of large ones."""
    with contextlib.ExitStack() as stack:
        for name, value in {
            f"{COMM}.frames.SMALL_BYTES": 16,
            f"{COMM}.frames.SLOT_BYTES": 96,
            f"{COMM}.shared_memory.SLOT_BYTES": 96,
            f"{COMM}.in_process.COPIED_BYTES": 8,
            f"{COMM}.sockets.WINDOW_BYTES": 128,
            f"{COMM}.sockets.SocketTransport.window_bytes": 64,
            f"{COMM}.traffic.AT_ONCE_BYTES": 8,
        }.items():
            stack.enter_context(mock.patch(name, value))
        yield


def numbers(seed, shape, dtype, kind="C"):
    """Any numbers, laid out in one of several manners; sums of them depend on their order."""
    random = np.random.default_rng(seed)
    values = np.asarray(random.normal(size=shape) * 10.0 ** random.integers(-3, 4, shape))
    whole = values.astype(dtype)
    if kind == "F":
        return np.array(whole, order="F")
    if kind == "apart" and whole.ndim:
        room = np.zeros((*shape[:-1], 2 * shape[-1] + 1), dtype)
        room[..., 1::2] = whole
        return room[..., 1::2]
    if kind == "reversed" and whole.ndim:
        return np.ascontiguousarray(whole[::-1])[::-1]
    return whole


shapes = st.lists(st.sampled_from([0, 1, 2, 3, 7, 40]), max_size=3).map(tuple)
kinds = st.sampled_from(["C", "F", "apart", "reversed"])


@st.composite
def works(draw):
    """A count of cards, a group of some of them in any order, a dtype, and whether everything is large."""
    count = draw(st.integers(1, 6))
    group = draw(st.permutations(range(count)))[: draw(st.integers(1, count))]
    return count, tuple(group), draw(st.sampled_from(DTYPES)), draw(st.booleans())


def run(transport, work, do):
    """do(rank, channels) on the cards of the group; results by rank. Errors are the test's."""
    count, group, _, large = work
    with everything_is_large() if large else contextlib.nullcontext(), net(count, transport) as cards:
        found = cards.run(lambda rank, channels: do(rank, channels) if rank in group else None)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return {rank: found[rank] for rank in group}


def sum_in_order(arrays):
    """From left to right, as the serial interpreter adds."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def same_bits(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes()


everyway = pytest.mark.parametrize("transport", TRANSPORTS)
often = settings(max_examples=examples(12, 100))


@everyway
@often
@given(works(), shapes, kinds)
def test_a_sum_is_added_in_rank_order(transport, work, shape, kind):
    """Bit for bit the sum from left to right by rank, whatever the group's order; and the card's own."""
    _, group, dtype, _ = work
    arrays = {rank: numbers(rank, shape, dtype, kind) for rank in group}
    expected = sum_in_order([arrays[rank] for rank in sorted(group)])
    found = run(transport, work, lambda rank, channels: channels.all_reduce(arrays[rank], group))
    for rank in group:
        same_bits(found[rank], expected)
        assert found[rank].flags.writeable
        assert not any(np.shares_memory(found[rank], array) for array in arrays.values())


@everyway
@often
@given(works(), st.lists(shapes, min_size=6, max_size=6), kinds)
def test_all_gather_gives_all_in_the_order_of_the_group(transport, work, each, kind):
    """Of any shapes, even different ones."""
    _, group, dtype, _ = work
    arrays = {rank: numbers(rank, each[rank], dtype, kind) for rank in group}
    given = [arrays[rank].shape for rank in group]
    found = run(transport, work, lambda rank, channels: channels.all_gather(arrays[rank], group, given))
    for rank in group:
        for one, peer in zip(found[rank], group, strict=True):
            same_bits(one, arrays[peer])


@everyway
@often
@given(works(), st.lists(shapes, min_size=6, max_size=6), kinds)
def test_reduce_scatter_sums_what_is_for_each(transport, work, each, kind):
    """Part i of everyone goes to card i of the group, which adds them in rank order."""
    _, group, dtype, _ = work
    parts = {r: {to: numbers((r, to), each[to], dtype, kind) for to in group} for r in group}
    found = run(transport, work, lambda rank, ch: ch.reduce_scatter([parts[rank][to] for to in group], group))
    for rank in group:
        same_bits(found[rank], sum_in_order([parts[peer][rank] for peer in sorted(group)]))


@everyway
@often
@given(works(), st.lists(shapes, min_size=6, max_size=6), kinds)
def test_all_to_all_is_a_transpose(transport, work, each, kind):
    """What card a has for b, card b gets from a; shapes differ by both."""
    _, group, dtype, _ = work
    parts = {a: {b: numbers((a, b), each[(a + b) % 6], dtype, kind) for b in group} for a in group}
    found = run(
        transport,
        work,
        lambda rank, channels: channels.all_to_all(
            [parts[rank][to] for to in group], group, [parts[peer][rank].shape for peer in group]
        ),
    )
    for rank in group:
        for one, peer in zip(found[rank], group, strict=True):
            same_bits(one, parts[peer][rank])


@everyway
@often
@given(works(), shapes, kinds, st.integers(0, 5))
def test_broadcast_and_messages_arrive_as_they_are(transport, work, shape, kind, which):
    """From any root to all; and from card to card around the ring of the group."""
    _, group, dtype, _ = work
    root, array = group[which % len(group)], numbers(which, shape, dtype, kind)

    def do(rank, channels):
        mine = channels.broadcast(array if rank == root else None, root, group, shape, np.dtype(dtype))
        place = group.index(rank)
        if len(group) == 1:
            return mine, mine
        # A send may wait for its recv: were all to send first, arrays larger than a socket's buffer would block all.
        if place == 0:
            channels.send(mine, group[1])
        came = channels.recv(group[place - 1], shape, np.dtype(dtype))
        if place:
            channels.send(mine, group[(place + 1) % len(group)])
        return mine, came

    for pair in run(transport, work, do).values():
        for one in pair:
            same_bits(one, array)


@everyway
@often
@given(works(), st.lists(shapes, min_size=6, max_size=6), kinds, kinds)
def test_an_exchange_in_place_fills_parts_of_larger_arrays(transport, work, each, sent, kept):
    """Whatever lies apart on either side; nothing beside the parts is touched, and both sides are free at once."""
    _, group, dtype, _ = work
    arrays = {a: {b: numbers((a, b), each[(a + b) % 6], dtype, sent) for b in group} for a in group}
    expected = {a: {b: array.copy() for b, array in row.items()} for a, row in arrays.items()}

    def do(rank, channels):
        outs = {peer: numbers(99, each[(peer + rank) % 6], dtype, kept) for peer in group if peer != rank}
        mine = {peer: array for peer, array in arrays[rank].items() if peer != rank}
        channels.exchange_into(mine, outs)
        for array in mine.values():
            array[...] = 0
        return outs

    for rank, outs in run(transport, work, do).items():
        for peer, out in outs.items():
            same_bits(out, expected[peer][rank])
            if kept == "apart" and out.ndim and out.size:
                assert not out.base[..., ::2].any()


@everyway
@pytest.mark.parametrize("size", [5, 40_000])
def test_sums_are_the_same_bits_however_the_cards_are_delayed(transport, size):
    """Ten runs, with each card late by another stretch of work before each of three sums."""
    arrays = [numbers(rank, (size,), np.float32) for rank in range(5)]

    def dawdle(random):
        sum(range(int(random.integers(0, 200_000))))

    with net(5, transport) as cards:
        seen = set()
        for number in range(10):

            def do(rank, channels, number=number):
                random = np.random.default_rng((number, rank))
                total = arrays[rank]
                for _ in range(3):
                    dawdle(random)
                    total = channels.all_reduce(total, range(5)) * np.float32(0.3)
                dawdle(random)
                return channels.reduce_scatter([total] * 5, range(5)).tobytes()

            seen |= set(cards.run(do))
    assert len(seen) == 1


def test_cards_of_one_process_pass_arrays_by_reference():
    """Without a copy; and the receiver cannot write to it, so cannot change what the sender has."""
    large = np.arange(100_000.0)
    sent = {0: large, 1: large[::2].copy()}

    def do(rank, channels):
        peer = 1 - rank
        return channels.exchange({peer: sent[rank]}, {peer: (sent[peer].shape, large.dtype)})[peer]

    with net(2) as cards:
        found = cards.run(do)
    for rank in range(2):
        assert np.shares_memory(found[rank], sent[1 - rank])
        with pytest.raises(ValueError, match="read-only"):
            found[rank][0] = 5
    assert large[0] == 0


@pytest.mark.parametrize("transport", ["sockets", "shared memory"])
def test_what_lies_apart_passes_through_a_window(transport):
    """64 MiB on both sides, every other column: less than 20 MiB of buffers on both cards together."""
    big = [np.zeros((2048, 8192), np.float32) for _ in range(2)]
    big[0][:, ::2] = np.arange(4096)

    def do(rank, channels):
        part = big[rank][:, ::2]
        channels.exchange_into({1: part} if rank == 0 else {}, {0: part} if rank == 1 else {})

    with net(2, transport) as cards:
        tracemalloc.start()
        try:
            assert cards.run(do) == [None, None]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 20 << 20
    np.testing.assert_array_equal(big[1], big[0])


@everyway
@pytest.mark.parametrize("elements", [100, AT_ONCE_BYTES])
def test_what_is_sent_is_counted_by_kind(transport, elements):
    """Calls and bytes, as counted by hand: a small sum sends all to all, a large one two thirds twice."""
    array = np.ones(elements, np.float32)

    def do(rank, channels):
        channels.all_reduce(array, range(3))
        channels.all_reduce(array, range(3))
        channels.all_gather(array, (2, 0, 1), [array.shape] * 3)
        channels.broadcast(array if rank == 0 else None, 0, range(3), array.shape, array.dtype)
        if rank < 2:
            channels.exchange_into({1 - rank: array}, {1 - rank: array.copy()})
        return channels.counted(), channels.sent_bytes

    with net(3, transport) as cards:
        found = cards.run(do)
    nbytes = array.nbytes
    runs = [elements * (i + 1) // 3 - elements * i // 3 for i in range(3)]
    for rank, (counted, sent) in enumerate(found):
        large = 4 * (elements - runs[rank] + 2 * runs[rank])
        assert counted == {
            "all_reduce": Counted(2, 2 * (2 * nbytes if elements == 100 else large)),
            "all_gather": Counted(1, 2 * nbytes),
            "broadcast": Counted(1, 2 * nbytes if rank == 0 else 0),
        } | ({"exchange": Counted(1, nbytes)} if rank < 2 else {})
        assert sent == sum(kind.sent_bytes for kind in counted.values())


def test_a_group_has_every_card_once():
    """With the calling card among them; else the others would wait for ever."""
    with net(2) as cards:
        texts = [str(one) for one in cards.run(lambda rank, ch: ch.all_reduce(np.zeros(1), (0, 0, 1)))]
        assert texts[0].startswith("card 0 cannot take part in a collective of group (0, 0, 1)")
        texts = [str(one) for one in cards.run(lambda rank, ch: ch.all_reduce(np.zeros(1), (1 - rank,)))]
        assert texts[1].startswith("card 1 cannot take part in a collective of group (0,)")


def test_cards_of_one_process_that_add_unlike_arrays_are_told():
    """Each of them, and nothing is broadcast."""
    with net(2) as cards:
        found = cards.run(lambda rank, channels: channels.all_reduce(np.zeros(2 - rank), range(2)))
    for one in found:
        assert "card 1 adds float64 of shape (1,) to float64 of shape (2,) of card 0" in str(one)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("size", "sockets_only"),
    [(1_000_000, False), (1000, True), *([(1_000_000, True), (1000, False)] if examples(1) > 1 else [])],
    ids=lambda value: {True: "sockets", False: "shared memory", 1000: "small"}.get(value, "large"),
)
def test_a_card_that_is_killed_stops_the_others(name, size, sockets_only):
    """Its process ends without a word inside the call; the others raise, and name it, and none waits for ever."""
    cards = Processes(3, functools.partial(call, name, size), sockets_only)
    try:
        cards.wait_until_warm()
        cards.kill(1)
        ends = [cards.ends.get() for _ in range(2)]
    finally:
        cards.close()
    assert {rank for rank, *_ in ends} == {0, 2}
    for _, _, kind, text, shares in ends:
        assert kind == "ChannelClosedError"
        assert "card 1" in text
        assert shares is not sockets_only


@everyway
@pytest.mark.parametrize("name", CALLS)
def test_a_card_that_waits_in_a_collective_can_be_cancelled(transport, name):
    """Card 2 never comes; it raises the flag instead, and the others stop."""
    array = np.ones(1_000_000, np.float32)
    with net(3, transport) as cards:
        waiting = threading.Barrier(3)

        def do(rank, channels):
            waiting.wait(30)
            if rank == 2:
                cards.cancelled.set()
                return
            CALLS[name](channels, array)

        found = cards.run(do)
    # What one of them only sends, it may have sent.
    assert "cancelled" in {str(one) for one in found}
    assert all(one is None or isinstance(one, CardError) for one in found)
