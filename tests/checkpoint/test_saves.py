"""Which files are one save, by their names: the right bytes whatever the naming, or a refusal that names why."""

import random
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.checkpoint.saves import SaveKey, disorder, parse_name
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

FEW = settings(max_examples=settings().max_examples // 4)
"""Each example writes tens of files."""

FORMS = (
    "rank_{r}/net-{e}_{s}.ckpt",
    "rank_{r}/net_1-{e}_{s}.ckpt",
    "rank_{r}_ckpt/llama_rank_{r}-{e}_{s}.ckpt",
    "rank-{r}/model-epoch{e}-step{s}.safetensors",
    "device_{r}/ckpt_epoch_{e}_step_{s}.safetensors",
    "mp_rank_{r:02d}/net-{e}_{s}.safetensors",
    "tp{r}/net-{e}_{s}.ckpt",
    "model_{r}/net-{e}_{s}.ckpt",
    "net_rank_{r}-{e}_{s}.ckpt",
    "slice.rank{r}.epoch{e}.step{s}.safetensors",
    "net_{r}-{e}_{s}.ckpt",
)
PLAIN_FORMS = (
    "rank_{r}/a.safetensors",
    "model-rank-{r}-part-0.safetensors",
    "slice.rank{r}.safetensors",
    "model_{r}.safetensors",
    "tp{r}/model.safetensors",
    "shard-{r}-of-{n}.safetensors",
    "mp_rank_{r:02d}/m.safetensors",
    "worker{r}/m.safetensors",
    "{r}/m.safetensors",
    "net-{r}_1.ckpt",
    "x{r}.ckpt",
)


def rows(ranks: int) -> Strategy:
    """Rank r has row r of w."""
    return Strategy({"w": Layout(Mesh(x=ranks), "x -")}, {"w": (ranks, 2)})


def row(rank: int, mark: float) -> dict[str, np.ndarray]:
    return {"w": np.array([[rank, mark]], np.float32)}


def write(folder: Path, form: str, values: dict[str, np.ndarray], **fields: int) -> Path:
    path = folder / form.format(**fields)
    save_slice(path, values, sync=False, format=path.suffix[1:])
    return path


def read(source, ranks: int, **options) -> np.ndarray:
    """What a user has of w: row by row, with the rank and the mark in it."""
    with open_checkpoint(source, rows(ranks), **options) as checkpoint:
        return np.concatenate([checkpoint.read(rank, "w") for rank in range(ranks)])


saves = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 300)), min_size=1, max_size=4, unique=True)


@FEW
@given(st.sampled_from(FORMS), st.integers(2, 12), saves, st.data())
def test_several_saves_with_gaps(tmp_path_factory, form, ranks, steps, data):
    """The newest save that all ranks have, and a note of the choice; each by its step; or ranks are named."""
    folder = tmp_path_factory.mktemp("saves")
    lacking = data.draw(st.sets(st.tuples(st.sampled_from(range(ranks)), st.sampled_from(steps)), max_size=3))
    for rank, (epoch, step) in product(range(ranks), steps):
        if (rank, (epoch, step)) not in lacking:
            write(folder, form, row(rank, 1000 * epoch + step), r=rank, e=epoch, s=step)
    there = [save for save in steps if any((rank, save) not in lacking for rank in range(ranks))]
    complete = [save for save in there if not any((rank, save) in lacking for rank in range(ranks))]
    if not complete:
        with pytest.raises((CheckpointError, CheckpointFileError), match=r"rank|step|carry"):
            read(folder, ranks)
        return
    epoch, step = max(complete)
    np.testing.assert_array_equal(read(folder, ranks), [[r, 1000 * epoch + step] for r in range(ranks)])
    with open_checkpoint(folder, rows(ranks)) as checkpoint:
        said = [note for note in checkpoint.notes if "is used" in note or "not used" in note]
    assert bool(said) == (len(there) > 1)
    for epoch, step in complete:
        chosen = read(folder, ranks, step=f"{epoch}_{step}")
        np.testing.assert_array_equal(chosen, [[r, 1000 * epoch + step] for r in range(ranks)])
    shutil.rmtree(folder)


@FEW
@given(st.sampled_from(PLAIN_FORMS), st.integers(2, 13), st.randoms(use_true_random=False))
def test_numbers_count_ranks_whatever_the_naming(tmp_path_factory, form, ranks, chance):
    """A folder is joined by number; a list in another order is refused; a mapping decides."""
    folder = tmp_path_factory.mktemp("order")
    first = chance.randrange(2) if "-of-" in form else 0
    files = [str(write(folder, form, row(r, 7), r=r + first, n=ranks)) for r in range(ranks)]
    truth = [[r, 7] for r in range(ranks)]
    np.testing.assert_array_equal(read(folder, ranks), truth)
    np.testing.assert_array_equal(read(files, ranks), truth)
    shuffled = list(files)
    random.Random(chance.random()).shuffle(shuffled)
    np.testing.assert_array_equal(read(dict(enumerate(files)), ranks), truth)
    if shuffled != files:
        with pytest.raises(
            CheckpointError, match="stands at place .* belongs by its number; give the files in"
        ):
            read(shuffled, ranks)
        mixed = read(dict(enumerate(shuffled)), ranks)
        np.testing.assert_array_equal(mixed[:, 0], [files.index(path) for path in shuffled])
    shutil.rmtree(folder)


def test_names_say_what_they_are():
    """MindSpore's forms, with the rank in the prefix and re-runs; safetensors' parts; folders of steps."""
    for path, key, rank, part, parts in (
        ("net-10_100.ckpt", (0, 10, 100), None, None, None),
        ("net_2-10_100.ckpt", (2, 10, 100), None, None, None),
        ("llama_7b_rank_3_1-9_2.ckpt", (1, 9, 2), 3, None, None),
        ("net-3_7_breakpoint.ckpt", (0, 3, 7), None, None, None),
        ("model-00002-of-00010.safetensors", (0, -1, -1), None, 2, 10),
        ("global_step200/mp_rank_03.ckpt", (0, -1, 200), 3, None, None),
        ("out/checkpoint-500/model.safetensors", (0, -1, 500), None, None, None),
        ("llama2-7b.safetensors", (0, -1, -1), None, None, None),
        ("sharp1.safetensors", (0, -1, -1), None, None, None),
    ):
        found = parse_name(path)
        assert (found.key, found.rank, found.part, found.parts) == (SaveKey(*key), rank, part, parts), path


def test_names_that_merely_have_digits_are_taken_in_any_order():
    """Dates, sizes and hashes count nothing; neither do names of different forms."""
    for paths in (["a-20240102.ckpt", "a-20230101.ckpt"], ["b7.ckpt", "b3.ckpt"], ["x_1.ckpt", "y_0.ckpt"]):
        assert disorder(paths) == ""
    assert disorder([f"tp{t}/pp{p}" for p in range(2) for t in range(12)]) == ""
    assert disorder([f"tp{t}/pp{p}" for t in range(12) for p in range(2)]) == ""
    assert "tp10/pp0 stands at place 4" in disorder(
        sorted(f"tp{t}/pp{p}" for t in range(12) for p in range(2))
    )


@pytest.fixture
def folder(tmp_path):
    """Two ranks, each with two parts."""
    for rank in range(2):
        for part, name in enumerate("vw"):
            path = tmp_path / f"rank_{rank}/part-{part}.safetensors"
            save_slice(path, {name: np.full((1, 2), rank, np.float32)}, sync=False, format="safetensors")
    return tmp_path


BOTH = Strategy({name: Layout(Mesh(x=2), "x -") for name in "vw"}, dict.fromkeys("vw", (2, 2)))


def test_parts_of_a_rank_are_joined(folder):
    """And a part that is missing is named; so are files that hold the same tensor, which are different saves."""
    with open_checkpoint(folder, BOTH) as checkpoint:
        assert set(checkpoint.tensors) == {"v", "w"}
        result = checkpoint.plan().write(folder / "out", format="safetensors")
    with open_checkpoint(result.folder) as whole:
        for name in "vw":
            np.testing.assert_array_equal(whole.read(0, name), [[0, 0], [1, 1]])
    shutil.copy(folder / "rank_1/part-1.safetensors", folder / "rank_1/part-3.safetensors")
    with pytest.raises(CheckpointFileError, match=r"part 2 of the file is missing \(rank 1 has .*part-3"):
        open_checkpoint(folder, BOTH)
    (folder / "rank_1/part-3.safetensors").rename(folder / "rank_1/part-2.safetensors")
    with pytest.raises(
        CheckpointError, match=r"w is also in .* not parts of one save; choose one by file='part-2"
    ):
        open_checkpoint(folder, BOTH)
    with open_checkpoint(folder, BOTH, file="part-[01]*") as checkpoint:
        assert checkpoint.notes == ()


def test_two_folders_of_one_rank_are_refused(folder):
    """The way out chooses."""
    shutil.copytree(folder / "rank_1", folder / "rank_1_ckpt")
    with pytest.raises(
        CheckpointError, match=r"rank_1 and rank_1_ckpt are both rank 1's; .* by file='rank_1/\*'"
    ):
        open_checkpoint(folder, BOTH)
    open_checkpoint(folder, BOTH, file=["rank_0/*", "rank_1/*"]).close()


def test_counters_within_the_files_tell_saves_apart(tmp_path):
    """A number or a text by a known name; equal ones are one save."""
    for counter in (np.array([7], np.int32), "7"):
        for rank in range(2):
            save_slice(tmp_path / f"rank_{rank}/a.ckpt", row(rank, 1) | {"global_step": counter}, sync=False)
        read(tmp_path, 2)
        other = "8" if isinstance(counter, str) else counter + 1
        save_slice(tmp_path / "rank_1/a.ckpt", row(1, 1) | {"global_step": other}, sync=False)
        with pytest.raises(CheckpointError, match=r"^global_step.*rank_0/a.*rank_1/a.*choose files of one s"):
            read(tmp_path, 2)


def test_files_without_a_step_next_to_saves_are_refused(tmp_path):
    """Which is the newer nobody can say; the pattern and the step of the text both choose."""
    for rank in range(2):
        write(tmp_path, "rank_{r}/net.ckpt", row(rank, 0), r=rank)
        write(tmp_path, "rank_{r}/net-3_5.ckpt", row(rank, 5), r=rank)
    with pytest.raises(CheckpointError, match=r"name carries no step.*file='net\.ckpt', or .* step='3_5'"):
        read(tmp_path, 2)
    assert read(tmp_path, 2, file="net.ckpt")[0, 1] == 0
    assert read(tmp_path, 2, step="3_5")[0, 1] == read(tmp_path, 2, step=5)[0, 1] == 5


def test_folders_of_steps(tmp_path):
    """The newest that is complete, with a note; or the one that is asked for."""
    for step, rank in ((9, 0), (9, 1), (10, 0), (10, 1), (11, 1)):
        write(tmp_path, "global_step{s}/rank_{r}/a.ckpt", row(rank, step), s=step, r=rank)
    assert read(tmp_path, 2)[:, 1].tolist() == [10, 10]
    assert read(tmp_path, 2, step=9)[:, 1].tolist() == [9, 9]
    with open_checkpoint(tmp_path, rows(2)) as checkpoint:
        assert "global_step10 is used; global_step11 is not complete; there is also" in checkpoint.notes[0]


def test_a_missing_rank_of_a_chosen_step_is_rebuilt(tmp_path):
    """Where others hold the same; without it the step is refused."""
    twice = Strategy({"w": Layout(Mesh(dp=2, x=2), "x -")}, {"w": (2, 2)})
    for rank, epoch in product(range(4), (1, 2)):
        if (rank, epoch) != (2, 2):
            write(tmp_path, "rank_{r}/net-{e}_5.ckpt", row(rank % 2, epoch), r=rank, e=epoch)
    with pytest.raises(CheckpointFileError, match=r"rank 2 has no file of step 2_5; .* step='1_5' is of all"):
        open_checkpoint(tmp_path, twice, step="2_5")
    with open_checkpoint(tmp_path, twice, step="2_5", rebuild=True) as checkpoint:
        checkpoint.plan().write(tmp_path / "out", format="huggingface")
    with open_checkpoint(tmp_path / "out") as whole:
        np.testing.assert_array_equal(whole.read(0, "w"), [[0, 2], [1, 2]])


def test_one_file_of_several_is_said(tmp_path):
    """A part of a set, and a rank's file, where each is opened as a whole checkpoint."""
    part = write(tmp_path, "model-00001-of-00003.safetensors", row(0, 0))
    with open_checkpoint(part) as checkpoint:
        assert "is part 1 of 3, and the others are not opened" in checkpoint.notes[0]
    for rank in range(2):
        file = write(tmp_path, "run/rank_{r}/a.ckpt", row(rank, 0), r=rank)
    with open_checkpoint(file) as checkpoint:
        assert "is the folder of one rank, and other ranks' lie in" in checkpoint.notes[0]
    with open_checkpoint(file.parent) as checkpoint:
        assert f"{file.parent} is the folder of one rank" in checkpoint.notes[0]
    with pytest.raises(
        CheckpointError, match="step='7' is not there; no file's name carries a step; leave step="
    ):
        open_checkpoint(file.parent.parent, step=7)


def test_files_that_nothing_joins_are_refused(tmp_path):
    """Side by side without a number; one of them is a checkpoint."""
    for name in ("clip", "vae"):
        write(tmp_path, name + ".safetensors", row(0, 0))
    with pytest.raises(
        CheckpointFileError, match=r"nothing says that they are parts .* file='clip\.safetensors'"
    ):
        open_checkpoint(tmp_path)
    open_checkpoint(tmp_path, file="clip.safetensors").close()


def test_ranks_whose_files_are_called_differently_are_said(tmp_path):
    """A number that is not the rank's own may be a step that no word tells."""
    for rank in range(4):
        write(tmp_path, f"rank_{rank}/{1 if rank == 2 else 2}.safetensors", row(rank, 0))
        write(tmp_path, f"alike/rank_{rank}/w{rank}.safetensors", row(rank, 0))
    with open_checkpoint(tmp_path, rows(4)) as checkpoint:
        assert ["rank_2/1.safetensors" in note for note in checkpoint.notes] == [True]
    with open_checkpoint(tmp_path, rows(4), file="2.safetensors", rebuild=True) as checkpoint:
        assert list(checkpoint.lost) == [2]
    with open_checkpoint(tmp_path / "alike", rows(4)) as checkpoint:
        assert checkpoint.notes == ()


def test_a_gap_names_the_folder_in_which_a_file_is_missing(tmp_path):
    """As the other folders are called, leading zeros included."""
    for rank in (0, 1, 3):
        write(tmp_path, f"mp_rank_{rank:02d}/m.ckpt", row(rank, 0))
    with pytest.raises(CheckpointFileError, match="no file of rank 2, .*put it into .*mp_rank_02"):
        open_checkpoint(tmp_path, rows(4))


def test_one_file_for_ranks_of_different_parts_is_refused(tmp_path):
    """By its path or by links; ranks that hold the same may share one."""
    first = write(tmp_path, "a.ckpt", row(0, 0))
    (tmp_path / "b.ckpt").symlink_to(first)
    (tmp_path / "c.ckpt").hardlink_to(first)
    for other in ("a.ckpt", "b.ckpt", "c.ckpt"):
        with pytest.raises(CheckpointError, match=rf"a.ckpt and .*{other} are one file, .*ranks 0 and 1"):
            open_checkpoint({0: first, 1: tmp_path / other}, rows(2))
    replicas = Strategy({"w": Layout(Mesh(x=2), "- -")}, {"w": (1, 2)})
    with open_checkpoint({0: first, 1: tmp_path / "b.ckpt"}, replicas) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read(1, "w"), row(0, 0)["w"])


def test_a_counter_that_some_ranks_have_none_of(tmp_path):
    """Its one element lies on one rank: there is nothing to compare."""
    layout = Layout(Mesh(tp=2), "tp(1,0)")
    for rank in range(2):
        save_slice(tmp_path / f"rank_{rank}/a.ckpt", {"global_step": np.ones(1 - rank, np.int32)}, sync=False)
    with open_checkpoint(tmp_path, Strategy({"global_step": layout}, {"global_step": (1,)})) as checkpoint:
        assert checkpoint.tensors["global_step"].shape == (1,)
