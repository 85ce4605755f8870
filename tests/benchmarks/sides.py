"""The sides of the bench: ours in several ways, and others that do the same work.

Each runs in a process of its own and prints one line of JSON: seconds, bytes read, private memory.

python -m tests.benchmarks.sides SIDE WORK NBYTES SOURCE OUT FORMAT PROOF
"""

import importlib.util
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import xxhash

from distinfer_lab.checkpoint import Threads, open_checkpoint
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout

from ..resharding import plan_and_write
from .works import Work, whole

__all__ = ["SIDES", "available"]


class Job(NamedTuple):
    """What a side is given."""

    work: Work
    source: Path
    out: Path
    format: str
    proof: bool
    """Take digests, and wait until everything is on the disk."""


class Measured(NamedTuple):
    """What a side took."""

    seconds: float
    read_bytes: int
    private_bytes: int


def copy(job: Job) -> dict[str, int]:
    """One thread copies the files as they are."""
    total = 0
    for rank in job.work.copied_ranks:
        path = job.work.source_path(job.source, rank, job.format)
        target = job.out / path.name
        job.out.mkdir(parents=True, exist_ok=True)
        if job.proof:
            total += _copy_with_proof(path, target)
        else:
            shutil.copyfile(path, target)
            total += target.stat().st_size
    return {"read_bytes": total}


def _copy_with_proof(path: Path, target: Path) -> int:
    digest, block = xxhash.xxh3_128(), bytearray(2 << 20)
    total = 0
    with path.open("rb", buffering=0) as src, target.open("wb", buffering=0) as dst:
        while count := src.readinto(block):
            part = memoryview(block)[:count]
            digest.update(part)
            dst.write(part)
            total += count
        os.fsync(dst.fileno())
    return total


def merge_and_split(job: Job) -> dict[str, int]:
    """Every slice is loaded, every tensor made whole by numpy, cut, and saved."""
    work = job.work
    with open_checkpoint(job.source, work.src) as checkpoint:
        loaded = [{name: checkpoint.read(rank, name) for name in work.shapes} for rank in work.copied_ranks]
    wholes = {}
    for name in work.shapes:
        cut = [dim for dim, axes in enumerate(work.src[name].dims) if axes]
        parts = [shards[name] for shards in loaded]
        wholes[name] = np.concatenate(parts, axis=cut[0]) if cut else parts[0]
    for rank in range(1 if work.dst is None else work.dst.ranks):
        shards = {}
        for name, full in wholes.items():
            lying = Layout.replicated(1, full.ndim) if work.dst is None else work.dst[name]
            box = lying.boxes(full.shape)[rank]
            shards[name] = np.ascontiguousarray(full[tuple(slice(a, b) for a, b in box)])
        save_slice(job.out / f"rank_{rank}/dst{rank}.{job.format}", shards, format=job.format, sync=job.proof)
    return {"read_bytes": sum(a.nbytes for shards in loaded for a in shards.values())}


def ours(job: Job, **options: Any) -> dict[str, int]:
    """Byte range by byte range."""
    with open_checkpoint(job.source, job.work.src) as checkpoint:
        result = plan_and_write(
            checkpoint,
            job.work.dst,
            job.out,
            format=job.format,
            prefix="dst",
            digests=job.proof,
            sync=job.proof,
            **options,
        )
    out = {"read_bytes": result.read_bytes, "needed_bytes": result.needed_bytes}
    return out if result.private_bytes is None else {**out, "private_bytes": result.private_bytes}


def on_cards(cards: int, route: str) -> Callable[[Job], Iterator[Callable[[], dict[str, int]]]]:
    """Process cards; they are there before the clock starts."""

    @contextmanager
    def side(job: Job) -> Iterator[Callable[[], dict[str, int]]]:
        from distinfer_lab.cards import CardGroup

        with CardGroup(cards, processes=True) as group:
            yield lambda: ours(job, on=group, route=route)

    return side


def dask_rechunk(job: Job) -> dict[str, int]:
    """dask.array: one block per slice, rechunked, stored into one memory map per destination shard."""
    import dask
    import dask.array as da

    work = job.work
    with open_checkpoint(job.source, work.src) as checkpoint:
        sources, targets = [], []
        for name, shape in work.shapes.items():
            cut = [dim for dim, axes in enumerate(work.src[name].dims) if axes]
            ranks = work.copied_ranks if cut else [0]
            blocks = [
                da.from_delayed(
                    dask.delayed(checkpoint.read)(rank, name),
                    checkpoint.files[rank].entry(name).shape,
                    np.float32,
                )
                for rank in ranks
            ]
            array = da.concatenate(blocks, axis=cut[0]) if cut else blocks[0]
            lying = Layout.replicated(1, len(shape)) if work.dst is None else work.dst[name]
            array = array.rechunk(lying.shard_shape(shape))
            for rank, box in enumerate(lying.boxes(shape)):
                path = job.out / f"rank_{rank}" / f"{name}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                piece = array[tuple(slice(a, b) for a, b in box.tolist())]
                sources.append(piece)
                targets.append(np.memmap(path, np.float32, "w+", shape=piece.shape))
        da.store(sources, targets, lock=False, scheduler="threads", num_workers=2)
    return {"read_bytes": sum(source.nbytes for source in sources)}


def mindspore(job: Job) -> dict[str, int]:
    """MindSpore's own transform_checkpoints, in one process."""
    import mindspore

    job.out.mkdir(parents=True)
    destination = None if job.work.dst is None else str(job.source / "dst_strategy.ckpt")
    mindspore.transform_checkpoints(
        str(job.source),
        str(job.out),
        "dst",
        str(job.source / "src_strategy.ckpt"),
        destination,
        output_format=job.format,
    )
    return {}


@contextmanager
def torch_dcp(job: Job) -> Iterator[Callable[[], dict[str, int]]]:
    """torch.distributed.checkpoint, one process per destination rank; its own kind of source is made before."""
    from . import dcp

    folder = job.source / "dcp"
    if not (folder / ".metadata").exists():
        dcp.save(job.work, folder)
    yield lambda: dcp.load(job.work, folder, job.out)


SIDES: dict[str, Any] = {
    "copy": copy,
    "ours, serial": ours,
    "ours, 2 threads": lambda job: ours(job, on=Threads(2)),
    "ours, 2 cards": on_cards(2, "files"),
    "ours, 4 cards": on_cards(4, "files"),
    "ours, 4 cards, nothing shared": on_cards(4, "channels"),
    "numpy, merge and split": merge_and_split,
    "dask.array.rechunk": dask_rechunk,
    "torch DCP": torch_dcp,
    "MindSpore transform_checkpoints": mindspore,
}
NEEDS = {
    "dask.array.rechunk": "dask.array",
    "torch DCP": "torch",
    "MindSpore transform_checkpoints": "mindspore",
}
PREPARED = [side for side in SIDES if " cards" in side or side == "torch DCP"]
"""Sides with something to do before the clock starts."""


def available(side: str) -> bool:
    """Whether what a side needs is installed."""
    return side not in NEEDS or importlib.util.find_spec(NEEDS[side].split(".")[0]) is not None


def private_bytes(process: psutil.Process) -> int:
    """Resident memory that is a process's alone."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def measure(run: Callable[[], dict[str, int]]) -> dict[str, Any]:
    """Time a side, and watch its private memory: with little Python, for which the side would have to wait."""
    process = psutil.Process()
    before = peak = private_bytes(process)
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, private_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "private_bytes": peak - before, **found}


def check(job: Job) -> None:
    """The last matrix of the first and the last destination rank, against what it was made from."""
    if not list(job.out.glob("rank_*/dst*")):
        return
    name = [name for name in job.work.shapes if name.endswith("down.weight")][-1]
    full = whole(name, job.work.shapes[name])
    ranks = 1 if job.work.dst is None else job.work.dst.ranks
    for rank in {0, ranks - 1}:
        box = (
            [[0, n] for n in full.shape] if job.work.dst is None else job.work.dst.boxes(name)[rank].tolist()
        )
        with open_checkpoint(next(job.out.glob(f"rank_{rank}/dst*"))) as written:
            np.testing.assert_array_equal(
                written.read(0, name).view(np.uint32),
                full[tuple(slice(a, b) for a, b in box)].view(np.uint32),
            )


def main(side: str, name: str, nbytes: str, source: str, out: str, format: str, proof: str) -> None:
    """Run a side once."""
    job = Job(Work(name, int(nbytes)), Path(source), Path(out), format, proof == "1")
    run = SIDES[side]
    if side in PREPARED:
        with run(job) as ready:
            found = measure(ready)
    else:
        found = measure(lambda: run(job))
    check(job)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
