"""The Dask cluster behind a card group: an embedded one, or one that is given.

An embedded cluster has one worker of one thread per card, named by its rank, with a resource
"card<rank>" by which tasks are pinned: a task pinned by address would wait for ever when its
worker is killed, for the nanny starts it again on another port. It listens on loopback only.
Its workers' memory limits are off: Dask must not spill or pause a card.
"""

import contextlib
import ipaddress
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.comm import get_address_host
from distributed.utils import get_mp_context

from ..errors import ArgumentTypeError, CardError
from ..version import __version__

PRELOADED = ["distributed", "distributed.nanny", "distributed.worker"] + [
    f"distinfer_lab.{name}" for name in ("cards", "net", "parallel", "reshard")
]

__all__ = ["attach", "check_versions", "embed", "ranked_addresses", "versions", "warn_if_open"]


def embed(cards: int, processes: bool) -> Client:
    """Start a cluster of `cards` workers in this process, or in processes of their own.

    Raises
    ------
    CardError
        If the processes cannot be started.
    """
    # In-process connections that end are no news; Dask tells them even after a clean end.
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    # Dask's pages are served on loopback too, on any free port.
    pages = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, **pages}
    if processes:
        options["silence_logs"] = 50
    workers = {
        rank: {
            "cls": Nanny if processes else Worker,
            "options": {**options, "resources": {f"card{rank}": 1}},
        }
        for rank in range(cards)
    }
    protocol = {"protocol": "tcp://", "host": "127.0.0.1"} if processes else {"protocol": "inproc://"}
    try:
        with _quick_processes() if processes else contextlib.nullcontext():
            cluster = SpecCluster(
                workers=workers,
                scheduler={"cls": Scheduler, "options": {**protocol, **pages}},
                silence_logs=50,
                name=f"cards-{cards}",
            )
    except RuntimeError as err:
        raise CardError(
            f"the {cards} card processes could not be started ({err}). They import the script that starts them, "
            "so its work must stand under `if __name__ == '__main__':`"
        ) from None
    return Client(cluster, set_as_default=False)


@contextlib.contextmanager
def _quick_processes() -> Iterator[None]:
    """Start worker processes from one that has imported what they need: 8 in 1.5 s instead of 4.4."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # sets a preload list of its own, once; ours goes after it
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        yield


def attach(address: str | None, client: Client | None) -> Client:
    """A client of a given cluster; a warning where anyone who can connect could run code."""
    if client is not None:
        if not isinstance(client, Client):
            raise ArgumentTypeError(f"client is a distributed.Client, not {type(client).__name__}")
        return client
    try:
        out = Client(address, set_as_default=False, timeout="10s")
    except OSError as err:
        raise CardError(f"no Dask scheduler answers at {address}; start one, or check the address") from err
    return out


def warn_if_open(client: Client) -> None:
    """Say that a cluster without TLS beyond this machine lets anyone who can connect run code."""
    address = client.scheduler.address
    if address.startswith(("tls", "inproc")):
        return
    host = get_address_host(address)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        warnings.warn(
            f"the cluster at {address} has no TLS: Dask lets anyone who can reach it run code on it",
            stacklevel=4,
        )


def ranked_addresses(client: Client, cards: int | None) -> list[str]:
    """The workers' addresses in the order of the ranks: by number where names are numbers.

    Raises
    ------
    CardError
        If the cluster has fewer workers than `cards`, or none.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    ordered = sorted(workers, key=lambda a: _order(str(workers[a].get("name", a))))
    if len(ordered) < (cards or 1):
        raise CardError(
            f"the cluster at {client.scheduler.address} has {len(ordered)} workers, too few for {cards or 1} "
            "cards: one worker is one card; start more workers, or ask for fewer cards"
        )
    return ordered[:cards] if cards else ordered


def _order(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def versions() -> dict[str, str]:
    """What must be equal on controller and cards: a program or an array may mean another thing elsewhere."""
    return {
        "distinfer_lab": __version__,
        "numpy": np.__version__,
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def check_versions(client: Client, addresses: list[str]) -> None:
    """Name the first worker that runs other versions than the controller.

    Raises
    ------
    CardError
        If one does, or cannot import this package.
    """
    here = versions()
    try:
        found = client.run(versions, workers=addresses)
    except ImportError as err:
        raise CardError(f"a worker cannot import distinfer_lab: {err}; install it on every worker") from err
    for address, there in found.items():
        differing = [f"{k} {there[k]} (here {here[k]})" for k in here if there[k] != here[k]]
        if differing:
            raise CardError(f"worker {address} has {', '.join(differing)}; install the same on every worker")
