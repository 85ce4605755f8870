"""Which files are which rank's: of a list, a mapping, or a folder, and of one save only.

::

    run/rank_0/net-9_100.ckpt  net-10_100.ckpt      the newest save that all ranks have
    run/model-rank-3.safetensors ...                files that carry their rank
    run/model-00001-of-00003.safetensors ...        parts of one rank; slices of three where the strategy is for three
    run/model.safetensors.index.json                a Hugging Face folder: one rank
    run/global_step100/ global_step200/             one of these folders
    run/rank_0/global_step100/ ...                  the newest of them that all ranks have
    run/tp0_pp1/ ...  or  run/pp1/tp0/ ...          by their places in the grid, see grids.py

Only names are looked at. What was chosen where there was a choice, and what was left unused, is said in notes.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, listed
from ..formats import (
    INDEX,
    SINGLE,
    Manifest,
    PartFiles,
    hub_files,
    hub_notes,
    read_manifest,
    recognise_folder,
)
from .beside import unnamed_notes
from .grids import grid_place, grid_ranks, names_an_axis
from .saves import (
    NO_KEY,
    RANK_FOLDER,
    SliceName,
    disorder,
    folder_key,
    label,
    parse_name,
    series_of,
)
from .saves_choice import Choice, chosen_save

__all__ = ["Files", "RankFiles", "find_files", "rank_files"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, str | os.PathLike[str]]

SUFFIXES = (".ckpt", ".safetensors")
IN_ORDER = "give the files in the order of their numbers, or as a mapping of rank to path, which decides"


class RankFiles(NamedTuple):
    """The files of all ranks, and what to say of the choice."""

    paths: tuple[str | PartFiles, ...]
    """In rank order: a file, a Hugging Face folder or index, or several files."""
    notes: tuple[str, ...] = ()
    """What was chosen among several saves, and which files are not used."""


def rank_files(source: Files, ranks: int | None = None) -> list[str]:
    """The files in rank order, several of one rank by their folder; see `find_files`.

    Parameters
    ----------
    ranks
        How many there should be; where some are missing, the path of a rank says so. None: a gap is an error.
    """
    choice = Choice(ranks=ranks or 0, rebuild=ranks is not None)
    return [os.fspath(path) for path in find_files(source, choice).paths]


def find_files(source: Files, choice: Choice) -> RankFiles:
    """Which files are which rank's, all of one save.

    Parameters
    ----------
    source
        Paths in rank order, a mapping of rank to path, a folder, or one file. A path of a list or a mapping may be
        a folder that holds the files of that rank.

    Raises
    ------
    CheckpointFileError
        If a folder, a file or a rank is missing.
    CheckpointError
        If files are of different saves, two folders are of one rank, or a list is not in the order of the numbers
        that its paths carry.
    """
    if isinstance(source, Mapping):
        return _chosen({rank: _held(os.fspath(path)) for rank, path in source.items()}, choice, "the files")
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Sequence) or not all(isinstance(p, str | os.PathLike) for p in source):
            raise ArgumentTypeError(f"checkpoint files are a list of paths in rank order, not {source!r:.80}")
        files = [os.fspath(path) for path in source]
        reason = disorder(files)
        if reason:
            raise CheckpointError(f"{reason}; {IN_ORDER}")
        return _chosen({rank: _held(path) for rank, path in enumerate(files)}, choice, "the files")
    folder = Path(source)
    if not folder.is_dir():
        if not folder.exists():
            raise CheckpointFileError(f"{folder}: no such file or folder; check the path")
        return RankFiles((os.fspath(folder),), tuple(_siblings(folder, choice)))
    found = _of_folder(folder, choice)
    return (
        found
        if len(found.paths) > 1
        else RankFiles(found.paths, (*found.notes, *_ranks_near(folder, choice)))
    )


def _held(path: str) -> list[SliceName]:
    """The files of one rank, which a list or a mapping names by a file or by its folder."""
    folder = Path(path)
    if folder.is_dir() and hub_files(folder) is None and (inside := _files_of_rank(folder, ())):
        return [parse_name(os.fspath(folder / name)) for name in inside]
    return [parse_name(path)._replace(part=None, parts=None)]


def _of_folder(folder: Path, choice: Choice) -> RankFiles:
    if not choice.file and not choice.step:
        if hub_files(folder) is not None:
            return RankFiles((os.fspath(folder),), tuple(hub_notes(folder)))
        manifest = read_manifest(folder)
        if manifest is not None:
            return RankFiles(_of_manifest(folder, manifest), tuple(unnamed_notes(folder, manifest)))
    for place in (_grid, _rank_folders, _flat):
        names, notes = place(folder, choice)
        if names:
            found = _chosen(_from_zero(names, choice, notes), choice, os.fspath(folder))
            return RankFiles(found.paths, (*notes, *found.notes))
    steps = _of_step_folder(folder, choice)
    if steps is not None:
        return steps
    raise CheckpointFileError(_nothing_in(folder, choice))


def _of_manifest(folder: Path, manifest: Manifest) -> tuple[str | PartFiles, ...]:
    """By the ranks that the manifest gives its files, in whatever order it lists them."""
    held: dict[int, list[str]] = {}
    for file in manifest.files:
        held.setdefault(file.rank, []).append(os.fspath(folder / file.path))
    if sorted(held) != list(range(len(held))):
        raise CheckpointError(
            f"{folder}: its manifest names files of ranks {listed(map(str, sorted(held)))}, not 0 to {len(held) - 1}"
        )
    return tuple(_path_of(held[rank]) for rank in range(len(held)))


def _path_of(files: Sequence[str]) -> str | PartFiles:
    if len(files) == 1:
        return files[0]
    return PartFiles(os.path.dirname(files[0]), tuple(files))


def _chosen(names: Mapping[int, Sequence[SliceName]], choice: Choice, where: str) -> RankFiles:
    """The files of one save, without a gap, in rank order."""
    ranks = [rank for rank in names if not isinstance(rank, int) or rank < 0]
    if ranks:
        raise ArgumentTypeError(
            f"a mapping gives a path for each rank from 0 on; {ranks[0]!r:.40} is not a rank"
        )
    found = chosen_save(names, choice, where)
    files = {rank: held for rank, held in found.files.items() if held}
    count = max(max(names, default=-1) + 1, choice.ranks if choice.rebuild else 0)
    gap = next((rank for rank in range(count) if rank not in files), None)
    if gap is not None and not choice.rebuild:
        raise CheckpointFileError(_gap(gap, files, where))
    paths = [
        _path_of([name.path for name in files[rank]]) if rank in files else _no_file_of(rank, files)
        for rank in range(count)
    ]
    return RankFiles(tuple(paths), found.notes)


def _gap(rank: int, files: Mapping[int, Sequence[SliceName]], where: str) -> str:
    last = max(files)
    path = files[last][0].path
    into = _place_of(rank, last, path, where)
    if rank == 0 and sorted(files) == list(range(1, last + 1)):
        order = [os.fspath(_path_of([name.path for name in files[n]])) for n in range(1, last + 1)]
        shown = f"{', '.join(map(repr, order[:2]))}{', ...' if order[2:] else ''}"
        return (
            f"{where}: there is no file of rank 0, but of ranks 1 to {last}; if they are counted from 1, give their "
            f"strategy, or in Python the list [{shown}]; if rank 0 is missing, put it {into}, or open the others "
            "with rebuild=True, if other ranks hold the same"
        )
    return (
        f"{where}: there is no file of rank {rank}, though there is one of rank {last}; put it {into}, or open the "
        "others with rebuild=True, if other ranks hold the same"
    )


def _place_of(rank: int, other: int, path: str, where: str) -> str:
    """Where the file of a rank belongs, by the path of another's: into a folder that is called as its is."""
    parts = os.path.dirname(path).split("/")
    outer = len(where.split("/")) if path.startswith(f"{where}/") else max(len(parts) - 1, 0)
    for at in reversed(range(outer, len(parts))):
        place = re.sub(rf"(?<!\d)(0*){other}(?!\d)", rf"\g<1>{rank}", parts[at])
        if place != parts[at] and folder_key(parts[at]) == NO_KEY:
            return f"into {'/'.join([*parts[:at], place, *parts[at + 1 :]])}"
    return "there"


def _no_file_of(rank: int, files: Mapping[int, Sequence[SliceName]]) -> str:
    """A path at which nothing is, near those of the other ranks."""
    near = os.path.dirname(os.path.dirname(next(iter(files.values()))[0].path)) if files else ""
    return os.path.join(near, f"(no file of rank {rank})")


def _grid(folder: Path, choice: Choice) -> tuple[dict[int, list[SliceName]], list[str]]:
    """Rank -> its files, where their paths name places in a grid, as tp0_pp1/ and pp1/tp0/ do."""
    outer = [path.name for path in _entries(folder) if names_an_axis(path.name) and path.is_dir()]
    inner = [
        f"{name}/{path.name}"
        for name in outer
        for path in _entries(folder / name)
        if names_an_axis(path.name) and path.is_dir()
    ]
    files = _slice_files(folder, choice.file)
    files += [
        f"{name}/{file}" for name in (*outer, *inner) for file in _files_of_rank(folder / name, choice.file)
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
    for inner in _entries(folder):
        number = RANK_FOLDER.fullmatch(inner.name)
        if not number or not inner.is_dir():
            continue
        names = [f"{inner.name}/{name}" for name in _files_of_rank(inner, choice.file)]
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
            raise CheckpointError(
                f"{folder}: {one} and {other} are both rank {rank}'s; choose one by file='{one}/*', or move the other"
            )
    others = sorted(name for key in held if key != word for found in held[key].values() for name in found)
    if others and word != "rank":
        one = next(iter(held[word].values())).popitem()[0]
        raise CheckpointError(
            f"{folder}: {one} and {others[0]} count ranks in different ways; "
            f"choose by file='{others[0].rstrip('0123456789')}*/*', or give a mapping of rank to path"
        )
    notes = [f"{listed(others)} of {folder} are not used; file='{others[0]}/*' chooses"] if others else []
    return {rank: next(iter(found.values())) for rank, found in held[word].items()}, notes


def _numbered_folders(folder: Path, choice: Choice) -> dict[int, list[SliceName]]:
    """Rank -> all files of its folder, whatever they are called, if one number counts the strategy's ranks."""
    files: dict[str, list[str]] = {}
    for inner in _entries(folder):
        if choice.ranks > 1 and inner.is_dir() and folder_key(inner.name) == NO_KEY:
            names = [f"{inner.name}/{name}" for name in _files_of_rank(inner, choice.file)]
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
        raise CheckpointFileError(
            f"{folder}: {listed(files)} lie in it, and nothing says that they are parts of one checkpoint; choose by "
            f"file={files[0]!r} (with a * for several), or, if they are the slices of ranks, give strategy="
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


def _of_step_folder(folder: Path, choice: Choice) -> RankFiles | None:
    """The files of the newest folder of a step that is complete; None if there are no such folders."""
    keys = {inner.name: folder_key(inner.name) for inner in _entries(folder) if inner.is_dir()}
    names = sorted((name for name, key in keys.items() if key != NO_KEY), key=lambda n: keys[n], reverse=True)
    if choice.step:
        names = [name for name in names if choice.step in (name, label(keys[name]))]
    skipped: list[str] = []
    first: Exception | None = None
    for name in names:
        try:
            found = _of_folder(folder / name, replace(choice, step=""))
        except (CheckpointError, CheckpointFileError) as err:
            first = first or err
            skipped.append(f"{name} is not complete")
            continue
        if choice.ranks in (0, len(found.paths)):
            rest = [f"there is also {listed(n for n in names if n != name)}"] if len(names) > 1 else []
            words = "; ".join([f"{name} is used", *skipped[:2], *rest])
            return RankFiles(found.paths, (f"{folder}: {words}; step='...' chooses", *found.notes))
        skipped.append(f"{name} has {len(found.paths)} ranks")
    if first is not None:
        raise first
    return None


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as err:
        raise CheckpointFileError(f"{folder}: {err.strerror}; check the folder") from err


def _slice_files(folder: Path, patterns: Collection[str]) -> list[str]:
    """The names of slice files in a folder; strategy files, which end in .ckpt too, only where they are asked for."""
    names = [path.name for path in _entries(folder) if path.suffix in SUFFIXES and not path.is_dir()]
    return [name for name in names if patterns or "strategy" not in name.lower()]


def _files_of_rank(folder: Path, patterns: Collection[str]) -> list[str]:
    """The slice files of one rank's folder: those in it, or those in its folders of steps."""
    names = _slice_files(folder, patterns)
    if names:
        return names
    steps = [path for path in _entries(folder) if folder_key(path.name) != NO_KEY and path.is_dir()]
    return [f"{step.name}/{name}" for step in steps for name in _slice_files(step, patterns)]


def _fits(name: str, patterns: Collection[str]) -> bool:
    """Whether a path, or its last part, fits one of the patterns; without patterns everything fits."""
    return not patterns or any(
        fnmatchcase(name, pattern) or fnmatchcase(name.rsplit("/", 1)[-1], pattern) for pattern in patterns
    )


def _siblings(file: Path, choice: Choice) -> Iterator[str]:
    """That a single file is one of several, where it is opened as if it held everything."""
    name = parse_name(file.name)
    if choice.ranks > 1:
        return
    if name.parts is not None and name.parts > 1:
        yield (
            f"{file} is part {name.part} of {name.parts}, and the others are not opened; open the folder "
            f"{file.parent} for all of them"
        )
    yield from _ranks_near(file.parent, choice)


def _ranks_near(folder: Path, choice: Choice) -> Iterator[str]:
    """That a folder is one rank's, where what it holds is opened as if it were everything."""
    rank = RANK_FOLDER.fullmatch(folder.name)
    near = _readable(folder.parent) if rank and choice.ranks <= 1 else []
    if any(path != folder and RANK_FOLDER.fullmatch(path.name) for path in near):
        yield (
            f"{folder} is the folder of one rank, and other ranks' lie in {folder.parent}; open that folder, "
            "with strategy=, unless each of them holds everything"
        )


def _readable(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _nothing_in(folder: Path, choice: Choice) -> str:
    """That a folder holds no checkpoint, what is there, and what would do."""
    if choice.file:
        return (
            f"{folder}: no .ckpt or .safetensors file in it, nor in rank_N folders, fits file={choice.file[0]!r}; "
            f"there is {_in_words(folder)}"
        )
    known = recognise_folder(folder)
    if known:
        return f"{folder}: {known}"
    return (
        f"{folder}: no rank_0, rank_1 ... with .ckpt or .safetensors files in it, nor a Hugging Face folder's "
        f"{SINGLE} or {INDEX}; there is {_in_words(folder)}; call the ranks' folders rank_0, rank_1 ..., give one of "
        "the folders or files that are there, or in Python the files as a list in rank order"
    )


def _in_words(folder: Path) -> str:
    """What is in a folder, and in its `rank_N` folders."""
    found = []
    for path in _entries(folder):
        inner = ""
        if path.is_dir() and RANK_FOLDER.fullmatch(path.name):
            inner = f" with {listed([p.name for p in _entries(path)], 2)} in it"
        found.append(path.name + inner)
    return listed(found)
