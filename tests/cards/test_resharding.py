"""Reshards on cards: every route equals the serial definition, bit for bit, on every kind of card."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import LocalCluster

from distinfer_lab.cards import CardGroup
from distinfer_lab.cards.routes import homes_of, spread
from distinfer_lab.cards.runtime import CardRuntime
from distinfer_lab.checkpoint import FileSource, open_checkpoint, rank_read_plan, verify_folder
from distinfer_lab.errors import CardError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import execute, plan_reshard

from .clusters import cluster_of

SHAPES = {"cols": (48, 32), "rows": (64, 24), "whole": (7,), "grid": (16, 16), "qkv": (24, 8), "step": ()}


def layout(mesh, *dims, **options):
    return Layout(Mesh(**mesh), dims, **options)


TP8, TP4, DP2TP4, TWO = {"tp": 8}, {"tp": 4}, {"dp": 2, "tp": 4}, {"x": 2, "y": 2}

SRC = Strategy(
    {
        "cols": layout(TP8, (), ("tp",)),
        "rows": layout(DP2TP4, ("tp",), ()),
        "whole": layout(TP8, ()),
        "grid": layout({"a": 2, "b": 4}, ("a",), ("b",)),
        "qkv": layout(DP2TP4, ("tp",), (), fused=((16, 4, 4), None)),
        "step": layout(TP8),
    },
    SHAPES,
)
DST = Strategy(
    {
        "cols": layout(TP4, ("tp",), ()),
        "rows": layout(TWO, ("x",), ("y",)),
        "whole": layout(TP4, ()),
        "grid": layout(TP4, ("tp",), (), split="torch_chunk"),
        "qkv": layout(TWO, ("y",), (), fused=((16, 4, 4), None)),
        "step": layout(TP4),
    },
    SHAPES,
)


def shards_of(strategy):
    """Rank -> name -> the shard, cut from whole tensors by plain indexing."""
    out = {rank: {} for rank in range(strategy.ranks)}
    for number, (name, shape) in enumerate(SHAPES.items()):
        whole = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) + 10_000 * number
        regions = strategy[name].regions(shape)
        shapes = regions.shard_shapes(strategy.ranks)
        for rank in range(strategy.ranks):
            out[rank][name] = np.full(shapes[rank], np.nan, np.float32)
        for rank, box, start in zip(regions.ranks.tolist(), regions.boxes, regions.starts, strict=True):
            there = tuple(slice(a, a + n) for a, n in zip(start, box[:, 1] - box[:, 0], strict=True))
            out[rank][name][there] = whole[tuple(slice(a, b) for a, b in box)]
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight slice files."""
    folder = tmp_path_factory.mktemp("resharding")
    for rank, shards in shards_of(SRC).items():
        save_slice(folder / f"src/rank_{rank}/a.ckpt", shards, sync=False)
    return folder / "src"


@pytest.fixture(scope="module", params=["in process", "processes", "given"])
def cards(request):
    """Eight cards in one process, three processes, four workers of a given cluster."""
    if request.param == "given":
        with LocalCluster(
            n_workers=4, processes=True, threads_per_worker=1, dashboard_address=":0", protocol="tcp://"
        ) as cluster:
            with CardGroup(4, address=cluster.scheduler_address) as group:
                yield group
    else:
        with CardGroup(
            8 if request.param == "in process" else 4, processes=request.param == "processes"
        ) as group:
            yield group


def check(got, wanted):
    for rank, shards in wanted.items():
        assert got[rank].keys() == shards.keys()
        for name, shard in shards.items():
            np.testing.assert_array_equal(got[rank][name], shard)


def test_the_definition():
    """What the routes are compared with: serial execution gives the shards that numpy cuts."""
    given = {(rank, name): shard for rank, shards in shards_of(SRC).items() for name, shard in shards.items()}
    got = execute(plan_reshard(SRC, DST), given)
    check({rank: {name: got[rank, name] for name in SHAPES} for rank in range(4)}, shards_of(DST))


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("route", ["files", "channels"])
def test_files_to_files(source, cards, route, format, tmp_path):
    """Each card reads all sources, or its own only and the rest comes over channels."""
    told = []
    with open_checkpoint(source, SRC) as checkpoint:
        result = checkpoint.plan(DST).write(
            tmp_path / "out", on=cards, route=route, format=format, progress=told.append, buffer="256 KiB"
        )
    assert verify_folder(tmp_path / "out").ok
    with open_checkpoint(tmp_path / "out") as written:
        check({r: {n: written.read(r, n) for n in SHAPES} for r in range(4)}, shards_of(DST))
    assert result.needed_bytes <= result.read_bytes
    assert told[-1].done_bytes == told[-1].total_bytes == result.written_bytes
    # A card that reads all needs no other; one that reads its own gets what it lacks, and no more.
    assert (result.moved_bytes == 0) == (route == "files")
    assert result.moved_bytes <= result.needed_bytes + 1000
    assert (result.private_bytes is None) == (not cards.processes)


@pytest.mark.parametrize("route", ["auto", "channels"])
def test_files_to_cards(source, cards, route):
    """Into the memory of the cards."""
    with open_checkpoint(source, SRC) as checkpoint:
        placement, taken = cards.load(checkpoint.plan(DST), route=route, buffer="256 KiB")
    check(cards.pull(placement, {rank: list(SHAPES) for rank in range(4)}), shards_of(DST))
    assert (taken.moved_bytes == 0) == (route == "auto")
    cards.drop(placement)


def test_cards_to_cards_and_to_files(source, tmp_path):
    """Eight cards hold the training slices; four get the destination's, or write them."""
    with CardGroup(8) as cards, open_checkpoint(source, SRC) as checkpoint:
        held, _ = cards.load(checkpoint.plan(SRC))
        check(cards.pull(held, {rank: list(SHAPES) for rank in range(8)}), shards_of(SRC))
        on_cards = cards.checkpoint(held, SRC)
        plan = on_cards.plan(DST, same_cards=True)
        placement, taken = cards.load(plan)
        check(cards.pull(placement, {rank: list(SHAPES) for rank in range(4)}), shards_of(DST))
        # The frames that ask for tensors are a few bytes each.
        assert 0 <= taken.moved_bytes - plan.plan.bound_bytes < 300
        assert taken.read_bytes == 0
        result = on_cards.plan(DST, dtype="float16").write(tmp_path / "out", on=cards)
        assert result.read_bytes == 0
        with open_checkpoint(tmp_path / "out") as written:
            got = {r: {n: written.read(r, n) for n in SHAPES} for r in range(4)}
        check(
            got,
            {
                r: {n: v.astype(np.float16) if v.size > 1 else v for n, v in s.items()}
                for r, s in shards_of(DST).items()
            },
        )
        with pytest.raises(ReshardError, match="is in the memory of cards; pass on="):
            plan.write(tmp_path / "other")
        cards.drop(held)
        with pytest.raises(CardError, match="no longer on these cards"):
            cards.load(plan)


class Rows:
    """A source: one half of the rows of w, float32 [8, 8]."""

    nbytes = 128

    def __init__(self, half):
        self.half = half

    def read(self):
        return {"w": np.arange(64, dtype=np.float32).reshape(8, 8)[4 * self.half : 4 * self.half + 4]}


def test_of_two_replicas_the_one_on_the_same_host_sends():
    """Each of two hosts holds all rows: they become columns, and no shard goes from host to host."""
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.1"]
    rows = Strategy({"w": layout({"tp": 2, "dp": 2}, ("tp",), ())}, {"w": (8, 8)})
    columns = Strategy({"w": layout({"dp": 2, "tp": 2}, (), ("tp",))}, {"w": (8, 8)})
    with cluster_of(0) as given:
        for rank, host in enumerate(hosts):
            given.add("--host", host, "--name", str(rank))
        given.wait()
        with CardGroup(4, address=given.address) as cards:
            held = cards.place([Rows(rank // 2) for rank in range(4)], rows)
            conversion = cards.checkpoint(held, rows).plan(columns, same_cards=True)
            placement, _ = cards.load(conversion)
            found = cards.pull(placement, {rank: ["w"] for rank in range(4)})
    whole = np.arange(64, dtype=np.float32).reshape(8, 8)
    for rank in range(4):
        np.testing.assert_array_equal(found[rank]["w"], np.split(whole, 2, axis=1)[rank % 2])
        senders = conversion.plan.pieces_of(rank).src_rank
        assert len(senders) == 2
        assert {hosts[sender] for sender in senders} == {hosts[rank]}


def test_what_was_left_is_not_sent_again(source, tmp_path, monkeypatch):
    """A run over channels that was cancelled: the next one moves only what is missing."""
    with CardGroup(4) as cards, open_checkpoint(source, SRC) as checkpoint:
        plan = checkpoint.plan(DST)
        whole = plan.write(tmp_path / "whole", on=cards, route="channels")
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda *args: (time.sleep(0.2), write(*args))[1])
        journals = tmp_path / ".out.stage/journals"
        with pytest.raises(ReshardError, match="cancelled; the next run of the same work resumes it"):
            plan.write(
                tmp_path / "out",
                on=cards,
                route="channels",
                cancelled=lambda: any(path.stat().st_size for path in journals.glob("*/*")),
            )
        monkeypatch.undo()
        assert not (tmp_path / "out").exists()
        result = plan.write(tmp_path / "out", on=cards, route="channels")
    assert result.resumed
    assert 0 < result.reused_bytes < result.written_bytes
    assert result.moved_bytes < whole.moved_bytes
    assert verify_folder(tmp_path / "out").ok


def test_each_card_may_see_other_files():
    """Sources go to a card that sees them, evenly, or to the controller; what all should see is named."""
    paths = {rank: f"/data/rank_{rank}" for rank in range(4)}
    all_of_them = set(paths.values())
    names = ["card 0 (a)", "card 1 (b)"]
    assert homes_of(paths, [all_of_them] * 2, "auto", names) == {}
    assert homes_of(paths, [all_of_them] * 2, "channels", names) == {0: 0, 1: 1, 2: 0, 3: 1}
    apart = [{paths[0], paths[3]}, {paths[1], paths[2]}]
    assert homes_of(paths, apart, "auto", names) == {0: 0, 1: 1, 2: 1, 3: 0}
    with pytest.raises(CardError, match=r"card 0 \(a\) does not see /data/rank_1 as this process does"):
        homes_of(paths, apart, "files", names)
    assert homes_of(paths, [{paths[0], paths[1]}, {paths[2]}], "auto", names) == {0: 0, 1: 0, 2: 1, 3: 2}


def test_a_card_writes_what_it_reads():
    """Of four files from eight slices on four cards, half of each need not be sent; without homes they go in turn."""
    eight, four = (Layout(Mesh(tp=n), "tp") for n in (8, 4))
    src, dst = (Strategy({"w": one}, {"w": (16,)}) for one in (eight, four))
    plan = plan_reshard(src, dst)
    checkpoint = SimpleNamespace(sources=[FileSource(f"rank_{rank}") for rank in range(8)])
    shares = [rank_read_plan(plan, checkpoint, rank) for rank in range(4)]
    homes = {rank: rank % 4 for rank in range(8)}
    assert [share.bytes_by_sender(homes) for share in shares] == [{0: 8, 1: 8}, {2: 8, 3: 8}] * 2
    mine = spread(shares, 4, homes)
    assert sorted(item for items in mine for item in items) == [0, 1, 2, 3]
    for card, (item,) in enumerate(mine):
        assert shares[item].bytes_by_sender(homes)[card] == 8
    assert spread(shares, 4, {}) == [[0], [1], [2], [3]]
    assert [len(items) for items in spread(shares, 3, {})] == [2, 1, 1]
    # Of equal ones that to which it matters more has the first choice.
    assert spread(shares[:2], 2, {0: 0, 1: 1, 2: 0, 3: 0}) == [[1], [0]]
    # Whoever has it all does not do it all.
    assert [len(items) for items in spread(shares, 2, dict.fromkeys(range(8), 1))] == [2, 2]


def test_a_card_that_sees_no_output_is_named(source, cards, tmp_path, monkeypatch):
    """The output folder must lie where all cards see it; a route must be one."""
    with open_checkpoint(source, SRC) as checkpoint:
        plan = checkpoint.plan(DST)
        with pytest.raises(ReshardError, match="route='x' is not one of auto, files, channels"):
            plan.write(tmp_path / "out", on=cards, route="x")
        honest = CardRuntime.seen
        monkeypatch.setattr(CardRuntime, "seen", lambda self, paths: [*honest(self, paths)[:-1], set()])
        with pytest.raises(
            CardError, match=r"card \d \(.*\) does not see .*; the output must lie where all cards"
        ):
            plan.write(tmp_path / "out", on=cards, route="auto")
    assert not list(tmp_path.iterdir())


def test_a_budget_is_kept_or_refused(tmp_path):
    """Private memory of process cards, as they measure it; and what cannot be kept, before a byte moves."""
    shape = (4096, 4096)
    src = Strategy({"w": layout(TP8, (), ("tp",))}, {"w": shape})
    dst = Strategy({"w": layout(TP4, ("tp",), ())}, {"w": shape})
    for rank in range(8):
        save_slice(
            tmp_path / f"src/rank_{rank}/a.ckpt", {"w": np.full((4096, 512), rank, np.float32)}, sync=False
        )
    with CardGroup(4, processes=True) as cards, open_checkpoint(tmp_path / "src", src) as checkpoint:
        plan = checkpoint.plan(dst)
        for route in ("files", "channels"):
            result = plan.write(tmp_path / route, on=cards, route=route, buffer="8 MiB")
            assert 0 < result.private_bytes <= (8 + 32) << 20
            assert result.buffer_bytes <= 8 << 20
            placement, taken = cards.load(plan, route="channels", buffer="8 MiB", memory_limit="24 MiB")
            assert taken.predicted_bytes == 24 << 20
            assert 16 << 20 <= taken.private_bytes <= (24 + 32) << 20
            cards.drop(placement)
        with pytest.raises(CardError, match=r"rank 0 ends with 16777216 bytes .* use memory_limit=25165824"):
            cards.load(plan, buffer="8 MiB", memory_limit="20 MiB")
        with pytest.raises(
            CardError, match="too small for 4 cards that send each other pieces; use 20480 or more"
        ):
            plan.write(tmp_path / "out", on=cards, route="channels", buffer=10_000)
    assert verify_folder(tmp_path / "channels").ok


def test_many_files_of_a_card_share_its_memory(tmp_path):
    """Eight files on one card, each through the whole buffer: one after another they keep the limit."""
    rows = Layout(Mesh(tp=16), "tp -")
    whole = Strategy({"w": Layout.replicated(1, 2)}, {"w": (4096, 512)})
    save_slice(tmp_path / "src/rank_0/a.ckpt", {"w": np.ones((4096, 512), np.float32)}, sync=False)
    with CardGroup(2, card_memory="4 MiB") as cards, open_checkpoint(tmp_path / "src", whole) as checkpoint:
        plan = checkpoint.plan(Strategy({"w": rows}, {"w": (4096, 512)}))
        result = plan.write(tmp_path / "out", on=cards, buffer="3 MiB")
    assert len(result.files) == 16
    assert all(0 < file.buffer_bytes <= 3 << 20 for file in result.files)
    assert verify_folder(tmp_path / "out").ok
