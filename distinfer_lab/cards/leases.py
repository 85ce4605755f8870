"""Leases on the workers of a shared cluster: two gangs never stand half started in each other's way.

A lease is a semaphore of the cluster's scheduler, one per worker. It ends with its holder: a client
that dies lets go when Dask's `distributed.scheduler.locks.lease-timeout` has passed, 30 seconds by default.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distributed import Client, Semaphore

__all__ = ["Leases"]

WAIT_SECONDS = 0.25
"""How often somebody who waits for a lease looks whether the wait was given up."""


class Leases:
    """The leases that one group takes.

    Parameters
    ----------
    client
        Of the cluster.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Kept for good: each has a timer of its own on the client's loop, which nothing else stops.
        self._known: dict[str, Any] = {}

    @contextlib.contextmanager
    def held(self, addresses: Sequence[str], check: Callable[[], None]) -> Iterator[None]:
        """Hold all these workers; always taken in one order, so that no two wait in a ring.

        Parameters
        ----------
        check
            Called while others hold them; what it raises ends the wait.
        """
        with contextlib.ExitStack() as stack:
            for address in sorted(addresses):
                lease = self._lease(address)
                while not lease.acquire(timeout=WAIT_SECONDS):
                    check()
                stack.callback(lease.release)
            yield

    def _lease(self, address: str) -> Any:
        if address not in self._known:
            self._known[address] = Semaphore(
                1, f"distinfer-{address}", scheduler_rpc=self._client.scheduler, loop=self._client.loop
            )
        return self._known[address]

    def close(self) -> None:
        """Stop their timers."""
        for lease in self._known.values():
            with contextlib.suppress(RuntimeError):
                self._client.loop.add_callback(lease.refresh_callback.stop)
        self._known.clear()
