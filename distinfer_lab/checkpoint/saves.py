"""Which files belong to one save, by their names alone.

::

    net-9_100.ckpt                      epoch 9, step 100, as MindSpore names it
    net_1-9_100.ckpt                    the same of the first re-run with this prefix
    llama_rank_3-9_100.ckpt             the same of rank 3
    model-00002-of-00005.safetensors    part 2 of 5
    model-rank-3-part-0.safetensors     part 0 of rank 3
    global_step200/mp_rank_03.ckpt      rank 3, step 200

A name is parsed once into a `SliceName`. The files of a rank that agree in re-run, epoch and step are one save;
a checkpoint is the same save of every rank. Numbers are compared as numbers.

References
----------
`_chg_ckpt_file_name_if_same_exist` and `ModelCheckpoint` in MindSpore's train/callback/_checkpoint.py make the first
three forms.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from ..errors import listed

__all__ = [
    "NO_KEY",
    "RANK_FOLDER",
    "SaveKey",
    "Series",
    "SliceName",
    "by_save",
    "disorder",
    "fits_step",
    "folder_key",
    "in_words",
    "label",
    "missing_parts",
    "parse_name",
    "series_of",
]

_RANK_WORDS = r"(?:(?:mp|tp|pp|dp)_)?rank|device|card|tp|mp|pp|dp"
RANK_FOLDER = re.compile(rf"(?:{_RANK_WORDS}|shard|slice|stage|model)[-_]?(\d+)(?:_ckpt)?", re.IGNORECASE)
"""A folder that holds one rank's files."""
_RANK = re.compile(rf"(?<![a-z])(?:{_RANK_WORDS})[-_]?(\d+)(?![\d])", re.IGNORECASE)
_PART_OF = re.compile(r"(?<!\d)(\d+)[-_]of[-_](\d+)(?!\d)", re.IGNORECASE)
_PART = re.compile(r"(?<![a-z])part[-_]?(\d+)", re.IGNORECASE)
_EPOCH_STEP = re.compile(r"-(\d+)_(\d+)(?:_breakpoint)?$")
_RUN = re.compile(r"_(\d+)$")
_EPOCH = re.compile(r"(?<![a-z])epochs?[-_=]?(\d+)", re.IGNORECASE)
_STEP = re.compile(r"(?<![a-z])(?:global_?)?(?:step|iter|iteration)s?[-_=]?(\d+)", re.IGNORECASE)
_TRAINER = re.compile(r"checkpoint-(\d+)")
_SUFFIX = re.compile(r"\.(?:ckpt|safetensors)$")
_NUMBER = re.compile(r"(\d+)")

MOST_AXES = 3
"""How many numbers of a path may count ranks, as `tp1/pp0` does."""


class SaveKey(NamedTuple):
    """What the files of one save have in common; -1 where a name does not say it."""

    run: int
    """The number of the re-run, 0 for the first run."""
    epoch: int
    step: int


NO_KEY = SaveKey(0, -1, -1)


class SliceName(NamedTuple):
    """What the name of a slice file says."""

    path: str
    """As it was given."""
    stem: str
    """The name without its numbers."""
    key: SaveKey
    rank: int | None
    part: int | None
    parts: int | None
    """Of how many parts it is one, if the name says it."""
    worded: bool = False
    """Whether a word says what the numbers of `key` are, as in epoch_3."""


class Series(NamedTuple):
    """One number that differs from path to path, and counts 0..n-1 or 1..n."""

    position: int
    values: tuple[int, ...]


def parse_name(path: str) -> SliceName:
    """What a file's name says; where it says no epoch and no step, the folders above it do.

    Examples
    --------
    >>> parse_name("llama_rank_3_1-9_100.ckpt")[1:4]
    ('llama', SaveKey(run=1, epoch=9, step=100), 3)
    >>> parse_name("x/model-00002-of-00005.safetensors")[1:6]
    ('model', SaveKey(run=0, epoch=-1, step=-1), None, 2, 5)
    """
    *folders, file = re.split(r"[/\\]", path)
    stem = _SUFFIX.sub("", file)
    stem, of = _taken(_PART_OF, stem)
    stem, part = _taken(_PART, stem)
    stem, rank = _taken(_RANK, stem)
    stem, marks = _taken(_EPOCH_STEP, stem)
    run: tuple[int, ...] = ()
    worded = not marks
    if marks:
        stem, run = _taken(_RUN, stem)
    else:
        stem, epoch = _taken(_EPOCH, stem)
        stem, step = _taken(_STEP, stem)
        marks = ((epoch or (-1,))[0], (step or (-1,))[0])
    key = SaveKey((run or (0,))[0], *marks)
    above = (folder_key(name) for name in reversed(folders))
    return SliceName(
        path,
        stem.strip("-_. "),
        key if key != NO_KEY else next((one for one in above if one != NO_KEY), NO_KEY),
        rank[0] if rank else None,
        (of or part or (None,))[0],
        of[1] if of else None,
        worded and key != NO_KEY,
    )


def folder_key(name: str) -> SaveKey:
    """The save that a folder's name says: global_step100, epoch_3, checkpoint-500 (transformers' Trainer)."""
    epoch, step = _EPOCH.search(name), _STEP.search(name) or _TRAINER.fullmatch(name)
    return SaveKey(0, int(epoch[1]) if epoch else -1, int(step[1]) if step else -1)


def _taken(pattern: re.Pattern[str], text: str) -> tuple[str, tuple[int, ...]]:
    """A text without what a pattern fits, and the numbers in it; () if it fits nowhere."""
    found = pattern.search(text)
    if found is None:
        return text, ()
    return text[: found.start()] + text[found.end() :], tuple(map(int, found.groups()))


def label(key: SaveKey) -> str:
    """How a save is called: by epoch and step, as `step=` takes it.

    Examples
    --------
    >>> label(SaveKey(0, 9, 100)), label(SaveKey(1, 9, 100)), label(SaveKey(0, -1, 7)), label(SaveKey(0, 3, -1))
    ('9_100', '1-9_100', '7', 'epoch_3')
    """
    if key.epoch < 0:
        return str(key.step) if key.step >= 0 else "(no step)"
    words = f"{key.epoch}_{key.step}" if key.step >= 0 else f"epoch_{key.epoch}"
    return f"{key.run}-{words}" if key.run else words


def fits_step(key: SaveKey, step: str) -> bool:
    """Whether a save is what a user calls by this step: its label, that without the re-run, or its step number."""
    return step in (label(key), label(key._replace(run=0)), str(key.step))


def by_save(names: Mapping[int, Sequence[SliceName]]) -> dict[int, dict[SaveKey, list[SliceName]]]:
    """Rank -> save -> its files, parts in the order of their numbers.

    A number that is each file's own rank (rank_3/net-3_1.ckpt) counts ranks, and not re-runs, epochs or steps.
    """
    counts_ranks = _count_ranks(names)
    out: dict[int, dict[SaveKey, list[SliceName]]] = {}
    for rank, held in names.items():
        saves = out.setdefault(rank, {})
        for name in sorted(held, key=lambda one: (one.stem, one.part or 0, one.path)):
            fields = (
                plain if counts else n
                for n, plain, counts in zip(name.key, NO_KEY, counts_ranks, strict=True)
            )
            saves.setdefault(SaveKey(*fields), []).append(name)
    return out


def _count_ranks(names: Mapping[int, Sequence[SliceName]]) -> list[bool]:
    """Which fields of a key are ranks: each file's own, or, where each rank has one file, 0..n-1 in any order."""
    keys = [(rank, name.key) for rank, held in names.items() for name in held if name.key != NO_KEY]
    if len(names) < 2 or any(name.worded for held in names.values() for name in held):
        return [False] * len(NO_KEY)
    single = len(keys) == len({rank for rank, _ in keys})
    return [
        all(key[field] == rank for rank, key in keys)
        or (single and sorted(key[field] for _, key in keys) == list(range(len(keys))))
        for field in range(len(NO_KEY))
    ]


def missing_parts(names: Iterable[SliceName]) -> str:
    """Which parts a save of one rank lacks, as a phrase; "" if it is complete.

    Examples
    --------
    >>> missing_parts([parse_name("m-1-of-3.safetensors"), parse_name("m-3-of-3.safetensors")])
    'part 2 of 3 of m'
    """
    sets: dict[tuple[str, int | None], set[int]] = {}
    for name in names:
        if name.part is not None:
            sets.setdefault((name.stem, name.parts), set()).add(name.part)
    for (stem, count), parts in sets.items():
        first = 0 if 0 in parts else 1
        last = first + count if count is not None else max(parts) + 1
        if count is None and len(parts) == 1:
            continue
        # As many gaps as files are looked for, however large the numbers in the names.
        gaps = [n for n in range(first, min(last, first + len(parts) + 1)) if n not in parts]
        if gaps:
            return f"part {gaps[0]}{'' if count is None else f' of {count}'} of {stem or 'the file'}"
    return ""


def series_of(paths: Sequence[str]) -> list[Series]:
    """The numbers of paths of one form that count 0..n-1 or 1..n, or a part of a grid of n.

    Examples
    --------
    >>> series_of(["r_0/net-1_5.ckpt", "r_10/net-1_5.ckpt"]), series_of(["m_1", "m_0"])
    ([], [Series(position=0, values=(1, 0))])
    """
    split = [_NUMBER.split(path) for path in paths]
    if len(paths) < 2 or len({tuple(parts[::2]) for parts in split}) > 1:
        return []
    columns = list(zip(*(map(int, parts[1::2]) for parts in split), strict=True))
    varied = [Series(i, column) for i, column in enumerate(columns) if len(set(column)) > 1]
    counted = [series for series in varied if _counts(series.values)]
    distinct = len(set(zip(*(series.values for series in counted), strict=True))) if counted else 0
    return counted if distinct == len(paths) else []


def _counts(values: Sequence[int]) -> bool:
    """Whether the numbers are 0..k-1 or 1..k, each as often as the others."""
    times = Counter(values)
    first, last = min(times), max(times)
    return len(set(times.values())) == 1 and first in (0, 1) and last - first == len(times) - 1


def disorder(paths: Sequence[str]) -> str:
    """Why paths whose names count the ranks are not in the order of these numbers, as a phrase; "" if they are.

    Examples
    --------
    >>> disorder(["m_0.ckpt", "m_1.ckpt", "m_2.ckpt"]), disorder(["a.ckpt", "b.ckpt"])
    ('', '')
    >>> disorder(["rank_1/a.ckpt", "rank_0/b.ckpt"])
    'rank_1/a.ckpt stands at place 0, where rank_0/b.ckpt belongs by its number'
    >>> disorder(["m_0.ckpt", "m_2.ckpt", "m_1.ckpt"])
    'm_2.ckpt stands at place 1, where m_1.ckpt belongs by its number'
    """
    rows = _rows(paths)
    if not rows or len(rows[0]) > MOST_AXES:
        return ""
    orders = [
        sorted(range(len(rows)), key=lambda i, axes=axes: [rows[i][axis] for axis in axes])  # type: ignore[misc]
        for axes in permutations(range(len(rows[0])))
    ]
    if list(range(len(rows))) in orders:
        return ""
    place = next(i for i, right in enumerate(orders[0]) if i != right)
    return f"{paths[place]} stands at place {place}, where {paths[orders[0][place]]} belongs by its number"


def _rows(paths: Sequence[str]) -> list[tuple[int, ...]]:
    """The numbers of each path that count the ranks; where the forms differ, those that a word says to be ranks."""
    series = series_of(paths)
    if series:
        return list(zip(*(one.values for one in series), strict=True))
    said = [{int(n) for n in _RANK.findall(path)} for path in paths]
    numbers = [next(iter(found)) for found in said if len(found) == 1]
    return [(n,) for n in numbers] if sorted(numbers) == list(range(len(paths))) else []


def in_words(keys: Iterable[SaveKey]) -> str:
    """Saves for a text, the newest first."""
    return listed(map(label, sorted(keys, reverse=True)))
