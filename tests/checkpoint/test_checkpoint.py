"""A checkpoint: files and strategy are cross-checked before a byte of data is read."""

import shutil
import tracemalloc

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint, rank_files
from distinfer_lab.errors import ArgumentTypeError, CheckpointError, CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..oracle import CASES, case

COLUMNS = Strategy({"w": Layout(Mesh(dp=2, tp=2), "- tp")}, {"w": (4, 6)})
WHOLE = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture
def folder(tmp_path):
    """Four ranks: two halves of w, each held twice; its moments; a plain step; a text."""
    for rank in range(4):
        half = np.ascontiguousarray(WHOLE[:, 3 * (rank % 2) : 3 * (rank % 2) + 3])
        values = {"w": half, "moments.w": 2 * half, "step": np.array([7], np.int32), "note": "same"}
        save_slice(tmp_path / f"rank_{rank}" / "a.ckpt", values)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_full_shapes_are_the_truth(name):
    """The shape of every whole tensor follows from slices and strategy, for every case."""
    found = case(name)
    with open_checkpoint(found.folder / "src", found.src_strategy, **found.key) as checkpoint:
        for param, array in found.full.items():
            if param in checkpoint.tensors:
                assert checkpoint.tensors[param].shape == array.shape
                assert checkpoint.tensors[param].dtype == array.dtype


def test_opening_reads_no_data(folder):
    """Only headers; states follow their parameter; what is whole everywhere is plain."""
    with open_checkpoint(folder, COLUMNS) as checkpoint:
        assert [file.nbytes_read for file in checkpoint.files] == [20] * 4  # the text, and the step
        kinds = {name: record.kind for name, record in checkpoint.tensors.items()}
        assert kinds == {"w": "parameter", "moments.w": "state", "step": "plain"}
        assert checkpoint.tensors["moments.w"].layout == COLUMNS["w"]
        assert dict(checkpoint.texts) == {"note": "same"}
        assert repr(checkpoint).startswith("Checkpoint of 4 ranks: 3 tensors, 196 bytes (464 in the slices)")


def test_a_state_is_one_though_the_strategy_names_it(folder):
    """As the strategy files of training do, which cut the moments as their parameter."""
    both = Strategy({"w": COLUMNS["w"], "moments.w": COLUMNS["w"]})
    with open_checkpoint(folder, both) as checkpoint:
        assert {name: record.kind for name, record in checkpoint.tensors.items()} == {
            "w": "parameter",
            "moments.w": "state",
            "step": "plain",
        }


def test_files_out_of_order_are_found(folder):
    """By rank numbers in the paths; by replicas where the paths say nothing; by shapes."""
    paths = rank_files(folder)
    with pytest.raises(
        CheckpointError,
        match=r"rank_1/a\.ckpt stands at place 0, where .*rank_0/a\.ckpt belongs",
    ):
        open_checkpoint([paths[1], paths[0], paths[2], paths[3]], COLUMNS)
    renamed = []
    for i, rank in enumerate((1, 0, 2, 3)):
        renamed.append(folder / f"part-{i}.ckpt")
        shutil.copy(paths[rank], renamed[-1])
    with (
        open_checkpoint(renamed, COLUMNS) as checkpoint,
        pytest.raises(CheckpointError, match=r"w: rank 0 .*part-0.*rank 2 .*part-2.*not in rank order"),
    ):
        checkpoint.check_replicas()


def test_a_missing_rank_is_named(folder):
    """In a folder, in a mapping, and against the strategy."""
    shutil.rmtree(folder / "rank_2")
    with pytest.raises(
        CheckpointFileError, match="there is no file of rank 2, though there is one of rank 3"
    ):
        open_checkpoint(folder, COLUMNS)
    with pytest.raises(
        CheckpointFileError, match="there is no file of rank 1, though there is one of rank 2"
    ):
        open_checkpoint({0: folder / "rank_0/a.ckpt", 2: folder / "rank_1/a.ckpt"}, COLUMNS)
    with pytest.raises(CheckpointError, match="the strategy is for 4 ranks, but 2 files were given"):
        open_checkpoint([folder / "rank_0/a.ckpt", folder / "rank_1/a.ckpt"], COLUMNS)
    with pytest.raises(CheckpointFileError, match="no such file or folder"):
        open_checkpoint(folder / "nowhere", COLUMNS)
    with pytest.raises(ArgumentTypeError, match="files=7 should be a path, a sequence of paths or a mapping"):
        open_checkpoint(7)


def test_a_folder_of_no_checkpoint_says_what_is_there_instead(tmp_path):
    """And what would do: folders of ranks, or a Hugging Face folder."""
    would = r"nor a Hugging Face folder's model\.safetensors or model\.safetensors\.index\.json; there is "
    with pytest.raises(CheckpointFileError, match=f"{would}nothing;"):
        open_checkpoint(tmp_path)
    (tmp_path / "rank_0").mkdir()
    (tmp_path / "rank_1").mkdir()
    (tmp_path / "rank_1/model.dat").touch()
    (tmp_path / "data.bak").touch()
    there = r"data\.bak, rank_0 with nothing in it, rank_1 with model\.dat in it;"
    with pytest.raises(CheckpointFileError, match=f"no rank_0, rank_1 .* in it, {would}{there}"):
        open_checkpoint(tmp_path)


def test_slices_that_disagree_with_the_strategy_are_named(folder):
    """A slice of another shape, one that is missing, one too many."""
    place = folder / "rank_2" / "a.ckpt"
    save_slice(place, {"w": np.zeros((4, 2), np.float32)})
    with pytest.raises(
        CheckpointError, match=r"rank_2/a.ckpt: w has shape \[4, 2\].*gives rank 2 \[4, 3\] of \[4, 6\]"
    ):
        open_checkpoint(folder, COLUMNS)
    save_slice(place, {"v": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"rank_2/a.ckpt \(rank 2\) has no w, though the strategy puts"):
        open_checkpoint(folder, COLUMNS)


def test_entries_that_should_be_equal_and_are_not_are_named(folder):
    """Texts, which may be left out; tensors held whole when replicas are compared; shapes without a strategy."""
    with pytest.raises(CheckpointError, match=r"v has shape \[1\] .* but \[2\] in .*give the strategy"):
        for rank in range(4):
            save_slice(folder / f"rank_{rank}" / "a.ckpt", {"v": np.zeros(1 + rank)})
        open_checkpoint(folder)
    for rank in range(4):
        save_slice(folder / f"rank_{rank}" / "a.ckpt", {"note": f"text {rank}", "w": np.ones(2)})
    with open_checkpoint(folder) as checkpoint:
        said = r"note cannot be read: its text differs between .*'text 0'.*'text 1'.* select=\['!note'\]"
        with pytest.raises(ReshardError, match=said):
            checkpoint.plan()
        assert set(checkpoint.plan(select=["!note"]).targets) == {"w"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"w": np.zeros((4, 3), np.float16)},
            r"w cannot be read: its dtype differs: Float32 in .* but Float16 in",
        ),
        ({"w": "a text"}, r"w cannot be read: it is a tensor in .*rank_0/a.ckpt, but a text in"),
        (
            {"v": np.ones(3, np.float32)},
            r"v cannot be read: the strategy has no layout .* differs: \[2\] .* \[3\] in",
        ),
    ],
)
def test_a_tensor_on_which_ranks_disagree_can_be_left_out(folder, values, said):
    """Its dtype, or, of one that no strategy names, its shape: it is listed, and all else can be taken."""
    plain = {"v": np.ones(2, np.float32), "u": np.ones(2, np.float32)}
    for rank in range(4):
        half = np.ascontiguousarray(WHOLE[:, 3 * (rank % 2) : 3 * (rank % 2) + 3])
        save_slice(folder / f"rank_{rank}/a.ckpt", {"w": half, **plain, **(values if rank == 2 else {})})
    (name,) = values
    with open_checkpoint(folder, COLUMNS) as checkpoint:
        assert f"{name}  cannot be read: " in repr(checkpoint)
        with pytest.raises(ReshardError, match=rf"{said} \S*rank_2/a.ckpt; leave .* by select=\['!{name}'\]"):
            checkpoint.plan()
        assert set(checkpoint.plan(select=[f"!{name}"]).targets) == {"u", "v", "w"} - {name}


def test_many_entries_that_cannot_be_read_are_not_all_written_out(tmp_path):
    """An error stays short however many there are; what is left is still taken."""
    for rank, dtype in enumerate((np.float32, np.float16)):
        values = {f"l{i}": np.zeros(2, dtype) for i in range(30)}
        save_slice(tmp_path / f"rank_{rank}/a.ckpt", {**values, "u": np.zeros(2, np.int8)})
    with open_checkpoint(tmp_path) as checkpoint:
        with pytest.raises(
            ReshardError, match="and 29 more entries .* by select=, with a ! before"
        ) as caught:
            checkpoint.plan()
        assert len(str(caught.value)) < 600
        assert set(checkpoint.plan(select=["!l*"]).targets) == {"u"}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_file_of_many_tensors_takes_little(suffix, tmp_path):
    """30,000 tensors of a byte: some 250 bytes each beside the header, however they are looked at."""
    count = 30_000
    save_slice(tmp_path / f"a.{suffix}", {f"l{i:x}": np.zeros(1, np.int8) for i in range(count)}, sync=False)
    open_checkpoint(tmp_path / f"a.{suffix}").close()
    header = (tmp_path / f"a.{suffix}").stat().st_size
    tracemalloc.start()
    with open_checkpoint(tmp_path / f"a.{suffix}") as opened:
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(opened.tensors) == count
        assert opened.tensors["l7"] == opened.tensors["l8"]._replace(name="l7")
    assert kept < 250 * count
    assert peak < 250 * count + 3 * header


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_ranks_of_the_same_names_have_them_once(suffix, tmp_path):
    """Files of 3,000 tensors on eight ranks: a rank more takes some 40 bytes for each."""
    count, ranks = 3_000, 8
    names = [f"layers.{i}.experts.weight" for i in range(count)]
    for rank in range(ranks):
        save_slice(
            tmp_path / f"rank_{rank}/a.{suffix}", dict.fromkeys(names, np.zeros(1, np.int8)), sync=False
        )
    strategy = Strategy(dict.fromkeys(names, Layout(Mesh(tp=ranks), "tp")))
    open_checkpoint(tmp_path, strategy).close()
    tracemalloc.start()
    with open_checkpoint(tmp_path, strategy) as opened:
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert dict(opened.tensors.items()) == {name: opened.tensors[name] for name in names}
        assert [record.name for record in opened.tensors.values()] == list(opened.tensors)
        whole = opened.plan().strategy
        assert len(whole) == count
        assert len({id(layout) for layout in whole.values()}) == 1
    assert kept < (300 + 40 * ranks) * count


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_names_in_another_order_stay_apart(suffix, tmp_path):
    """Files that begin with the same name, and have as many, each have their own order and kinds."""
    kinds = [[np.float32, np.float32, np.int8], [np.float32, np.int8, np.float32], [np.float32] * 3]
    orders = ["abc", "acb", "abd"]
    for rank, (order, dtypes) in enumerate(zip(orders, kinds, strict=True)):
        values = {
            name: np.full(2, 10 * rank + i, d) for i, (name, d) in enumerate(zip(order, dtypes, strict=True))
        }
        save_slice(tmp_path / f"rank_{rank}/a.{suffix}", values)
    with open_checkpoint(tmp_path) as opened:
        assert [set(file.entries) for file in opened.files] == [set(order) for order in orders]
        for rank, order in enumerate(orders):
            assert [int(opened.read(rank, name)[0]) for name in order] == [10 * rank + i for i in range(3)]
