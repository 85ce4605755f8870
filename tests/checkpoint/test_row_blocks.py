"""Shards as tables of bytes: what they hold equals plain numpy, in blocks of any size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.checkpoint import row_blocks
from distinfer_lab.checkpoint.rank_reads import ReadItem, TensorRead
from distinfer_lab.checkpoint.row_blocks import BlockReader, row_plan_of
from distinfer_lab.formats import READ_COST_BYTES
from distinfer_lab.layout import Box

F4 = np.dtype("f4")


class Memory:
    """Slices in memory, which count what is read."""

    def __init__(self, array):
        self.content = array.tobytes()
        self.read = 0

    def fill(self, name, start, target):
        assert name == "w"
        assert start + len(target) <= len(self.content)
        target[:] = self.content[start : start + len(target)]
        self.read += len(target)

    def scatter(self, name, start, targets, nbytes):
        for target in targets:
            self.fill(name, start, target)
            start += len(target)


def cut_points(draw, size):
    inner = draw(st.lists(st.integers(1, size - 1), max_size=3, unique=True)) if size > 1 else []
    return [0, *sorted(inner), size]


@st.composite
def grids(draw):
    """A shard in parts of a grid, each of which lies somewhere in a slice of its own."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple))
    cuts = [cut_points(draw, size) if dim < 2 else [0, size] for dim, size in enumerate(shape)]
    parts, slices = [], []
    for index in np.ndindex(*(len(points) - 1 for points in cuts)):
        start = tuple(points[i] for points, i in zip(cuts, index, strict=True))
        stop = tuple(points[i + 1] for points, i in zip(cuts, index, strict=True))
        # In the first two dims the slice may have more before and after it.
        before = tuple(draw(st.integers(0, 3)) * (dim < 2) for dim in range(len(shape)))
        after = tuple(draw(st.integers(0, 3)) * (dim < 2) for dim in range(len(shape)))
        extent = tuple(b - a for a, b in zip(start, stop, strict=True))
        size = tuple(x + n + y for x, n, y in zip(before, extent, after, strict=True))
        there = Box(before, tuple(x + n for x, n in zip(before, extent, strict=True)))
        parts.append(ReadItem(len(slices), there, Box(start, stop)))
        slices.append(np.random.default_rng(len(slices)).normal(size=size).astype(F4))
    order = draw(st.permutations(range(len(parts))))
    return shape, [parts[i] for i in order], slices


@given(grids(), st.integers(1, 300), st.integers(0, 200), st.sampled_from([1, 10, 1000]))
def test_blocks_make_up_the_shard(grid, block_bytes, more, placed_run):
    """Every element from its slice, in order, each block within its bounds; and what was read is counted.

    Whether numpy puts short runs in their places or the source does that for long ones.
    """
    shape, parts, slices = grid
    expected = np.full(shape, np.nan, F4)
    for part in parts:
        part.dst.of(expected)[...] = part.src.of(slices[part.src_rank])
    table = row_plan_of(TensorRead("w", "w", shape, F4, F4, tuple(parts)), lambda r: slices[r].shape, 1 << 20)
    sources = {rank: Memory(array) for rank, array in enumerate(slices)}
    longest = max(column.stride for _, _, columns in table.strips for column in columns)
    content, read = b"", 0
    reader = BlockReader(
        [np.zeros(max(block_bytes, table.row_bytes), np.uint8)], np.zeros(longest + more, np.uint8)
    )
    for block in table.blocks(block_bytes):
        assert block.rows == 1 or block.rows * table.row_bytes <= block_bytes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_blocks, "PLACED_RUN", placed_run)
            found, count = reader.read("w", block, sources)
        content += found.tobytes()
        read += count
    assert content == expected.tobytes()
    assert read == sum(source.read for source in sources.values())


def test_slices_that_are_taken_whole_are_read_once():
    """Columns of whole slices: no byte more than the shard has."""
    slices = [np.arange(12, dtype=F4).reshape(4, 3) + 100 * r for r in range(2)]
    parts = tuple(ReadItem(r, Box((0, 0), (4, 3)), Box((0, 3 * r), (4, 3 * r + 3))) for r in range(2))
    table = row_plan_of(TensorRead("w", "w", (4, 6), F4, F4, parts), lambda r: (4, 3), 1 << 20)
    sources = {rank: Memory(array) for rank, array in enumerate(slices)}
    (block,) = table.blocks(1 << 20)
    found, read = BlockReader([np.zeros(1000, np.uint8)], np.zeros(1000, np.uint8)).read("w", block, sources)
    assert read == 96
    np.testing.assert_array_equal(found.view(F4).reshape(4, 6), np.concatenate(slices, axis=1))


def test_what_another_way_does_better_is_no_table():
    """Cuts further in, long gaps, long rows, no dims, and slices that are not what was planned."""
    whole = Box((0, 0, 0), (2, 2, 4))
    half = Box((0, 0, 0), (2, 2, 2))
    inner = TensorRead("w", "w", (2, 2, 2), F4, F4, (ReadItem(0, half, half),))
    assert row_plan_of(inner, lambda r: (2, 2, 4), 1 << 20) is None
    assert row_plan_of(inner, lambda r: (2, 2, 2), 1 << 20) is not None
    assert row_plan_of(inner, lambda r: (2, 2, 2), 15) is None
    assert (
        row_plan_of(
            TensorRead("w", "w", (2, 2, 4), F4, F4, (ReadItem(0, whole, whole),)), lambda r: (1, 2, 4), 99
        )
        is None
    )
    assert (
        row_plan_of(
            TensorRead("w", "w", (), F4, F4, (ReadItem(0, Box((), ()), Box((), ())),)), lambda r: (), 99
        )
        is None
    )
    row = Box((0, 0), (3, 1))
    gap = TensorRead("w", "w", (3, 1), F4, F4, (ReadItem(0, row, row),))
    assert row_plan_of(gap, lambda r: (3, READ_COST_BYTES // 4), 1 << 20) is not None
    assert row_plan_of(gap, lambda r: (3, READ_COST_BYTES // 4 + 1), 1 << 20) is None
