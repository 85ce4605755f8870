"""Every checkpoint of the oracle, resharded as MindSpore was asked to, against the truth and against MindSpore."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from distinfer_lab.checkpoint import (
    followed_parameter,
    open_checkpoint,
    rank_list_for_transform,
    transform_checkpoints,
)
from distinfer_lab.formats import as_strategy, open_slice

from ..oracle import CASES, Case, case
from ..resharding import plan_and_write


def expected(found: Case, name: str, rank: int) -> np.ndarray:
    """The slice of the full tensor, cut by MindSpore's own numbers from case.json."""
    full = found.full[name]
    layout = found.dst_layout(name)
    facts = next(iter(found.facts["src_files"].values()))
    was_whole = name not in found.facts["src_layouts"] and (
        facts == "encrypted" or facts[name]["dims"] == list(full.shape)
    )
    if layout is None and found.facts["dst_layouts"] is not None and not was_whole:
        followed = followed_parameter(name, found.facts["dst_layouts"])
        layout = None if followed is None else found.dst_layout(followed)
    if layout is None or layout.ndim != full.ndim:
        return full
    box = layout.boxes(full.shape)[layout.row_of(rank)]
    return full[tuple(slice(a, b) for a, b in box)]


def reshard(found: Case, tmp_path: Path, output: str, **options: object) -> list[str]:
    with open_checkpoint(found.folder / "src", found.src_strategy, **found.key) as checkpoint:
        checkpoint.check_replicas()
        dst = None if found.dst_strategy is None else as_strategy(found.dst_strategy)
        named = {*checkpoint.missing, *(dst or ())}
        # MindSpore says nothing of them.
        options |= {"allow_missing": sorted(named & {"net.ghost", "net.extra_in_net"})}
        result = plan_and_write(checkpoint, dst, tmp_path / "out", prefix="dst", format=output, **options)
    return list(result.paths)


@pytest.mark.parametrize("output", ["ckpt", "safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_every_tensor_of_every_rank_is_the_cut_of_the_whole(name: str, output: str, tmp_path: Path) -> None:
    """Bit for bit, for every case, also for those that MindSpore could not transform."""
    found = case(name)
    paths = reshard(found, tmp_path, output, buffer=700)
    assert len(paths) == found.facts["dst_devices"]
    source_names = {
        n for f in (found.folder / "src").rglob("*.*") for n in open_slice(f, **found.key).entries
    }
    for rank, path in enumerate(paths):
        with open_slice(path) as written:
            assert set(written.entries) == source_names
            for entry in written.entries.values():
                if entry.is_text:
                    continue
                array = written.read(entry.name)
                if entry.name not in found.full:
                    facts = next(iter(found.facts["src_files"].values()))[entry.name]
                    assert hashlib.sha256(array.tobytes()).hexdigest() == facts["sha256"]
                    continue
                assert array.dtype == found.full[entry.name].dtype
                np.testing.assert_array_equal(array, expected(found, entry.name, rank), strict=True)


def mindspore_outputs() -> list[tuple[str, str]]:
    out = []
    for name in CASES:
        found = case(name)
        for path in sorted(found.folder.glob("out_*")):
            if path.name in ("out_transform", "out_load", "out_load_single.ckpt", "out_load_unified"):
                out.append((name, path.name))
    return out


@pytest.mark.parametrize(("name", "output"), mindspore_outputs())
def test_equals_what_mindspore_wrote(name: str, output: str, tmp_path: Path) -> None:
    """Every tensor that MindSpore re-laid has the same bytes in ours."""
    found = case(name)
    if output.endswith("single.ckpt"):
        with open_checkpoint(found.folder / "src", found.src_strategy, **found.key) as checkpoint:
            lacking = [name for name in checkpoint.missing if name == "net.ghost"]
            ours = list(plan_and_write(checkpoint, None, tmp_path / "out", allow_missing=lacking).paths)
        theirs = {0: found.folder / output}
    else:
        ours = reshard(found, tmp_path, "ckpt")
        files = [p for p in (found.folder / output).rglob("*.*") if p.suffix in (".ckpt", ".safetensors")]
        theirs = {
            int("".join(c for c in str(p.relative_to(found.folder)) if c.isdigit())[:1]): p for p in files
        }
    compared = 0
    for rank, path in theirs.items():
        marks = found.facts["outputs"].get(str(path.relative_to(found.folder)), {})
        with open_slice(path) as written, open_slice(ours[rank]) as mine:
            for entry in written.entries.values():
                mark = marks.get(entry.name, {})
                if entry.is_text or mark.get("left_as_it_was_in_net") or "kept_slice_of_src_rank" in mark:
                    continue
                np.testing.assert_array_equal(mine.read(entry.name), written.read(entry.name), strict=True)
                compared += 1
    assert compared >= len(theirs)


KEPT = [
    name
    for name in CASES
    if any(
        "kept_slice_of_src_rank" in mark
        for marks in case(name).facts.get("outputs", {}).values()
        if isinstance(marks, dict)
        for mark in marks.values()
    )
]


@pytest.mark.parametrize("name", KEPT)
def test_states_can_be_left_as_mindspore_leaves_them(name: str, tmp_path: Path) -> None:
    """With states="mindspore" every tensor of its transform_checkpoints is equal, kept slices included."""
    found = case(name)
    ours = reshard(found, tmp_path, "ckpt", states="mindspore")
    for rank, path in enumerate(ours):
        theirs = found.folder / "out_transform" / f"rank_{rank}" / f"dst{rank}.ckpt"
        with open_slice(path) as mine, open_slice(theirs) as written:
            for entry in written.entries.values():
                if not entry.is_text:
                    np.testing.assert_array_equal(
                        mine.read(entry.name), written.read(entry.name), strict=True
                    )


@pytest.mark.parametrize("name", [n for n in CASES if "rank_list_for_transform" in case(n).facts])
def test_needs_no_more_ranks_than_mindspore(name: str) -> None:
    """Of equal slices one is enough, so never more source ranks are asked for than MindSpore asks for."""
    found = case(name)
    for rank, theirs in (found.facts["rank_list_for_transform"] or {}).items():
        ours = rank_list_for_transform(int(rank), found.src_strategy, found.dst_strategy)
        assert 1 <= len(ours) <= len(theirs)


def test_transform_refuses_an_existing_folder(tmp_path: Path) -> None:
    """Nothing is overwritten unless that is asked for; then the folder is replaced as a whole."""
    found = case("tp_col8_to_row4")
    arguments = (found.folder / "src", tmp_path / "out", "dst", found.src_strategy, found.dst_strategy)
    transform_checkpoints(*arguments)
    (tmp_path / "out" / "note").write_text("mine")
    with pytest.raises(OSError, match="out exists; choose another folder"):
        transform_checkpoints(*arguments)
    with pytest.raises(OSError, match=r"does not name \(note\), so it is not overwritten"):
        transform_checkpoints(*arguments, overwrite=True)
    (tmp_path / "out" / "note").unlink()
    transform_checkpoints(*arguments, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "distinfer.json",
        *(f"rank_{r}" for r in range(4)),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
