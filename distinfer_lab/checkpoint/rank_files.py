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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import (
    ArgumentTypeError,
    CheckpointError,
    CheckpointFileError,
    Option,
    Remark,
    listed,
)
from ..formats import (
    FILE_FORMATS,
    FOLDER_FORMATS,
    Manifest,
    PartFiles,
    folder_format_of,
    read_manifest,
    recognise_folder,
)
from .folder_layouts import entries, files_by_rank, files_of_rank
from .saves import (
    NO_KEY,
    RANK_FOLDER,
    SliceName,
    disorder,
    folder_key,
    label,
    parse_name,
)
from .saves_choice import Choice, chosen_save
from .unopened import unlisted_slices

__all__ = ["Files", "RankFiles", "find_files", "rank_files"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, str | os.PathLike[str]]

REBUILD = Option("rebuild", True)
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
            raise CheckpointFileError(f"{folder}: no such file or folder; check the path", file=folder)
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
    if folder.is_dir() and folder_format_of(folder) is None and (inside := files_of_rank(folder, ())):
        return [parse_name(os.fspath(folder / name)) for name in inside]
    return [parse_name(path)._replace(part=None, parts=None)]


def _of_folder(folder: Path, choice: Choice) -> RankFiles:
    if not choice.file and not choice.step:
        whole = folder_format_of(folder)
        if whole is not None:
            return RankFiles((os.fspath(folder),), tuple(whole.notes(folder)))
        manifest = read_manifest(folder)
        if manifest is not None:
            return RankFiles(_of_manifest(folder, manifest), tuple(unlisted_slices(folder, manifest)))
    names, notes = files_by_rank(folder, choice)
    if names:
        found = _chosen(names, choice, os.fspath(folder))
        return RankFiles(found.paths, (*notes, *found.notes))
    steps = _of_step_folder(folder, choice)
    if steps is not None:
        return steps
    raise CheckpointFileError(_nothing_in(folder, choice), file=folder)


def _of_manifest(folder: Path, manifest: Manifest) -> tuple[str | PartFiles, ...]:
    """By the ranks that the manifest gives its files, in whatever order it lists them."""
    held: dict[int, list[str]] = {}
    for file in manifest.files:
        held.setdefault(file.rank, []).append(os.fspath(folder / file.path))
    if sorted(held) != list(range(len(held))):
        raise CheckpointError(
            f"{folder}: its manifest names files of ranks {listed(map(str, sorted(held)))}, not 0 to {len(held) - 1}",
            file=folder,
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
        raise CheckpointFileError(_gap(gap, files, where), REBUILD, file=where, rank=gap)
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
            f"with {REBUILD}, if other ranks hold the same"
        )
    return (
        f"{where}: there is no file of rank {rank}, though there is one of rank {last}; put it {into}, or open the "
        f"others with {REBUILD}, if other ranks hold the same"
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


def _of_step_folder(folder: Path, choice: Choice) -> RankFiles | None:
    """The files of the newest folder of a step that is complete; None if there are no such folders."""
    keys = {inner.name: folder_key(inner.name) for inner in entries(folder) if inner.is_dir()}
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
            choose = Option("step", "...")
            note = Remark(f"{folder}: {words}; {choose} chooses", choose)
            return RankFiles(found.paths, (note, *found.notes))
        skipped.append(f"{name} has {len(found.paths)} ranks")
    if first is not None:
        known = recognise_folder(folder)
        if known and known.partition(";")[0] in str(first):  # the advice names what lies in the outer one
            raise CheckpointFileError(f"{folder}: {known}", of=known, file=folder) from first
        raise first
    return None


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
        stated = Option("strategy")
        yield Remark(
            f"{folder} is the folder of one rank, and other ranks' lie in {folder.parent}; open that folder, "
            f"with {stated}, unless each of them holds everything",
            stated,
        )


def _readable(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _nothing_in(folder: Path, choice: Choice) -> str:
    """That a folder holds no checkpoint, what is there, and what would do."""
    if choice.file:
        given = Option("file", choice.file[0])
        return Remark(
            f"{folder}: no .ckpt or .safetensors file in it, nor in rank_N folders, fits {given}; "
            f"there is {_describe_files(folder)}",
            given,
        )
    known = recognise_folder(folder)
    if known:
        return Remark(f"{folder}: {known}", of=known)
    files = " or ".join(f".{one.name}" for one in FILE_FORMATS)
    whole = " or ".join(f"a {one.title} folder's {one.signs}" for one in FOLDER_FORMATS)
    return (
        f"{folder}: no rank_0, rank_1 ... with {files} files in it, nor {whole}; "
        f"there is {_describe_files(folder)}; call the ranks' folders rank_0, rank_1 ..., give one of "
        "the folders or files that are there, or in Python the files as a list in rank order"
    )


def _describe_files(folder: Path) -> str:
    """What is in a folder, and in its `rank_N` folders."""
    found = []
    for path in entries(folder):
        inner = ""
        if path.is_dir() and RANK_FOLDER.fullmatch(path.name):
            inner = f" with {listed([p.name for p in entries(path)], 2)} in it"
        found.append(path.name + inner)
    return listed(found)
