"""The settings: those of the session for all threads, those of a block for its own and for its cards' work."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ContextError
from distinfer_lab.flow import (
    auto_parallel_context,
    get_auto_parallel_context,
    reset_auto_parallel_context,
    set_auto_parallel_context,
)


def devices():
    return get_auto_parallel_context("device_num")


def test_blocks_of_two_threads_do_not_mix():
    """Both are within their blocks at the same time; each sees its own settings, and those outside see neither."""
    both_inside = threading.Barrier(3)

    def look(count):
        with auto_parallel_context(device_num=count):
            both_inside.wait(10)
            seen = devices()
            both_inside.wait(10)
            return seen

    set_auto_parallel_context(device_num=7)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(look, count) for count in (2, 3)]
        both_inside.wait(10)
        outside = devices()
        both_inside.wait(10)
        assert [future.result() for future in found] == [2, 3]
    assert outside == devices() == 7


def test_the_cards_work_is_done_under_the_callers_settings():
    """Begun within a block, it sees the block's settings in the group's thread, even when the block has ended."""
    goes_on = threading.Event()
    with CardGroup(1) as cards:
        with auto_parallel_context(device_num=5):
            late = cards.start(lambda run: goes_on.wait(10) and devices())
            goes_on.set()
            assert cards.start(lambda run: devices()).result() == 5
        assert late.result() == 5
        assert cards.start(lambda run: devices()).result() is None


def test_what_is_set_within_a_block_is_forgotten_after_it():
    """By the setter and by the reset; an error leaves all as it was."""
    set_auto_parallel_context(device_num=7, full_batch=True)
    with auto_parallel_context(device_num=2):
        assert get_auto_parallel_context("full_batch")
        set_auto_parallel_context(device_num=3)
        assert devices() == 3
        with auto_parallel_context():
            reset_auto_parallel_context()
            assert devices() is None
        assert devices() == 3
        with pytest.raises(ContextError):
            set_auto_parallel_context(device_num=0)
        assert devices() == 3
    assert devices() == 7
