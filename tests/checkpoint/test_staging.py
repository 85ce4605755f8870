"""What may be where a stage or a lock should be, and this run did not leave: another user's, or a file to keep."""

import os
import shutil
import signal

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint, staging, verify_folder
from distinfer_lab.errors import CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..resharding import plan_and_write

NAMES = ["a", "b"]
SRC = Strategy(dict.fromkeys(NAMES, Layout(Mesh(tp=2), "tp -")))
NOBODY = 65534


def columns(ranks):
    return Strategy(dict.fromkeys(NAMES, Layout(Mesh(tp=ranks), "- tp")))


def save_source(folder, value):
    for rank in range(2):
        values = {name: np.full((64, 128), value, np.float32) for name in NAMES}
        save_slice(folder / f"src/rank_{rank}/a.ckpt", values, sync=False)


def run(folder, ranks=2, **options):
    with open_checkpoint(folder / "src", SRC) as checkpoint:
        return plan_and_write(checkpoint, columns(ranks), folder / "out", sync=False, **options)


def forked(work):
    """Do work in a forked process; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_run_killed_after_its_exchange_is_not_resumed_in_the_old_output(tmp_path):
    """The stage holds the old output then: nothing of it comes into the new one, nor is its file written to."""
    save_source(tmp_path, 1)
    run(tmp_path, ranks=4)
    shutil.copytree(tmp_path / "out", tmp_path / "backup", copy_function=os.link)
    save_source(tmp_path, 2)

    def overwrite_and_die():
        exchange = staging.exchange

        def exchange_and_die(*folders):
            exchange(*folders)
            os.kill(os.getpid(), signal.SIGKILL)

        staging.exchange = exchange_and_die
        run(tmp_path, overwrite=True)

    assert forked(overwrite_and_die) == -signal.SIGKILL
    assert verify_folder(tmp_path / "out").ok
    result = run(tmp_path, overwrite=True)
    assert (result.resumed, result.discarded) == (False, "")
    for folder, value in (("out", 2), ("backup", 1)):
        assert verify_folder(tmp_path / folder).ok
        with open_checkpoint(tmp_path / folder) as checkpoint:
            assert np.unique(checkpoint.read(0, "a")) == value
    assert not (tmp_path / ".out.stage").exists()


def test_a_run_killed_before_its_exchange_is_resumed(tmp_path, monkeypatch):
    """All that it wrote is used."""
    save_source(tmp_path, 1)
    run(tmp_path)
    save_source(tmp_path, 2)

    def fail(*folders):
        raise OSError(5, "no exchange")

    with monkeypatch.context() as patched:
        patched.setattr(staging, "exchange", fail)
        with pytest.raises(CheckpointFileError, match="no exchange"):
            run(tmp_path, overwrite=True)
    result = run(tmp_path, overwrite=True)
    assert (result.resumed, result.reused_bytes) == (True, 2 * 128 * 128 * 4)
    assert verify_folder(tmp_path / "out").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_stage_of_another_user_is_not_used(tmp_path):
    """It has the same job, a link to a file of ours, and one more file."""
    save_source(tmp_path, 1)
    with pytest.raises(ReshardError, match="cancelled"):
        run(tmp_path, cancelled=iter([False] * 2 + [True] * 99).__next__)
    base = tmp_path / ".out.stage"
    (tmp_path / "secret").touch(mode=0o600)
    (base / "files/link").symlink_to(tmp_path / "secret")
    (base / "files/more.py").write_text("more")
    for path in (base, *base.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    result = run(tmp_path)
    assert (result.resumed, result.discarded) == (False, "it belongs to another user")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out").stat().st_uid == 0
    assert verify_folder(tmp_path / "out").ok


def test_what_no_run_left_there_is_kept(tmp_path):
    """A file in the stage's folder, or in the place of the lock; once it is moved away the run goes through."""
    save_source(tmp_path, 1)
    for path, text in (
        (".out.stage/mine.txt", r"no run left there \(mine.txt\)"),
        (".out.lock", "not a lock"),
    ):
        kept = tmp_path / path
        kept.parent.mkdir(exist_ok=True)
        kept.write_text("mine")
        with pytest.raises(CheckpointFileError, match=text):
            run(tmp_path)
        assert kept.read_text() == "mine"
        kept.unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.stage").rmdir()
    (tmp_path / ".out.stage").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointFileError, match=r"\.out\.stage is in the way"):
        run(tmp_path)
    (tmp_path / ".out.stage").unlink()
    assert not any((tmp_path / "elsewhere").iterdir())
    run(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.parametrize(("overwrite", "text"), [(False, "out exists"), (True, "it is not a folder")])
def test_a_link_to_nothing_is_refused_before_anything_is_written(tmp_path, overwrite, text):
    """The rename at the end would fail."""
    save_source(tmp_path, 1)
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(CheckpointFileError, match=text):
        run(tmp_path, overwrite=overwrite, progress=lambda progress: pytest.fail("it was begun"))
    assert not (tmp_path / ".out.stage").exists()


def test_only_its_owner_can_open_the_lock(tmp_path):
    """Who can read a file can lock it."""
    save_source(tmp_path, 1)
    modes = set()
    run(tmp_path, progress=lambda progress: modes.add((tmp_path / ".out.lock").stat().st_mode & 0o777))
    assert modes == {0o600}
