"""Redistribution: every way gives what whole tensors give, within two shards, and receives what it must."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh, volumes
from distinfer_lab.net import GraphBuilder, Spec, evaluate, operators
from distinfer_lab.parallel import (
    AllReduce,
    Held,
    Program,
    Redistribute,
    ReduceScatter,
    partition,
    propagate,
    run_serial,
    same_layout,
    shard_inputs,
    unshard,
)
from distinfer_lab.parallel.redistribution import kind_of, normal_form, route, transfers

from ..strategies import any_layouts, examples, meshes, numbered, shapes_for
from .together import run_together

F32 = np.dtype("float32")


def program_of(shape: tuple[int, ...], layouts: Any, dtype: Any = np.int64) -> Program:
    """A program that takes a value "v 0" through these layouts."""
    names = [f"v {i}" for i in range(len(layouts))]
    steps = tuple(Redistribute(b, (a,), frees=(a,)) for a, b in pairwise(names))
    ranks = max(int(layout.ranks.max()) for layout in layouts) + 1
    values = {n: Held(Spec(shape, np.dtype(dtype)), x) for n, x in zip(names, layouts, strict=True)}
    return Program(ranks, ("v 0",), (), (names[-1],), {}, steps, values)


def lacking(src: Layout, dst: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """For each rank the elements that it should hold and does not: what it must receive, by counting."""
    ranks = max(int(x.ranks.max()) for x in (src, dst)) + 1
    out = np.zeros(ranks, np.int64)
    for rank in dst.ranks.tolist():
        have, want = np.zeros(shape, bool), np.zeros(shape, bool)
        for layout, mask in ((src, have), (dst, want)):
            regions = layout.regions(shape)
            for box in regions.boxes[regions.ranks == rank].tolist():
                mask[tuple(slice(a, b) for a, b in box)] = True
        out[rank] = (want & ~have).sum()
    return out


def shard_bytes(layout: Layout, shape: tuple[int, ...], ranks: int) -> np.ndarray:
    regions = layout.regions(shape)
    return np.bincount(regions.ranks, volumes(regions.boxes), ranks) * 8


def check_ways(src: Layout, dst: Layout, shape: tuple[int, ...], ways: Any) -> None:
    """Serial and concurrent cards, against the whole tensor; bytes counted; memory within two shards."""
    whole = numbered(shape)
    for stops in ways:
        program = program_of(shape, (src, *stops))
        given_inputs = shard_inputs(program, {"v 0": whole})
        serial, _ = run_serial(program, [{}] * program.ranks, given_inputs)
        np.testing.assert_array_equal(unshard(program, program.outputs[0], serial), whole)
        peak = np.zeros(program.ranks, np.int64)

        def count(rank: int, nbytes: int, peak: np.ndarray = peak) -> None:
            peak[rank] = nbytes

        found = run_together(program, [{}] * program.ranks, given_inputs, count)
        for rank, card in enumerate(found):
            assert card.outputs.keys() == serial[rank].keys()
            for name, shard in card.outputs.items():
                np.testing.assert_array_equal(shard, serial[rank][name])
        predicted = program.communication()
        assert predicted.with_counts([card.sent_bytes for card in found]) == predicted
        bound = shard_bytes(src, shape, program.ranks) + shard_bytes(dst, shape, program.ranks)
        assert (peak <= bound).all()


@st.composite
def pairs(draw: st.DrawFn) -> Any:
    """Two even layouts on one mesh of 1 to 4 axes, of 1 to 4 dims, and a shape that both can cut."""
    mesh = draw(meshes(4, 3).filter(lambda mesh: mesh.size <= 16))
    ndim = draw(st.integers(1, 4))

    def one() -> Layout:
        dims: list[list[str]] = [[] for _ in range(ndim)]
        for axis in draw(st.permutations(mesh.axis_names)):
            where = draw(st.integers(-1, ndim - 1))
            if where >= 0:
                dims[where].append(axis)
        return Layout(mesh, tuple(tuple(d) for d in dims))

    src, dst = one(), one()
    return src, dst, draw(shapes_for(src, dst).filter(lambda shape: math.prod(shape) <= 1 << 14))


@given(pairs())
@settings(max_examples=examples(40))
def test_the_normal_form_is_slices_then_exchanges_then_gathers(drawn):
    """Each step is the collective that it says; no shard on the way is larger than at both ends."""
    src, dst, shape = drawn
    hops = normal_form(src, dst, shape)
    if hops is None:
        return
    order = {"Slice": 0, "AllToAll": 1, "Permute": 1, "AllGather": 2}
    assert sorted(hops, key=lambda hop: order[hop.kind]) == list(hops)
    assert [hop.kind for hop in hops].count("AllGather") <= 1
    most = max(math.prod(x.shard_shape(shape)) for x in (src, dst))
    before = src
    for hop in hops:
        assert math.prod(hop.layout.shard_shape(shape)) <= most
        kind = kind_of(before, hop.layout, shape, transfers(before, hop.layout, shape))
        assert kind == hop.kind or math.prod(shape) == 1 or same_layout(before, hop.layout, shape)
        before = hop.layout
    assert same_layout(before, dst, shape)
    check_ways(src, dst, shape, [tuple(hop.layout for hop in hops)] if hops else [])


@given(pairs())
@settings(max_examples=examples(60))
def test_a_card_receives_what_it_lacks_and_holds_two_shards_at_most(drawn):
    """Straight and as routed, in lockstep and at once; straight, each card receives the least that it can."""
    src, dst, shape = drawn
    found = transfers(src, dst, shape)
    received = np.bincount(found.dst_rank, found.moved, src.mesh.size)
    np.testing.assert_array_equal(received, lacking(src, dst, shape))
    stops, _ = route(src, dst, shape, 8)
    check_ways(src, dst, shape, [(dst,), stops])


@given(st.data())
@settings(max_examples=examples(40))
def test_any_two_layouts_go_over_into_each_other(data):
    """Other meshes, other ranks, uneven, fused, optimizer shards: piece by piece where no collective fits."""
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=0, max_size=3)))
    small = meshes(2, 3)
    src, dst = (data.draw(any_layouts(shape, data.draw(small))) for _ in range(2))
    received = transfers(src, dst, shape)
    need = lacking(src, dst, shape)
    np.testing.assert_array_equal(np.bincount(received.dst_rank, received.moved, len(need)), need)
    stops, _ = route(src, dst, shape, 8)
    check_ways(src, dst, shape, [(dst,), stops])


@given(pairs())
@settings(max_examples=examples(40))
def test_nobody_sends_more_than_when_all_take_turns(drawn):
    """Groups are kept apart only where that costs no sender more. Turns, in plain Python: each holder in turn."""
    src, dst, shape = drawn
    held, wanted = src.regions(shape), dst.regions(shape)
    holders, turns = {}, np.zeros(src.mesh.size, np.int64)
    for rank, box in zip(held.ranks.tolist(), held.boxes.tolist(), strict=True):
        holders.setdefault(str(box), (box, []))[1].append(rank)
    for box, ranks in holders.values():
        asked = 0
        for rank, mine in zip(wanted.ranks.tolist(), wanted.boxes.tolist(), strict=True):
            common = [min(b, d) - max(a, c) for (a, b), (c, d) in zip(box, mine, strict=True)]
            if min(common, default=1) > 0 and rank not in ranks:
                turns[ranks[asked % len(ranks)]] += math.prod(common)
                asked += 1
    found = transfers(src, dst, shape)
    assert np.bincount(found.src_rank, found.moved).max() <= turns.max()


XY = Mesh(x=4, y=2)


@pytest.mark.parametrize(
    ("src", "dst", "kind", "sent"),
    [
        (((), ()), (("x",), ("y",)), "Slice", 0),
        ((("x", "y"), ()), (("y", "x"), ()), "Permute", 8),
        ((("x",), ()), ((), ()), "AllGather", 3 * 16),
        ((("x",), ("y",)), ((), ()), "AllGather", 7 * 8),
        ((("x", "y"), ()), ((), ("x", "y")), "AllToAll", 7),
        ((("y",), ("x",)), ((), ("y", "x")), "Exchange", 8),
    ],
)
def test_what_a_redistribution_is(src, dst, kind, sent):
    """An 8 x 8 value on a 4 x 2 mesh: the collective's name, and the elements that a card sends at most."""
    program = program_of((8, 8), (Layout(XY, src), Layout(XY, dst)), "uint8")
    found = [(row.kind, max(row.sent_bytes)) for row in program.communication()]
    assert found == ([(kind, sent)] if sent else [])


def test_one_card_to_all_is_a_broadcast():
    """What one card holds whole goes to the three others."""
    program = program_of((4,), (Layout.replicated(1, 1), Layout.replicated(4, 1)), "uint8")
    assert [(row.kind, row.sent_bytes) for row in program.communication()] == [("Broadcast", (12, 0, 0, 0))]


def test_short_messages_take_the_normal_form_and_long_ones_go_straight():
    """On 64 cards, exchanges in groups of 8 need fewer messages; where there are many bytes, these decide."""
    mesh = Mesh(x=8, y=8)
    src, dst = Layout(mesh, "x+y -"), Layout(mesh, "- y+x")
    assert len(route(src, dst, (64, 64), 4)[0]) > 1
    assert route(src, dst, (8192, 8192), 4)[0] == (dst,)


def test_the_array_that_xla_gathers_twice_goes_straight():
    """384^3 float32 from P('y', None, 'x') to P(None, ('x', 'y'), None) on 4 x 2: 23.6 MiB received, two shards held.

    XLA takes 324 MiB of temporaries; its paper's normal form, which ours is too, receives 33.75 MiB.
    """
    shape, mib = (384, 384, 384), 1 << 20
    src, dst = Layout(XY, "y - x"), Layout(XY, "- x+y -")
    assert route(src, dst, shape, 4)[0] == (dst,)
    found = transfers(src, dst, shape)
    received = np.bincount(found.dst_rank, found.moved) * 4 / mib
    np.testing.assert_array_equal(received, 384**3 * 4 / 8 / mib * 7 / 8)
    hops = normal_form(src, dst, shape)
    assert [hop.kind for hop in hops] == ["AllToAll", "AllToAll"]
    by_hop, before = 0.0, src
    for hop in hops:
        pieces = transfers(before, hop.layout, shape)
        by_hop += np.bincount(pieces.dst_rank, pieces.moved).max() * 4 / mib
        before = hop.layout
    assert by_hop == 33.75


def test_a_sum_of_which_each_card_keeps_a_part_is_scattered():
    """A product over a cut inner dim, read by rows: half of an all-reduce's bytes, and the same bits."""
    build, f32 = GraphBuilder(), F32
    x, w = build.input("x", Spec((8, 16), f32)), build.param("w", Spec((16, 6), f32))
    product = build.add(operators.MatMul(), x, w, strategy=((1, 4), (4, 1)))
    rows = build.add(operators.Neg(), product, strategy=((4, 1),))
    random = np.random.default_rng(0)
    values = {n: random.normal(size=s).astype(f32) for n, s in (("x", (8, 16)), ("w", (16, 6)))}
    outcomes = []
    for outputs, kind in (([rows], ReduceScatter), ([rows, product], AllReduce)):
        graph = build.graph(outputs)
        program = partition(graph, propagate(graph, 4))
        assert kind in map(type, program.instructions)
        params, inputs = shard_inputs(program, {"w": values["w"]}), shard_inputs(program, {"x": values["x"]})
        serial, _ = run_serial(program, params, inputs)
        outcomes.append(unshard(program, rows, serial))
        for rank, card in enumerate(run_together(program, params, inputs)):
            np.testing.assert_array_equal(card.outputs[rows], serial[rank][rows])
        if kind is ReduceScatter:
            # Each card sends 3 parts of 2 x 6 float32.
            assert [(c.kind, c.sent_bytes.tolist()) for c in program.collectives] == [
                ("ReduceScatter", [3 * 2 * 6 * 4] * 4)
            ]
        np.testing.assert_allclose(
            outcomes[-1], evaluate(graph, {"w": values["w"]}, {"x": values["x"]})[rows], rtol=1e-5
        )
    np.testing.assert_array_equal(*outcomes)


def test_a_reader_takes_the_nearest_version():
    """A value lies in rows and, for another reader, whole: columns are cut from the whole one, and not sent."""
    build = GraphBuilder()
    x = build.input("x", Spec((8, 8), F32))
    rows = build.add(operators.Neg(), x, strategy=((4, 1),))
    whole = build.add(operators.Softmax(0), rows, strategy=((1, 1),))
    columns = build.add(operators.Tanh(), rows, strategy=((1, 4),))
    graph = build.graph([whole, columns])
    program = partition(graph, propagate(graph, 4))
    assert [c.kind for c in program.collectives] == ["AllGather"]
