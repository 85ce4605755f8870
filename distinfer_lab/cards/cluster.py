"""The Dask cluster behind a card group: an embedded one, or one that is given.

An embedded cluster has one worker of one thread per card, named by its rank, with a resource
"card<rank>" by which tasks are pinned: a task pinned by address would wait for ever when its
worker is killed, for the nanny starts it again on another port. It listens on loopback only, where other users
of the machine are too: between processes it talks by TLS, with a certificate of its own (see `certificates`).
Its workers' memory limits are off: Dask must not spill or pause a card.
"""

import ipaddress
import os
import sys
import time
import warnings
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
from distributed import Client, Security
from distributed.comm import get_address_host

from ..errors import CardError, ContextError, Option
from ..version import __version__
from .certificates import temporary_security
from .dask_patches import (
    ClosingClient,
    LastingCluster,
    ProcessWorker,
    QuickNanny,
    QuietScheduler,
    QuietWorker,
    is_importing_main,
)
from .store import CardRestartedError
from .worker_calls import NO_ANSWER, call_workers, is_silent

__all__ = [
    "Given",
    "attach",
    "check_versions",
    "embed",
    "ranked_addresses",
    "versions",
    "warn_if_open",
    "workers_of",
]

CALM = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
}
"""Workers look at themselves, and at what their threads do, many times a second: 128 cards of one process that had
nothing to do took three quarters of a core."""
SECURITY = Option("security")

IMPORT_SECONDS = 60.0
"""How long a worker may take to import this package."""
LOOK_SECONDS = 0.25
"""How often to look meanwhile whether it is there."""


def embed(cards: int, processes: bool, folder: Path) -> Client:
    """Start a cluster of `cards` workers in this process, or in processes of their own.

    Parameters
    ----------
    folder
        Where Dask makes its own; of this user only, for Dask imports from there.

    Raises
    ------
    CardError
        If the processes cannot be started.
    """
    transport: dict[str, Any] = {"protocol": "inproc://"}
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0}
    if processes:
        transport = {"protocol": "tls://", "host": "127.0.0.1", "security": temporary_security()}
        options |= {**transport, "silence_logs": 50, "worker_class": ProcessWorker, "config": CALM}
    workers = {
        rank: {
            "cls": QuickNanny if processes else QuietWorker,
            "options": {**options, "resources": {f"card{rank}": 1}},
        }
        for rank in range(cards)
    }
    try:
        if processes and is_importing_main():
            # What multiprocessing itself says, but before Dask has started a loop that waits for it.
            raise RuntimeError("this process is still importing its main script")
        with dask.config.set({**CALM, "temporary-directory": str(folder)}):
            cluster = LastingCluster(
                workers=workers,
                scheduler={"cls": QuietScheduler, "options": {**transport, "dashboard": False}},
                security=transport.get("security"),
                silence_logs=50,
                name=f"cards-{cards}",
            )
    except RuntimeError as err:
        raise CardError(
            f"the {cards} card processes could not be started ({err}). They import the script that starts them, "
            "so its code must be under `if __name__ == '__main__':`",
            of=err,
        ) from None
    return Client(cluster, set_as_default=False)


class Given(NamedTuple):
    """How a cluster that runs already is named; false where none is."""

    address: str | None
    client: Client | None
    scheduler_file: str | os.PathLike[str] | None
    security: Security | None

    def __bool__(self) -> bool:
        return any(way is not None for way in (self.address, self.client, self.scheduler_file))

    def check(self) -> None:
        """Refuse what names two clusters, or certificates without a cluster that they are for.

        Raises
        ------
        ContextError
        """
        named = [name for name in ("address", "client", "scheduler_file") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ContextError(f"{' and '.join(named)} both name a cluster; give one of them")
        if self.security is not None and self.address is None and self.scheduler_file is None:
            raise ContextError("security needs address or scheduler_file; a client has its own")


def attach(given: Given) -> Client:
    """A client of a given cluster.

    Raises
    ------
    CardError
        If no scheduler answers.
    """
    if given.client is not None:
        return given.client
    where = given.address if given.scheduler_file is None else os.fspath(given.scheduler_file)
    if given.scheduler_file is not None and not os.path.exists(where or ""):
        raise CardError(
            f"there is no scheduler file {where}; `dask scheduler --scheduler-file` writes one, where all share it"
        )
    named = {"address": where} if given.scheduler_file is None else {"scheduler_file": where}
    options = {} if given.security is None else {"security": given.security}
    try:
        return ClosingClient(**named, **options, set_as_default=False, timeout="10s")
    except (OSError, ValueError, TypeError) as err:
        raise CardError(
            f"no Dask scheduler answers at {where} ({err}); start one, check the address, and for TLS "
            f"(tls://...) give {SECURITY} with the cluster's certificates",
            SECURITY,
            of=err,
        ) from err


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
            stacklevel=6,  # of whoever makes the CardGroup, around `checked` and `open_runtime`
        )


def workers_of(client: Client) -> dict[str, Any]:
    """Address -> what the scheduler knows of the worker, asked now.

    `Client.scheduler_info` may give what a timer of the client fetched meanwhile, which has no workers in it.
    """
    found: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return found


def ranked_addresses(client: Client, cards: int | None) -> list[str]:
    """The workers' addresses in the order of the ranks: by number where names are numbers.

    Raises
    ------
    CardError
        If the cluster has fewer workers than `cards`, or none.
    """
    workers = workers_of(client)
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


def _versions_of(client: Client, addresses: list[str]) -> dict[str, Any]:
    """What runs on workers, which may take long to import this package; one that is lost meanwhile is not waited for.

    Raises
    ------
    CardRestartedError
        If one is lost, or does not answer within `IMPORT_SECONDS`.
    """
    deadline = time.monotonic() + IMPORT_SECONDS
    asked = call_workers(client, versions, (), addresses)
    try:
        while not futures.wait([asked], LOOK_SECONDS).done:
            gone = [address for address in addresses if address not in workers_of(client)]
            if gone or time.monotonic() > deadline:
                what = f"{gone[0]} was lost" if gone else f"of {', '.join(addresses)} did not answer"
                raise CardRestartedError(
                    f"worker {what} while the card group opened; start a worker and try again"
                )
    finally:
        asked.cancel()
    answers = asked.result()
    for address in addresses:
        if is_silent(answers.get(address, NO_ANSWER)):
            raise CardRestartedError(
                f"worker {address} was lost while the card group opened; start a worker and try again"
            )
    return answers


def check_versions(client: Client, addresses: list[str]) -> None:
    """Name the first worker that runs other versions than the controller, or the scheduler if it does.

    Raises
    ------
    CardError
        If one does, or cannot import this package.
    """
    here = versions()
    answers = _versions_of(client, addresses)
    found = {f"worker {a}": there for a, there in answers.items()}
    try:
        # It reads the tasks that it hands on, so it needs what they name.
        found["the scheduler"] = client.run_on_scheduler(versions)
    except ImportError as err:
        found["the scheduler"] = err
    for who, there in found.items():
        # A worker that cannot even read the question answers by a text.
        if isinstance(there, ImportError) or "ModuleNotFoundError" in str(there):
            raise CardError(
                f"{who} cannot import distinfer_lab: {there}; install it on every worker, and there"
            )
        if isinstance(there, BaseException):
            raise there
        differing = [f"{k} {there[k]} (here {here[k]})" for k in here if there[k] != here[k]]
        if differing:
            raise CardError(f"{who} has {', '.join(differing)}; install the same on every worker")
