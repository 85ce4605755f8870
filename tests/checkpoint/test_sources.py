"""Where slices are is one protocol: a source of any kind is planned, read and written like files."""

import pickle
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from distinfer_lab.checkpoint import (
    FileSource,
    UnreadableSlices,
    Unwatched,
    Written,
    open_checkpoint,
    verify_folder,
)
from distinfer_lab.checkpoint.file_writer import write_file
from distinfer_lab.checkpoint.shard_reader import ShardReader
from distinfer_lab.errors import CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

WHOLE = np.arange(48, dtype=np.float32).reshape(8, 6)
ROWS = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, {"w": (8, 6)})
COLUMNS = Strategy({"w": Layout(Mesh(tp=3), "- tp")}, {"w": (8, 6)})


@dataclass(frozen=True)
class Shelf:
    """A source that is neither files nor a card: the rows of one rank, made where they are opened."""

    rank: int
    path: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()
    placement: ClassVar[str] = ""
    by_bytes: ClassVar[None] = None
    nbytes_read: ClassVar[int] = 0

    def open(self):
        return self

    def read_into(self, name, box, out, buffer_bytes):
        assert name == "w"
        out[...] = box.of(WHOLE[4 * self.rank : 4 * self.rank + 4])
        return out.nbytes

    def check_unchanged(self):
        pass

    def close(self):
        pass


class Elsewhere:
    """An executor that opens the sources of each task itself, as workers do."""

    def write_files(self, tasks, sources, control, route):
        sent = pickle.loads(pickle.dumps(tasks))
        return Written(tuple(write_file(task, Unwatched()) for task in sent))


@pytest.fixture
def files(tmp_path):
    for rank in range(2):
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", {"w": WHOLE[4 * rank : 4 * rank + 4]})
    with open_checkpoint(tmp_path / "src", ROWS) as checkpoint:
        yield checkpoint


@pytest.fixture
def shelves(files):
    """The same, of which this process has no files."""
    slices = tuple(UnreadableSlices(f"shelf {rank}", "it is on a shelf") for rank in range(2))
    return replace(files, files=slices, sources=(Shelf(0), Shelf(1)))


@pytest.mark.parametrize("kind", ["files", "shelves"])
def test_any_source_is_read_and_written(kind, request, tmp_path):
    """Planned by the same calls, each share has its columns, and who opens the sources elsewhere writes them."""
    conversion = request.getfixturevalue(kind).plan(COLUMNS)
    for rank in range(3):
        share = pickle.loads(pickle.dumps(conversion.share(rank)))
        np.testing.assert_array_equal(share.read()["w"], WHOLE[:, 2 * rank : 2 * rank + 2])
    conversion.write(tmp_path / "out", on=Elsewhere())
    assert verify_folder(tmp_path / "out").ok
    with open_checkpoint(tmp_path / "out") as again:
        for rank in range(3):
            np.testing.assert_array_equal(again.read(rank, "w"), WHOLE[:, 2 * rank : 2 * rank + 2])


def test_what_no_path_opens_is_not_read_here(files, shelves, tmp_path):
    """It is not lost, but reads, a run of this process and a comparison of files are refused."""
    assert files.sources == tuple(FileSource(path) for path in files.paths)
    assert (shelves.paths, shelves.lost) == ((), {})
    assert shelves.start_equal("w", "w")
    with pytest.raises(CheckpointFileError, match="shelf 1: w cannot be read: it is on a shelf"):
        shelves.read(1, "w")
    conversion = shelves.plan(COLUMNS)
    with pytest.raises(ReshardError, match="pass on=, the group that holds it"):
        conversion.write(tmp_path / "out")
    with pytest.raises(ReshardError, match="verify_source=True compares files"):
        conversion.write(tmp_path / "out", on=Elsewhere(), verify_source=True)


def test_what_is_in_no_file_is_never_resumed(files, shelves, tmp_path):
    """It may have changed since; files of the same size and time have not."""

    class Fails(Elsewhere):
        def write_files(self, tasks, sources, control, route):
            super().write_files(tasks[:1], sources, control, route)
            raise ReshardError("enough")

    for checkpoint, resumed in ((files, True), (shelves, False)):
        conversion, out = checkpoint.plan(COLUMNS), tmp_path / f"out_{resumed}"
        with pytest.raises(ReshardError, match="enough"):
            conversion.write(out, on=Fails())
        assert conversion.write(out, on=Elsewhere()).resumed is resumed


def test_lost_files_do_not_slow_down_the_others(files):
    """A tensor whose pieces are in files is read as bytes, whatever else is missing."""
    share = files.plan(COLUMNS).share(0)
    sources = dict(enumerate(files.files)) | {2: UnreadableSlices("c", "it is gone")}
    reader = ShardReader(share.tensors, sources, 1 << 20, False, lambda: None)
    assert set(reader._tables) == {"w"}
    found = b"".join(part.tobytes() for part in reader.content())
    assert found == np.ascontiguousarray(WHOLE[:, :2]).tobytes()
