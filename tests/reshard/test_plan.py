"""Plans: moved bytes equal the bound; the serial executor equals merging and cutting again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError, ReshardError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import Topology, execute, explain, plan_reshard

from ..strategies import any_layouts, examples


@st.composite
def jobs(draw):
    """Two strategies: a few kinds of tensors of every layout there is, several of a kind, some of them elsewhere."""
    src, dst, shapes = {}, {}, {}
    for kind in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=0, max_size=4)))
        a, b = draw(any_layouts(shape)), draw(any_layouts(shape))
        for member in range(draw(st.integers(1, 4))):
            by = draw(st.sampled_from([(0, 0), (0, 0), (2, 2), (1, 3)]))
            name = f"{kind}.{member}"
            src[name], dst[name] = (
                replace(x, first_ranks=tuple(r + n for r in x.first_ranks))
                for x, n in zip((a, b), by, strict=True)
            )
            shapes[name] = shape
    return Strategy(src, shapes), Strategy(dst)


def cut(strategy, shapes, whole):
    """By plain numpy: (rank, name) -> the slice that the layout gives it, fused runs one after another."""
    out = {}
    for name, layout in strategy.items():
        regions = layout.regions(shapes[name])
        for rank in layout.ranks.tolist():
            rows = np.flatnonzero(regions.ranks == rank)
            out[rank, name] = np.empty(layout.shard_shape(shapes[name], rank), np.float32)
            for row in rows:
                there = tuple(slice(a, b) for a, b in regions.boxes[row].tolist())
                here = tuple(map(slice, regions.starts[row].tolist(), regions.ends[row].tolist()))
                out[rank, name][here] = whole[name][there]
    return out


def test_the_serial_executor_is_merge_and_cut_again():
    """Over 10,000 pairs of layouts in the thorough run; moved bytes are the bound, as brute force has it too."""
    pairs = []

    @settings(max_examples=examples(100, thorough=6000))
    @given(jobs(), st.data())
    def check(job, data):
        pairs.append(len({name.split(".")[0] for name in job[0]}))
        check_plan(*job, data, explain=len(pairs) % 10 == 1)  # which solves a linear program

    check()
    assert sum(pairs) >= examples(100, thorough=10_000)


def check_plan(src, dst, data, explain):
    """Coverage, values, bytes, and what the plan tells of itself."""
    placement, hosts = None, None
    same_cards = data.draw(st.booleans())
    if same_cards and data.draw(st.booleans()):
        cards = max(src.ranks, dst.ranks) + 1
        placement = data.draw(st.permutations(range(cards)))[: dst.ranks]
        hosts = Topology(tuple(f"h{data.draw(st.integers(0, 2))}" for _ in range(cards)))
    random = np.random.default_rng(0)
    whole = {name: random.normal(size=shape).astype(np.float32) for name, shape in src.shapes.items()}
    plan = plan_reshard(src, dst, same_cards=same_cards, placement=placement, topology=hosts)
    found = execute(plan, cut(src, src.shapes, whole))
    expected = cut(dst, src.shapes, whole)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)
    cards_of = placement or list(range(dst.ranks))
    assert plan.moved_bytes == plan.bound_bytes == brute_bound(src, dst, cards_of if same_cards else None)
    needed = [sum(a.nbytes for (rank, _), a in expected.items() if rank == r) for r in range(dst.ranks)]
    assert plan.needed_bytes.tolist() == needed
    if explain:
        held = dict.fromkeys(range(src.ranks), 0)
        for (rank, _), shard in cut(src, src.shapes, whole).items():
            held[rank] += shard.nbytes
        check_explanation(plan, cards_of if same_cards else None, held)
    check_sums(plan, cards_of if same_cards else None)
    if hosts is not None:
        check_hosts(plan, src, cards_of, hosts.hosts)


def check_explanation(plan, cards_of, held):
    """Card by card: what the plan's sums say, and for the peak what the card holds on both sides."""
    told = explain(plan, buffer=100)
    cards = cards_of or range(plan.src_count, plan.src_count + plan.dst_count)
    rows = {card: rank for rank, card in enumerate(cards)}
    for card in told.cards:
        rank = rows.get(card.card)
        needed, kept = (0, 0) if rank is None else (plan.needed_bytes[rank], plan.kept_bytes[rank])
        source = card.card < plan.src_count
        sent = plan.sent_bytes[card.card] if source else 0
        assert (card.needed, card.kept, card.received, card.sent) == (needed, kept, needed - kept, sent)
        assert card.held == (held[card.card] if source else 0)
        assert card.peak == needed + card.held + 100
    assert sum(card.received for card in told.cards) == told.moved_bytes == told.bound_bytes
    assert told.files == ()
    check_kinds(plan, told)


def check_kinds(plan, told):
    """Tensors that are told as one: their sums are the plan's, and each has the slices that are told."""

    def slices(held):
        of_rank = {}
        for rank, box in zip(held.ranks.tolist(), held.boxes.tolist(), strict=True):
            of_rank.setdefault(rank, []).append(box)
        shapes = held.shard_shapes(max(of_rank) + 1)[sorted(of_rank)]
        found = [boxes for i, boxes in enumerate(of_rank.values()) if boxes not in list(of_rank.values())[:i]]
        word = "of at most " if (shapes != shapes[0]).any() else ""
        words = "whole" if len(found) == 1 else f"{len(found)} slices {word}{shapes.max(axis=0).tolist()}"
        return words if len(found) == len(of_rank) else f"{words} on {len(of_rank)} ranks"

    kinds = {}
    for name, tensor in plan.items():
        key = tensor.shape, str(tensor.dtype), slices(tensor.src), slices(tensor.dst)
        kinds.setdefault(key, []).append((name, int(tensor.nbytes.sum())))
    assert {kind.common: (kind.name, kind.tensors, kind.needed) for kind in told.kinds} == {
        key: (members[0][0], len(members), sum(nbytes for _, nbytes in members))
        for key, members in kinds.items()
    }
    assert sum(kind.moved for kind in told.kinds) == plan.moved_bytes
    assert [kind.needed for kind in told.kinds] == sorted((kind.needed for kind in told.kinds), reverse=True)


def check_sums(plan, cards_of):
    """Traffic, loads and a card's list say what the single tensors' pieces say."""
    traffic = np.zeros((plan.src_count, plan.dst_count), np.int64)
    by_rank = {rank: [] for rank in range(plan.dst_count)}
    runs = np.zeros(plan.src_count, np.int64)
    for number, (name, tensor) in enumerate(plan.items()):
        pieces = tensor.pieces
        np.add.at(traffic, (pieces.src_rank, pieces.dst_rank), tensor.nbytes)
        shapes = tensor.src.shard_shapes(plan.src_count)
        for sender, receiver, box, there, here in zip(*(c.tolist() for c in pieces[1:]), strict=True):
            by_rank[receiver].append((number, sender, box, there, here))
            shard = np.arange(shapes[sender].prod()).reshape(shapes[sender])
            at = shard[tuple(slice(n, n + b - a) for n, (a, b) in zip(there, box, strict=True))].ravel()
            runs[sender] += 1 + np.count_nonzero(np.diff(at) != 1)
        assert plan.shards_of(0).get(name) == (
            tuple(tensor.dst.shard_shapes(plan.dst_count)[0].tolist()) if 0 in tensor.dst.ranks else None
        )
    np.testing.assert_array_equal(plan.traffic, traffic)
    np.testing.assert_array_equal(plan.runs, runs)
    sent = traffic.copy()
    for rank, card in enumerate(cards_of or []):
        if card < plan.src_count:
            sent[card, rank] = 0
    assert plan.sent_bytes.tolist() == sent.sum(axis=1).tolist()
    assert plan.received_bytes.tolist() == sent.sum(axis=0).tolist()
    for rank, rows in by_rank.items():
        found = plan.pieces_of(rank)
        listed = []
        for number, sender, box, there, here in zip(*(c.tolist() for c in found), strict=True):
            ndim = len(plan.class_named(plan.names[number]).shape)
            assert box[ndim:] == [[0, 1]] * (len(box) - ndim)
            listed.append((number, sender, box[:ndim], there[:ndim], here[:ndim]))
        assert sorted(listed) == sorted(rows)
        assert [row[0] for row in listed] == sorted(row[0] for row in rows)


def check_hosts(plan, src, cards_of, hosts):
    """A piece comes from the card itself if it can, else from its host if it can."""
    for name, tensor in plan.items():
        regions = src[name].regions(src.shapes[name])
        for sender, receiver, box in zip(*(c.tolist() for c in tensor.transfers), strict=True):
            wanted = np.array(box).reshape(-1, 2)
            inside = (regions.boxes[..., 0] <= wanted[:, 0]) & (regions.boxes[..., 1] >= wanted[:, 1])
            holders = set(regions.ranks[inside.all(axis=1)].tolist())
            card = cards_of[receiver]
            near = {r for r in holders if hosts[r] == hosts[card]}
            assert sender in ({card} & holders or near or holders)


def brute_bound(src, dst, cards_of):
    """Elements that a destination rank needs and its card does not hold, counted one by one, times 4 bytes."""
    total = 0
    for name, shape in src.shapes.items():
        held = masks(src[name], shape)
        for rank, needs in masks(dst[name], shape).items():
            have = held.get(cards_of[rank]) if cards_of is not None else None
            total += int((needs if have is None else needs & ~have).sum())
    return 4 * total


def masks(layout, shape):
    """Rank -> which elements it holds."""
    out = {}
    regions = layout.regions(shape)
    for rank, box in zip(regions.ranks.tolist(), regions.boxes.tolist(), strict=True):
        out.setdefault(rank, np.zeros(shape, bool))[tuple(slice(a, b) for a, b in box)] = True
    return out


def columns(n):
    return Layout(Mesh(tp=n), "- tp")


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
        "ReshardPlan of 1 tensor, 4 -> 1 card, 4 pieces",
        "  moved / bound  720 / 720 bytes (1.00)",
        "  a card sends at most 240 bytes, and ends with at most 960",
    ]


def test_errors_name_the_tensor():
    """A tensor that the destination lacks; a layout that does not fit it."""
    src = Strategy({"w": columns(4)}, {"w": (5, 48)})
    with pytest.raises(ReshardError, match="w: the destination strategy has no layout for it"):
        plan_reshard(src, Strategy({"v": columns(4)}))
    with pytest.raises(
        LayoutError, match=r"w: dim 1 \(cut by tp\) has 48 elements, which 5 parts cannot share"
    ):
        plan_reshard(src, Strategy({"w": columns(5)}))
    half = Layout(Mesh(tp=2), "- tp(24,20)")
    with pytest.raises(
        LayoutError, match=r"w: dim 1 \(cut by tp\) has 48 elements, but the sizes \(24, 20\) add up to 44"
    ):
        plan_reshard(src, Strategy({"w": half}))
