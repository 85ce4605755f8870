"""Source slices that only the controller sees, served to the cards window by window.

::

    the controller's files ----> a window for each card ----> the cards, over their channels

The controller takes the part of one more card in a reshard: it reads and sends, and keeps nothing. What it sends goes
straight to each card, not through Dask's scheduler.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from distributed import Client

from ..comm import Channels, Dialer, Epoch
from .moving import Move, serve
from .run import Run

__all__ = ["Server"]


class Server:
    """The controller's side of reshards from files that only it sees.

    Parameters
    ----------
    client
        Of the cluster, whose TLS the connections use.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._channels: Channels | None = None
        self._check: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def serving(self, job: Move, epoch: Epoch, run: Run[object]) -> Iterator[Callable[[], None]]:
        """Send what a job says while the block runs; gives a function that raises what became of it."""
        stopped = threading.Event()
        failures: list[BaseException] = []

        def check() -> None:
            run.check()
            if stopped.is_set():
                raise InterruptedError

        def work() -> None:
            try:
                serve(job, channels)
            except BaseException as err:
                if not stopped.is_set():
                    failures.append(err)

        def raise_failure() -> None:
            if failures:
                raise failures[0]

        self._check = check
        channels = self._of_epoch(epoch)
        thread = threading.Thread(target=work, name="serve-sources", daemon=True)
        thread.start()
        try:
            yield raise_failure
            thread.join()
            raise_failure()
        finally:
            stopped.set()
            thread.join()

    def _of_epoch(self, epoch: Epoch) -> Channels:
        """The channels of an epoch, which are kept as long as it is: a card has one connection to the controller."""
        if self._channels is None or self._channels.epoch != epoch:
            self.close()
            context = self._client.security.get_connection_args("client").get("ssl_context")
            has_ports = any(peer.address.port and not peer.address.path for peer in epoch.peers)
            tls = context if has_ports and self._client.scheduler.address.startswith("tls") else None
            self._channels = Channels(len(epoch.peers), epoch, Dialer(tls), self._poll)
        return self._channels

    def _poll(self) -> None:
        self._check()  # that of the work at hand, while the channels outlive it

    def close(self) -> None:
        """Close the channels."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
