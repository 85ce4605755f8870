"""Layouts against brute force and against MindSpore's own slice tables."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError
from distinfer_lab.layout import SPLITS, Layout, Mesh, Strategy, box_at, volumes
from distinfer_lab.layout.dialects.mindspore import MindSporeLayout, to_layout
from tests.strategies import any_layouts, layouts_with_shape

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
SLICES = json.loads((ORACLE / "slice_index.json").read_text())


@given(layouts_with_shape())
def test_shards_tile_the_tensor_once_per_replica(case):
    """Every element is held exactly `replicas` times, and once by the holders of replica 0."""
    layout, shape = case
    held, primary = np.zeros(shape, int), np.zeros(shape, int)
    for row, replica in enumerate(layout.replica_ids()):
        box = box_at(layout.boxes(shape), row)
        held[box.slices()] += 1
        if replica == 0:
            primary[box.slices()] += 1
    np.testing.assert_array_equal(held, layout.replicas)
    np.testing.assert_array_equal(primary, 1)


@given(layouts_with_shape())
def test_volumes_and_ranks_agree_with_the_boxes(case):
    """The volumes add up to the tensor times its replicas, and each holding rank has one row."""
    layout, shape = case
    boxes = layout.boxes(shape)
    assert volumes(boxes).sum() == math.prod(shape) * layout.replicas
    assert [layout.row_of(int(r)) for r in layout.ranks] == list(range(len(boxes)))


@given(layouts_with_shape())
def test_an_even_shard_tells_the_full_shape(case):
    """From any one shard's shape of an even layout the whole shape follows."""
    layout, shape = case
    if not layout.sizes:
        assert layout.full_shape({0: layout.shard_shape(shape)}) == shape


@given(st.data())
def test_layouts_of_every_kind_are_what_a_slow_loop_gives(data):
    """Rank by rank, dim by dim, on lists of indices: uneven splits, fused parts, optimizer shards, strides."""
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=0, max_size=3)))
    layout = data.draw(any_layouts(shape))
    regions = layout.regions(shape)
    expected = {}
    for first in layout.first_ranks:
        for place, coordinates in enumerate(np.ndindex(*layout.mesh.axis_sizes)):
            rank = first + (
                sum(c * s for c, s in zip(coordinates, layout.strides, strict=True))
                if layout.strides
                else place
            )
            expected[rank] = indices_by_hand(
                layout, shape, dict(zip(layout.mesh.axis_names, coordinates, strict=True))
            )
    assert sorted(set(regions.ranks.tolist())) == sorted(expected)
    for rank, lists in expected.items():
        shard = np.full(regions.shard_shapes(int(layout.ranks.max()) + 1)[rank], -1)
        assert shard.shape == layout.shard_shape(shape, rank)
        whole = np.arange(math.prod(shape)).reshape(shape)
        for box, start, end in zip(
            *(x[regions.ranks == rank] for x in (regions.boxes, regions.starts, regions.ends)), strict=True
        ):
            part = whole[tuple(slice(a, b) for a, b in box)]
            if part.size:
                shard[tuple(slice(a, b) for a, b in zip(start, end, strict=True))] = part
        wanted = whole[np.ix_(*lists)]
        assert shard.size == wanted.size
        np.testing.assert_array_equal(shard.ravel(), wanted.ravel())


def indices_by_hand(layout, shape, at):
    """The indices of each dim that the rank at these coordinates holds, in the order of its shard."""
    lists = []
    for dim, length in enumerate(shape):
        mine, offset = [], 0
        for part in (layout.fused[dim] if layout.fused else None) or (length,):
            here = list(range(offset, offset + part))
            sizes = layout.sizes[dim] if layout.sizes else None
            number, parts = 0, 1
            for axis in layout.dims[dim]:
                number = number * layout.mesh.axis_size(axis) + at[axis]
                parts *= layout.mesh.axis_size(axis)
                if layout.split == "torch_chunk" and sizes is None:
                    step = math.ceil(len(here) / layout.mesh.axis_size(axis))
                    here = here[at[axis] * step : (at[axis] + 1) * step]
            if sizes is not None:
                here = here[sum(sizes[:number]) : sum(sizes[: number + 1])]
            elif layout.split != "torch_chunk":
                step = math.ceil(len(here) / parts)
                here = here[number * step : (number + 1) * step]
            mine += here
            offset += part
        lists.append(mine)
    if layout.optimizer_shards > 1:
        # The ranks with equal shards differ in the axes that cut nothing; they count in rank order.
        free = [a for a in layout.mesh.axis_names if a not in layout.axes]
        member = 0
        for axis in free:
            member = member * layout.mesh.axis_size(axis) + at[axis]
        member %= layout.optimizer_shards
        step = math.ceil(len(lists[0]) / layout.optimizer_shards)
        lists[0] = lists[0][member * step : (member + 1) * step]
    return lists


def test_uneven_splits_by_example():
    """The chunks that torch documents, with their empty tails; GSPMD's; and a chunk of a chunk."""
    tp = Mesh(tp=4)
    rows = [Layout(tp, "tp", split=split).boxes((6,)).ravel().tolist() for split in SPLITS[1:]]
    assert rows[0] == rows[1] == [0, 2, 2, 4, 4, 6, 6, 6]
    two = Mesh(a=2, b=2)
    nested, flat = (Layout(two, "a+b", split=split).boxes((5,)).ravel().tolist() for split in SPLITS[1:])
    assert nested == [0, 2, 2, 3, 3, 4, 4, 5]
    assert flat == [0, 2, 2, 4, 4, 5, 5, 5]
    with pytest.raises(LayoutError, match="several boxes; use regions"):
        Layout(tp, "tp[4|4]").boxes((8,))
    with pytest.raises(LayoutError, match=r"its fused parts \(4, 4\) add up to 8"):
        Layout(tp, "tp[4|4]").regions((9,))
    with pytest.raises(LayoutError, match="rank 1 is there twice"):
        Layout(two, "-", strides=(1, 1))
    assert Layout(two, "-", strides=(4, 1), first_ranks=(2,)).ranks.tolist() == [2, 3, 6, 7]


@given(st.data())
def test_uneven_shards_tell_the_full_shape_together(data):
    """All shards' shapes add up to the whole one."""
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    layout = data.draw(any_layouts(shape))
    assert layout.full_shape({int(r): layout.shard_shape(shape, int(r)) for r in layout.ranks}) == shape


@pytest.mark.parametrize("case", SLICES, ids=lambda c: f"{c['dev_matrix']}-{c['tensor_map']}")
def test_slice_numbers_are_those_of_mindspore(case):
    """The shard number of every rank equals MindSpore's; nested maps are checked against their meaning."""
    tensor_map = tuple(tuple(e) if isinstance(e, list) else e for e in case["tensor_map"])
    layout = to_layout(MindSporeLayout(tuple(case["dev_matrix"]), tensor_map))
    assert list(layout.parts) == case["strategy"]
    expected = case.get("slice_index") or slice_numbers_by_hand(case["dev_matrix"], case["tensor_map"])
    assert layout.shard_numbers().tolist() == expected


def slice_numbers_by_hand(dev_matrix, tensor_map):
    """Rank by rank, axis by axis: the rule in words, nothing shared with the code under test."""
    out = []
    for rank in range(math.prod(dev_matrix)):
        left, coordinate = rank, {}
        for from_right, size in enumerate(reversed(dev_matrix)):
            left, coordinate[from_right] = divmod(left, size)
        number = 0
        for entry in tensor_map:
            axes = [k for k in (entry if isinstance(entry, list) else [entry]) if k != -1]
            for k in axes:
                number = number * dev_matrix[-1 - k] + coordinate[k]
        out.append(number)
    return out


def test_optimizer_shards_cut_the_rows_of_equal_shards():
    """FORMATS: dev [4,2], map [-1,0], all replicas: rank r holds column r % 2 and rows r // 2."""
    layout = to_layout(MindSporeLayout((4, 2), (-1, 0), opt_shard_size=-1))
    boxes = layout.boxes((8, 6))
    for rank in range(8):
        row, column = divmod(rank, 2)
        assert boxes[rank].tolist() == [[2 * row, 2 * row + 2], [3 * column, 3 * column + 3]]


def test_pipeline_stage_holds_on_its_own_ranks():
    """Stage 1 of four ranks begins at rank 4; a rank of stage 0 holds nothing and says so."""
    layout = to_layout(MindSporeLayout((2, 2), (-1, 0)), stages=(1,))
    assert layout.ranks.tolist() == [4, 5, 6, 7]
    with pytest.raises(LayoutError, match=r"rank 2 holds no shard; the ranks that do are 4\.\.7"):
        layout.row_of(2)


def test_manual_sizes_are_rows_in_slice_order():
    """The manual split [7, 3, 5, 5] gives these rows to slices 0 to 3."""
    layout = to_layout(MindSporeLayout((4,), (0, -1), split_sizes=(7, 3, 5, 5)))
    assert layout.boxes((20, 2))[:, 0].tolist() == [[0, 7], [7, 10], [10, 15], [15, 20]]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Mesh.from_axes(("a", "a"), (2, 2)), "repeat"),
        (lambda: Mesh(a=0), "size 0"),
        (lambda: Mesh.from_axes(("a", "b"), (2,)), "2 axis names"),
        (lambda: Layout(Mesh(a=2), "b"), "no axis 'b'"),
        (lambda: Layout(Mesh(a=2), "a a"), "is used more than once"),
        (lambda: Layout(Mesh(a=2), "a(1,2,3)"), r"sizes \(1, 2, 3\) for 2 parts"),
        (lambda: Layout(Mesh(a=4), "-/3"), "optimizer_shards=3"),
        (lambda: Layout(Mesh(a=2), "", optimizer_shards=2), "no dims"),
        (lambda: Layout(Mesh(a=4), "-", first_ranks=(0, 2)), "overlap"),
        (
            lambda: Layout(Mesh(tp=4), "- tp").boxes((3, 10)),
            r"dim 1 \(cut by tp\) has 10 elements, which 4 parts cannot share evenly; use 2",
        ),
        (lambda: Layout(Mesh(tp=4), "- tp").boxes((3,)), "2 dims for a tensor of 1 dims"),
        (lambda: Layout(Mesh(a=2), "a(1,2)").boxes((4,)), "add up to 3"),
        (
            lambda: Layout(Mesh(a=4), "-/4").boxes((6,)),
            "6 rows, which 4 optimizer",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(make, text):
    """Each misfit is a LayoutError that names the value at fault."""
    with pytest.raises(LayoutError, match=text):
        make()


def test_elements_of_fused_tensors_are_counted():
    """A rank of a fused tensor holds a run of each part."""
    qkv = Layout(Mesh(tp=2), "tp[8|4|4] -")
    counts = Strategy({"qkv": qkv}, {"qkv": (16, 3)}).elements_per_rank()["qkv"]
    np.testing.assert_array_equal(counts, [(4 + 2 + 2) * 3] * 2)


def test_a_subset_of_a_strategy_is_on_the_same_ranks():
    """Layouts and shapes of the names given, in their order; the ranks stay, though the last may hold nothing."""
    mesh = Mesh(tp=4)
    first = Layout(Mesh(tp=2), "-")
    strategy = Strategy({"w": Layout(mesh, "tp"), "b": first, "c": first}, {"w": (8,), "c": (3,)})
    part = strategy.subset(iter(["c", "b"]))
    assert (list(part), dict(part.shapes), part.ranks) == (["c", "b"], {"c": (3,)}, 4)
    with pytest.raises(KeyError, match="v"):
        strategy.subset(["v"])
