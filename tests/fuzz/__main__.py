"""Try many changed files, and tell what failed: python -m tests.fuzz --count 200000."""

import argparse
import atexit
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .running import Bench, Failure, fuzz, input_of, minimised

PERIOD_SECONDS = 60


class _Progress:
    """Tells how far the work is, now and then."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._told > PERIOD_SECONDS:
            self._told = time.monotonic()
            print(f"{done} inputs", file=sys.stderr, flush=True)


def main() -> None:
    """Leave with status 1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="the number of the first input")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--most", type=int, default=40, help="stop at so many faults")
    given = parser.parse_args()
    faults: dict[str, Failure] = {}
    total, started = 0, time.monotonic()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    home = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for failure in fuzz(
        range(given.start, given.start + given.count), home / "fuzz", given.jobs, _Progress()
    ):
        total += 1
        if failure.what not in faults:
            faults[failure.what] = failure
            print(f"input {failure.number} of {failure.seed}: {failure.what}", flush=True)
        if len(faults) >= given.most:
            break
    seconds = time.monotonic() - started
    print(f"{given.count} inputs in {seconds:.0f} s, {total} failed in {len(faults)} ways")
    with Bench(home / "bench") as bench:
        for failure in faults.values():
            if failure.data:
                print(f"\n{failure.what}\n{failure.detail}\nsmallest: {minimised(bench, failure)[:400]!r}")
            else:
                print(f"\n{failure.what}\n{input_of(failure.number, bench.seeds)[1][:600]!r}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
