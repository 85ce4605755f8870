"""How long collectives take: cards in this process, cards in processes, and the same as Dask tasks.

    python -m tests.benchmarks.collectives                      4 cards, 4 KiB to 64 MiB
    python -m tests.benchmarks.collectives --cards 8 --sizes "4 KiB,1 MiB" --out collectives.json

The size is that of each card's array (of reduce_scatter and all_to_all: of all its parts together).
Shown are the median time of a call on the slowest card, and the array's bytes by that time. A message is
half of there and back; the root of a broadcast is another card every time, so that all wait for it. As tasks,
the arrays lie on the workers; every card's result is one task that depends on those of the others.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from distributed import Client, wait

from distinfer_lab import CardGroup
from distinfer_lab.display import format_bytes
from distinfer_lab.sizes import size_of

__all__ = ["CALLS", "SIDES"]

Row = dict[str, Any]


def _message(ch: Any, array: Any, number: int, cards: int) -> None:
    """From card 0 to card 1 or back."""
    sender, receiver = number % 2, (number + 1) % 2
    if ch.rank == sender:
        ch.send(array, receiver)
    elif ch.rank == receiver:
        ch.recv(sender, array.shape, array.dtype)


def _parts(array: Any, cards: int) -> list[Any]:
    return list(np.split(array, cards))


CALLS: dict[str, Callable[[Any, Any, int, int], Any]] = {
    "all_reduce": lambda ch, array, number, n: ch.all_reduce(array, range(n)),
    "all_gather": lambda ch, array, number, n: ch.all_gather(array, range(n), [array.shape] * n),
    "reduce_scatter": lambda ch, array, number, n: ch.reduce_scatter(_parts(array, n), range(n)),
    "all_to_all": lambda ch, array, number, n: ch.all_to_all(
        _parts(array, n), range(n), [(array.size // n,)] * n
    ),
    "broadcast": lambda ch, array, number, n: ch.broadcast(
        array if ch.rank == number % n else None, number % n, range(n), array.shape, array.dtype
    ),
    "send and recv": _message,
}


def rounds(nbytes: int) -> int:
    """How many calls are timed."""
    return max(7, min(400, (32 << 20) // nbytes))


class Nothing:
    """A source of no shards."""

    nbytes = 0

    def read(self) -> Mapping[str, Any]:
        return {}


def clocked(
    rank: int, values: Any, inputs: Mapping[str, Any], card: Any
) -> tuple[dict[str, Any], dict[str, Any], None]:
    """A program: the median seconds of each call of each size on this card."""
    names, sizes = inputs["names"].tolist(), inputs["sizes"].tolist()
    cards = len(card.epoch.peers)
    found = [[_median(card.channels, name, nbytes, cards) for nbytes in sizes] for name in names]
    return {"seconds": np.array(found)}, {}, None


def _median(channels: Any, name: str, nbytes: int, cards: int) -> float:
    array, call, times = np.ones(nbytes // 4, np.float32), CALLS[name], []
    for number in range(2 * cards):  # warm: lines, slots, memory
        call(channels, array, number, cards)
    for number in range(rounds(nbytes)):
        channels.all_reduce(array[:1], range(cards))  # all begin together
        begun = time.perf_counter()
        call(channels, array, number, cards)
        if name == "send and recv":
            call(channels, array, number + 1, cards)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) / (2 if name == "send and recv" else 1)


def on_channels(cards: int, processes: bool, names: Sequence[str], sizes: Sequence[int]) -> Any:
    """Seconds by call and size, of the slowest card."""
    with CardGroup(cards, processes=processes) as group:
        placement = group.place([Nothing()] * cards)
        inputs = {"names": np.array(names), "sizes": np.array(sizes)}
        found, _ = group.run(clocked, placement, [inputs] * cards, [["seconds"]] * cards)
    return np.max([one["seconds"] for one in found], axis=0).tolist()


def _add(arrays: Sequence[Any]) -> Any:
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


class Tasks:
    """The same as tasks, each pinned to the worker of its card."""

    def __init__(self, client: Client, cards: int, nbytes: int) -> None:
        self.client, self.cards = client, cards
        self.arrays = [self.on(rank, np.ones, nbytes // 4, np.float32) for rank in range(cards)]
        wait(self.arrays)

    def on(self, rank: int, work: Callable[..., Any], *args: Any) -> Any:
        return self.client.submit(work, *args, pure=False, resources={f"card{rank}": 1})

    def everyone(self, work: Callable[..., Any], arrays: Sequence[Any]) -> list[Any]:
        return [self.on(rank, work, arrays) for rank in range(self.cards)]

    def by_part(self, work: Callable[..., Any]) -> list[Any]:
        cut = [self.on(rank, _parts, array, self.cards) for rank, array in enumerate(self.arrays)]
        parts = [
            [self.on(i, list.__getitem__, one, j) for i, one in enumerate(cut)] for j in range(self.cards)
        ]
        return [self.on(rank, work, parts[rank]) for rank in range(self.cards)]

    def call(self, name: str, number: int) -> list[Any]:
        """The results of one call, as futures."""
        if name == "all_reduce":
            return self.everyone(_add, self.arrays)
        if name == "all_gather":
            return self.everyone(list, self.arrays)
        if name == "broadcast":
            return self.everyone(list, [self.arrays[number % self.cards]])
        if name == "send and recv":
            return [self.on((number + 1) % 2, list, [self.arrays[number % 2]])]
        return self.by_part(_add if name == "reduce_scatter" else list)


def as_tasks(cards: int, processes: bool, names: Sequence[str], sizes: Sequence[int]) -> Any:
    """Seconds by call and size, as `on_channels` gives them."""
    found: list[list[float]] = [[] for _ in names]
    with CardGroup(cards, processes=processes) as group, group.client.as_current():
        for nbytes in sizes:
            for row, name in zip(found, names, strict=True):
                row.append(statistics.median(_task_times(group.client, cards, nbytes, name)))
    return found


def _task_times(client: Client, cards: int, nbytes: int, name: str) -> Iterator[float]:
    for number in range(max(4, min(20, rounds(nbytes))) + 1):
        # Fresh ones: a worker keeps what it has once fetched.
        tasks = Tasks(client, cards, nbytes)
        begun = time.perf_counter()
        wait(tasks.call(name, number))
        if number:
            yield time.perf_counter() - begun


SIDES: dict[str, tuple[Callable[..., Any], bool]] = {
    "one process": (on_channels, False),
    "processes": (on_channels, True),
    "tasks in one process": (as_tasks, False),
    "tasks in processes": (as_tasks, True),
}


def table(rows: list[Row]) -> str:
    """The rows as text: a line per call and size, a column per side."""
    sides = list(dict.fromkeys(row["side"] for row in rows))
    lines = [f"{'':15}{'size':>8}" + "".join(f"{side:>26}" for side in sides)]
    for name, nbytes in dict.fromkeys((row["call"], row["nbytes"]) for row in rows):
        cells = {row["side"]: row for row in rows if (row["call"], row["nbytes"]) == (name, nbytes)}
        line = f"{name:15}{format_bytes(nbytes):>8}"
        for side in sides:
            seconds = cells[side]["seconds"]
            line += f"{seconds * 1e3:12.2f} ms {nbytes / seconds / 2**20:6.0f} MiB/s"
        lines.append(line)
    return "\n".join(lines)


@click.command()
@click.option("--cards", default=4, show_default=True, type=click.IntRange(2))
@click.option("--sizes", default="4 KiB,64 KiB,1 MiB,16 MiB,64 MiB", show_default=True)
@click.option("--calls", default=",".join(CALLS), show_default=True, help="Some of them.")
@click.option("--sides", default=",".join(SIDES), show_default=True, help="Some of them.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON too.")
def main(cards: int, sizes: str, calls: str, sides: str, out: Path | None) -> None:
    """Time the calls."""
    names, each = (
        calls.split(","),
        [size_of(size.strip()) // (4 * cards) * 4 * cards for size in sizes.split(",")],
    )
    rows: list[Row] = []
    for side in sides.split(","):
        measure, processes = SIDES[side]
        found = measure(cards, processes, names, each)
        for name, row in zip(names, found, strict=True):
            rows += [
                {"side": side, "cards": cards, "call": name, "nbytes": nbytes, "seconds": seconds}
                for nbytes, seconds in zip(each, row, strict=True)
            ]
        click.echo(f"{side}: done", err=True)
    click.echo(table(rows))
    if out is not None:
        out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
