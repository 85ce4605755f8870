"""The bench: the same work by several sides in turn, as ratios to a plain copy of the same bytes.

    python -m tests.benchmarks                     W1, W2, W3 of 2 GiB, five rounds
    python -m tests.benchmarks --size 256MiB --works W1 --rounds 3
    python -m tests.benchmarks --proof             with digests and fsync, beside a copy that does both
    python -m tests.benchmarks --growth            0.5, 1, 2, 4 GiB, and 64 -> 32 slices

All sides run once before the clock counts (page cache warm), then in turn: A-B-A-B. What is shown
are medians, over the copy of the same round. The source lies in the page cache, and is on the disk before the first
round; the output goes to the disk's folder, and nobody waits for the disk unless --proof says so. A virtual machine
may get memory from its host only when it is touched, at a tenth of the speed, and give it back when it is free: so
before each side's clock starts, memory is touched, and the disk has written what others left to it.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import psutil

from distinfer_lab.display import format_bytes
from distinfer_lab.sizes import size_of

from .sides import SIDES, available
from .works import WORKS, Work, make_source

ROOT = Path(__file__).parents[2]
SIZES_AT_WORK = 3
"""A side has its output in the page cache; some have all of a model in memory, once or twice."""

Row = dict[str, Any]


def touch_memory(nbytes: int) -> None:
    """Touch so much memory once, as far as it is free, in a process of its own."""
    count = min(nbytes, 9 * psutil.virtual_memory().available // 10)
    subprocess.run([sys.executable, "-c", f"import numpy; numpy.ones({count}, numpy.uint8)"], check=False)


def run_side(side: str, work: str, nbytes: int, source: Path, format: str, proof: bool) -> Row:
    """One run of a side, in a process of its own; what it wrote is removed."""
    out = source.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    touch_memory(SIZES_AT_WORK * nbytes)
    words = [side, work, str(nbytes), str(source), str(out), format, str(int(proof))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.sides", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        raise click.ClickException(f"{side}, {work}: {done.stderr[-2000:]}")
    found: Row = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def compare(
    work: str, nbytes: int, sides: list[str], rounds: int, folder: Path, format: str, proof: bool
) -> list[Row]:
    """All sides in turn; a row for each."""
    source = folder / f"{work}-{nbytes}-{format}"
    make_source(Work(work, nbytes), source, format)
    os.sync()
    runs: dict[str, list[Row]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            found = run_side(side, work, nbytes, source, format, proof)
            click.echo(f"  {work} {number or 'warm'} {side}: {found['seconds']:.3f} s", err=True)
            if number:
                runs[side].append(found)
    shutil.rmtree(source)
    rows = []
    for side, found in runs.items():
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(found, runs["copy"], strict=True)]
        last = found[-1]
        rows.append(
            {
                "work": work,
                "nbytes": nbytes,
                "format": format,
                "proof": proof,
                "side": side,
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "seconds": statistics.median(run["seconds"] for run in found),
                "private_bytes": max(run["private_bytes"] for run in found),
                "read_per_needed": last["read_bytes"] / last["needed_bytes"]
                if "needed_bytes" in last
                else None,
            }
        )
    return rows


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [
        f"{'work':5}{'size':>9} {'format':12}{'side':34}{'x copy':>7}{'range':>14}{'s':>8}{'read':>6}  private"
    ]
    for row in rows:
        read = "" if row["read_per_needed"] is None else f"{row['read_per_needed']:.2f}"
        span = f"{row['lowest']:.2f}-{row['highest']:.2f}"
        lines.append(
            f"{row['work']:5}{format_bytes(row['nbytes']):>9} {row['format']:12}{row['side']:34}"
            f"{row['ratio']:7.2f}{span:>14}{row['seconds']:8.3f}{read:>6}  {format_bytes(row['private_bytes'])}"
        )
    return "\n".join(lines)


def chart(rows: list[Row], path: Path) -> None:
    """The ratios as bars, a group per work."""
    import matplotlib.pyplot as plt

    works = list(dict.fromkeys(f"{row['work']} {format_bytes(row['nbytes'])}" for row in rows))
    sides = list(dict.fromkeys(row["side"] for row in rows))
    figure, axes = plt.subplots(figsize=(2 + 2.2 * len(works), 4.5), layout="constrained")
    for number, side in enumerate(sides):
        found = {f"{r['work']} {format_bytes(r['nbytes'])}": r["ratio"] for r in rows if r["side"] == side}
        at = [works.index(work) + 0.8 * (number + 0.5) / len(sides) - 0.4 for work in found]
        axes.bar(at, list(found.values()), 0.8 / len(sides), label=side)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(works)), works)
    axes.set_ylabel("time / time of a plain copy")
    axes.legend(fontsize="small")
    figure.savefig(path)


@click.command()
@click.option("--size", default="2 GiB", show_default=True, help="Bytes of all parameters.")
@click.option("--works", default="W1,W2,W3", show_default=True, help=f"Some of {', '.join(WORKS)}.")
@click.option("--sides", help="Only sides in whose name one of these words is, e.g. copy,serial.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--format", default="ckpt", show_default=True, type=click.Choice(["ckpt", "safetensors"]))
@click.option("--proof", is_flag=True, help="Digests and fsync, on both sides.")
@click.option("--growth", is_flag=True, help="0.25, 0.5, 1 and 2 times the size, and 64 -> 32 slices.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where files are made; by default a temporary folder."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write <out>.json and <out>.png too.")
def main(
    size: str,
    works: str,
    sides: str | None,
    rounds: int,
    format: str,
    proof: bool,
    growth: bool,
    folder: Path | None,
    out: Path | None,
) -> None:
    """Time the works."""
    nbytes = size_of(size)
    words = (sides or "").split(",")
    chosen = [side for side in SIDES if available(side) and any(word in side for word in words)]
    if "copy" not in chosen:
        chosen.insert(0, "copy")
    plan = [(work, nbytes) for work in works.split(",")]
    if growth:
        plan = [("W1", int(nbytes * part)) for part in (0.25, 0.5, 1, 2)] + [("W4", nbytes)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        for work, count in plan:
            rows += compare(work, count, chosen, rounds, Path(inside), format, proof)
    click.echo(table(rows))
    if out is not None:
        out.with_suffix(".json").write_text(json.dumps(rows, indent=1))
        chart(rows, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
