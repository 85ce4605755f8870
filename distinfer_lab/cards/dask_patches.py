"""What leans on private parts of Dask, in one place: each with the reason, to be looked at with each new version."""

import multiprocessing.process
from typing import Any

__all__ = ["leave_to_parent"]


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
