"""The journal of an interrupted run: a torn last line is left out, a damaged one starts its file over."""

import os

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import DistinferError
from distinfer_lab.formats import save_slice

TENSORS = {f"w{i}": np.full((96, 96), i, np.float32) for i in range(6)}


@pytest.fixture
def stopped(tmp_path):
    """A folder with the source, and what a run left that was stopped with some tensors finished; its journal."""
    save_slice(tmp_path / "one.ckpt", TENSORS, sync=False)
    for most in range(1, 60):
        left = iter(range(most))
        with (
            open_checkpoint(tmp_path / "one.ckpt") as checkpoint,
            pytest.raises(DistinferError, match="cancelled"),
        ):
            checkpoint.plan().write(tmp_path / "out", cancelled=lambda left=left: next(left, None) is None)
        (journal,) = [*(tmp_path / ".out.stage").rglob("*.jsonl"), None][:1]
        if journal and journal.read_bytes().count(b"\n") >= 3:
            return journal
    raise AssertionError


def resumed(journal):
    root = journal.parents[3]
    with open_checkpoint(root / "one.ckpt") as checkpoint:
        result = checkpoint.plan().write(root / "out")
    with open_checkpoint(root / "out") as written:
        for name, value in TENSORS.items():
            np.testing.assert_array_equal(written.read(0, name), value)
    return result


@pytest.mark.parametrize("torn", [b"", b'["w5", "12', b"[", b"\xff", b'["w5", "x", 1]'])
def test_a_line_that_was_being_written_is_left_out(stopped, torn):
    """What stands before it is used, and nothing is reported: that is how a killed run looks."""
    stopped.write_bytes(stopped.read_bytes() + torn)
    result = resumed(stopped)
    assert result.reused_bytes >= 2 * TENSORS["w0"].nbytes
    assert "journal" not in repr(result)
    assert result.to_json()["started_over"] == []


@pytest.mark.parametrize(
    "line",
    [
        b'["w0", "x", 1e999]',
        b"[" * 100_000,
        b'["w0", "x", -1]',
        b'["w0", "x", true]',
        b'{"w0": 1}',
        b'["w0", "\\ud800", 0]',
        b"\xff\xfe",
        b"0" * 5000,
    ],
)
def test_a_damaged_journal_starts_its_file_over_and_says_so(stopped, line):
    """Nothing of the earlier run is used, the output is whole, and both reports name the file."""
    lines = stopped.read_bytes().splitlines()
    stopped.write_bytes(b"\n".join([lines[0], line, *lines[1:]]) + b"\n")
    result = resumed(stopped)
    assert result.reused_bytes == 0
    assert "the journal of the earlier run was damaged; the file was written from the start" in repr(result)
    assert result.to_json()["started_over"] == [result.files[0].path]


def test_a_journal_that_is_no_file_starts_its_file_over(stopped):
    """A FIFO: nothing waits for its other end."""
    stopped.unlink()
    os.mkfifo(stopped)
    assert resumed(stopped).to_json()["started_over"]
