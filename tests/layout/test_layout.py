"""Layouts against brute force and against MindSpore's own slice tables."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from distinfer_lab.errors import LayoutError
from distinfer_lab.layout import Layout, Mesh, box_at, volumes
from distinfer_lab.layout.dialects.mindspore import MindSporeLayout, to_layout
from tests.strategies import layouts_with_shape

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
        assert layout.full_shape(layout.shard_shape(shape)) == shape


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
        (lambda: Mesh(("a", "a"), (2, 2)), "repeat"),
        (lambda: Mesh(("a",), (0,)), "size 0"),
        (lambda: Mesh(("a", "b"), (2,)), "2 axis names"),
        (lambda: Layout(Mesh(("a",), (2,)), (("b",),)), "no axis 'b'"),
        (lambda: Layout(Mesh(("a",), (2,)), (("a",), ("a",))), "cuts more than once"),
        (lambda: Layout(Mesh(("a",), (2,)), (("a",),), sizes=((1, 2, 3),)), r"sizes \(1, 2, 3\) for 2 parts"),
        (lambda: Layout(Mesh(("a",), (4,)), ((),), optimizer_shards=3), "optimizer_shards=3"),
        (lambda: Layout(Mesh(("a",), (2,)), (), optimizer_shards=2), "no dims"),
        (lambda: Layout(Mesh(("a",), (4,)), ((),), first_ranks=(0, 2)), "overlap"),
        (
            lambda: Layout(Mesh(("tp",), (4,)), ((), ("tp",))).boxes((3, 10)),
            "dim 1 has 10 elements, which 4 cards of axis tp",
        ),
        (lambda: Layout(Mesh(("tp",), (4,)), ((), ("tp",))).boxes((3,)), "2 dims for a tensor of 1 dims"),
        (lambda: Layout(Mesh(("a",), (2,)), (("a",),), sizes=((1, 2),)).boxes((4,)), "add up to 3"),
        (
            lambda: Layout(Mesh(("a",), (4,)), ((),), optimizer_shards=4).boxes((6,)),
            "6 rows, which 4 optimizer",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(make, text):
    """Each misfit is a LayoutError that names the value at fault."""
    with pytest.raises(LayoutError, match=text):
        make()
