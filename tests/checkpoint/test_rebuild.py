"""Lost and damaged slices: rebuilt from replicas, or told, tensor by tensor and box by box."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import coverage, open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError, CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.plain import strategy_to_json

from ..resharding import plan_and_write
from ..strategies import any_layouts

W, V = (8, 16), (16,)


def layout(mesh, *dims, **options):
    return Layout(Mesh(**mesh), dims, **options)


REPLICATED = Strategy(
    {"w": layout({"dp": 2, "tp": 4}, (), ("tp",)), "v": layout({"dp": 8}, ())}, {"w": W, "v": V}
)
SHARDED = Strategy(
    {"w": layout({"dp": 2, "tp": 4}, (), ("tp",), optimizer_shards=2), "v": layout({"dp": 8}, ())},
    {"w": W, "v": V},
)
WHOLE = {"w": np.arange(128, dtype=np.float32).reshape(W), "v": np.arange(16, dtype=np.float32)}


def save(folder, strategy):
    for rank in range(8):
        shards = {}
        for name, full in WHOLE.items():
            box = strategy[name].boxes(full.shape)[rank]
            shards[name] = np.ascontiguousarray(full[tuple(slice(a, b) for a, b in box)])
        save_slice(folder / f"rank_{rank}/a.ckpt", {**shards, "moments.w": shards["w"] * 2}, sync=False)
    return folder


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "src", REPLICATED)


def damage(folder, rank, how):
    path = folder / f"rank_{rank}/a.ckpt"
    if how == "gone":
        path.unlink()
    elif how == "no folder":
        path.unlink()
        path.parent.rmdir()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes(b"\x00" * 100)


@pytest.mark.parametrize("how", ["gone", "no folder", "cut", "zeros"])
@pytest.mark.parametrize("ranks", [[0], [7], [1, 4], [0, 1, 2, 3]])
def test_what_a_replica_holds_is_rebuilt(source, tmp_path, ranks, how):
    """Refused unless it is asked for; then nothing is missing in the output."""
    for rank in ranks:
        damage(source, rank, how)
    if not (how == "no folder" and ranks == [7]):
        with pytest.raises((CheckpointError, CheckpointFileError)):
            open_checkpoint(source, REPLICATED)
    with open_checkpoint(source, REPLICATED, rebuild=True) as checkpoint:
        assert list(checkpoint.lost) == ranks
        assert {found.fewest for found in checkpoint.coverage().values()} <= {1, 8 - len(ranks)}
        plan_and_write(checkpoint, REPLICATED, tmp_path / "out")
    with open_checkpoint(tmp_path / "out") as written:
        for rank in range(8):
            columns = WHOLE["w"][:, 4 * (rank % 4) :][:, :4]
            np.testing.assert_array_equal(written.read(rank, "w"), columns)
            np.testing.assert_array_equal(written.read(rank, "moments.w"), 2 * columns)
            np.testing.assert_array_equal(written.read(rank, "v"), WHOLE["v"])


def test_what_nobody_holds_is_listed(source, tmp_path):
    """Both copies of a slice are lost: its tensors, states too, and boxes; the rest is still planned."""
    for rank in (1, 5):
        damage(source, rank, "cut")
    with open_checkpoint(source, REPLICATED, rebuild=True) as checkpoint:
        with pytest.raises(ReshardError) as told:
            plan_and_write(checkpoint, None, tmp_path / "out")
        lines = str(told.value).split("\n")
        assert lines[0].startswith(f"rank 1 is lost: {source}/rank_1/a.ckpt: ")
        assert lines[2:] == ["No other rank holds", "w: [0:8, 4:8]", "moments.w: [0:8, 4:8]"]
        assert "w  cannot be recovered: [0:8, 4:8]" in repr(checkpoint)
        assert not (tmp_path / "out").exists()
        plan_and_write(checkpoint, None, tmp_path / "out", select=["v"])
    with open_checkpoint(tmp_path / "out") as written:
        np.testing.assert_array_equal(written.read(0, "v"), WHOLE["v"])


def test_shards_of_the_optimizer_have_no_replicas(tmp_path):
    """Each of two data-parallel ranks holds half of the rows: one lost rank is a lost box."""
    source = save(tmp_path / "src", SHARDED)
    with open_checkpoint(source, SHARDED, without=[6]) as checkpoint:
        assert checkpoint.coverage()["w"].holes.tolist() == [[[4, 8], [8, 12]]]
        assert checkpoint.coverage()["v"].fewest == 7
        with pytest.raises(
            ReshardError, match=r"rank 6 is lost: .* is not to be used\nNo other rank holds\nw: \[4:8, 8:12\]"
        ):
            checkpoint.plan()


def test_a_tensor_of_which_nothing_is_left(source):
    """All of its holders are lost."""
    alone = layout({"tp": 1}, (), first_ranks=(3,))
    strategy = Strategy({**REPLICATED, "v": alone}, {"w": W, "v": V}, 8)
    for rank in (0, 1, 2, 4, 5, 6, 7):
        path = source / f"rank_{rank}/a.ckpt"
        save_slice(path, {"w": WHOLE["w"][:, 4 * (rank % 4) :][:, :4].copy()}, sync=False)
    damage(source, 3, "gone")
    with open_checkpoint(source, strategy, rebuild=True) as checkpoint:
        with pytest.raises(
            ReshardError,
            match="rank 3 is lost: .*\nv: the strategy .* no file holds it",
        ):
            checkpoint.plan()


def test_ranks_that_are_left_out(source):
    """A rank that there is not; a strategy is needed."""
    with pytest.raises(CheckpointError, match=r"without=\[8\]: the checkpoint has ranks 0..7"):
        open_checkpoint(source, REPLICATED, without=[8])
    with pytest.raises(CheckpointError, match="nothing can be rebuilt without the strategy"):
        open_checkpoint(source, rebuild=True)


def test_the_command_line_rebuilds(source, tmp_path):
    """Inspect shows the coverage; reshard says what is lost on stderr."""
    import json

    (tmp_path / "s.json").write_text(json.dumps(strategy_to_json(REPLICATED)))
    damage(source, 2, "gone")
    words = [str(source), "--strategy", str(tmp_path / "s.json"), "--rebuild"]
    done = CliRunner().invoke(main, ["inspect", *words])
    assert "rank 2 is lost" in done.output
    assert "every slice that is there is held by 1 to 7 ranks" in done.output
    done = CliRunner().invoke(
        main, ["reshard", words[0], str(tmp_path / "out"), *words[1:], "--without-rank", "0"]
    )
    assert done.exit_code == 0
    assert "rank 0 is lost" in done.stderr
    assert "rank 2 is lost" in done.stderr
    assert "lost" not in done.stdout


@given(data=st.data())
@settings(deadline=None)
def test_coverage_counts_elements(data):
    """Against a plain count of every element's holders."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)))
    found = data.draw(any_layouts(shape))
    ranks = sorted(set(found.ranks.tolist()))
    lost = data.draw(st.sets(st.sampled_from(ranks)))
    regions = found.regions(shape)
    copies = np.zeros(shape, int)
    for rank, box in zip(regions.ranks.tolist(), regions.boxes, strict=True):
        copies[tuple(slice(a, b) for a, b in box)] += rank not in lost
    got = coverage(found, shape, lost)
    assert (got.fewest, got.most) == (copies.min(), copies.max())
    holes = np.zeros(shape, int)
    for box in got.holes:
        holes[tuple(slice(a, b) for a, b in box)] += 1
    np.testing.assert_array_equal(holes, copies == 0)
