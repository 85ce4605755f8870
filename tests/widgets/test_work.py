"""Work in the background: one at a time, watched, stopped, and its late words dropped."""

import queue
import sys
import threading

from distinfer_lab.cards import Run
from distinfer_lab.checkpoint import Progress
from distinfer_lab.errors import ReshardError
from distinfer_lab.flow import auto_parallel_context, get_auto_parallel_context
from distinfer_lab.widgets.parts import Work

SECONDS = 20


def waiting(release, result=None):
    """A job that ends when it is released or cancelled."""

    def job(control):
        while not release.wait(0.005):
            if control.cancelled():
                raise ReshardError("the run was cancelled")
        return result

    return job


def test_two_starts_are_one_run():
    """While a job is at work another start says no and does nothing."""
    told, release = [], threading.Event()
    work = Work(told.append)
    assert work.start(waiting(release, "first"))
    assert not work.start(lambda control: "second")
    release.set()
    assert work.wait(SECONDS).result == "first"
    assert [s.state for s in told if s.state != "running"] == ["done"]
    assert work.start(lambda control: "third")
    assert work.wait(SECONDS).result == "third"


def test_many_threads_that_start_at_once_start_one():
    """Of callbacks in several threads one wins."""
    began, release, gate = [], threading.Event(), threading.Barrier(8)
    work = Work(lambda snapshot: None)

    def press():
        gate.wait()
        if work.start(waiting(release)):
            began.append(1)

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    release.set()
    work.wait(SECONDS)
    assert len(began) == 1


def test_it_says_so_at_once_and_while_it_goes_on():
    """It is told to be running before `start` returns; progress follows without the job's waiting for it."""
    told, seen, release = [], threading.Event(), threading.Event()

    def tell(snapshot):
        told.append(snapshot)
        if snapshot.progress is not None and snapshot.at_work:
            seen.set()

    def job(control):
        control.progress(Progress(1, 2, {0: 1}, {0: 2}, 0.1))
        release.wait(SECONDS)

    work = Work(tell)
    work.start(job)
    assert told[0].state == "running"
    assert seen.wait(SECONDS)
    release.set()
    assert work.wait(SECONDS).progress.done_bytes == 1


def test_a_job_that_was_stopped_is_cancelled_and_another_may_start():
    """Its error is kept; an error without being asked is a failure, with whatever class."""
    work = Work(lambda snapshot: None)
    work.start(waiting(threading.Event()))
    work.cancel()
    assert work.snapshot.state in ("cancelling", "cancelled")
    last = work.wait(SECONDS)
    assert (last.state, str(last.error)) == ("cancelled", "the run was cancelled")
    work.start(lambda control: {}["w"])
    last = work.wait(SECONDS)
    assert (last.state, type(last.error)) == ("failed", KeyError)
    work.cancel()
    assert work.snapshot.state == "failed"


def test_a_bug_while_it_stops_is_no_cancel():
    """Only our own errors are a job's way of stopping."""
    work = Work(lambda snapshot: None)

    def job(control):
        control.stop.wait(SECONDS)
        raise RuntimeError("a bug")

    work.start(job)
    work.cancel()
    assert work.wait(SECONDS).state == "failed"


def test_late_words_are_dropped():
    """What is told for a job after the next one began changes nothing."""
    told = []
    work = Work(told.append)
    work.start(lambda control: control)
    first = work.wait(SECONDS)
    work.start(lambda control: "second")
    work.wait(SECONDS)
    count = len(told)
    work._say(first.result, first)
    assert work.snapshot.result == "second"
    assert len(told) == count


def test_whatever_happens_it_ends(monkeypatch):
    """A job that leaves by SystemExit has failed; one whose words cannot be told has ended all the same."""
    uncaught = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", lambda found: uncaught.put(found.exc_type))
    work = Work(lambda snapshot: None)
    work.start(lambda control: sys.exit(3))
    assert work.wait(SECONDS).state == "failed"

    def tell(snapshot):
        if snapshot.state == "done":
            raise ValueError("no")

    work = Work(tell)
    work.start(lambda control: 1)
    assert work.wait(SECONDS).result == 1
    assert uncaught.get(timeout=SECONDS) is ValueError


def test_the_cards_are_stopped_with_the_job():
    """Whether the run had begun when it was asked to stop, or begins afterwards."""
    begun, cards = threading.Event(), []

    def job(control, early):
        run = Run()
        cards.append(run)
        if early:
            control.attach(run)
        begun.set()
        while not control.cancelled():
            pass
        control.attach(run)
        raise ReshardError("the run was cancelled")

    for early in (True, False):
        begun.clear()
        work = Work(lambda snapshot: None)
        work.start(lambda control, early=early: job(control, early))
        assert begun.wait(SECONDS)
        work.cancel()
        assert work.wait(SECONDS).state == "cancelled"
    assert [run.cancelled for run in cards] == [True, True]


def test_a_job_works_under_the_settings_of_whoever_starts_it():
    """What a `with` block of the starting thread has set is in force in the job's, also when the block has ended."""
    goes_on = threading.Event()
    work = Work(lambda snapshot: None)
    with auto_parallel_context(device_num=5):
        work.start(lambda control: goes_on.wait(10) and get_auto_parallel_context("device_num"))
    goes_on.set()
    assert work.wait(10).result == 5
