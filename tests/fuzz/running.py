"""One input under limits in this process, many in worker processes, and the smallest input of each failure.

    time     1 s + 0.25 s per MB          memory     50 MB + 10 times the input's size, above idle

An input is a number: the seed file and each change of it follow from it. A worker writes the number
that it works on into shared memory, so that the parent knows which input hung or killed it.
"""

import contextlib
import multiprocessing
import os
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from distinfer_lab.errors import DistinferError

from .mutations import mutate
from .seeds import Seed, make_seeds
from .targets import TARGETS, check_text, use_command_line

__all__ = ["Bench", "Failure", "fuzz", "input_of", "minimised"]

SECONDS, SECONDS_PER_BYTE = 1.0, 0.25e-6
MEMORY_BYTES, MEMORY_FACTOR = 50 << 20, 10
HANGS_AFTER_SECONDS = 120.0
ADDRESS_SPACE_BYTES = 4 << 30
DEEP_EVERY, COMMAND_EVERY = 10, 50


class Failure(NamedTuple):
    """What an input did that none may do."""

    number: int
    seed: str
    what: str
    """The exception and where it was raised, or the limit that was passed; equal for one fault."""
    detail: str
    data: bytes


def input_of(number: int, seeds: Sequence[Seed]) -> tuple[Seed, bytes]:
    """The seed and the changed file of an input."""
    random = Random(number)
    seed = seeds[number % len(seeds)]
    return seed, mutate(seed.data, seed.form, random)


class Bench:
    """A folder with the seeds, and a copy of each in which inputs are tried; a context manager."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "seeds").mkdir(parents=True)
        self.seeds = make_seeds(root / "seeds")
        for number, seed in enumerate(self.seeds):  # imports and caches are not what is measured
            self.run(number * DEEP_EVERY * COMMAND_EVERY, seed, seed.data)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _prepared(self, seed: Seed) -> Path:
        """A copy of the seed's folder; of a stage a new one, since a run changes it."""
        folder = self.root / "work" / seed.folder.name
        if seed.kind == "stage":
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_dir():
            return Path(shutil.copytree(seed.folder, folder))
        for name in ("out", ".out.stage") if seed.kind != "stage" else ():
            shutil.rmtree(folder / name, ignore_errors=True)
        return folder

    def run(self, number: int, seed: Seed, data: bytes) -> Failure | None:
        """Try one input."""
        folder = self._prepared(seed)
        (folder / seed.path).write_bytes(data)
        _reset_peak()
        before, started = _memory("VmRSS"), time.process_time()
        what = detail = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                TARGETS[seed.kind](seed, folder, number % DEEP_EVERY == 0)
                if number % COMMAND_EVERY == 0:
                    use_command_line(seed, folder)
        except DistinferError as err:
            with contextlib.suppress(AssertionError):
                check_text(str(err))
                err = None  # type: ignore[assignment]
            what = "an error that cannot be printed" if err is not None else ""
        except BaseException as err:  # whatever comes is what is looked for
            what, detail = _told(err), "".join(traceback.format_exception(err))[-1500:]
        seconds, taken = time.process_time() - started, _memory("VmHWM") - before
        if not what and seconds > SECONDS + SECONDS_PER_BYTE * len(data):
            what = f"{seed.kind} {seed.path}: took {seconds:.1f} s for {len(data)} bytes"
        if not what and taken > MEMORY_BYTES + MEMORY_FACTOR * len(data):
            what = f"{seed.kind} {seed.path}: took {taken >> 20} MiB for {len(data)} bytes"
        return Failure(number, f"{seed.folder.name}/{seed.path}", what, detail, data) if what else None


def _told(err: BaseException) -> str:
    frames = [
        f
        for f in traceback.extract_tb(err.__traceback__)
        if {"distinfer_lab", "fuzz"} & set(Path(f.filename).parts)
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    more = f" {err!s:.24}" if isinstance(err, AssertionError | RuntimeWarning) else ""
    return f"{type(err).__name__} at {place}{more}"


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) << 10


def _work(root: Path, numbers: range, at: Any, results: Any) -> None:
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    with Bench(root) as bench:
        for number in numbers:
            at.value = number
            seed, data = input_of(number, bench.seeds)
            failure = bench.run(number, seed, data)
            if failure:
                results.put(failure)
    at.value = numbers.stop
    results.put(None)


def fuzz(
    numbers: range, root: Path, jobs: int = 1, progress: Callable[[int], None] = lambda done: None
) -> Iterator[Failure]:
    """Try inputs in worker processes; gives failures as they come.

    Parameters
    ----------
    root
        A folder for the files, which need not exist.
    progress
        Called now and then with the number of inputs that were tried.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [_Worker(context, root / str(job), numbers[job::jobs], results) for job in range(jobs)]
    while any(worker.left for worker in workers):
        time.sleep(0.2)
        progress(len(numbers) - sum(worker.count_left for worker in workers))
        for worker in workers:
            failure = worker.watch()
            if failure:
                yield failure
        while not results.empty():
            failure = results.get()
            if failure:
                yield failure
    shutil.rmtree(root, ignore_errors=True)


class _Worker:
    """A process at work on some numbers; one that hangs or dies is followed by another."""

    def __init__(self, context: Any, root: Path, numbers: range, results: Any) -> None:
        self._context, self._root, self._results = context, root, results
        self.left = numbers
        self._tries = 0
        self._start()

    def _start(self) -> None:
        self._at = self._context.Value("q", -1)
        self._seen, self._since = -1, time.monotonic()
        root = self._root / str(self._tries)
        self._tries += 1
        self._process = self._context.Process(
            target=_work, args=(root, self.left, self._at, self._results), daemon=True
        )
        self._process.start()

    @property
    def count_left(self) -> int:
        """Inputs that are still to be tried."""
        return len(self.left) if self._seen < 0 else len(range(self._seen, self.left.stop, self.left.step))

    def watch(self) -> Failure | None:
        if not self.left:
            return None
        now = self._at.value
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        if now == self.left.stop:
            self._process.join()
            self.left = range(0)
            return None
        hangs = now >= 0 and time.monotonic() - self._since > HANGS_AFTER_SECONDS
        if self._process.is_alive() and not hangs:
            return None
        self._process.kill()
        self._process.join()
        if now < 0:
            raise RuntimeError("a worker cannot start")
        self.left = range(now + self.left.step, self.left.stop, self.left.step)
        what = "hangs" if hangs else f"ends the process ({self._process.exitcode})"
        if self.left:
            self._start()
        return Failure(now, "", what, "", b"")


def minimised(bench: Bench, failure: Failure) -> bytes:
    """A smaller input that fails alike: pieces are left out as long as that is so."""
    seed, data = input_of(failure.number, bench.seeds)
    number, tries = failure.number, 400
    size = max(len(data) // 2, 1)
    while size >= 1 and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            smaller, tries = data[:at] + data[at + size :], tries - 1
            found = bench.run(number, seed, smaller)
            if found is not None and found.what == failure.what:
                data = smaller
            else:
                at += size
        size //= 2
    return data
