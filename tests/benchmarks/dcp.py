"""torch.distributed.checkpoint on the works: saved by one process per source rank, loaded by others."""

import os
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from distinfer_lab.layout import Layout, Strategy

from .works import Work, whole

__all__ = ["load", "save"]


def save(work: Work, folder: Path) -> None:
    """Write the source as torch writes it, one process per rank."""
    _spawn(_save, work.src, work, folder, folder / "unused")


def load(work: Work, folder: Path, out: Path) -> dict[str, Any]:
    """Load the source as the destination lies, one process per rank, each of which saves what it has."""
    lying = work.dst
    if lying is None:
        alone = {name: Layout.replicated(1, len(shape)) for name, shape in work.shapes.items()}
        lying = Strategy(alone, work.shapes)
    out.mkdir(parents=True)
    _spawn(_load, lying, work, folder, out)
    found: dict[str, Any] = pickle.loads((out / "measured").read_bytes())
    return found


def _spawn(task: Any, lying: Strategy, work: Work, folder: Path, out: Path) -> None:
    import torch.multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (
        task,
        lying.ranks,
        port,
        work.name,
        sum(np.prod(s) * 4 for s in work.shapes.values()),
        folder,
        out,
    )
    torch.multiprocessing.spawn(_begin, arguments, nprocs=lying.ranks)


def _begin(
    rank: int, task: Any, ranks: int, port: int, name: str, nbytes: int, folder: Path, out: Path
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    task(rank, Work(name, int(nbytes)), folder, out)
    torch.distributed.destroy_process_group()


def _state(strategy: Strategy, make: Any) -> dict[str, Any]:
    """Name -> DTensor; `make(name, mesh, placements)` gives each."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard

    layout = next(iter(strategy.values()))
    mesh = init_device_mesh("cpu", layout.mesh.axis_sizes, mesh_dim_names=layout.mesh.axis_names)
    state = {}
    for name, lying in strategy.items():
        cut = {axis: dim for dim, axes in enumerate(lying.dims) for axis in axes}
        placements = [Shard(cut[axis]) if axis in cut else Replicate() for axis in layout.mesh.axis_names]
        state[name] = make(name, mesh, placements)
    return state


def _save(rank: int, work: Work, folder: Path, out: Path) -> None:
    import torch
    import torch.distributed.checkpoint
    from torch.distributed.tensor import DTensor

    def make(name: str, mesh: Any, placements: Any) -> Any:
        box = work.src[name].boxes(work.shapes[name])[rank]
        part = whole(name, work.shapes[name])[tuple(slice(a, b) for a, b in box)]
        return DTensor.from_local(torch.from_numpy(part.copy()), mesh, placements, run_check=False)

    torch.distributed.checkpoint.save(_state(work.src, make), checkpoint_id=folder)


def _load(rank: int, work: Work, folder: Path, out: Path) -> None:
    import torch
    import torch.distributed.checkpoint
    from torch.distributed.tensor import empty

    from .sides import measure

    lying = work.dst
    if lying is None:
        lying = Strategy({n: Layout.replicated(1, len(s)) for n, s in work.shapes.items()}, work.shapes)

    def run() -> dict[str, int]:
        state = _state(
            lying, lambda name, mesh, where: empty(work.shapes[name], device_mesh=mesh, placements=where)
        )
        torch.distributed.checkpoint.load(state, checkpoint_id=folder)
        torch.save({name: value.to_local() for name, value in state.items()}, out / f"rank_{rank}.pt")
        torch.distributed.barrier()
        return {}

    torch.distributed.barrier()
    time.sleep(0.1)
    found = measure(run)
    if rank == 0:
        (out / "measured").write_bytes(pickle.dumps(found))
    torch.distributed.barrier()
