"""What a lost card held is sent by cards that hold the same, each its share."""

from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.cards.recovery import shard_senders
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import Topology

from ..strategies import any_layouts, examples, meshes

ONE_HOST = Topology.of_hosts(4, 4)


@given(st.data())
@settings(max_examples=examples(60))
def test_lost_shards_come_from_a_card_that_holds_the_same(data):
    """Of any layouts; None if, and only if, a lost shard is held by lost cards only."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)))
    mesh = data.draw(meshes(2, 3))
    layouts = {name: data.draw(any_layouts(shape, mesh)) for name in "ab"}
    strategy = Strategy(layouts, dict.fromkeys("ab", shape))
    lost = sorted(data.draw(st.sets(st.integers(0, strategy.ranks - 1), min_size=1)))
    held = {}
    for name, layout in layouts.items():
        regions = layout.regions(shape)
        rows = zip(regions.ranks.tolist(), regions.boxes.tolist(), regions.starts.tolist(), strict=True)
        for rank, box, start in rows:
            held.setdefault((name, rank), []).append((box, start))
    same = {
        (name, rank): {r for r in range(strategy.ranks) if held.get((name, r)) == shard} - set(lost)
        for (name, rank), shard in held.items()
        if rank in lost
    }
    found = shard_senders(strategy, lost, Topology.of_hosts(strategy.ranks, data.draw(st.integers(1, 4))))
    assert (found is None) == any(not holders for holders in same.values())
    if found is not None:
        pairs = [
            (n, rank, s) for rank, senders in found.items() for s, names in senders.items() for n in names
        ]
        assert sorted((n, rank) for n, rank, _ in pairs) == sorted(same)
        assert all(sender in same[name, rank] for name, rank, sender in pairs)


def test_the_replicas_of_a_lost_card_share_what_it_gets():
    """One of four alike is lost with three tensors: each of the others sends one of them."""
    layout = Layout(Mesh(dp=4), "-")
    strategy = Strategy(dict.fromkeys("abc", layout), dict.fromkeys("abc", (8,)))
    assert shard_senders(strategy, [1], ONE_HOST) == {1: {0: ["a"], 2: ["b"], 3: ["c"]}}


def test_a_replica_on_the_same_host_sends_before_others():
    """Of four alike on two hosts; where both of a host are lost, those of the other host share it."""
    layout = Layout(Mesh(dp=4), "-")
    strategy = Strategy(dict.fromkeys("ab", layout), dict.fromkeys("ab", (8,)))
    hosts = Topology(("north", "north", "south", "south"))
    assert shard_senders(strategy, [1], hosts) == {1: {0: ["a", "b"]}}
    both = shard_senders(strategy, [0, 1], hosts)
    sent = [sender for senders in both.values() for sender, names in senders.items() for _ in names]
    assert sorted(sent) == [2, 2, 3, 3]
