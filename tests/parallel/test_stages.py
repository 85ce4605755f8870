"""Pipeline stages: a net spread over stages gives what it gives on one card, and each card does its own part only."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, ShardingError
from distinfer_lab.net import Cell, Parameter, evaluate, nn, ops, trace, training_graph
from distinfer_lab.parallel import (
    CardProgram,
    Redistribute,
    partition,
    propagate,
    run_serial,
    shard_inputs,
    unshard,
    view_of,
)

from ..strategies import examples, random_nets
from .together import Together, run_together


@given(random_nets(), st.data())
@settings(max_examples=examples(60))
def test_a_staged_net_equals_the_uncut_one(drawn, data):
    """Random nets, cuts and stages, values that flow back to earlier stages too; outputs and gradients."""
    graph, devices, params, inputs = drawn
    stages = data.draw(st.integers(2, 3))
    chosen = st.one_of(st.none(), st.integers(0, stages - 1))
    nodes = [n if n.origin else replace(n, stage=data.draw(chosen)) for n in graph.nodes]
    graph = replace(graph, nodes=tuple(nodes))
    program = partition(graph, propagate(graph, devices * stages, stages=stages))
    given_params, given_inputs = shard_inputs(program, params), shard_inputs(program, inputs)
    outputs, _ = run_serial(program, given_params, given_inputs)
    for name, expected in evaluate(graph, params, inputs).items():
        np.testing.assert_allclose(unshard(program, name, outputs), expected, rtol=1e-9, atol=1e-9)
    found = run_together(program, given_params, given_inputs)
    for rank, card in enumerate(found):
        for name, shard in outputs[rank].items():
            np.testing.assert_array_equal(card.outputs[name], shard)
    predicted = program.communication()
    assert predicted.with_counts([card.sent_bytes for card in found]) == predicted


class Block(Cell):
    """A residual block of two products, the first cut by columns and the second by rows."""

    def __init__(self, random: np.random.Generator, width: int, cut: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((width,))
        self.up = Parameter(random.normal(0, 0.2, (width, 2 * width)).astype(np.float32), "up")
        self.down = Parameter(random.normal(0, 0.2, (2 * width, width)).astype(np.float32), "down")
        self.first, self.second = ops.MatMul(), ops.MatMul()
        self.first.shard(((1, 1), (1, cut)))
        self.second.shard(((1, cut), (cut, 1)))
        self.gelu = nn.GELU()

    def construct(self, x):
        return x + self.second(self.gelu(self.first(self.norm(x), self.up)), self.down)


class Language(Cell):
    """Words to words through blocks, one on each stage; the table is the head's, too."""

    def __init__(self, stages: int, cut: int, tied: bool = True) -> None:
        super().__init__()
        random = np.random.default_rng(5)
        self.table = Parameter(random.normal(0, 0.3, (16, 8)).astype(np.float32), "table")
        self.gather, self.head, self.relu = ops.Gather(), ops.MatMul(transpose_b=True), nn.ReLU()
        for i in range(stages):
            block = Block(random, 8, cut)
            block.pipeline_stage = i
            setattr(self, f"block{i}", block)
        self.blocks = [getattr(self, f"block{i}") for i in range(stages)]

    def construct(self, x):
        h = self.gather(self.table, x, 0)
        for block in self.blocks:
            h = block(h)
        return self.head(h, self.table)


@pytest.mark.parametrize(("stages", "cut_in"), [(2, 2), (4, 1), (2, 1)])
@pytest.mark.parametrize("zero", [False, True], ids=["plain", "parallel optimizer"])
@pytest.mark.parametrize("optimizer", ["Momentum", "Adam"])
def test_training_over_stages_is_training_on_one_card(stages, cut_in, zero, optimizer):
    """Three steps of a net whose table lies on the first stage and on the last; both stay equal, bit for bit."""
    net = Language(stages, cut_in)
    params = net.trainable_params()
    made = nn.Momentum(params, 0.1, 0.9) if optimizer == "Momentum" else nn.Adam(params, 0.01)
    random = np.random.default_rng(0)
    words, label = random.integers(0, 16, 8), np.eye(16, dtype=np.float32)[random.integers(0, 16, 8)]
    graph = training_graph(net, nn.SoftmaxCrossEntropyWithLogits(reduction="mean"), made, words, label)
    devices = stages * cut_in
    program = partition(graph, propagate(graph, devices, stages=stages, parallel_optimizer=zero))
    assert program.strategy["table"].first_ranks == (0, devices - cut_in)
    assert program.strategy["block1.up"].first_ranks == (cut_in,)
    values = {
        n: p.asnumpy() for n, p in {**net.parameters_dict(), **made.states}.items() if n in graph.params
    }
    shards, inputs = shard_inputs(program, values), {"x": words, "label": label}
    for _ in range(3):
        expected = evaluate(graph, values, inputs)
        outputs, updates = run_serial(program, shards, shard_inputs(program, inputs))
        loss = program.outputs[0]
        np.testing.assert_allclose(unshard(program, loss, outputs), expected[loss], rtol=1e-5)
        shards = [mine | new for mine, new in zip(shards, updates, strict=True)]
        values |= {n: expected[n] for n in graph.updates}
    for name in graph.updates:
        np.testing.assert_allclose(unshard(program, name, shards), values[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(shards[0]["table"], shards[devices - cut_in]["table"])
    together = run_together(program, shards, shard_inputs(program, inputs))
    serial = run_serial(program, shards, shard_inputs(program, inputs))[1]
    for card, mine in zip(together, serial, strict=True):
        assert card.updates.keys() == mine.keys()
        for name, shard in mine.items():
            np.testing.assert_array_equal(card.updates[name], shard)


def staged(stages=2, cut_in=2):
    net = Language(stages, cut_in)
    graph = trace(net, np.zeros(8, np.int64))
    return net, graph, partition(graph, propagate(graph, stages * cut_in, stages=stages))


def test_a_card_does_its_own_stage_only():
    """2 stages of 2 cards: a block's products run on its stage's; one value crosses, from card to card."""
    _, _, program = staged()
    for rank, view in ((r, view_of(program, r)) for r in range(4)):
        ops_of = [s.work.inputs for s in view.steps if hasattr(s.work, "op")]
        read = {name for names in ops_of for name in names if name in program.params}
        own = rank // 2
        assert any(name.startswith(f"block{own}.") for name in read)
        assert not any(name.startswith(f"block{1 - own}.") for name in read)
    crossing = []
    for instruction in program.instructions:
        if isinstance(instruction, Redistribute):
            found = program.transfers(instruction)
            crossing += [instruction.output] * bool((found.src_rank // 2 != found.dst_rank // 2).any())
    # 4 of the 8 rows of 8 float32 from each card of the first stage to its like in the second.
    rows = [row for row in program.communication() if row.value in crossing]
    assert [(row.kind, row.sent_bytes) for row in rows] == [("Permute", (128, 128, 0, 0))]


def test_micro_batches_do_not_wait_for_later_stages():
    """The first stage ends all its micro-batches before the second has begun; together they give the whole batch."""
    net, graph, _ = staged()
    whole = np.random.default_rng(1).integers(0, 16, 8)
    small = trace(net, np.zeros(2, np.int64))
    program = partition(small, propagate(small, 4, stages=2))
    parts = CardProgram(program, micro_batches=4)
    values = {n: p.asnumpy() for n, p in net.parameters_dict().items()}
    params, inputs = shard_inputs(program, values), parts.shard_inputs({"x": whole})
    together = Together(4)

    class Card:
        def __init__(self, rank: int) -> None:
            self.channels = together.of(rank)

        def check(self) -> None: ...

        def count(self, nbytes: int) -> None: ...

    found: dict[int, Any] = {}
    for stage in (0, 1):
        cards = {rank: Card(rank) for rank in (2 * stage, 2 * stage + 1)}
        found |= run_at_once({r: (parts, r, params[r], inputs[r], card) for r, card in cards.items()})
    outputs = [found[rank][0] for rank in range(4)]
    expected = evaluate(graph, values, {"x": whole})[graph.outputs[0]]
    np.testing.assert_allclose(parts.unshard(program.outputs[0], outputs), expected, rtol=1e-5, atol=1e-6)
    counted = parts.communication([found[rank][2] for rank in range(4)])
    assert counted == parts.communication() == program.communication().times(4)


def run_at_once(calls):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = {rank: pool.submit(call[0], *call[1:]) for rank, call in calls.items()}
        return {rank: future.result(30) for rank, future in futures.items()}


def test_a_stage_may_hold_no_parameter():
    """The middle one of three only adds; it holds nothing, and passes values on."""

    class Net(Cell):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Dense(4, 6, weight_init=np.ones((6, 4), np.float32))
            self.relu = nn.ReLU()
            self.fc2 = nn.Dense(6, 3, weight_init=np.ones((3, 6), np.float32))
            self.fc1.pipeline_stage, self.relu.pipeline_stage, self.fc2.pipeline_stage = 0, 1, 2

        def construct(self, x):
            return self.fc2(self.relu(self.fc1(x)))

    net, x = Net(), np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    graph = trace(net, x)
    program = partition(graph, propagate(graph, 6, stages=3))
    assert program.resident_bytes.tolist()[2:4] == [0, 0]
    values = {n: p.asnumpy() for n, p in net.parameters_dict().items()}
    outputs, _ = run_serial(program, shard_inputs(program, values), shard_inputs(program, {"x": x}))
    found = unshard(program, program.outputs[0], outputs)
    np.testing.assert_allclose(found, evaluate(graph, values, {"x": x})[graph.outputs[0]], rtol=1e-6)


def test_stages_that_do_not_fit_are_refused():
    """More stages than cards, cards that cannot be shared, a stage that there is not, a stage that is none."""
    net = Language(2, 1)
    graph = trace(net, np.zeros(8, np.int64))
    with pytest.raises(ShardingError, match=r"pipeline_stages=4: 2 cards cannot be divided .*; use 1, 2"):
        propagate(graph, 2, stages=4)
    with pytest.raises(
        ShardingError, match=r"pipeline_stages=4: 6 cards cannot be divided .*; use 1, 2, 3, 6"
    ):
        propagate(graph, 6, stages=4)
    net.blocks[1].pipeline_stage = 2
    with pytest.raises(ShardingError, match=r"is at pipeline_stage 2, but there are 2 stages, 0 to 1"):
        propagate(trace(net, np.zeros(8, np.int64)), 2, stages=2)
    for stage in (-1, True, "1"):
        with pytest.raises(ArgumentTypeError, match=f"pipeline_stage is a number, 0 or more, not {stage!r}"):
            net.blocks[1].pipeline_stage = stage


def test_one_stage_does_not_look_at_the_cells():
    """The same net, marked for two stages, on the cards of one."""
    graph = trace(Language(2, 2), np.zeros(8, np.int64))
    sharding = propagate(graph, 2)
    assert {layout.first_ranks for layout in sharding.strategy.values()} == {(0,)}
