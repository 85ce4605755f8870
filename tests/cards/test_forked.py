"""A child made by fork: it gets an error at once, and its end does not touch what is its parent's."""

import os
import sys
import time
import traceback

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.comm import InProcessEndpoint, Listener
from distinfer_lab.comm.peers import Epoch, Peer
from distinfer_lab.errors import CardError

from .clusters import cluster_of
from .test_group import Numbers, add_all, inputs, wanted


def in_child(work):
    """Do work in a child that ends as an interpreter does; gives its status."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            end_of_child(status)
    deadline = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)


def end_of_child(status):
    """What an interpreter does at its end, without the rest of this test run."""
    import atexit

    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(status)


@pytest.mark.parametrize("kind", ["in process", "processes", "given"])
def test_a_child_made_by_fork_is_refused_and_harms_nobody(kind):
    """Each use is an error at once; the parent's group works on when the child has ended."""
    with cluster_of(2 if kind == "given" else 0) as given:
        options = {"address": given.address} if kind == "given" else {"processes": kind == "processes"}
        with CardGroup(2, **options) as cards:
            placement = cards.place([Numbers(r) for r in range(2)])

            def predict():
                return cards.run(add_all, placement, inputs(2), wanted(2))[0][0]["y"]

            run = cards.start(lambda run: time.sleep(0.2))
            uses = [
                predict,
                run.result,
                run.cancel,
                cards.memory,
                lambda: cards.client,
                lambda: cards.pull(placement, {0: ["w"]}),
                lambda: CardGroup(1),
            ]

            def use():
                for one in uses:
                    began = time.monotonic()
                    with pytest.raises(
                        CardError, match=r"belongs to process \d+, and process \d+ is a child"
                    ):
                        one()
                    assert time.monotonic() < began + 1
                cards.close()

            assert in_child(use) == 0
            run.result(10)
            np.testing.assert_array_equal(predict(), [3, 3, 3])


def test_a_listener_is_refused_in_a_child():
    """It would wait for connections that only its parent accepts."""
    listener = Listener(InProcessEndpoint())
    epoch = Epoch(1, b"n" * 32, (Peer(listener.address, "a"), Peer(listener.address, "b")), 1)

    def use():
        for one in (
            lambda: listener.admit(epoch),
            lambda: listener.accept(1, epoch, lambda: None),
            lambda: listener.connect(1, epoch),
        ):
            with pytest.raises(CardError, match="this listener belongs to process"):
                one()
        listener.close()

    assert in_child(use) == 0
    listener.close()
