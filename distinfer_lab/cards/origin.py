"""The process in which something was made, for what cannot be used in another.

A child made by fork has a copy of a card group and its handles, but none of the threads that serve them: whoever
waited for those would wait for ever. So each call that may wait checks first where it is.
"""

import multiprocessing.process
import os
from typing import Any

from ..errors import CardError

__all__ = ["Origin", "leave_to_parent"]


class Origin:
    """The process in which this was made.

    Parameters
    ----------
    thing
        What was made there, for the error: "card group".
    """

    def __init__(self, thing: str) -> None:
        self._thing, self._pid = thing, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process, and not a child made by fork."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Refuse a child made by fork.

        Raises
        ------
        CardError
            If this is another process.
        """
        if not self.is_here:
            raise CardError(
                f"this {self._thing} belongs to process {self._pid}, and process {os.getpid()} is a child that was "
                "made by fork; use it in its own process only, or make a CardGroup in a child that multiprocessing "
                "starts by 'spawn'"
            )


def leave_to_parent(cluster: Any) -> None:
    """In a child made by fork: take from its end all that would end its parent's cluster.

    An interpreter that ends closes the clusters that it knows, removes their folders and stops its daemons.
    """
    cluster.shutdown_on_close = False
    for node in (cluster.scheduler, *cluster.workers.values()):
        folder = getattr(node, "_workdir", None)
        if folder is not None:
            folder._finalizer.detach()
        started = getattr(getattr(node, "process", None), "process", None)
        if started is not None:
            started._proc_finalizer.detach()
            multiprocessing.process._children.discard(started._process)  # type: ignore[attr-defined]
