"""How much memory a command takes, with all processes that it starts.

    python -m tests.memory --limit 1000 jupyter lab ...     MiB; leaves with 1 above it

Pages that processes share are counted once, where the kernel tells (PSS).
"""

import argparse
import subprocess
import sys
import time

import psutil

__all__ = ["main", "watched"]

MIB = 1 << 20
PERIOD_SECONDS = 0.1


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            found = process.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        total += getattr(found, "pss", 0) or found.rss
    return total


def watched(command: list[str]) -> tuple[int, int, float]:
    """The exit status of a command, the most bytes that its tree took at one time, and its seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    root, most = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            most = max(most, _tree_bytes(root))
        except psutil.NoSuchProcess:
            break
        time.sleep(PERIOD_SECONDS)
    return process.wait(), most, time.perf_counter() - started


def main() -> None:
    """Run a command and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=float("inf"), help="MiB")
    parser.add_argument("--name", default="", help="what to call it when telling")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    status, most, seconds = watched(given.command)
    print(
        f"{given.name or ' '.join(given.command)}: at most {most / MIB:.0f} MiB, {seconds:.1f} s", flush=True
    )
    sys.exit(status or int(most > given.limit * MIB))


if __name__ == "__main__":
    main()
