"""Transfers: every destination element comes once, from someone who has it, and stays where it can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ReshardError
from distinfer_lab.layout import Layout, Mesh, plan_transfers

from ..strategies import layout_pairs


def planned(src, dst, shape, **options):
    return plan_transfers(src.boxes(shape), src.ranks, dst.boxes(shape), dst.ranks, **options)


@given(layout_pairs(), st.booleans())
def test_each_element_comes_once_and_from_a_holder(drawn, same_cards):
    """Counted element by element on plain arrays; what a card holds itself is not sent to it."""
    src, dst, shape = drawn
    pieces = planned(src, dst, shape, same_cards=same_cards)
    held = {int(r): box for r, box in zip(src.ranks, src.boxes(shape).tolist(), strict=True)}
    wanted = {int(r): box for r, box in zip(dst.ranks, dst.boxes(shape).tolist(), strict=True)}
    got = {rank: np.zeros(shape, np.int64) for rank in wanted}
    for giver, taker, box in zip(
        pieces.src_rank.tolist(), pieces.dst_rank.tolist(), pieces.boxes.tolist(), strict=True
    ):
        region = tuple(slice(a, b) for a, b in box)
        got[taker][region] += 1
        assert all(a <= c and d <= b for (a, b), (c, d) in zip(held[giver], box, strict=True))
        mine = held.get(taker)
        if (
            same_cards
            and mine is not None
            and all(a <= c and d <= b for (a, b), (c, d) in zip(mine, box, strict=True))
        ):
            assert giver == taker
    for rank, box in wanted.items():
        expected = np.zeros(shape, np.int64)
        expected[tuple(slice(a, b) for a, b in box)] = 1
        np.testing.assert_array_equal(got[rank], expected)
    assert (np.diff(pieces.dst_rank) >= 0).all()


def test_holders_of_one_shard_serve_in_turn():
    """Eight replicas give to eight others, one each."""
    src = Layout.replicated(8, 1)
    pieces = planned(src, Layout.replicated(8, 1), (4,), same_cards=False)
    assert sorted(pieces.src_rank.tolist()) == list(range(8))


def test_holes_and_overlaps_name_the_rank():
    """Half a tensor cannot fill a whole one, and two that overlap are no cut."""
    whole = np.array([[[0, 4]]])
    ranks, dst = np.array([0, 1]), np.array([5])
    with pytest.raises(
        ReshardError, match=r"leave a hole in box \(0,\):\(4,\) of destination rank 5: 2 elements for 4"
    ):
        plan_transfers(np.array([[[0, 2]], [[0, 2]]]), ranks, whole, dst)
    with pytest.raises(ReshardError, match="overlap in box .* of destination rank 5: 6 elements for 4"):
        plan_transfers(np.array([[[0, 3]], [[1, 4]]]), ranks, whole, dst)


def test_a_thousand_cards_are_quick_to_plan():
    """1,024 ranks of replicas and columns to 256 by rows: the pieces are counted by a closed formula."""
    src = Layout(Mesh(("dp", "tp"), (64, 16)), ((), ("tp",)))
    dst = Layout(Mesh(("tp",), (256,)), (("tp",), ()))
    pieces = planned(src, dst, (512, 64))
    assert len(pieces.src_rank) == 256 * 16
    assert int(pieces.sizes.sum()) == 512 * 64
