"""How a folder is laid out: which of the files in it are which rank's, of whatever saves there are.

::

    rank_0/ rank_1/ ...                       folders of ranks; files in them, or in their folders of steps
    tp0_pp0/ tp1_pp0/ ...                     places in a grid, see grids.py
    worker0/ worker1/ ...                     folders whose one number counts the ranks of the strategy
    model-rank-0.safetensors ...              files that carry their rank
    net_0.ckpt net_1.ckpt ...                 files whose one number counts the ranks of the strategy
    model-00001-of-00003.safetensors ...      parts of one rank
"""

import os
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import CheckpointError, CheckpointFileError, Option, Remark, listed
from ..formats import FILE_FORMATS
from .grids import grid_place, grid_ranks, names_an_axis
from .saves import NO_KEY, RANK_FOLDER, SliceName, folder_key, parse_name, series_of
from .saves_choice import Choice

__all__ = ["entries", "files_by_rank", "files_of_rank"]

SUFFIXES = tuple(f".{one.name}" for one in FILE_FORMATS)


def files_by_rank(folder: Path, choice: Choice) -> tuple[Mapping[int, Sequence[SliceName]], list[str]]:
    """Rank -> all its files, and what is said of how they were found; nothing if the folder has none in it.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If it is not certain which rank's a file is.
    """
    for layout in (_grid, _rank_folders, _flat):
        names, notes = layout(folder, choice)
        if names:
            return _from_zero(names, choice, notes), notes
    return {}, []


def _grid(folder: Path, choice: Choice) -> tuple[dict[int, list[SliceName]], list[str]]:
    """Rank -> its files, where their paths name places in a grid, as tp0_pp1/ and pp1/tp0/ do."""
    outer = [path.name for path in entries(folder) if names_an_axis(path.name) and path.is_dir()]
    inner = [
        f"{name}/{path.name}"
        for name in outer
        for path in entries(folder / name)
        if names_an_axis(path.name) and path.is_dir()
    ]
    files = _slice_files(folder, choice.file)
    files += [
        f"{name}/{file}" for name in (*outer, *inner) for file in files_of_rank(folder / name, choice.file)
    ]
    placed = {name: place for name in files if _fits(name, choice.file) and (place := grid_place(name))}
    if len({place.at for place in placed.values()}) < 2:
        return {}, []
    out: dict[int, list[SliceName]] = {}
    for (name, place), rank in zip(
        placed.items(), grid_ranks(os.fspath(folder), list(placed), list(placed.values())), strict=True
    ):
        out.setdefault(rank, []).append(parse_name(place.rest)._replace(path=os.fspath(folder / name)))
    axes = next(iter(placed.values())).axes
    return out, [
        f"{folder}: ranks are counted by {axes[0]} and, within it, by {axes[1]}; a list in Python gives another order"
    ]


def _from_zero(
    names: Mapping[int, Sequence[SliceName]], choice: Choice, notes: list[str]
) -> Mapping[int, Sequence[SliceName]]:
    """Ranks that the names count from 1, if they are those of the strategy, counted from 0; says so in the notes."""
    if choice.ranks < 2 or sorted(names) != list(range(1, choice.ranks + 1)):
        return names
    notes.append(f"the files' names count ranks from 1: {names[1][0].path} is used as that of rank 0")
    return {rank - 1: held for rank, held in names.items()}


def _rank_folders(folder: Path, choice: Choice) -> tuple[dict[int, list[SliceName]], list[str]]:
    """Rank -> all files of its folder; and which folders are left unused."""
    held: dict[str, dict[int, dict[str, list[SliceName]]]] = {}
    for inner in entries(folder):
        number = RANK_FOLDER.fullmatch(inner.name)
        if not number or not inner.is_dir():
            continue
        names = [f"{inner.name}/{name}" for name in files_of_rank(inner, choice.file)]
        files = [parse_name(os.fspath(folder / name)) for name in names if _fits(name, choice.file)]
        if files:
            word = inner.name[: number.start(1)].rstrip("-_").lower()
            word = "rank" if word == "device" else word
            held.setdefault(word, {}).setdefault(int(number[1]), {})[inner.name] = files
    if not held:
        return _numbered_folders(folder, choice), []
    word = "rank" if "rank" in held else next(iter(held))
    for rank, folders in held[word].items():
        if len(folders) > 1:
            one, other, *_ = folders
            choose = Option("file", f"{one}/*")
            raise CheckpointError(
                f"{folder}: {one} and {other} are both rank {rank}'s; choose one by {choose}, or move the other",
                choose,
                file=folder,
                rank=rank,
            )
    others = sorted(name for key in held if key != word for found in held[key].values() for name in found)
    if others and word != "rank":
        one = next(iter(held[word].values())).popitem()[0]
        choose = Option("file", f"{others[0].rstrip('0123456789')}*/*")
        raise CheckpointError(
            f"{folder}: {one} and {others[0]} count ranks in different ways; "
            f"choose by {choose}, or give a mapping of rank to path",
            choose,
            file=folder,
        )
    chosen = [Option("file", f"{name}/*") for name in others[:1]]
    notes: list[str] = [
        Remark(f"{listed(others)} of {folder} are not used; {one} chooses", one) for one in chosen
    ]
    return {rank: next(iter(found.values())) for rank, found in held[word].items()}, notes


def _numbered_folders(folder: Path, choice: Choice) -> dict[int, list[SliceName]]:
    """Rank -> all files of its folder, whatever they are called, if one number counts the strategy's ranks."""
    files: dict[str, list[str]] = {}
    for inner in entries(folder):
        if choice.ranks > 1 and inner.is_dir() and folder_key(inner.name) == NO_KEY:
            names = [f"{inner.name}/{name}" for name in files_of_rank(inner, choice.file)]
            files[inner.name] = [name for name in names if _fits(name, choice.file)]
    held = [name for name, names in files.items() if names]
    series = series_of(held) if len(held) == choice.ranks else []
    if len(series) != 1:
        return {}
    first = min(series[0].values)
    return {
        number - first: [parse_name(os.fspath(folder / name)) for name in files[inner]]
        for inner, number in zip(held, series[0].values, strict=True)
    }


def _flat(folder: Path, choice: Choice) -> tuple[dict[int, list[SliceName]], list[str]]:
    """Rank -> its files, where they lie side by side: by rank, by number where there is a strategy, or one rank's."""
    files = [name for name in _slice_files(folder, choice.file) if _fits(name, choice.file)]
    names = [parse_name(os.fspath(folder / name)) for name in files]
    if not names:
        return {}, []
    if all(name.rank is not None for name in names):
        out: dict[int, list[SliceName]] = {}
        for name in names:
            out.setdefault(name.rank or 0, []).append(name)
        return out, []
    if choice.ranks > 1 and len(names) > 1:
        return _numbered(names, choice.ranks)
    stems = sorted({name.stem for name in names})
    single = len({name.key for name in names}) == len(names)
    if (len(stems) > 1 or not (single or all(name.part is not None for name in names))) and not choice.file:
        choose, stated = Option("file", files[0]), Option("strategy")
        raise CheckpointFileError(
            f"{folder}: {listed(files)} lie in it, and nothing says that they are parts of one checkpoint; choose by "
            f"{choose} (with a * for several), or, if they are the slices of ranks, give {stated}",
            choose,
            stated,
            file=folder,
        )
    return {0: names}, []


def _numbered(names: Sequence[SliceName], ranks: int) -> tuple[dict[int, list[SliceName]], list[str]]:
    """Rank -> its files, by the one number of the names that counts the ranks of the strategy, from 0 or from 1."""
    saves: dict[tuple[int, int], list[SliceName]] = {}
    for name in names:
        saves.setdefault(name.key[1:], []).append(name)
    # net-0_1, net-1_1 ...: what looks like an epoch may be the rank.
    groups = [names] if _rank_numbers(names, ranks) else list(saves.values())
    out: dict[int, list[SliceName]] = {}
    unused: list[str] = []
    for group in groups:
        numbers = _rank_numbers(group, ranks)
        if not numbers:
            unused += [os.path.basename(name.path) for name in group]
        key = group[0].key._replace(run=0) if len({name.key[1:] for name in group}) == 1 else NO_KEY
        for name, rank in zip(group, numbers, strict=False):
            out.setdefault(rank, []).append(name._replace(part=None, parts=None, key=key))
    if not out:
        raise CheckpointFileError(
            f"the strategy is for {ranks} ranks, but no {ranks} of {listed(name.path for name in names)} carry "
            "the numbers of ranks; give the files as a list in rank order"
        )
    return out, [
        f"not used, since their names do not count {ranks} ranks: {listed(unused)}"
    ] if unused else []


def _rank_numbers(names: Sequence[SliceName], ranks: int) -> list[int]:
    """The rank of each file by the only number that counts them, from 0; empty if none does."""
    series = series_of([os.path.basename(name.path) for name in names]) if len(names) == ranks else []
    return [n - min(series[0].values) for n in series[0].values] if len(series) == 1 else []


def entries(folder: Path) -> list[Path]:
    """The paths in a folder, in order.

    Raises
    ------
    CheckpointFileError
        If it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as err:
        raise CheckpointFileError(f"{folder}: {err.strerror}; check the folder", file=folder) from err


def _slice_files(folder: Path, patterns: Collection[str]) -> list[str]:
    """The names of slice files in a folder; strategy files, which end in .ckpt too, only where they are asked for."""
    names = [path.name for path in entries(folder) if path.suffix in SUFFIXES and not path.is_dir()]
    return [name for name in names if patterns or "strategy" not in name.lower()]


def files_of_rank(folder: Path, patterns: Collection[str]) -> list[str]:
    """The slice files of one rank's folder: those in it, or those in its folders of steps.

    Parameters
    ----------
    patterns
        Those of a user; with them a file may be called a strategy.
    """
    names = _slice_files(folder, patterns)
    if names:
        return names
    steps = [path for path in entries(folder) if folder_key(path.name) != NO_KEY and path.is_dir()]
    return [f"{step.name}/{name}" for step in steps for name in _slice_files(step, patterns)]


def _fits(name: str, patterns: Collection[str]) -> bool:
    """Whether a path, or its last part, fits one of the patterns; without patterns everything fits."""
    return not patterns or any(
        fnmatchcase(name, pattern) or fnmatchcase(name.rsplit("/", 1)[-1], pattern) for pattern in patterns
    )
