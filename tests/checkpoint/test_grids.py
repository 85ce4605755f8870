"""Folders as people have them: places in a grid, steps within ranks, ranks counted from 1."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

FEW = settings(max_examples=settings().max_examples // 4)
FORMS = (
    "{x}{p}_tp{t}/a.ckpt",
    "tp{t}_{x}{p}/a.ckpt",
    "tp-{t}-{x}-{p}/net-1_{s}.ckpt",
    "{x}{p}/tp{t}/a.ckpt",
    "tp_rank_{t:02d}/{x}_rank_{p:02d}/a.safetensors",
    "TP{t}/{x}{p}/net-1_{s}.safetensors",
    "net_tp{t}_{x}{p}.ckpt",
    "net_{x}{p}_mp{t}-1_{s}.ckpt",
    "{x}{p}_tp{t}/global_step{s}/a.safetensors",
)


def write(path, value, mark=0.0):
    save_slice(path, {"w": np.array([[value, mark]], np.float32)}, format=path.suffix[1:], sync=False)


def rows(ranks):
    """Rank r has row r of w."""
    return Strategy({"w": Layout(Mesh(x=ranks), "x -")}, {"w": (ranks, 2)})


def read(source, ranks, **options):
    with open_checkpoint(source, rows(ranks), **options) as checkpoint:
        return np.concatenate([checkpoint.read(rank, "w") for rank in range(ranks)]).tolist()


@FEW
@given(st.sampled_from(FORMS), st.sampled_from(["pp", "dp", "stage"]), st.integers(2, 12), st.integers(2, 11))
def test_a_grid_counts_tp_innermost(tmp_path_factory, form, axis, outer, inner):
    """However it is spelled, flat or nested: rank = outer * tp + its place on tp, numbers compared as numbers."""
    folder = tmp_path_factory.mktemp("grid")
    for p, t in product(range(outer), range(inner)):
        write(folder / form.format(x=axis, p=p, t=t, s=100), p * inner + t)
    expected = [[rank, 0] for rank in range(outer * inner)]
    assert read(folder, outer * inner) == expected
    with open_checkpoint(folder, rows(outer * inner)) as checkpoint:
        word = "pp" if axis == "stage" else axis
        assert [
            f"ranks are counted by {word} and, within it, by tp" in note for note in checkpoint.notes
        ] == [True]


def test_a_grid_has_no_gap(tmp_path):
    """The place that is missing is named."""
    for name in ("tp0_pp0", "tp1_pp0", "tp1_pp1"):
        write(tmp_path / name / "a.ckpt", 0)
    with pytest.raises(
        CheckpointFileError, match=r"a grid of pp=2, tp=2, but there is none of pp1 tp0; put it"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("form", ["dp{0}/pp{1}/a.ckpt", "tp0_pp{1}_dp{0}/a.ckpt"])
def test_an_order_that_programs_differ_on_is_not_guessed(form, tmp_path):
    """Of pp and dp, and of three axes, the list that is right for one order is in the error."""
    for d, p in product(range(2), range(2)):
        write(tmp_path / form.format(d, p), 2 * p + d)
    with pytest.raises(
        CheckpointError, match=r"whether pp or dp counts outermost differs .* if it is pp, \["
    ) as err:
        open_checkpoint(tmp_path, rows(4))
    listed = [tmp_path / form.format(d, p) for p, d in product(range(2), range(2))]
    assert ", ".join(repr(str(path)) for path in listed[:3]) in str(err.value)
    assert [value for value, _ in read(listed, 4)] == [0, 1, 2, 3]


def test_axes_that_differ_are_refused(tmp_path):
    """One folder of a pp axis, another of dp."""
    write(tmp_path / "tp0_pp0/a.ckpt", 0)
    write(tmp_path / "tp1_dp0/a.ckpt", 0)
    with pytest.raises(
        CheckpointError, match="tp0_pp0/a.ckpt and tp1_dp0/a.ckpt name different axes; give a map"
    ):
        open_checkpoint(tmp_path)


@FEW
@given(
    st.sampled_from(
        ["rank_{}/global_step{}/a.ckpt", "device_{}/step-{}/m.safetensors", "{}/checkpoint-{}/m.ckpt"]
    ),
    st.integers(2, 5),
    st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_steps_within_the_folders_of_ranks(tmp_path_factory, form, ranks, steps, data):
    """The newest step that all ranks have, as for files; each by step=; a gap names the place where it belongs."""
    folder = tmp_path_factory.mktemp("steps")
    lacking = data.draw(st.sets(st.tuples(st.integers(0, ranks - 1), st.sampled_from(steps)), max_size=2))
    for rank, step in product(range(ranks), steps):
        if (rank, step) not in lacking:
            write(folder / form.format(rank, step), rank, step)
    complete = [step for step in steps if not any((rank, step) in lacking for rank in range(ranks))]
    for step in complete:
        assert read(folder, ranks, step=step) == [[rank, step] for rank in range(ranks)]
    if complete:
        assert read(folder, ranks) == [[rank, max(complete)] for rank in range(ranks)]
    else:
        with pytest.raises((CheckpointError, CheckpointFileError), match="rank|step"):
            read(folder, ranks)


def test_a_rank_whose_steps_are_missing_belongs_beside_the_others(tmp_path):
    """Its folder is the one called as the others are, not the step's, nor one above what was opened."""
    folder = tmp_path / "run_2"
    for rank in (0, 2):
        write(folder / f"rank_{rank}/global_step2/a.ckpt", rank)
    with pytest.raises(CheckpointFileError, match=re.escape(f"put it into {folder}/rank_1/global_step2, or")):
        open_checkpoint(folder, rows(3))


@pytest.mark.parametrize("form", ["rank_{}/a.ckpt", "net_rank_{}.ckpt", "tp{}/global_step5/a.ckpt"])
def test_ranks_counted_from_1(form, tmp_path):
    """With a strategy of as many ranks they are counted so, and a note says it; else the list that works is named."""
    for rank in range(4):
        write(tmp_path / form.format(rank + 1), rank)
    assert [value for value, _ in read(tmp_path, 4)] == [0, 1, 2, 3]
    with open_checkpoint(tmp_path, rows(4)) as checkpoint:
        assert (
            f"count ranks from 1: {tmp_path / form.format(1)} is used as that of rank 0"
            in checkpoint.notes[0]
        )
    listed = [str(tmp_path / form.format(rank + 1)) for rank in range(4)]
    said = f"no file of rank 0, but of ranks 1 to 4; if .* the list [{listed[0]!r}, {listed[1]!r}, ...]; if"
    for strategy in (None, rows(5)):
        with pytest.raises(CheckpointFileError, match=re.escape(said).replace(re.escape(".*"), ".*")):
            open_checkpoint(tmp_path, strategy)
    assert [value for value, _ in read(listed, 4)] == [0, 1, 2, 3]
