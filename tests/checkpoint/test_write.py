"""Files to files: a bounded buffer, nothing half written, no byte read that is not needed."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.checkpoint import (
    Threads,
    executors,
    open_checkpoint,
    transform_checkpoints,
    verify_folder,
)
from distinfer_lab.errors import CheckpointError, CheckpointFileError, ReshardError
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.formats.manifest import sealed
from distinfer_lab.layout import Layout, Mesh, Strategy, windows
from distinfer_lab.rules import Rule, Rules

from ..resharding import plan_and_write

MIB = 1 << 20


def rows(n):
    return Layout(Mesh(tp=n), "tp -")


@pytest.fixture
def big(tmp_path):
    """64 MiB of float32 in four slices of rows, with a state, a step and a text."""
    whole = np.arange(4096 * 4096, dtype=np.float32).reshape(4096, 4096)
    for rank in range(4):
        part = whole[1024 * rank : 1024 * (rank + 1)]
        values = {"w": part, "moments.w": part[:, :8].copy(), "step": np.array(3), "note": "text"}
        del values["moments.w"]
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values, sync=False)
    return tmp_path


@pytest.mark.parametrize("to", ["rows", "columns", "one"])
def test_memory_stays_within_the_buffer(big, to):
    """64 MiB through a buffer of 1 MiB; the peak is the buffer, a window, and small change."""
    dst = {
        "rows": Strategy({"w": rows(2)}),
        "columns": Strategy({"w": Layout(Mesh(tp=2), "- tp")}),
        "one": None,
    }[to]
    with open_checkpoint(big / "src", Strategy({"w": rows(4)}, {"w": (4096, 4096)})) as checkpoint:
        tracemalloc.start()
        result = plan_and_write(checkpoint, dst, big / "out", buffer=MIB, sync=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert MIB // 4 < result.buffer_bytes <= MIB
    assert peak < 8 * MIB
    if to != "columns":
        assert result.read_bytes == result.needed_bytes
    with open_slice(result.paths[-1]) as written:
        shape = written.entries["w"].shape
        first = np.ravel_multi_index((4096 - shape[0], 4096 - shape[1]), (4096, 4096))
        assert written.read("w")[0, 0] == np.float32(first)
        assert written.text("note") == "text"
        assert written.read("step") == 3


@given(st.lists(st.integers(1, 7), max_size=4).map(tuple), st.integers(1, 8), st.integers(1, 200))
def test_windows_tile_in_order_within_the_limit(shape, itemsize, limit):
    """Each contiguous, all in row-major order, none above the limit (but one element)."""
    at = 0
    for box in windows(shape, itemsize, limit):
        assert box.size * itemsize <= max(limit, itemsize)
        numbers = np.arange(int(np.prod(shape))).reshape(shape)[box.slices()].reshape(-1)
        np.testing.assert_array_equal(numbers, np.arange(at, at + box.size))
        at += box.size
    assert at == np.prod(shape)


@pytest.fixture
def small(tmp_path):
    """Two slices of rows of w, its moments cut alike, and a step."""
    whole = np.arange(32, dtype=np.float32).reshape(8, 4)
    for rank in range(2):
        part = np.ascontiguousarray(whole[4 * rank : 4 * rank + 4])
        values = {"w": part, "moments.w": -part, "step": np.array([3], np.int32)}
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", values)
    return tmp_path


SRC = Strategy({"w": rows(2)}, {"w": (8, 4)})
DST = Strategy({"w": Layout(Mesh(tp=4), "- tp")})


def test_states_follow_their_parameter_or_are_replicated(small):
    """By default moments.w lies as w; states="replicate" gives all of it to every rank."""
    transform_checkpoints(small / "src", small / "follow", "c", SRC, DST)
    transform_checkpoints(small / "src", small / "whole", "c", SRC, DST, states="replicate")
    with open_slice(small / "follow/rank_2/c2.ckpt") as found:
        np.testing.assert_array_equal(found.read("moments.w"), -found.read("w"))
        assert found.read("step") == 3
    with open_slice(small / "whole/rank_2/c2.ckpt") as found:
        np.testing.assert_array_equal(found.read("moments.w"), -np.arange(32).reshape(8, 4))
    with pytest.raises(ReshardError, match="states='lost' is not one of follow, replicate, mindspore"):
        transform_checkpoints(small / "src", small / "x", "c", SRC, DST, states="lost")


def test_a_failure_leaves_nothing_to_see(small):
    """A destination that lacks a parameter; a source damaged half way: no folder, at most a hidden stage."""
    before = sorted(p.name for p in small.iterdir())
    with pytest.raises(ReshardError, match="w: the destination strategy has no layout for it; it names v"):
        transform_checkpoints(small / "src", small / "out", "c", SRC, Strategy({"v": rows(2)}))
    assert sorted(p.name for p in small.iterdir()) == before
    with open_checkpoint(small / "src", SRC) as checkpoint:
        path = small / "src/rank_1/a.ckpt"
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(CheckpointError, match="the file became shorter while w was read"):
            plan_and_write(checkpoint, DST, small / "out")
    assert sorted(p.name for p in small.iterdir()) == sorted([*before, ".out.stage"])


def test_bad_targets_are_named(small):
    """A folder that is there, and one that cannot be made."""
    (small / "out").mkdir()
    with pytest.raises(
        CheckpointFileError, match="out exists; choose another folder, or pass overwrite=True"
    ):
        transform_checkpoints(small / "src", small / "out", "c", SRC, DST)
    with pytest.raises(CheckpointFileError, match="choose a folder that can be written"):
        transform_checkpoints(small / "src", "/proc/no/out", "c", SRC, DST)
    for prefix in ("../x", "a/b", "/x"):
        with pytest.raises(ReshardError, match="is the start of a file name; it may not name a folder"):
            transform_checkpoints(small / "src", small / "new", prefix, SRC, DST)
    with pytest.raises(ReshardError, match="buffer=0: at least 1 byte is needed"):
        transform_checkpoints(small / "src", small / "new", "c", SRC, DST, buffer=0)


def test_digests_are_those_of_the_shards(small):
    """Equal shards have equal digests, whatever the window; different ones have not."""
    with open_checkpoint(small / "src", SRC) as checkpoint:
        one = plan_and_write(checkpoint, Strategy({"w": rows(1)}), small / "a", buffer=16)
        two = plan_and_write(checkpoint, None, small / "b")
    assert one.digests == two.digests
    assert one.digests[0]["w"] != one.digests[0]["moments.w"]


def test_a_share_reads_its_bytes_and_no_others(small):
    """What a card takes into memory, from a description that holds paths and no data."""
    with open_checkpoint(small / "src", SRC) as checkpoint:
        shares = [checkpoint.plan(Strategy({"w": rows(4)}), select=["w"]).share(rank) for rank in range(4)]
    whole = np.arange(32, dtype=np.float32).reshape(8, 4)
    for rank, share in enumerate(shares):
        assert share.nbytes == 32
        assert list(share.sources) == [rank // 2]
        np.testing.assert_array_equal(share.read()["w"], whole[2 * rank : 2 * rank + 2])


def test_overwriting_throws_nothing_of_others_away(small):
    """The source, what lies above it, and a folder of somebody's files stay; an earlier output is replaced."""
    notes = small / "notes/mine.txt"
    notes.parent.mkdir()
    notes.write_text("precious")
    with open_checkpoint(small / "src", SRC) as checkpoint:
        for folder in (small / "src", small):
            with pytest.raises(
                CheckpointFileError, match="is read from, and lies in .*; write to another folder"
            ):
                plan_and_write(checkpoint, DST, folder, overwrite=True)
        with pytest.raises(CheckpointFileError, match=r"notes: it is not an earlier output \(it has no"):
            plan_and_write(checkpoint, DST, notes.parent, overwrite=True)
        assert notes.read_text() == "precious"
        (small / "out").mkdir()
        for _ in range(2):  # an empty folder, then an output
            assert plan_and_write(checkpoint, DST, small / "out", overwrite=True).verify().ok
    with open_checkpoint(small / "src", SRC) as checkpoint:
        assert checkpoint.ranks == SRC.ranks


def test_slices_are_not_taken_for_copies(small):
    """Without the strategy every file is taken to hold everything: then they must be equal, or nothing is written."""
    with open_checkpoint(small / "src") as checkpoint:
        with pytest.raises(CheckpointError, match="w: rank 0 .* differ.* give the strategy that they"):
            plan_and_write(checkpoint, None, small / "out", digests=False)
    assert not (small / "out").exists()
    for rank in range(2):
        save_slice(small / f"copies/rank_{rank}/a.ckpt", {"w": np.arange(8, dtype=np.float32)}, sync=False)
    with open_checkpoint(small / "copies") as checkpoint:
        assert plan_and_write(checkpoint, None, small / "out").verify().ok


def test_copies_are_compared_once(small):
    """What is compared because no strategy was given is not compared again by verify_source, which says the same."""
    for rank in range(2):
        save_slice(small / f"copies/rank_{rank}/a.ckpt", {"w": np.arange(8, dtype=np.float32)}, sync=False)
    for verify in (False, True):
        with open_checkpoint(small / "copies") as checkpoint:
            checkpoint.plan().write(small / f"out_{verify}", verify_source=verify)
            assert sum(file.nbytes_read for file in checkpoint.files) == 2 * 32 + 32
    with open_checkpoint(small / "src") as checkpoint:
        with pytest.raises(
            CheckpointError, match="no strategy names any tensor .* give the strategy that they"
        ):
            checkpoint.plan().write(small / "again", verify_source=True)
    assert not (small / "again").exists()


def test_a_source_is_compared_with_its_manifest(small):
    """One byte of an earlier output was flipped: verify_source names the file and the tensor, and writes nothing."""
    with open_checkpoint(small / "src", SRC) as checkpoint:
        plan_and_write(checkpoint, DST, small / "once")
    with open_checkpoint(small / "once") as checkpoint:
        assert plan_and_write(checkpoint, None, small / "back", verify_source=True).verify().ok
    file = next((small / "once/rank_1").iterdir())
    with open_slice(file) as opened:
        offset = opened.entry("w").pieces[0].offset
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    with open_checkpoint(small / "once") as checkpoint:
        with pytest.raises(CheckpointError, match=r"rank_1/.*: w: its bytes differ from what was written"):
            plan_and_write(checkpoint, None, small / "again", verify_source=True)
    assert not (small / "again").exists()


def test_an_encrypted_source_is_compared_with_its_manifest(small):
    """The digest of the encrypted bytes needs no key."""
    key = b"k" * 16
    with open_checkpoint(small / "src", SRC) as checkpoint:
        plan_and_write(checkpoint, DST, small / "once", enc_key=key)
    with open_checkpoint(small / "once", dec_key=key) as checkpoint:
        assert plan_and_write(checkpoint, None, small / "back", verify_source=True).verify().ok
    assert verify_folder(small / "once").ok
    file = next((small / "once/rank_1").iterdir())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    path = file.relative_to(small / "once")
    assert verify_folder(small / "once").differences == (f"{path}: its bytes differ from what was written",)


def test_plain_entries_stay_plain(small):
    """Of an output that is opened by its manifest: a strategy that does not name them still takes them along."""
    with open_checkpoint(small / "src", SRC) as checkpoint:
        kinds = {name: record.kind for name, record in checkpoint.tensors.items()}
        checkpoint.plan(DST, rename={"step": "count"}).write(small / "once")
        checkpoint.plan().write(small / "whole")
        every = Rules(Mesh.parse("tp=4"), (Rule("w", "tp -"), Rule("*", None)))
        checkpoint.plan(every).write(small / "ruled")
        named = Strategy({"w": rows(1), "step": Layout.replicated(1, 1)})
        checkpoint.plan(named).write(small / "named")
    assert kinds["step"] == "plain"
    for folder, name in (("once", "count"), ("whole", "step"), ("ruled", "step"), ("named", "step")):
        with open_checkpoint(small / folder) as again:
            assert {n for n, record in again.tensors.items() if record.kind == "plain"} == {name}
            again.plan(SRC).write(small / f"{folder}_again")
        with open_checkpoint(small / f"{folder}_again") as last, open_checkpoint(small / "src", SRC) as first:
            assert last.tensors[name].kind == "plain"
            for rank in range(first.ranks):
                np.testing.assert_array_equal(last.read(rank, "w"), first.read(rank, "w"))
                np.testing.assert_array_equal(last.read(rank, name), first.read(rank, "step"))
    with open_checkpoint(
        small / "whole/rank_0/checkpoint_0.ckpt"
    ) as checkpoint:  # nothing says what is plain
        checkpoint.plan(every).write(small / "unsaid")
    with open_checkpoint(small / "unsaid") as again:
        assert again.tensors["step"].kind == "parameter"
    found = json.loads((small / "once/distinfer.json").read_text())
    found["plain"] = []
    (small / "once/distinfer.json").write_bytes(sealed(found))
    with open_checkpoint(small / "once") as again:
        with pytest.raises(ReshardError, match=r"count: .* or leave the tensor out by select=\['!count'\]"):
            again.plan(SRC)
        assert "w" in again.plan(SRC, select=["!count"]).plan


@pytest.mark.parametrize(("cores", "number", "count"), [(3, None, 3), (64, None, 8), (64, 12, 12)])
def test_files_are_written_by_so_many_threads(small, monkeypatch, cores, number, count):
    """As many as cores, at most 8, where no number is given."""
    pools = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    real = executors.ThreadPoolExecutor
    monkeypatch.setattr(executors, "ThreadPoolExecutor", lambda n: (pools.append(n), real(n))[1])
    with open_checkpoint(small / "src", SRC) as checkpoint:
        checkpoint.plan(DST).write(small / "out", on=Threads(number))
    assert pools == [count]
