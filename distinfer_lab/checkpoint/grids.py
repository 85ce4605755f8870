"""Paths that name their place in a grid of ranks: which rank each is.

::

    tp0_pp0/a.ckpt  tp1_pp0/a.ckpt  tp0_pp1/a.ckpt  tp1_pp1/a.ckpt
    pp0/tp0/a.ckpt  pp0/tp1/a.ckpt  pp1/tp0/a.ckpt  pp1/tp1/a.ckpt
    rank 0          rank 1          rank 2          rank 3

tp counts innermost beside one other axis: so MindSpore, Megatron-LM and DeepSpeed number ranks. Of pp and dp they
differ.
"""

import re
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from ..errors import CheckpointError, CheckpointFileError, Option

__all__ = ["GridPlace", "grid_place", "grid_ranks", "names_an_axis"]

_AXIS = re.compile(r"(?<![a-z])(tp|mp|pp|dp|stage)(?:[-_]?rank)?[-_]?(\d{1,5})(?!\d)", re.IGNORECASE)
_RANK = re.compile(r"(?:rank|device|card)[-_]?\d", re.IGNORECASE)
SAME = {"mp": "tp", "stage": "pp"}
ORDER = ("pp", "dp", "tp")
MOST_RANKS = 1 << 15


class GridPlace(NamedTuple):
    """Where a path puts itself."""

    axes: tuple[str, ...]
    """The outermost first."""
    at: tuple[int, ...]
    rest: str
    """The path without its place."""


def names_an_axis(name: str) -> bool:
    """Whether a name has an axis of a grid and a number in it."""
    return bool(_AXIS.search(name))


def grid_place(path: str) -> GridPlace | None:
    """The place that a path names; None if it names none on two axes or more, or a rank beside it.

    Examples
    --------
    >>> grid_place("tp0_pp1/a.ckpt")
    GridPlace(axes=('pp', 'tp'), at=(1, 0), rest='_/a.ckpt')
    >>> grid_place("stage1/mp_rank_03.ckpt")[:2], grid_place("tp0.ckpt"), grid_place("rank_1/tp0_pp0.ckpt")
    ((('pp', 'tp'), (1, 3)), None, None)
    """
    found = [(word.lower(), int(number)) for word, number in _AXIS.findall(path)]
    place = {SAME.get(word, word): number for word, number in found}
    rest = _AXIS.sub("", path)
    if len(place) < 2 or len(place) < len(found) or _RANK.search(rest):
        return None
    axes = tuple(sorted(place, key=ORDER.index))
    return GridPlace(axes, tuple(place[axis] for axis in axes), rest)


def grid_ranks(folder: str, paths: Sequence[str], places: Sequence[GridPlace]) -> list[int]:
    """The rank of each path in a folder, by its place; several may be of one rank.

    Raises
    ------
    CheckpointFileError
        If the grid has a gap.
    CheckpointError
        If it is not certain in which order the axes count: a list does it then.
    """
    axes = places[0].axes
    odd = next((path for path, place in zip(paths, places, strict=True) if place.axes != axes), None)
    if odd is not None:
        raise CheckpointError(
            f"{folder}: {paths[0]} and {odd} name different axes; give a mapping of rank to path in Python",
            file=folder,
        )
    sizes = [max(place.at[i] for place in places) + 1 for i in range(len(axes))]
    grid = f"the places of a grid of {', '.join(f'{a}={n}' for a, n in zip(axes, sizes, strict=True))}"
    if prod(sizes) > MOST_RANKS:
        raise CheckpointError(
            f"{folder}: its files name {grid}, which is more than {MOST_RANKS} ranks", file=folder
        )
    ranks = {at: rank for rank, at in enumerate(product(*map(range, sizes)))}
    first = {place.at: path for path, place in zip(reversed(paths), reversed(places), strict=True)}
    free = next((at for at in ranks if at not in first), None)
    if free is not None:
        rebuild = Option("rebuild", True)
        words = " ".join(f"{axis}{number}" for axis, number in zip(axes, free, strict=True))
        raise CheckpointFileError(
            f"{folder}: its files name {grid}, but there is none of {words}; put it there, or give those that are "
            f"there as a mapping of rank to path in Python, with {rebuild} if other ranks hold the same",
            file=folder,
        )
    if axes[1:] != ("tp",):
        order = [f"{folder}/{first[at]}" for at in ranks]
        shown = f"[{', '.join(map(repr, order[:3]))}{', ...' if order[3:] else ''}]"
        raise CheckpointError(
            f"{folder}: its files name {grid}, and whether {axes[0]} or {axes[1]} counts outermost differs between "
            f"programs; give the paths as a list in rank order in Python: if it is {axes[0]}, {shown}",
            file=folder,
        )
    return [ranks[place.at] for place in places]
