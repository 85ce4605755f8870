"""Transfers: every destination element comes once, from someone who has it, and stays where it can."""

import numpy as np
import pytest
from hypothesis import given

from distinfer_lab.errors import ReshardError
from distinfer_lab.layout import Layout, Mesh, Regions, plan_transfers

from ..strategies import layout_pairs


def planned(src, dst, shape):
    return plan_transfers(src.regions(shape), dst.regions(shape))


@given(layout_pairs())
def test_each_element_comes_once_and_from_a_holder(drawn):
    """Counted element by element on plain arrays; what a card holds itself is not sent to it."""
    src, dst, shape = drawn
    pieces = planned(src, dst, shape)
    held = {int(r): box for r, box in zip(src.ranks, src.boxes(shape).tolist(), strict=True)}
    wanted = {int(r): box for r, box in zip(dst.ranks, dst.boxes(shape).tolist(), strict=True)}
    got = {rank: np.zeros(shape, np.int64) for rank in wanted}
    for sender, receiver, box in zip(
        pieces.src_rank.tolist(), pieces.dst_rank.tolist(), pieces.boxes.tolist(), strict=True
    ):
        region = tuple(slice(a, b) for a, b in box)
        got[receiver][region] += 1
        assert all(a <= c and d <= b for (a, b), (c, d) in zip(held[sender], box, strict=True))
        mine = held.get(receiver)
        if mine is not None and all(a <= c and d <= b for (a, b), (c, d) in zip(mine, box, strict=True)):
            assert sender == receiver
    for rank, box in wanted.items():
        expected = np.zeros(shape, np.int64)
        expected[tuple(slice(a, b) for a, b in box)] = 1
        np.testing.assert_array_equal(got[rank], expected)
    assert (np.diff(pieces.dst_rank) >= 0).all()


def test_holders_of_one_shard_share_the_sending():
    """Eight replicas send to eight others, one each."""
    others = Layout(Mesh(a=8), "-", first_ranks=(8,))
    pieces = planned(Layout.replicated(8, 1), others, (4,))
    assert sorted(pieces.src_rank.tolist()) == list(range(8))


def test_holes_and_overlaps_name_the_rank():
    """Half a tensor cannot fill a whole one, and two that overlap are no cut."""
    whole = Regions(np.array([5]), np.array([[[0, 4]]]), np.zeros((1, 1), np.int64))

    def held(*boxes):
        return Regions(
            np.arange(len(boxes)), np.array([[box] for box in boxes]), np.zeros((len(boxes), 1), np.int64)
        )

    with pytest.raises(
        ReshardError, match=r"leave a hole in box \(0,\):\(4,\) of destination rank 5: 2 elements for 4"
    ):
        plan_transfers(held([0, 2], [0, 2]), whole)
    with pytest.raises(ReshardError, match="boxes of the source overlap without being equal"):
        plan_transfers(held([0, 3], [1, 4]), whole)


def test_a_thousand_cards_are_quick_to_plan():
    """1,024 ranks of replicas and columns to 256 by rows: the pieces are counted by a closed formula."""
    src = Layout(Mesh(dp=64, tp=16), "- tp")
    dst = Layout(Mesh(tp=256), "tp -")
    pieces = planned(src, dst, (512, 64))
    assert len(pieces.src_rank) == 256 * 16
    assert int(pieces.sizes.sum()) == 512 * 64
