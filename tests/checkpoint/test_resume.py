"""What is taken over from an interrupted run: all of it under another buffer, nothing of it from another source."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import distinfer_lab as dl
from distinfer_lab.cards import tasks
from distinfer_lab.checkpoint import Threads, executors, open_checkpoint
from distinfer_lab.checkpoint.staging import Stage
from distinfer_lab.errors import CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..strategies import examples

NAMES = [f"layer{i}" for i in range(6)]
SRC = Strategy(dict.fromkeys(NAMES, Layout(Mesh(tp=2), "tp -")))
DST = Strategy(dict.fromkeys(NAMES, Layout(Mesh(tp=2), "- tp")))
TENSOR_BYTES = 64 * 256 * 4


def write_source(folder, version, rank, how="file"):
    """A rank's slices, all of one value, with the time of 1970 whatever they hold."""
    path = folder / f"src/rank_{rank}/a.ckpt"
    values = {name: np.full((64, 256), version, np.float32) for name in NAMES}
    if how == "in place":
        save_slice(folder / "new.ckpt", values, sync=False)
        with path.open("r+b") as file:
            file.write((folder / "new.ckpt").read_bytes())
    else:
        save_slice(path, values, sync=False)
    os.utime(path, (0, 0))


def run(folder, windows=None, **options):
    """A run, stopped after so many windows."""
    left = [windows]

    def cancelled():
        left[0] = None if left[0] is None else left[0] - 1
        return left[0] is not None and left[0] < 0

    with open_checkpoint(folder / "src", SRC) as checkpoint:
        return checkpoint.plan(DST).write(folder / "out", cancelled=cancelled, **options)


def versions(folder):
    with open_checkpoint(folder / "out") as checkpoint:
        return {v for rank in range(2) for n in NAMES for v in np.unique(checkpoint.read(rank, n)).tolist()}


def stop(folder, windows, **options):
    with pytest.raises(ReshardError, match="cancelled"):
        run(folder, windows, **options)


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    windows=st.integers(2, 11),
    ranks=st.sets(st.integers(0, 1), min_size=1),
    how=st.sampled_from(["file", "in place"]),
    threads=st.sampled_from([1, 2]),
)
def test_a_source_that_was_exchanged_is_not_mixed_with_what_was_read(tmp_path, windows, ranks, how, threads):
    """Same names, sizes and times, another content: the output is all of the new one, and the result says why."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    stop(tmp_path, windows)
    for rank in ranks:
        write_source(tmp_path, 2, rank, how)
    result = run(tmp_path, on=Threads(threads))
    assert (result.resumed, result.reused_bytes) == (False, 0)
    assert "discarded: the source is not the one that it read" in repr(result)
    assert result.to_json()["discarded"]
    assert versions(tmp_path) == ({2.0} if len(ranks) == 2 else {1.0, 2.0})
    with open_checkpoint(tmp_path / "out") as checkpoint:
        for name in NAMES:  # source rank r holds rows 64 r on, everywhere of its own version
            halves = checkpoint.read(0, name).reshape(2, -1)
            np.testing.assert_array_equal(
                halves, [[2.0 if r in ranks else 1.0] * halves.shape[1] for r in (0, 1)]
            )
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("how", ["file", "in place"])
def test_a_source_that_is_exchanged_while_it_is_read_ends_the_run(tmp_path, how):
    """Its time was put back, so only what nobody can set tells."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    with pytest.raises(CheckpointFileError, match=r"rank_1/a.ckpt was changed while it was read"):
        run(tmp_path, progress=lambda progress: write_source(tmp_path, 2, 1, how))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("buffers", [("64 KiB", "32 MiB"), ("32 MiB", "64 KiB"), ("100 KiB", "300 KiB")])
def test_a_run_resumes_under_another_buffer(tmp_path, buffers, threads):
    """Whatever was finished is taken over; only the rest is read."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    stop(tmp_path, 7 if buffers[0] == "32 MiB" else 14, buffer=buffers[0])
    journals = (tmp_path / ".out.stage/journals").rglob("*.jsonl")
    finished = sum(len(path.read_text().splitlines()) for path in journals)
    assert finished
    result = run(tmp_path, buffer=buffers[1], on=Threads(threads))
    assert (result.resumed, result.reused_bytes, result.discarded) == (True, finished * TENSOR_BYTES, "")
    assert versions(tmp_path) == {1.0}


def test_another_job_says_why_it_starts_over(tmp_path):
    """Other options, a job file that cannot be read, resume=False."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    job = tmp_path / ".out.stage/job.json"
    for options, damage, why in (
        ({"prefix": "model_"}, None, "of another job, with other prefix"),
        ({"resume": False}, None, "resume=False"),
        ({}, b"{", "its job.json cannot be read"),
        ({}, b"[" * 100_000, "its job.json cannot be read"),
        ({}, b"[]", "its job.json cannot be read"),
    ):
        stop(tmp_path, 6)
        if damage is not None:
            job.write_bytes(damage)
        result = run(tmp_path, **options)
        assert not result.resumed
        assert why in result.discarded
        shutil.rmtree(tmp_path / "out")


def _fail():
    raise ReshardError("not committed")


def test_values_on_cards_are_never_taken_over(tmp_path, monkeypatch):
    """They change as the cards train, and nothing tells: a run from cards starts over."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    with dl.CardGroup(2) as cards:
        with open_checkpoint(tmp_path / "src", SRC) as checkpoint:
            placement, _ = cards.load(checkpoint.plan(SRC))
        held = cards.checkpoint(placement, Strategy(dict(SRC), dict.fromkeys(NAMES, (128, 256))))
        plan = held.plan(DST)
        with monkeypatch.context() as patched:
            patched.setattr(Stage, "commit", lambda stage: _fail())
            with pytest.raises(ReshardError, match="not committed"):
                plan.write(tmp_path / "out", on=cards)
        result = plan.write(tmp_path / "out", on=cards)
        assert (result.resumed, result.reused_bytes) == (False, 0)
        assert result.discarded
    assert versions(tmp_path) == {1.0}


@pytest.mark.parametrize("at", [0, 5000, 500_000, -1])
def test_a_copy_on_another_host_is_compared_by_its_content(tmp_path, at):
    """Equal sizes and times, another content almost everywhere: not the same file."""
    data = np.zeros(1 << 20, np.uint8)
    (tmp_path / "a").write_bytes(data.tobytes())
    data[at:] = 1
    (tmp_path / "b").write_bytes(data.tobytes())
    for name in "ab":
        os.utime(tmp_path / name, (0, 0))
    a, b = (tasks.sees((str(tmp_path / name),))[str(tmp_path / name)] for name in "ab")
    assert a[:2] == b[:2]
    assert a[2] != b[2]


def test_ctrl_c_stops_threads_at_their_next_window(tmp_path, monkeypatch):
    """It reaches the main thread only, which waits for the others: they do not go on to the end."""
    for rank in range(2):
        write_source(tmp_path, 1, rank)
    begun = threading.Event()

    def interrupted(*arguments, **options):
        begun.wait(10)
        raise KeyboardInterrupt

    def slow(progress):
        begun.set()
        time.sleep(0.02)

    with monkeypatch.context() as patched:
        patched.setattr(executors, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, on=Threads(2), progress=slow)
    result = run(tmp_path)
    assert result.resumed
    assert result.reused_bytes <= 4 * TENSOR_BYTES < result.written_bytes
