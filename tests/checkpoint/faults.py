"""A reshard that kills itself at a chosen call, for the tests of durability: run as a program.

python -m tests.checkpoint.faults FOLDER POINT COUNT OVERWRITE
"""

import os
import resource
import signal
import sys
import time
from pathlib import Path

import xxhash

from distinfer_lab.checkpoint import open_checkpoint, planning, staging
from tests.resharding import plan_and_write

from .test_durability import DST, SRC


def killing(owner, name, count, slow=0.0):
    """Let the `count`-th call of a function be the last thing that this process does."""
    real = getattr(owner, name)
    left = [count]

    def wrapper(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(slow)
        return real(*args, **options)

    setattr(owner, name, wrapper)


class KillingDigest:
    """xxh3_128 that kills at the `count`-th update."""

    left = 0
    real = xxhash.xxh3_128

    def __init__(self):
        self._inner = KillingDigest.real()

    def update(self, data):
        KillingDigest.left -= 1
        if KillingDigest.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._inner.update(data)

    def hexdigest(self):
        return self._inner.hexdigest()


def main(folder, point, count, overwrite):
    """Reshard, and die at the point."""
    if point == "plan":
        killing(planning, "_destination", count)
    elif point == "read":
        killing(os, "preadv", count)
    elif point == "write":
        killing(os, "pwrite", count)
    elif point == "digest":
        KillingDigest.left = count
        xxhash.xxh3_128 = KillingDigest
    elif point == "manifest":
        killing(os, "fsync", count)
    elif point == "rename":
        real = staging.Stage.commit

        def commit(self):
            # Everything between the manifest and the end: unlink, fsync of the folders, the rename.
            killing(os, "fsync", count)
            killing(Path, "rename", count)
            killing(staging, "exchange", count)
            real(self)
            os.kill(os.getpid(), signal.SIGKILL)

        staging.Stage.commit = commit
    elif point == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
    elif point == "slow":
        killing(os, "pwrite", -1, slow=0.002)
    with open_checkpoint(folder / "src", SRC) as checkpoint:
        print("ready", flush=True)
        plan_and_write(checkpoint, DST, folder / "out", overwrite=overwrite)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))
    except Exception as err:  # the text is what the test looks at
        print(err, file=sys.stderr)
        sys.exit(1)
