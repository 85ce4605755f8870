"""Loading onto cards takes one road: the controller holds no whole shard, and none goes through the scheduler."""

import json
import subprocess
import sys

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup, kill_card, recover
from distinfer_lab.cards.runtime import CardRuntime
from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import CheckpointFileError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

MIB = 1 << 20
SRC = Strategy({"w": Layout(Mesh(tp=4), "tp -")}, {"w": (64, 48)})
DST = Strategy({"w": Layout(Mesh(tp=2), "- tp")}, {"w": (64, 48)})
WHOLE = (np.arange(64 * 48, dtype=np.float32) % 2000).reshape(64, 48)  # float16 has all of these


@pytest.fixture
def source(tmp_path):
    """Four slices by rows."""
    for rank in range(4):
        save_slice(
            tmp_path / f"src/rank_{rank}/net.ckpt", {"w": WHOLE[16 * rank : 16 * rank + 16]}, sync=False
        )
    return tmp_path / "src"


def seen_by(*ranks_by_card):
    """In place of `CardRuntime.seen`: each card sees the files of some ranks."""

    def seen(self, paths):
        return [{p for p in paths if any(f"rank_{r}/" in p for r in ranks)} for ranks in ranks_by_card]

    return seen


@pytest.mark.parametrize(
    "ranks_by_card", [((), ()), ((0, 2), (1,)), ((3,), ())], ids=["none", "three", "one"]
)
@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_what_no_card_sees_is_served_by_the_controller(source, monkeypatch, processes, ranks_by_card):
    """Some files or all; twice on the same cards; a lost card gets its part once more."""
    monkeypatch.setattr(CardRuntime, "seen", seen_by(*ranks_by_card))
    with CardGroup(2, processes=processes) as cards, open_checkpoint(source, SRC) as checkpoint:
        for _ in range(2):
            placement, taken = cards.load(checkpoint.plan(DST), buffer="64 KiB")
            check_columns(cards, placement)
        assert (taken.read_bytes > 0) == any(ranks_by_card), "what the controller serves no card reads"
        kill_card(cards, 1)
        recover(cards)
        check_columns(cards, placement)
        cards.load(checkpoint.plan(DST, dtype="float16"), buffer="64 KiB", into=placement)
        check_columns(cards, placement)


def check_columns(cards, placement):
    got = cards.pull(placement, {rank: ["w"] for rank in range(2)})
    for rank in range(2):
        np.testing.assert_array_equal(got[rank]["w"], WHOLE[:, 24 * rank : 24 * rank + 24])


def test_files_are_written_of_what_only_the_controller_sees(source, tmp_path, monkeypatch):
    """The output lies where the cards and the controller see it; the source does not."""
    honest = CardRuntime.seen
    monkeypatch.setattr(
        CardRuntime,
        "seen",
        lambda self, paths: [{p for p in s if "/src/" not in p} for s in honest(self, paths)],
    )
    with CardGroup(2) as cards, open_checkpoint(source, SRC) as checkpoint:
        assert checkpoint.plan(DST).write(tmp_path / "out", on=cards).verify().ok
    with open_checkpoint(tmp_path / "out") as written:
        for rank in range(2):
            np.testing.assert_array_equal(written.read(rank, "w"), WHOLE[:, 24 * rank : 24 * rank + 24])


def test_a_served_file_that_is_gone_is_the_error(source, monkeypatch):
    """Not that of a card that waits for it; then the group works on."""
    monkeypatch.setattr(CardRuntime, "seen", seen_by((), ()))
    with CardGroup(2) as cards, open_checkpoint(source, SRC) as checkpoint:
        conversion = checkpoint.plan(DST)
        away = (source / "rank_2/net.ckpt").rename(source / "rank_2/away.ckpt")
        with pytest.raises(CheckpointFileError, match=r"rank_2/net\.ckpt"):
            cards.load(conversion)
        away.rename(source / "rank_2/net.ckpt")
        check_columns(cards, cards.load(conversion)[0])


def test_serving_is_cancelled(source, large, monkeypatch):
    """Before it begins or while it runs; then the group works on."""

    class Control:
        def advance(self, nbytes):
            pass

        def check(self):
            raise ReshardError("enough")

    monkeypatch.setattr(CardRuntime, "seen", seen_by((), ()))
    rows, columns = Layout(Mesh(tp=4), "tp -"), Layout(Mesh(tp=2), "- tp")
    shapes = {"w": (16384, 4096)}
    with CardGroup(2) as cards, open_checkpoint(large / "ckpt", Strategy({"w": rows}, shapes)) as checkpoint:
        with pytest.raises(ReshardError, match="enough"):
            cards.load(checkpoint.plan(Strategy({"w": columns}, shapes)), control=lambda rank: Control())
        with open_checkpoint(source, SRC) as small:
            check_columns(cards, cards.load(small.plan(DST))[0])


MEASURED = """
import json, sys, threading, time
import distributed.comm.tcp as tcp
import distinfer_lab as dl
from distinfer_lab.cards.runtime import CardRuntime
from distinfer_lab.cards.store import private_bytes

folder, mode, format = sys.argv[1:]
through = [0]
to_frames, from_frames = tcp.to_frames, tcp.from_frames

async def sent(*args, **kwargs):
    frames = await to_frames(*args, **kwargs)
    through[0] += sum(memoryview(f).nbytes for f in frames)
    return frames

async def got(frames, *args, **kwargs):
    frames = [frames] if isinstance(frames, (bytes, bytearray, memoryview)) else list(frames)
    through[0] += sum(memoryview(f).nbytes for f in frames)
    return await from_frames(frames, *args, **kwargs)

def seen(self, paths):
    paths = sorted(paths)
    if mode == "one each":
        return [set(paths[card::2]) for card in range(2)]
    return [set(), set()]

class Net(dl.Cell):
    def __init__(self):
        super().__init__()
        self.matmul = dl.ops.MatMul().shard(((1, 1), (1, 2)))
        self.weight = dl.Parameter(dl.initializer("zeros", (16384, 4096)), name="w")

    def construct(self, x):
        return self.matmul(x, self.weight)

def main():
    with dl.CardGroup(2, processes=True) as cards:
        CardRuntime.seen = seen
        columns = dl.Strategy({"w": dl.Layout(dl.Mesh(tp=2), "- tp")}, {"w": (16384, 4096)})
        rows = dl.Strategy({"w": dl.Layout(dl.Mesh(tp=4), "tp -")}, {"w": (16384, 4096)})
        net = Net()
        train = rows if format == "ckpt" else None
        time.sleep(1)
        idle, peak, done = private_bytes(), [0], threading.Event()

        def watch():
            while not done.is_set():
                peak[0] = max(peak[0], private_bytes())
                time.sleep(0.002)

        tcp.to_frames, tcp.from_frames = sent, got
        watcher = threading.Thread(target=watch)
        watcher.start()
        dl.load_distributed_checkpoint(net, folder, columns, train, cards=cards, check_replicas=False)
        done.set()
        watcher.join()
        counted = through[0]
        right = all(
            cards.pull(p, {r: ["w"]})[r]["w"][5, 7] == 4096 * 5 + 2048 * r + 7
            for p in cards.runtime.recovery.placements.values() for r in range(2)
        )
        print(json.dumps({"right": right, "above": peak[0] - idle, "through": counted}))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """256 MiB: four slices by rows, and the same as a Hugging Face folder of two files."""
    folder = tmp_path_factory.mktemp("large")
    whole = np.arange(16384 * 4096, dtype=np.float32).reshape(16384, 4096)
    for rank in range(4):
        save_slice(
            folder / f"ckpt/rank_{rank}/net.ckpt", {"w": whole[4096 * rank : 4096 * rank + 4096]}, sync=False
        )
    (folder / "safetensors").mkdir()
    save_slice(folder / "safetensors/model.safetensors", {"w": whole}, format="safetensors", sync=False)
    return folder


@pytest.mark.parametrize(
    ("mode", "format", "most"),
    [("one each", "ckpt", 4 * MIB), ("none", "ckpt", 64 * MIB), ("none", "safetensors", 64 * MIB)],
)
def test_the_controller_holds_little_and_the_scheduler_sees_nothing(large, tmp_path, mode, format, most):
    """Of 256 MiB: 4 MiB where each file is seen by one card, a buffer (32 MiB) and 32 MiB where none is."""
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)
    done = subprocess.run(
        [sys.executable, script, large / format, mode, format],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["right"]
    assert found["above"] <= most, found
    assert found["through"] <= 4 * MIB, found
