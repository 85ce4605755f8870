"""Strategy files: MindSpore's are read, written again byte for byte, and merged as it merges them."""

import json

import pytest

from distinfer_lab.errors import CheckpointError, CheckpointFileError, LayoutError
from distinfer_lab.formats import (
    OperatorStrategy,
    StrategyFile,
    as_strategy,
    merge_pipeline_strategys,
    read_operators,
    read_strategy,
    write_strategy,
)
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..oracle import CASES, ORACLE, case

FILES = sorted(
    p
    for n in CASES
    for p in case(n).folder.rglob("*strategy*")
    if p.suffix in (".ckpt", ".json") and p.is_file()
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.relative_to(ORACLE / "cases").parts))
def test_reading_and_writing_gives_the_same_bytes(path, tmp_path):
    """Byte for byte, protobuf and JSON."""
    again = tmp_path / f"again{path.suffix}"
    write_strategy(again, read_strategy(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_layouts_are_those_that_were_trained_with(name):
    """Every parameter's mesh, map, optimizer shards and stages are those of case.json."""
    found = as_strategy(case(name).src_strategy)
    known = case(name).facts["src_layouts"]
    assert set(found) == set(known)
    for param, facts in known.items():
        layout = found[param]
        assert list(layout.mesh.axis_sizes) == facts["dev"]
        maps = [[m] if isinstance(m, int) else m for m in facts["map"]]
        axes = [tuple(layout.mesh.axis_names[-1 - k] for k in m if k != -1) for m in maps]
        assert list(layout.dims) == axes
        assert [f // layout.mesh.size for f in layout.first_ranks] == sorted(facts["stages"])
    assert found.ranks == case(name).facts["src_devices"]


@pytest.mark.parametrize("name", ["pipeline_2x4_to_1", "pipeline_2x4_to_1x4"])
def test_pipeline_stages_merge_as_mindspore_merges_them(name, tmp_path):
    """The merged file has the same bytes."""
    merge_pipeline_strategys(case(name).folder / "src_stage_strategys", tmp_path / "merged.ckpt")
    assert (tmp_path / "merged.ckpt").read_bytes() == case(name).src_strategy.read_bytes()


def test_a_folder_of_stages_is_a_strategy(tmp_path):
    """The same as the file that MindSpore merged of it; of one stage the names stay; without any it is said."""
    found = case("pipeline_2x4_to_1")
    stages = found.folder / "src_stage_strategys"
    merged = as_strategy(found.src_strategy)
    assert dict(as_strategy(stages)) == dict(merged)
    tp = Layout(Mesh(a=2), "a")
    write_strategy(tmp_path / "one/only.ckpt", StrategyFile.from_strategy(Strategy({"w": tp})))
    assert dict(as_strategy(tmp_path / "one")) == {"w": tp}
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointFileError, match="empty: no .ckpt strategy files there"):
        as_strategy(tmp_path / "empty")


@pytest.mark.parametrize("suffix", ["ckpt", "json"])
def test_names_of_one_layout_share_it(suffix, tmp_path):
    """However many they are; those of another cut, or of other stages, have their own, and shapes stay apart."""
    mesh = Mesh(a=2, b=4)
    cuts = [Layout(mesh, "a -"), Layout(mesh, "- b"), Layout(mesh, "- b", first_ranks=(8,))]
    layouts = {f"layers.{i}.w": cuts[i % 3] for i in range(30)}
    shapes = {name: (8 * (1 + i % 2), 16) for i, name in enumerate(layouts)}
    write_strategy(tmp_path / f"a.{suffix}", Strategy(layouts, shapes))
    found = as_strategy(tmp_path / f"a.{suffix}")
    assert dict(found) == layouts
    assert found.shapes == (shapes if suffix == "json" else {})
    assert len({id(layout) for layout in found.values()}) == (6 if suffix == "json" else 3)
    assert len({id(item) for item in read_strategy(tmp_path / f"a.{suffix}").layouts.values()}) <= 4


def test_a_dash_in_a_parameters_name_is_no_stage(tmp_path):
    """Only a file in which every name begins with a stage is a merged one; the split is at the first dash."""
    tp = Layout(Mesh(a=2), "a")
    staged = Layout(Mesh(a=2), "a", first_ranks=(2,))
    write_strategy(tmp_path / "a.ckpt", StrategyFile.from_strategy(Strategy({"layer-1": tp, "0-x": tp})))
    assert set(as_strategy(tmp_path / "a.ckpt")) == {"layer-1", "0-x"}
    write_strategy(tmp_path / "b.ckpt", StrategyFile.from_strategy(Strategy({"w-1": tp, "v-2": staged})))
    found = as_strategy(tmp_path / "b.ckpt")
    assert {name: layout.first_ranks for name, layout in found.items()} == {"w-1": (0,), "v-2": (2,)}


def test_bad_files_are_named(tmp_path):
    """Missing, of another kind, without layouts, with impossible ones."""
    with pytest.raises(
        CheckpointFileError, match=r"nope\.ckpt: No such file.*check the path of the strategy file"
    ):
        read_strategy(tmp_path / "nope.ckpt")
    with pytest.raises(
        CheckpointFileError,
        match=r"tp=4: No such file.*if a mesh is meant, .* Rules\(Mesh\(tp=4\), read_rules",
    ):
        as_strategy("tp=4")
    (tmp_path / "a.ckpt").write_bytes(b"no protobuf")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a valid strategy file, or damaged"):
        read_strategy(tmp_path / "a.ckpt")
    (tmp_path / "a.json").write_text(json.dumps({"current_stage": 1, "parallel_layout_item": {"w": {}}}))
    with pytest.raises(
        CheckpointError,
        match=r"a\.json: not a valid strategy file, or damaged: w lacks the field 'dev_matrix'",
    ):
        read_strategy(tmp_path / "a.json")
    with pytest.raises(LayoutError, match="holds no parameter's layout"):
        StrategyFile(1, {"MatMul_w": OperatorStrategy(0, ((1, 1),))}, {}).strategy()
    with pytest.raises(CheckpointFileError, match="no .ckpt strategy files there"):
        merge_pipeline_strategys(tmp_path / "empty", tmp_path / "out.ckpt")


def test_a_mesh_too_big_to_be_true_is_refused(tmp_path):
    """A damaged dev_matrix must not make us allocate for its ranks."""
    item = {"dev_matrix": [1 << 20, 1 << 20], "tensor_map": [0], "tensor_shape": [8], "field": 0}
    item |= {"opt_weight_shard_step": 0, "opt_weight_shard_size": 0}
    (tmp_path / "a.json").write_text(json.dumps({"current_stage": 1, "parallel_layout_item": {"w": item}}))
    with pytest.raises(CheckpointError, match="make 1099511627776 ranks; at most 32768 are supported"):
        as_strategy(tmp_path / "a.json")


def test_cuts_that_mindspore_cannot_say_go_into_json(tmp_path):
    """Fused parts: protobuf refuses them by name, JSON brings them back; what it can say stays MindSpore's own."""
    tp = Mesh(tp=2)
    fused = Strategy({"qkv": Layout(tp, "- tp[8|4|4]")}, {"qkv": (16, 16)})
    with pytest.raises(
        CheckpointError, match=r"a\.ckpt: qkv: .*only express even sharding.*name that ends in \.json"
    ):
        write_strategy(tmp_path / "a.ckpt", fused)
    assert not (tmp_path / "a.ckpt").exists()
    write_strategy(tmp_path / "a.json", fused)
    found = as_strategy(tmp_path / "a.json")
    assert dict(found) == dict(fused)
    assert found.shapes == fused.shapes
    assert read_operators(tmp_path / "a.json") == {}
    even = Strategy({"w": Layout(tp, "- tp")}, {"w": (16, 16)})
    write_strategy(tmp_path / "b.json", even)
    assert read_strategy(tmp_path / "b.json").layouts["w"].tensor_map == (-1, 0)
