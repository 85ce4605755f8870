"""How long many small tensors take: each costs a header, a check and a piece of the plan, and hardly any bytes.

    python -m tests.benchmarks.many
    python -m tests.benchmarks.many --count 6000 --rounds 3

A checkpoint of 4 ranks is opened, planned for 2 and written, each round in a process of its own. It shows medians,
and their ratio to the headers of the same tensors read by `json` alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from distinfer_lab.checkpoint import Threads, open_checkpoint
from distinfer_lab.display import format_bytes
from distinfer_lab.formats import save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy

from .sides import measure

RANKS, DESTINATIONS = 4, 2
FORMATS = ("safetensors", "ckpt")


def make(folder: Path, count: int) -> None:
    """The files of all ranks in each format, and the strategy."""
    names = [f"layers.{i // 10}.experts.{i % 10}.w" for i in range(count)]
    rows = Layout(Mesh(tp=RANKS), "tp -")
    write_strategy(
        folder / "strategy.json", Strategy(dict.fromkeys(names, rows), dict.fromkeys(names, (8, 8)))
    )
    for format in FORMATS:
        for rank in range(RANKS):
            values = dict.fromkeys(names, np.full((2, 8), rank, np.float32))
            save_slice(folder / f"{format}/rank_{rank}/a.{format}", values, sync=False)


def headers(folder: Path) -> int:
    """The tensors of all headers, read by json."""
    count = 0
    for path in sorted((folder / "safetensors").glob("rank_*/a.safetensors")):
        with path.open("rb") as file:
            count += len(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
    return count


def ours(folder: Path, format: str) -> dict[str, Any]:
    """Open, plan and write; seconds of each."""
    times = [time.perf_counter()]
    with open_checkpoint(folder / format, folder / "strategy.json") as opened:
        times.append(time.perf_counter())
        columns = Layout(Mesh(tp=DESTINATIONS), "- tp")
        plan = opened.plan(Strategy(dict.fromkeys(opened.tensors, columns)))
        times.append(time.perf_counter())
        with tempfile.TemporaryDirectory(dir=folder) as out:
            plan.write(Path(out) / "out", on=Threads(2))
            times.append(time.perf_counter())
    return dict(zip(("open", "plan", "write"), np.diff(times).tolist(), strict=True))


def _in_a_process(folder: Path, side: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.benchmarks.many", "--folder", str(folder), "--side", side]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--count", default=60_000, show_default=True, type=click.IntRange(1), help="Tensors.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--side", hidden=True)
def main(count: int, rounds: int, folder: Path | None, side: str | None) -> None:
    """Time a checkpoint of many small tensors."""
    if folder is not None and side is not None:
        found = measure(lambda: {"count": headers(folder)} if side == "json" else ours(folder, side))
        click.echo(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as made:
        make(Path(made), count)
        by_side: dict[str, list[dict[str, Any]]] = {"json": [], **{format: [] for format in FORMATS}}
        for _ in range(rounds):
            for name, runs in by_side.items():
                runs.append(_in_a_process(Path(made), name))
    base = statistics.median(run["seconds"] for run in by_side["json"])
    click.echo(f"{count:,} tensors, the headers of {RANKS} ranks by json: {base:.3f} s")
    for format in FORMATS:
        steps = {
            step: statistics.median(r[step] for r in by_side[format]) for step in ("open", "plan", "write")
        }
        words = ", ".join(f"{step} {seconds:.3f} s ({seconds / base:.1f})" for step, seconds in steps.items())
        memory = format_bytes(max(run["private_bytes"] for run in by_side[format]))
        click.echo(f"{format}: {words}; {memory} at most")


if __name__ == "__main__":
    main()
