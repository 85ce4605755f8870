"""Descriptors are few whatever the number of files, and a file that is opened again is the one that it was."""

import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import handles, open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

KEY = b"0123456789abcdef"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def few(monkeypatch):
    """Four descriptors for all slice files."""
    monkeypatch.setattr(handles, "most_descriptors", lambda: 4)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors by /proc")
@pytest.mark.parametrize("options", [{}, {"enc_key": KEY}], ids=["plain", "encrypted"])
def test_many_files_take_few_descriptors(options, few, tmp_path):
    """200 slices are open and read from eight threads, with ten descriptors; closed, none is left."""
    for k in range(200):
        save_slice(tmp_path / f"{k}.ckpt", {"w": np.full((4, 4), k, np.float32)}, sync=False, **options)
    gc.collect()
    with handles._pool.lock:
        handles._pool.shrink(0)  # of files that earlier tests hold
    before = descriptors()
    key = {"dec_key": options.get("enc_key")}
    with ExitStack() as stack:
        files = [stack.enter_context(open_slice(tmp_path / f"{k}.ckpt", **key)) for k in range(200)]

        def read(k):
            np.testing.assert_array_equal(files[k].read("w"), np.full((4, 4), k, np.float32))
            return descriptors()

        order = [*range(200)] * 4
        random.Random(1).shuffle(order)
        with ThreadPoolExecutor(8) as pool:
            most = max(pool.map(read, order))
        assert most <= before + 4 + 8 + 2
    assert descriptors() == before


def test_what_was_exchanged_is_not_read(few, tmp_path):
    """A file whose descriptor was closed and whose path is now another file's: refused, not read."""
    names = [f"{k}.ckpt" for k in range(8)]
    for name in names:
        save_slice(tmp_path / name, {"w": np.ones(4)}, sync=False)
    with ExitStack() as stack:
        files = [stack.enter_context(open_slice(tmp_path / name)) for name in names]
        save_slice(tmp_path / "0.ckpt", {"w": np.zeros(4)}, sync=False)
        with pytest.raises(CheckpointFileError, match=r"0\.ckpt was changed while it was read"):
            files[0].read("w")
        (tmp_path / "1.ckpt").unlink()
        with pytest.raises(CheckpointFileError, match=r"1\.ckpt: w at byte \d+: No such file"):
            files[1].read("w")
        np.testing.assert_array_equal(files[2].read("w"), np.ones(4))
    with pytest.raises(CheckpointFileError, match="The file was closed"):
        files[2].read("w")


def test_a_checkpoint_of_more_ranks_than_descriptors(few, tmp_path):
    """It is opened, planned and written like any other."""
    for rank in range(64):
        values = {"w": np.full((1, 4), rank, np.float32)}
        save_slice(tmp_path / f"src/rank_{rank}/a.safetensors", values, format="safetensors", sync=False)
    strategy = Strategy({"w": Layout(Mesh(tp=64), "tp -")})
    with open_checkpoint(tmp_path / "src", strategy) as source:
        source.plan().write(tmp_path / "out", sync=False)
    with open_checkpoint(tmp_path / "out") as out:
        np.testing.assert_array_equal(out.read(0, "w")[:, 0], np.arange(64))


def test_a_decryption_that_fails_leaves_nothing(tmp_path):
    """A wrong key in the middle of others: their content stays, and the shared file ends with them."""
    save_slice(tmp_path / "a.ckpt", {"w": np.ones(4)}, enc_key=KEY, sync=False)
    with open_slice(tmp_path / "a.ckpt", dec_key=KEY) as kept:
        for _ in range(3):
            with pytest.raises(CheckpointError, match="the key is wrong"):
                open_slice(tmp_path / "a.ckpt", dec_key=b"x" * 16)
        with open_slice(tmp_path / "a.ckpt", dec_key=KEY) as other:
            np.testing.assert_array_equal(other.read("w"), np.ones(4))
        np.testing.assert_array_equal(kept.read("w"), np.ones(4))
    assert not handles.Spool._shared
