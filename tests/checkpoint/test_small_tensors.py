"""Thousands of small tensors: they are read and written many at a time, and every promise of a run holds for each."""

import json
import os
import signal
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import Threads, open_checkpoint, verify_folder
from distinfer_lab.errors import CheckpointError, CheckpointFileError, ReshardError
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy, box_at

from ..resharding import plan_and_write
from ..strategies import examples

COUNT = 24
SHAPES = {"w": (8, 12), "h": (4, 8), "n": (16,), "e": (2, 4, 8), "x": (3, 5, 4), "s": (), "none": (0, 4)}
DTYPES = {"w": "f4", "h": "f2", "n": "i8", "e": "u1", "x": "f8", "s": "f4", "none": "f4"}
ROWS, COLUMNS = Mesh(tp=4), Mesh(dp=2, tp=2)
SRC = {"w": "tp -", "h": "- tp", "n": "tp", "e": "- tp -", "x": "- - tp", "s": "", "none": "- tp"}
DST = {"w": "- tp", "h": "tp dp", "n": "dp", "e": "- - tp", "x": "- - -", "s": "", "none": "- dp"}


def named(texts, mesh):
    """Tensors of all kinds in turn, as in the layers of a model."""
    return Strategy(
        {f"{i}.{kind}": Layout(mesh, text) for i in range(COUNT) for kind, text in texts.items()},
        {f"{i}.{kind}": SHAPES[kind] for i in range(COUNT) for kind in texts},
    )


def whole(name):
    number, _, kind = name.partition(".")
    shape = SHAPES[kind]
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (values + 3 * int(number)).astype(DTYPES[kind])


def held(strategy, rank):
    """What a rank holds of all tensors."""
    out = {}
    for name, layout in strategy.items():
        value = whole(name)
        out[name] = box_at(layout.boxes(value.shape), rank).of(value).copy()
    return out


def save(folder, format="ckpt", **options):
    for rank in range(4):
        path = folder / f"src/rank_{rank}/a.{format}"
        save_slice(path, {**held(named(SRC, ROWS), rank), "note": "text"}, sync=False, **options)


def run(folder, **options):
    with open_checkpoint(folder / "src", named(SRC, ROWS)) as checkpoint:
        return plan_and_write(checkpoint, named(DST, COLUMNS), folder / "out", sync=False, **options)


def check(folder):
    assert verify_folder(folder / "out").ok
    with open_checkpoint(folder / "out") as checkpoint:
        for rank in range(4):
            for name, value in held(named(DST, COLUMNS), rank).items():
                found = checkpoint.read(rank, name)
                assert found.dtype == value.dtype
                np.testing.assert_array_equal(found, value)


@settings(
    max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    formats=st.tuples(*[st.sampled_from(["ckpt", "safetensors"])] * 2),
    buffer=st.sampled_from(["64 KiB", "100 KiB", "32 MiB"]),
    threads=st.integers(1, 6),
    pieces=st.sampled_from([7, 1 << 20]),
)
def test_all_are_what_numpy_says(tmp_path_factory, formats, buffer, threads, pieces):
    """Cut in any dims, scalars and empty ones among them, through any buffer, also where a content is in pieces."""
    folder = tmp_path_factory.mktemp("small")
    save(folder, formats[0], **({"chunk_bytes": pieces} if formats[0] == "ckpt" else {}))
    given = {"chunk_bytes": pieces} if formats[1] == "ckpt" else {}
    result = run(folder, format=formats[1], buffer=buffer, on=Threads(threads), **given)
    assert all(file.buffer_bytes <= result.predicted_peak_bytes for file in result.files)
    check(folder)


def test_neighbours_are_read_and_written_by_one_call(tmp_path, monkeypatch):
    """Of 280 tensors in four slices: some reads for each file, not some for each tensor."""
    save(tmp_path, "safetensors")
    calls = {"preadv": 0, "pwrite": 0}
    for name in calls:
        real = getattr(os, name)

        def counting(*args, name=name, real=real):
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(os, name, counting)
    run(tmp_path, format="safetensors")
    assert all(0 < count < COUNT for count in calls.values()), calls
    check(tmp_path)


def test_converted_values_that_overflow_are_counted_by_tensor(tmp_path):
    """As for large tensors: finite values that became infinite, and no others."""
    values = {f"t{i}": np.full((4, 4), 1.0, np.float32) for i in range(9)}
    values["t3"][:2] = 1e9
    values["t5"][0, 0] = -1e9
    values["t7"][0] = np.inf
    save_slice(tmp_path / "one.ckpt", values, sync=False)
    with open_checkpoint(tmp_path / "one.ckpt") as checkpoint:
        result = plan_and_write(checkpoint, None, tmp_path / "out", dtype="float16")
    assert result.overflowed == {"t3": 8, "t5": 1}
    with open_checkpoint(tmp_path / "out") as written, np.errstate(over="ignore"):
        for name, value in values.items():
            np.testing.assert_array_equal(written.read(0, name), value.astype(np.float16))


def test_an_error_names_the_tensor_among_its_neighbours(tmp_path, monkeypatch):
    """A part of a window that cannot be read, and a file that became shorter."""
    save(tmp_path, "safetensors")
    with open_checkpoint(tmp_path / "src", named(SRC, ROWS)) as checkpoint:
        bad = checkpoint.files[2].entries["17.w"].pieces[0].offset
    real = os.preadv

    def failing(fd, buffers, offset):
        found = os.readlink(f"/proc/self/fd/{fd}").endswith("src/rank_2/a.safetensors")
        if found and offset <= bad < offset + sum(map(len, buffers)):
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", failing)
        with pytest.raises(CheckpointFileError, match=rf"rank_2/a.safetensors: 17.w at byte {bad}: Input"):
            run(tmp_path)
    path = tmp_path / "src/rank_1/a.safetensors"
    with open_checkpoint(tmp_path / "src", named(SRC, ROWS)) as checkpoint:
        last = max(checkpoint.files[1].entries.values(), key=lambda entry: entry.pieces[0].offset)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(CheckpointError, match=rf"rank_1.*became shorter while {last.name} was read"):
            plan_and_write(checkpoint, named(DST, COLUMNS), tmp_path / "other")


def journaled(folder):
    """Bytes of the shards that the journals name."""
    found = 0
    for rank in range(4):
        shards = held(named(DST, COLUMNS), rank)
        for journal in (folder / f".out.stage/journals/rank_{rank}").glob("*.jsonl"):
            found += sum(shards[json.loads(line)[0]].nbytes for line in journal.read_text().splitlines())
    return found


def test_what_a_stopped_run_finished_is_taken_over(tmp_path):
    """Stopped after so many batches: exactly what its journals name is used."""
    save(tmp_path)
    for batches in range(2, 9):
        left = iter(range(batches))
        with pytest.raises(ReshardError, match="cancelled"):
            run(tmp_path, buffer="64 KiB", cancelled=lambda left=left: next(left, None) is None, resume=False)
        finished = journaled(tmp_path)
    result = run(tmp_path)
    assert result.resumed
    assert 0 < result.reused_bytes == finished < result.written_bytes
    check(tmp_path)


@pytest.mark.parametrize("count", [7, 40, 200])
def test_killed_while_it_writes_the_next_run_completes(tmp_path, count):
    """By SIGKILL at a write of the system: every tensor that a journal names is there, and is used."""
    save(tmp_path)
    pid = os.fork()
    if pid == 0:
        left, real = iter(range(count)), os.pwrite

        def killing(*args):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        os.pwrite = killing
        run(tmp_path, buffer="64 KiB", on=Threads(1))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "out").exists()
    finished = journaled(tmp_path)
    assert (finished > 0) == (count > 190)
    assert run(tmp_path).reused_bytes == finished
    check(tmp_path)


def test_thousands_take_little_memory(tmp_path):
    """Some hundred bytes each beside the buffer: of equal tensors, what they have in common is there once."""
    names = [f"layers.{i}.w" for i in range(4_000)]
    for rank in range(2):
        values = dict.fromkeys(names, np.full((2, 4), rank, np.float32))
        save_slice(tmp_path / f"src/rank_{rank}/a.safetensors", values, sync=False)
    mesh = Mesh(tp=2)
    src = Strategy(dict.fromkeys(names, Layout(mesh, "tp -")), dict.fromkeys(names, (4, 4)))
    dst = Strategy(dict.fromkeys(names, Layout(mesh, "- tp")), dict.fromkeys(names, (4, 4)))
    with open_checkpoint(tmp_path / "src", src) as checkpoint:
        plan = checkpoint.plan(dst)
        tracemalloc.start()
        plan.write(tmp_path / "out", buffer="64 KiB", on=Threads(1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4_000 * 2000
    with open_checkpoint(tmp_path / "out") as written:
        for name in names[::97]:
            np.testing.assert_array_equal(written.read(1, name), np.repeat([[0.0], [1.0]], 2, 0) * np.ones(2))


def test_narrow_columns_are_not_read_with_all_between_them(tmp_path):
    """Of a slice of which a rank wants a few columns, far apart, the whole is not read."""
    values = {f"w{i}": np.arange(64 * 4096, dtype=np.float32).reshape(64, 4096) + i for i in range(4)}
    save_slice(tmp_path / "src/rank_0/a.safetensors", values, sync=False)
    source = Strategy({n: Layout(Mesh(a=1), "- -") for n in values}, dict.fromkeys(values, (64, 4096)))
    target = Strategy({n: Layout(Mesh(y=64), "- y") for n in values}, dict.fromkeys(values, (64, 4096)))
    with open_checkpoint(tmp_path / "src", source) as checkpoint:
        result = checkpoint.plan(target).write(tmp_path / "out", buffer="8 MiB")
    assert result.read_bytes < 1.5 * result.needed_bytes
    for rank in range(64):
        with open_slice(result.paths[rank]) as file:
            for name, value in values.items():
                np.testing.assert_array_equal(file.read(name), value[:, 64 * rank : 64 * (rank + 1)])
