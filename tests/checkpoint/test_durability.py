"""A pulled plug, at any moment and at every chosen one: the old state or the whole new one, and a resume.

The runs are real processes, killed by SIGKILL; what they were doing is said by the system calls that
they make, which `faults.py` counts and stops at.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distinfer_lab.checkpoint import Threads, open_checkpoint, verify_folder
from distinfer_lab.checkpoint.staging import Stage
from distinfer_lab.errors import CheckpointError, CheckpointFileError, ReshardError
from distinfer_lab.formats import read_manifest, save_slice
from distinfer_lab.formats.manifest import sealed
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..resharding import plan_and_write
from ..strategies import examples

SHAPE = (64, 256)
TENSORS = [f"layer{i}.weight" for i in range(8)]


def layout(mesh, dims, **options):
    return Layout(Mesh(**mesh), dims, **options)


def whole(name):
    return np.arange(64 * 256, dtype=np.float32).reshape(SHAPE) + 1000 * TENSORS.index(name)


ROWS = layout({"tp": 4}, "tp -")
HALVES = layout({"dp": 2, "tp": 2}, "tp -")
SRC = Strategy(dict.fromkeys(TENSORS, ROWS), dict.fromkeys(TENSORS, SHAPE))
DST = Strategy(dict.fromkeys(TENSORS, HALVES))


@pytest.fixture
def source(tmp_path):
    """Eight tensors of 64 KiB in four slices of rows."""
    for rank in range(4):
        values = {name: np.ascontiguousarray(whole(name)[16 * rank : 16 * rank + 16]) for name in TENSORS}
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values, sync=False)
    return tmp_path


def run(folder, **options):
    with open_checkpoint(folder / "src", SRC) as checkpoint:
        return plan_and_write(checkpoint, DST, folder / "out", **options)


def check_whole(folder):
    """Everything is there, and is what it should be."""
    assert verify_folder(folder / "out").ok
    with open_checkpoint(folder / "out") as checkpoint:
        for name in TENSORS:
            for rank in range(4):
                half = whole(name)[32 * (rank % 2) :][:32]
                np.testing.assert_array_equal(checkpoint.read(rank, name), half)


def run_killed(folder, point, count, overwrite=False):
    """Run in a process of its own, which kills itself at the `count`-th call of `point`."""
    words = [
        sys.executable,
        "-m",
        "tests.checkpoint.faults",
        str(folder),
        point,
        str(count),
        str(int(overwrite)),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


PHASES = {
    "planning": "plan",
    "reading": "read",
    "writing": "write",
    "digest": "digest",
    "manifest": "manifest",
    "rename": "rename",
}


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_the_next_run_completes(source, phase):
    """Before the rename there is nothing to see; after it everything; what was done is not done again."""
    tried = range(1, 21) if examples(1) > 1 else [3]
    for count in tried:
        killed = run_killed(source, PHASES[phase], count)
        if killed:
            assert not (source / "out").exists() or read_manifest(source / "out") is not None
        if (source / "out").exists():
            check_whole(source)
            # Killed after the rename, a run may leave what it needs no more; the next one clears that away.
            with pytest.raises(CheckpointFileError, match="exists; choose another"):
                run(source)
        else:
            finished = journaled(source / ".out.stage")
            if phase == "rename" or (phase == "manifest" and count > 4):
                assert finished == 4 * 8 * 32 * 256 * 4
            result = run(source)
            # What the journals say is there is read, not written: only the rest is read from the source.
            assert result.reused_bytes == finished
            assert result.read_bytes == result.needed_bytes - finished
            check_whole(source)
        assert sorted(p.name for p in source.iterdir() if not p.name.endswith(".lock")) == ["out", "src"]
        shutil.rmtree(source / "out")


def journaled(stage):
    """Bytes of the tensors that the journals of a stage name."""
    lines = [line for path in stage.glob("journals/rank_*/*") for line in path.read_text().split("\n")]
    return sum(32 * 256 * 4 for line in lines if line.endswith("]"))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_overwrite_leaves_the_old_or_the_new(source, count):
    """Killed around the exchange: what stands there is whole, one or the other."""
    with open_checkpoint(source / "src", SRC) as checkpoint:
        plan_and_write(checkpoint, None, source / "out")
    run_killed(source, "rename", count, overwrite=True)
    manifest = read_manifest(source / "out")
    assert manifest is not None
    assert len(manifest.files) in (1, 4)
    assert verify_folder(source / "out").ok
    run(source, overwrite=True)
    check_whole(source)


def test_killed_at_random_moments(source):
    """By another process, whenever it happens to be: the same."""
    random = np.random.default_rng(0)
    for _ in range(examples(3)):
        words = [sys.executable, "-m", "tests.checkpoint.faults", str(source), "slow", "0", "0"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            try:
                process.wait(timeout=random.uniform(0, 0.4))
            except subprocess.TimeoutExpired:
                process.kill()
        if not (source / "out").exists():
            run(source)
        check_whole(source)
        shutil.rmtree(source / "out")


def test_a_damaged_stage_is_not_trusted(source):
    """Bytes of the stage that changed since they were written are written again."""
    assert run_killed(source, "write", 30)
    stage = source / ".out.stage"
    victim = min(stage.glob("files/rank_*/*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 8] ^= 1
    victim.write_bytes(data)
    finished = journaled(stage)
    assert run(source).reused_bytes < finished
    check_whole(source)


def test_another_job_begins_afresh(source):
    """A stage of another destination, or of a source that changed since, is of no use."""
    assert run_killed(source, "write", 30)
    assert run(source, format="safetensors").reused_bytes == 0
    check_whole(source)
    shutil.rmtree(source / "out")
    assert run_killed(source, "write", 30)
    path = source / "src/rank_0/a.ckpt"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert run(source).reused_bytes == 0
    shutil.rmtree(source / "out")
    assert run_killed(source, "write", 30)
    assert run(source, resume=False).reused_bytes == 0


def test_a_full_disk_is_said_and_the_work_kept(source):
    """A limit on the size of files stands in for the disk."""
    words = [sys.executable, "-m", "tests.checkpoint.faults", str(source), "full", "40000", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "File too large; the file was not completed, it takes 256.3 KiB" in done.stderr
    assert not (source / "out").exists()
    run(source)
    check_whole(source)


def test_a_source_that_changes_is_not_used(source, monkeypatch):
    """A file that is written to, or put in another's place, while it is read."""
    for how in ("touched", "replaced", "gone"):
        path = source / "src/rank_2/a.ckpt"
        kept = path.read_bytes()

        def change(_, path=path, kept=kept, how=how):
            if how == "touched":
                os.utime(path, ns=(0, 0))
            elif how == "replaced":
                path.with_suffix(".new").write_bytes(kept)
                path.with_suffix(".new").replace(path)
            else:
                path.unlink(missing_ok=True)

        with pytest.raises(CheckpointFileError, match=r"rank_2/a.ckpt.* while it was read"):
            run(source, progress=change)
        assert not (source / "out").exists()
        path.write_bytes(kept)


def test_a_read_error_names_the_file_and_the_tensor(source, monkeypatch):
    """EIO from the disk."""
    real = os.preadv

    def failing(fd, buffers, offset):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("src/rank_3/a.ckpt"):
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(
        CheckpointFileError, match=r"rank_3/a.ckpt: layer\d.weight at byte \d+: Input/output error"
    ):
        run(source)
    monkeypatch.undo()
    run(source)
    check_whole(source)


def test_two_runs_into_one_folder(source):
    """The second is refused with the first one's name; a dead process holds nothing."""
    with Stage(source / "out", {"job": 1}):
        with pytest.raises(ReshardError, match=rf"out is being written by process {os.getpid()} on "):
            run(source)
    (source / ".out.lock").write_text("process 1 on nowhere\n")
    run(source)
    check_whole(source)


def test_cancelled_it_goes_on_later(source):
    """A cancelled run of one thread stops before its next window, and leaves what it has done."""
    done = []
    with pytest.raises(ReshardError, match="cancelled; the next run of the same work resumes it"):
        run(source, on=Threads(1), progress=done.append, cancelled=lambda: len(done) >= 5)
    assert len(done) == 5
    assert done[-1].by_rank == {0: done[-1].done_bytes}
    assert done[-1].seconds_left >= 0
    result = run(source)
    assert result.resumed
    assert result.reused_bytes == done[-1].done_bytes
    check_whole(source)


def test_threads_do_the_same(source):
    """Two files at a time, the same bytes; an error of one stops the others."""
    result = run(source, on=Threads(2))
    check_whole(source)
    assert [file.rank for file in result.files] == [0, 1, 2, 3]
    shutil.rmtree(source / "out")
    path = source / "src/rank_1/a.ckpt"
    with open_checkpoint(source / "src", SRC) as checkpoint:
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(CheckpointError, match="became shorter"):
            plan_and_write(checkpoint, DST, source / "out", on=Threads(2))


def test_verify_names_what_differs(source):
    """A flipped bit, a cut file, a missing file; and a folder without a manifest."""
    run(source)
    assert "4 files, 1 MiB, all as written" in repr(verify_folder(source / "out", threads=2))
    one, two, three = (source / f"out/rank_{r}/checkpoint_{r}.ckpt" for r in (0, 1, 2))
    data = bytearray(one.read_bytes())
    data[-5] ^= 16
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-100])
    three.unlink()
    found = verify_folder(source / "out")
    assert not found.ok
    assert found.differences == (
        "rank_0/checkpoint_0.ckpt: layer7.weight: its bytes differ from what was written",
        f"rank_1/checkpoint_1.ckpt: {len(data) - 100} bytes, not {len(data)}",
        "rank_1/checkpoint_1.ckpt: layer7.weight: its bytes differ from what was written",
        "rank_2/checkpoint_2.ckpt: No such file or directory",
    )
    with pytest.raises(CheckpointError, match="there is no manifest in it"):
        verify_folder(source / "src")


@pytest.mark.parametrize("name", ["../src/rank_0/a.ckpt", "/etc/passwd", "rank_0/../../x", ""])
def test_a_manifest_cannot_leave_its_folder(source, name):
    """A path that goes up, or begins at the root."""
    run(source)
    path = source / "out/distinfer.json"
    found = json.loads(path.read_text())
    found["files"][0]["path"] = name
    path.write_bytes(sealed(found))
    for use in (verify_folder, open_checkpoint):
        with pytest.raises(CheckpointError, match="which leaves the folder"):
            use(source / "out")


def test_replicas_that_differ_are_found_when_both_are_read(tmp_path):
    """Two holders serve two equal destinations: one flipped bit shows."""
    src = Strategy({"w": layout({"dp": 2}, "- -")}, {"w": (8, 8)})
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    for rank in range(2):
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", {"w": values + rank * (values == 9)}, sync=False)
    with (
        open_checkpoint(tmp_path / "src", src) as checkpoint,
        pytest.raises(CheckpointError, match="w: destination ranks 0 and 1 should get equal shards"),
    ):
        plan_and_write(checkpoint, src, tmp_path / "out")
    with (
        open_checkpoint(tmp_path / "src", src) as checkpoint,
        pytest.raises(CheckpointError, match="should hold equal slices, but they differ"),
    ):
        plan_and_write(checkpoint, None, tmp_path / "out", verify_source=True)
    assert not Path(tmp_path / "out").exists()
