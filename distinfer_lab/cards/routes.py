"""The division of a reshard among cards: which card writes which file, and which reads which source.

::

    all cards see all source files      each reads what it needs: nothing goes between cards
    else, or the source is on cards     each reads its own; pieces go to those who need them
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..checkpoint import RankReadPlan, WriteTask, window_bytes
from ..errors import CardError, Option
from .moving import Move

__all__ = ["Taken", "homes_of", "jobs_of", "spread"]


SMALLEST_WINDOW = 4 << 10
"""Below this, pieces on their way are all overhead."""
UNEVEN = 1 / 8
"""A share may go to a card that has so much of it more than another, if that saves sending."""


class Taken(NamedTuple):
    """What it took to bring shards to the cards."""

    predicted_bytes: int
    """The most that a card was to hold of shards and of data on its way."""

    read_bytes: int
    """From files."""
    moved_bytes: int
    """From card to card."""
    private_bytes: int | None
    """The most private memory that a card took beyond what it has when idle; None for in-process cards."""


def homes_of(
    paths: Mapping[int, str], seen: Sequence[Collection[str]], route: str, names: Sequence[str]
) -> dict[int, int]:
    """The card that reads each source rank's file; nothing if all cards read all files.

    What no card sees is read by the controller, which has the number after the last card.

    Parameters
    ----------
    paths
        Source rank -> file.
    seen
        For each card the files that it sees as the controller does.
    route
        "auto", "files" or "channels", see `reshard.Workers`.
    names
        What to call each card in an error.

    Raises
    ------
    CardError
        If a card does not see what it should.
    """
    lacking = [
        (card, path) for card, there in enumerate(seen) for path in paths.values() if path not in there
    ]
    if route == "files" and lacking:
        card, path = lacking[0]
        free = Option("route", "auto")
        raise CardError(
            f"{names[card]} does not see {path} as this process does; use {free}", free, file=path
        )
    if route == "files" or (route == "auto" and not lacking):
        return {}
    out: dict[int, int] = {}
    load = [0] * len(seen)
    for rank, path in paths.items():
        who = [card for card, there in enumerate(seen) if path in there]
        if not who:
            out[rank] = len(seen)
            continue
        # The one with the least to read, and of these the one that a rank of this number would be.
        out[rank] = min(who, key=lambda card: (load[card], (card - rank) % len(seen)))
        load[out[rank]] += os.path.getsize(path) if os.path.isfile(path) else 1
    return out


def spread(shares: Sequence[RankReadPlan], cards: int, homes: Mapping[int, int]) -> list[list[int]]:
    """The shares for each card, by number, ascending: evenly, and so that little need be sent.

    The largest go first, of equal ones that to which it matters most. Each goes to one of the cards with the least
    so far: to that which reads the most of it.

    Parameters
    ----------
    homes
        See `homes_of`.
    """
    out: list[list[int]] = [[] for _ in range(cards)]
    load = [0] * cards
    given = [share.bytes_by_sender(homes) if homes else {} for share in shares]

    def matters(item: int) -> int:
        second, first = [0, 0, *sorted(given[item].values())][-2:]
        return first - second

    for item in sorted(range(len(shares)), key=lambda i: (-shares[i].nbytes, -matters(i), i)):
        most = min(load) + UNEVEN * shares[item].nbytes
        free = [card for card in range(cards) if load[card] <= most]
        card = max(free, key=lambda card: (given[item].get(card, 0), -load[card], -card))
        out[card].append(item)
        load[card] += shares[item].nbytes
    return [sorted(items) for items in out]


def jobs_of(
    files: Sequence[Sequence[WriteTask]],
    places: Sequence[Sequence[tuple[str, RankReadPlan]]],
    homes: Mapping[int, int],
    buffer_bytes: int,
) -> dict[int, Move]:
    """The part of each card, of those that have something to do, and that of the controller.

    Parameters
    ----------
    files, places
        For each card what it writes, or keeps in its memory.
    homes
        See `homes_of`; empty if every card reads all that it needs.
    buffer_bytes
        The memory for data of each card: its window, and one piece for each of the others.

    Raises
    ------
    CardError
        If the buffer is too small for so many cards.
    """
    cards = len(files)
    if homes:
        if buffer_bytes < (cards + 1) * SMALLEST_WINDOW:
            raise CardError(
                f"a buffer of {buffer_bytes} bytes is too small for {cards} cards that send each other pieces; "
                f"use {(cards + 1) * SMALLEST_WINDOW} or more"
            )
        buffer_bytes = 2 * (buffer_bytes // (cards + 1))
    sends: list[dict[int, list[RankReadPlan]]] = [{} for _ in range(cards + 1)]
    for receiver in range(cards):
        for share in [task.share for task in files[receiver]] + [share for _, share in places[receiver]]:
            for sender, part in share.by_sender(homes).items():
                if sender != receiver:
                    sends[sender].setdefault(receiver, []).append(part)
    window = window_bytes(buffer_bytes)
    jobs = {
        card: Move(
            tuple(replace(task, buffer_bytes=buffer_bytes) for task in files[card]),
            tuple(places[card]),
            {receiver: tuple(shares) for receiver, shares in sends[card].items()},
            {rank: home for rank, home in homes.items() if home != card},
            window,
        )
        for card in range(cards)
        if files[card] or places[card] or sends[card]
    }
    if sends[cards]:
        served = {receiver: tuple(shares) for receiver, shares in sends[cards].items()}
        jobs[cards] = Move((), (), served, {r: home for r, home in homes.items() if home != cards}, window)
    return jobs
