"""torch's notation, there and back, against placements applied one after another to a list of indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.torch import (
    Replicate,
    Shard,
    StridedShard,
    from_layout,
    strategy_text,
    to_layout,
)

from ..strategies import any_layouts

GRID = Mesh(dp=2, tp=4)


def chunks(indices, count):
    """`torch.chunk`, with empty pieces at the end."""
    size = -(-len(indices) // count)
    return [indices[i * size : (i + 1) * size] for i in range(count)]


def held(mesh, placements, shape):
    """The indices along each dim that every rank holds, placements applied from left to right."""
    out = []
    for place in np.ndindex(*mesh.axis_sizes):
        rows = [np.arange(n) for n in shape]
        for at, count, placement in zip(place, mesh.axis_sizes, placements, strict=True):
            if isinstance(placement, Shard):
                rows[placement.dim] = chunks(rows[placement.dim], count)[at]
            elif isinstance(placement, StridedShard):
                every = chunks(rows[placement.dim], count * placement.split_factor)
                rows[placement.dim] = np.concatenate(every[at::count])
        out.append(rows)
    return out


def held_by(layout, shape):
    """The same, read off the layout's regions."""
    regions = layout.regions(shape)
    out = [[np.zeros(0, np.int64) for _ in shape] for _ in range(layout.mesh.size)]
    for rank, box in zip(regions.ranks.tolist(), regions.boxes.tolist(), strict=True):
        for dim, (start, stop) in enumerate(box):
            out[rank][dim] = np.union1d(out[rank][dim], np.arange(start, max(start, stop)))
    return out


def assert_same(found, expected):
    for rank, (a, b) in enumerate(zip(found, expected, strict=True)):
        if any(len(rows) == 0 for rows in a):
            assert any(len(rows) == 0 for rows in b), rank
            continue
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)


@st.composite
def sharded(draw):
    """A mesh, placements that cut plainly, and any shape: even, uneven, or with empty pieces."""
    mesh = Mesh.from_axes(("a", "b", "c"), tuple(draw(st.integers(1, 3)) for _ in range(3)))
    ndim = draw(st.integers(1, 3))
    kinds = [Replicate(), *(Shard(d) for d in range(ndim))]
    placements = [draw(st.sampled_from(kinds)) for _ in range(3)]
    return mesh, placements, tuple(draw(st.integers(1, 9)) for _ in range(ndim))


@given(sharded())
def test_placements_cut_as_torch_chunks(case):
    """Left to right, uneven and empty pieces too; and the same placements come back."""
    mesh, placements, shape = case
    layout = to_layout(mesh, placements, shape)
    assert_same(held_by(layout, shape), held(mesh, placements, shape))
    assert list(from_layout(layout)) == placements


@given(
    st.permutations(("a", "b", "c")), st.lists(st.integers(1, 3), min_size=3, max_size=3), st.integers(1, 3)
)
def test_strided_shards_are_the_other_orders(order, sizes, times):
    """Whatever order the axes cut a dim in, evenly, placements say it, and it comes back."""
    mesh = Mesh.from_axes(("a", "b", "c"), tuple(sizes))
    layout, shape = Layout(mesh, (tuple(order),)), (mesh.size * times,)
    placements = from_layout(layout)
    assert_same(held_by(layout, shape), held(mesh, placements, shape))
    again = to_layout(mesh, placements, shape)
    np.testing.assert_array_equal(again.boxes(shape), layout.boxes(shape))


@given(st.integers(1, 4), st.integers(2, 3), st.integers(1, 3))
def test_a_strided_shard_without_its_axis_is_a_fused_tensor(cards, parts, times):
    """Each rank holds a run of each part, as the placement gives it."""
    mesh, shape = Mesh(tp=cards), (cards * parts * times,)
    layout = to_layout(mesh, [StridedShard(0, parts)], shape)
    assert layout.fused == ((cards * times,) * parts,)
    assert_same(held_by(layout, shape), held(mesh, [StridedShard(0, parts)], shape))
    assert from_layout(layout) == (StridedShard(0, parts),)


@given(st.data(), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_what_can_be_said_is_said_right(data, shape):
    """Of any layout: placements that give what it gives, or a refusal."""
    layout = data.draw(any_layouts(tuple(shape)))
    try:
        placements = from_layout(layout)
    except LayoutError:
        return
    assert_same(held_by(layout, tuple(shape)), held(layout.mesh, placements, shape))


def test_torchs_own_placements_are_known_by_their_names():
    """Objects of torch's classes are taken as they are; a dim may count from the end."""

    class _StridedShard:
        dim, split_factor = 0, 4

    class Shard:
        dim = -2

    assert to_layout(GRID, [_StridedShard(), Shard()], (16, 3)).dims == (("tp", "dp"), ())


@pytest.mark.parametrize(
    ("placements", "error", "words"),
    [
        ([Shard(0)], LayoutError, "1 placements for Mesh"),
        ([Shard(2), Replicate()], LayoutError, r"axis dp: Shard\(dim=2\) of a tensor of 2 dims"),
        ([StridedShard(0, 3), Shard(0)], LayoutError, r"axis dp: a split factor of 3 .*\(tp\)"),
        ([Replicate(), StridedShard(1, 2)], LayoutError, r"axis tp: a split factor of 2 .* its 3 elements"),
        (["Shard(0)", Replicate()], ArgumentTypeError, r"not 'Shard\(0\)'"),
    ],
)
def test_placements_that_mean_nothing_are_refused(placements, error, words):
    """The text names the axis and the value."""
    with pytest.raises(error, match=words):
        to_layout(GRID, placements, (16, 3))


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(GRID, "tp(1,2,3,4)"), "explicit sizes"),
        (Layout(GRID, "-/8"), "optimizer shards"),
        (Layout(GRID, "dp+tp", split="gspmd_ceil"), "not by their product"),
        (Layout(GRID, "tp", first_ranks=(8,)), "from rank 0 on"),
        (Layout(GRID, "tp[8|4]"), "equal fused parts"),
        (Layout(GRID, "tp[6|6]"), "equal fused parts"),
        (Layout(GRID, "tp+dp", split="torch_chunk"), "only express even sharding"),
    ],
)
def test_what_torch_cannot_say_is_refused(layout, words):
    """The text says what the notation lacks; of a strategy, it names the parameter."""
    with pytest.raises(LayoutError, match=words):
        from_layout(layout)
    with pytest.raises(LayoutError, match=f"layers.0.w: .*{words}"):
        strategy_text(Strategy({"layers.0.w": layout}))


def test_the_code_runs_and_says_the_same():
    """Run with stand-ins for torch's names, the code gives the meshes and placements of the strategy."""
    small = Mesh(tp=4)
    layouts = {"w": Layout(GRID, "tp+dp -"), "b": Layout(small, "tp"), "s": Layout(GRID, "")}
    text = strategy_text(Strategy(layouts, ranks=8))
    assert "placement_types import _StridedShard" in text
    found = {
        "init_device_mesh": lambda kind, sizes, mesh_dim_names: Mesh.from_axes(mesh_dim_names, sizes),
        "Shard": Shard,
        "Replicate": Replicate,
        "_StridedShard": StridedShard,
    }
    exec(text.split("\n\n")[1], found)
    said = {name: (mesh, tuple(p)) for name, (mesh, p) in found["placements"].items()}
    assert said == {name: (layout.mesh, from_layout(layout)) for name, layout in layouts.items()}
