"""One save out of those that the ranks of a checkpoint have: the newest that all of them have, or the one asked for.

::

    rank 0   1_100  2_100
    rank 1   1_100  2_100        -> 1_100, and a note that rank 2 lacks 2_100
    rank 2   1_100                  step="2_100": refused; with rebuild=True rank 2 is missing
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..display import counted
from ..errors import CheckpointError, CheckpointFileError, Option, Remark, listed
from .saves import NO_KEY, SaveKey, SliceName, by_save, fits_step, in_words, label, missing_parts

__all__ = ["Choice", "ChosenSave", "chosen_save"]

REBUILD, STEP = Option("rebuild", True), Option("step")

Saves = Mapping[int, Mapping[SaveKey, Sequence[SliceName]]]


@dataclass(frozen=True)
class Choice:
    """Which files of a folder a user wants."""

    file: tuple[str, ...] = ()
    """Patterns of file names, or of paths relative to the folder; () takes all."""
    step: str = ""
    """The save, by its label or its step number; "" is the newest that all ranks have."""
    ranks: int = 0
    """How many ranks the strategy has, 0 if there is none."""
    rebuild: bool = False
    """Whether ranks may be missing."""
    without: frozenset[int] = frozenset()
    """Ranks whose files are not to be used."""


class ChosenSave(NamedTuple):
    """The files of one save, by rank; a rank without files is missing."""

    files: Mapping[int, Sequence[SliceName]]
    notes: tuple[str, ...]


def chosen_save(names: Mapping[int, Sequence[SliceName]], choice: Choice, where: str) -> ChosenSave:
    """The files of the save that `choice` asks for.

    Parameters
    ----------
    names
        All files of each rank.
    where
        What holds them, for texts.

    Raises
    ------
    CheckpointFileError
        If a rank has no files of that save, or a part is missing.
    CheckpointError
        If it is not clear which files are one save, or the ranks have no save in common.
    """
    saves = by_save(names)
    # A rank whose only files carry no step may be of any.
    stepped = {rank: held for rank, held in saves.items() if set(held) != {NO_KEY}}
    key = _asked(stepped, choice, where) if choice.step else _newest(stepped, saves, choice, where)
    files = {rank: held.get(key, ()) if rank in stepped else held[NO_KEY] for rank, held in saves.items()}
    lacking = [rank for rank, held in files.items() if not held and rank not in choice.without]
    if lacking and not choice.rebuild:
        common = _common(stepped, choice)
        steps = [Option("step", label(max(common)))] if common else []
        other = f"{steps[0]} is of all ranks" if steps else "no step is of all ranks"
        raise CheckpointFileError(
            f"{where}: rank {lacking[0]} has no file of step {label(key)}; it has {in_words(saves[lacking[0]])}; "
            f"{other}; or go on without it, if other ranks hold the same, by {REBUILD}",
            *steps,
            REBUILD,
            file=where,
            rank=lacking[0],
        )
    notes = [
        *_other_steps(stepped, key, choice),
        *_incomplete(files, choice, where),
        *_joined(files),
        *_unlike(files),
    ]
    return ChosenSave(files, tuple(notes))


def _asked(saves: Saves, choice: Choice, where: str) -> SaveKey:
    keys = {key for held in saves.values() for key in held if key != NO_KEY}
    fitting = {key for key in keys if fits_step(key, choice.step)}
    given = Option("step", choice.step)
    if not fitting:
        there = f"there are {in_words(keys)}" if keys else f"no file's name carries a step; leave {STEP} out"
        raise CheckpointError(f"{where}: {given} is not there; {there}", given, STEP, file=where)
    if len(fitting) > 1:
        raise CheckpointError(
            f"{where}: {given} fits several saves; write one of {in_words(fitting)}", given, file=where
        )
    return fitting.pop()


def _newest(stepped: Saves, saves: Saves, choice: Choice, where: str) -> SaveKey:
    if not stepped:
        return NO_KEY
    common = _common(stepped, choice)
    if not common:
        words = _nothing_common(stepped, saves, choice, where)
        raise CheckpointError(words, file=where)
    if NO_KEY in common and len(common) > 1:
        rank = next(iter(stepped))
        plain = stepped[rank][NO_KEY][0].path
        by_file, by_step = _by_name(plain), Option("step", label(max(common)))
        raise CheckpointError(
            f"{where}: rank {rank} has {plain}, whose name carries no step, and files of step "
            f"{in_words(common - {NO_KEY})}; choose the files by {by_file}, or a step by {by_step}",
            by_file,
            by_step,
            file=where,
            rank=rank,
        )
    return max(common)


def _common(saves: Saves, choice: Choice) -> set[SaveKey]:
    """The saves that all ranks have, with all their parts."""
    complete = [
        {key for key, names in held.items() if choice.file or not missing_parts(names)}
        for rank, held in saves.items()
        if rank not in choice.without
    ]
    # Incomplete everywhere: it is chosen all the same, and the missing part is named.
    every = [set(held) for rank, held in saves.items() if rank not in choice.without]
    if not every:
        return {key for held in saves.values() for key in held}
    return set.intersection(*complete) or _only(set.intersection(*every))


def _by_name(path: str) -> Option:
    """What chooses a file by its name."""
    return Option("file", path.rsplit("/", 1)[-1])


def _only(keys: set[SaveKey]) -> set[SaveKey]:
    return {max(keys)} if keys else set()


def _nothing_common(stepped: Saves, saves: Saves, choice: Choice, where: str) -> Remark:
    """Which two ranks disagree, and what can be done."""
    used = {rank: held for rank, held in stepped.items() if rank not in choice.without}
    newest = max(key for held in used.values() for key in held)
    first = next(rank for rank, held in used.items() if newest in held)
    other = next(rank for rank, held in used.items() if newest not in held)
    text = (
        f"{where}: files of different steps are never one checkpoint: rank {first} has {in_words(used[first])} "
        f"({used[first][newest][0].path}), but rank {other} has {in_words(used[other])} "
        f"({next(iter(used[other].values()))[0].path})"
    )
    step = Option("step", label(newest))
    more = "" if len(saves) < 2 else f", or use {step} with {REBUILD} if replicas hold the rest"
    return Remark(f"{text}; give files of one step{more}", step, REBUILD)


def _other_steps(saves: Saves, key: SaveKey, choice: Choice) -> list[str]:
    """That there was a choice, and why a newer save was not taken."""
    others = {other for held in saves.values() for other in held} - {key}
    if not others:
        return []
    if choice.step:
        return [f"step {label(key)} is used; also there: {in_words(others)}"]
    note = f"step {label(key)} is used, the newest that all ranks have; also there: {in_words(others)}"
    newer = max(others)
    if newer > key:
        lacking = next(r for r, held in saves.items() if newer not in held or missing_parts(held[newer]))
        note += f" (rank {lacking} lacks {label(newer)})"
    complete = (_common(saves, choice) - {key, NO_KEY}) & others
    if not complete:
        return [note]
    choose = Option("step", label(max(complete)))
    return [Remark(f"{note}; {choose} chooses", choose)]


def _incomplete(files: Mapping[int, Sequence[SliceName]], choice: Choice, where: str) -> list[str]:
    for rank, names in files.items():
        gap = missing_parts(names)
        if gap and choice.file:
            return [f"{gap} is not among the chosen files of rank {rank}"]
        if gap and rank not in choice.without:
            choose = _by_name(names[0].path)
            raise CheckpointFileError(
                f"{where}: {gap} is missing (rank {rank} has {listed(name.path for name in names)}); put it there, "
                f"or open what is there by {choose}",
                choose,
                file=where,
                rank=rank,
            )
    return []


def _joined(files: Mapping[int, Sequence[SliceName]]) -> list[str]:
    """That files whose names do not say so are taken as parts of one save."""
    for rank, names in files.items():
        if len(names) > 1 and (len({name.stem for name in names}) > 1 or names[0].part is None):
            paths = listed(name.path for name in names)
            return [f"rank {rank}: {counted(len(names), 'file')} are joined as parts of one save: {paths}"]
    return []


def _unlike(files: Mapping[int, Sequence[SliceName]]) -> list[str]:
    """That ranks' files are called differently beyond their ranks, so that they may be of different saves."""
    held = {rank: names for rank, names in files.items() if names}
    stems = {rank: sorted(name.stem for name in names) for rank, names in held.items()}
    # A number that counts the ranks, from 0 or from 1, may differ.
    counted_from_0, counted_from_1 = (
        {tuple(re.sub(rf"(?<!\d)0*{rank + first}(?!\d)", "#", stem) for stem in stems[rank]) for rank in held}
        for first in (0, 1)
    )
    other = next((rank for rank in held if stems[rank] != stems[next(iter(held))]), None)
    if other is None or len(counted_from_0) == 1 or len(counted_from_1) == 1:
        return []
    one, unlike = held[next(iter(held))][0].path, held[other][0].path
    choose = _by_name(unlike)
    return [
        Remark(
            f"the ranks' files have different names ({one}, {unlike}); if they are of different saves, choose by "
            f"{choose}",
            choose,
        )
    ]
