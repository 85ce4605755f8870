"""Which file is which rank's: of a list, a mapping, a folder of `rank_N` folders, or a Hugging Face folder."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, listed
from .hub import INDEX, SINGLE, hub_files
from .manifest import read_manifest
from .recognisers import recognise_folder

__all__ = ["Files", "rank_files"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, str | os.PathLike[str]]

RANK_FOLDER = re.compile(r"(?:rank|device)_?(\d+)(?:_ckpt)?")
RANK_IN_PATH = re.compile(r"(?:rank|device)_?(\d+)")


def rank_files(source: Files, ranks: int | None = None) -> list[str]:
    """The files in rank order: of a list as given, of a folder those of its `rank_N` subfolders.

    A Hugging Face folder (or its index) is one rank, which holds everything. In a `rank_N` folder
    the last file by name counts, as MindSpore has it.

    Parameters
    ----------
    ranks
        How many there should be, where gaps are to be told by a path at which nothing is; None: a gap is
        an error.

    Raises
    ------
    CheckpointFileError
        If a folder, a file or a rank is missing.
    CheckpointError
        If the paths of a list carry rank numbers in another order than they stand.
    """
    if isinstance(source, Mapping):
        gaps = sorted(set(range(ranks or len(source))) - set(source))
        if gaps and ranks is not None:
            return [os.fspath(source.get(rank, f"(no file of rank {rank})")) for rank in range(ranks)]
        if gaps:
            raise CheckpointFileError(
                f"there is no file for rank {gaps[0]}; give one for each rank from 0 on"
            )
        return [os.fspath(source[rank]) for rank in range(len(source))]
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Sequence) or not all(isinstance(p, str | os.PathLike) for p in source):
            raise ArgumentTypeError(f"checkpoint files are a list of paths in rank order, not {source!r:.80}")
        files = [os.fspath(path) for path in source]
        _check_order(files)
        return files
    folder = Path(source)
    if not folder.is_dir():
        if not folder.exists():
            raise CheckpointFileError(f"{folder}: no such file or folder; check the path")
        return [os.fspath(folder)]
    if hub_files(folder) is not None:
        return [os.fspath(folder)]
    manifest = read_manifest(folder)
    if manifest is not None:
        return [os.fspath(folder / file.path) for file in manifest.files]
    return _files_of_folder(folder, ranks)


def _files_of_folder(folder: Path, ranks: int | None) -> list[str]:
    found: dict[int, Path] = {}
    for inner in sorted(folder.iterdir()):
        number = RANK_FOLDER.fullmatch(inner.name)
        if number and inner.is_dir():
            files = sorted(p for p in inner.iterdir() if p.suffix in (".ckpt", ".safetensors"))
            if files:
                found[int(number[1])] = files[-1]
    if not found:
        known = recognise_folder(folder)
        if known:
            raise CheckpointFileError(f"{folder}: {known}")
        raise CheckpointFileError(
            f"{folder}: no rank_0, rank_1 ... with .ckpt or .safetensors files in it, nor a Hugging Face folder's "
            f"{SINGLE} or {INDEX}; there is {_in_words(folder)}"
        )
    count = max(max(found) + 1, ranks or 0)
    gaps = sorted(set(range(count)) - set(found))
    if ranks is not None:
        return [
            os.fspath(found.get(rank, _place_of(rank, found) / "(no .ckpt or .safetensors file)"))
            for rank in range(count)
        ]
    if gaps:
        raise CheckpointFileError(
            f"{folder}: there is no file of rank {gaps[0]}, though there is one of rank {max(found)}; "
            f"put it into {_place_of(gaps[0], found)}, or open the folder with rebuild=True, if other ranks hold "
            "the same"
        )
    return [os.fspath(found[rank]) for rank in range(len(found))]


def _in_words(folder: Path) -> str:
    """What is in a folder, and in its `rank_N` folders."""
    found = []
    for path in sorted(folder.iterdir()):
        inner = ""
        if path.is_dir() and RANK_FOLDER.fullmatch(path.name):
            inner = f" with {listed(sorted(p.name for p in path.iterdir()), 2)} in it"
        found.append(path.name + inner)
    return listed(found)


def _place_of(rank: int, found: Mapping[int, Path]) -> Path:
    """Where the file of a rank should be: in a folder that is called as the others are."""
    other, path = next(iter(found.items()))
    return path.parent.with_name(re.sub(rf"(?<!\d){other}(?!\d)", str(rank), path.parent.name))


def _check_order(files: Sequence[str]) -> None:
    """Where all paths carry rank numbers, and these are 0..n-1, they must stand in that order."""
    numbers = []
    for path in files:
        in_path = {int(n) for n in RANK_IN_PATH.findall(path)}
        if len(in_path) != 1:
            return
        numbers.append(in_path.pop())
    if sorted(numbers) != list(range(len(files))):
        return
    for rank, number in enumerate(numbers):
        if rank != number:
            raise CheckpointError(
                f"{files[rank]} stands at place {rank}, but its path says rank {number}; "
                "give the files in rank order"
            )
