"""Plans: moved bytes equal the bound; the serial executor equals merging and cutting again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError, ReshardError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import execute, plan_reshard

from ..strategies import layout_pairs


@st.composite
def jobs(draw):
    """Two strategies of one or two tensors, with shapes that both can cut."""
    src, dst, shapes = {}, {}, {}
    for name in ("a", "b")[: draw(st.integers(1, 2))]:
        src[name], dst[name], shapes[name] = draw(layout_pairs())
    return Strategy(src, shapes), Strategy(dst)


def cut(strategy, shapes, whole):
    """By plain numpy: (rank, name) -> the slice that the layout gives it."""
    out = {}
    for name, layout in strategy.items():
        for rank, box in zip(layout.ranks.tolist(), layout.boxes(shapes[name]).tolist(), strict=True):
            out[rank, name] = whole[name][tuple(slice(a, b) for a, b in box)].copy()
    return out


@given(jobs(), st.booleans())
def test_the_serial_executor_is_merge_and_cut_again(job, same_cards):
    """And moved bytes are the bound, which brute force over single elements gives too."""
    src, dst = job
    random = np.random.default_rng(0)
    whole = {name: random.normal(size=shape).astype(np.float32) for name, shape in src.shapes.items()}
    plan = plan_reshard(src, dst, same_cards=same_cards)
    found = execute(plan, cut(src, src.shapes, whole))
    expected = cut(dst, src.shapes, whole)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)
    assert plan.moved_bytes == plan.bound_bytes == brute_bound(src, dst, same_cards)
    assert plan.needed_bytes.tolist() == [
        sum(a.nbytes for (rank, _), a in expected.items() if rank == r) for r in range(dst.ranks)
    ]


def brute_bound(src, dst, same_cards):
    """Elements that a destination rank needs and does not hold, counted one by one, times 4 bytes."""
    total = 0
    for name, shape in src.shapes.items():
        held = {}
        for rank, box in zip(src[name].ranks.tolist(), src[name].boxes(shape).tolist(), strict=True):
            held[rank] = np.zeros(shape, bool)
            held[rank][tuple(slice(a, b) for a, b in box)] = True
        for rank, box in zip(dst[name].ranks.tolist(), dst[name].boxes(shape).tolist(), strict=True):
            needs = np.zeros(shape, bool)
            needs[tuple(slice(a, b) for a, b in box)] = True
            if same_cards and rank in held:
                needs &= ~held[rank]
            total += int(needs.sum())
    return 4 * total


def columns(n):
    return Layout(Mesh(("tp",), (n,)), ((), ("tp",)))


@pytest.mark.parametrize(("src", "dst"), [(6, 4), (16, 4), (4, 8), (8, 1), (1, 8)])
def test_any_count_goes_to_any_count(src, dst):
    """The counts that people ask for, columns to columns, nothing moved twice."""
    plan = plan_reshard(Strategy({"w": columns(src)}, {"w": (5, 48)}), Strategy({"w": columns(dst)}))
    whole = np.arange(240, dtype=np.float32).reshape(5, 48)
    shards = {(r, "w"): whole[:, 48 // src * r : 48 // src * (r + 1)] for r in range(src)}
    found = execute(plan, shards)
    np.testing.assert_array_equal(np.concatenate([found[r, "w"] for r in range(dst)], axis=1), whole)
    assert plan.moved_bytes == plan.bound_bytes


def test_no_destination_means_one_card_with_everything():
    """dst=None, and what the repr says of it."""
    plan = plan_reshard(Strategy({"w": columns(4)}, {"w": (5, 48)}), None)
    assert plan.needed_bytes.tolist() == [5 * 48 * 4]
    assert repr(plan).splitlines() == [
        "ReshardPlan of 1 tensors, 4 -> 1 cards, 4 pieces",
        "  moved / bound  720 / 720 bytes (1.00)",
        "  a card ends with at most 960 bytes",
    ]


def test_errors_name_the_tensor():
    """A tensor that the destination lacks; a layout that does not fit it."""
    src = Strategy({"w": columns(4)}, {"w": (5, 48)})
    with pytest.raises(ReshardError, match="w: the destination strategy has no layout for it"):
        plan_reshard(src, Strategy({"v": columns(4)}))
    with pytest.raises(LayoutError, match="w: dim 1 has 48 elements, which 5 cards of axis tp cannot share"):
        plan_reshard(src, Strategy({"w": columns(5)}))
    half = Layout(Mesh(("tp",), (2,)), ((), ("tp",)), sizes=(None, (24, 20)))
    with pytest.raises(LayoutError, match=r"w: dim 1 has 48 elements, but its sizes \(24, 20\) add up to 44"):
        plan_reshard(src, Strategy({"w": half}))
