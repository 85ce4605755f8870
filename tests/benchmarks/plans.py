"""How long planning takes, and how much memory: models too large to be anywhere but on paper.

    python -m tests.benchmarks.plans

Each plan is made in a process of its own, five times; shown are the median, and the most private memory
above that of the process with its strategies made. torch's planner, where it is installed, plans the one
tensor of many chunks.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import ml_dtypes
import numpy as np

from distinfer_lab.display import format_bytes
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import plan_reshard

from .models import dense_70b, moe_1t
from .sides import measure

__all__ = ["PLANS"]

CHUNKS = 16_384
ROUNDS = 5


def _rows(ranks: int) -> Strategy:
    """One matrix, cut by rows into as many chunks as there are ranks."""
    layout = Layout(Mesh(tp=ranks), "tp -", split="torch_chunk")
    return Strategy({"w": layout}, {"w": (CHUNKS * 3, 64)})


PLANS: dict[str, Callable[[], tuple[Strategy, Strategy]]] = {
    "MoE of 1T parameters, 1,024 -> 64 ranks": lambda: (moe_1t(4, 32, 4, 2), moe_1t(1, 64, 1, 1)),
    "MoE of 1T parameters, 64 -> 1,024 ranks": lambda: (moe_1t(1, 64, 1, 1), moe_1t(4, 32, 4, 2)),
    "dense of 70B, 64 with optimizer shards -> 8 ranks": lambda: (
        dense_70b(8, 8, optimizer_shards=True),
        dense_70b(8),
    ),
    "one tensor, 16,384 chunks of rows -> 16,383 others": lambda: (_rows(CHUNKS), _rows(CHUNKS - 1)),
}


def ours(name: str) -> dict[str, Any]:
    """Plan, with the traffic matrix and the totals of every card; then list one card's pieces."""
    src, dst = PLANS[name]()
    dtypes = dict.fromkeys(src, np.dtype(ml_dtypes.bfloat16))
    found: dict[str, Any] = {"tensors": len(src)}

    def run() -> dict[str, int]:
        plan = plan_reshard(src, dst, dtypes=dtypes)
        found["plan"] = plan
        sums = {"moved": plan.moved_bytes, "bound": plan.bound_bytes, "needed": int(plan.needed_bytes.sum())}
        # Between 16,384 cards each the matrix itself would have 2 GiB; nobody asks for it.
        return sums if src.ranks >= CHUNKS else {**sums, "traffic": int(plan.traffic.sum())}

    out = measure(run)
    plan = found.pop("plan")
    start = time.perf_counter()
    pieces = len(plan.pieces_of(int(np.argmax(plan.needed_bytes))).tensor)
    return {**found, **out, "card_seconds": time.perf_counter() - start, "card_pieces": pieces}


def torch_planner() -> dict[str, Any]:
    """torch.distributed.checkpoint's matching of the one tensor's chunks, for all ranks' chunks in one plan."""
    import torch
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        TensorProperties,
        TensorStorageMetadata,
    )
    from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

    def chunks(strategy: Strategy) -> list[Any]:
        boxes = strategy["w"].boxes(strategy.shapes["w"])
        size = torch.Size
        return [
            ChunkStorageMetadata(size(b[:, 0].tolist()), size((b[:, 1] - b[:, 0]).tolist())) for b in boxes
        ]

    src, dst = _rows(CHUNKS), _rows(CHUNKS - 1)
    stored = TensorStorageMetadata(TensorProperties(), torch.Size(src.shapes["w"]), chunks(src))
    wanted = chunks(dst)
    return measure(lambda: {"pieces": len(create_read_items_for_chunk_list("w", stored, wanted))})


def _in_a_process(side: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.benchmarks.plans", "--side", side]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    out: dict[str, Any] = json.loads(done.stdout)
    return out


@click.command()
@click.option("--side", hidden=True)
def main(side: str | None) -> None:
    """Time the plans."""
    if side is not None:
        click.echo(json.dumps(torch_planner() if side == "torch" else ours(side)))
        return
    for name in PLANS:
        runs = [_in_a_process(name) for _ in range(ROUNDS)]
        seconds = statistics.median(run["seconds"] for run in runs)
        card = statistics.median(run["card_seconds"] for run in runs)
        memory = format_bytes(max(run["private_bytes"] for run in runs))
        last = runs[-1]
        click.echo(
            f"{name}: {last['tensors']:,} tensors, {seconds:.3f} s and {memory} with the sums of all cards "
            f"(moved / bound {last['moved'] / max(last['bound'], 1):.2f}); one card's {last['card_pieces']:,} "
            f"pieces {card:.3f} s more"
        )
    if importlib.util.find_spec("torch") is not None:
        runs = [_in_a_process("torch") for _ in range(ROUNDS)]
        seconds = statistics.median(run["seconds"] for run in runs)
        click.echo(f"torch DCP, the same one tensor: {seconds:.3f} s")


if __name__ == "__main__":
    main()
