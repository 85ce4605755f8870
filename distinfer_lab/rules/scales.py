"""Codes and scales of one quantised weight: all are sharded the same way.

::

    weight, [256, 512], rows cut in two    rank 0  codes [0:128, :]     scales [0:1, :]   (blocks of 128 rows)
                                           rank 1  codes [128:256, :]   scales [1:2, :]

A rank that computes with its share looks up the scale of row i at i // 128, counted in its own share. So on each rank
both must begin at the same place of the weight, and the codes at whole blocks.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import LayoutError
from ..layout import Layout
from .quantised import Along, QuantisedTensor, QuantisedWeight

__all__ = ["PartedError", "check_together", "layouts_of_tensors"]

Interval = tuple[int, int]


class PartedError(LayoutError):
    """A cut would part codes from their scales.

    Attributes
    ----------
    axis : str | None
        The mesh axis that cuts, another size of which may do.
    """

    def __init__(self, text: str, axis: str | None = None, *, dim: int | None = None) -> None:
        self.axis = axis
        super().__init__(text, dim=dim)


def layouts_of_tensors(
    tensors: Sequence[QuantisedTensor], shape: tuple[int, ...], base: Layout
) -> list[Layout]:
    """The layout of each tensor of a quantised weight that is cut as `base` says.

    Parameters
    ----------
    shape
        The logical shape of the weight, for which `base` is.

    Raises
    ------
    PartedError
        If a cut would not fall on whole blocks.
    """
    layouts = [_layout(tensor, shape, base) for tensor in tensors]
    try:
        _check(tensors, shape, layouts)
    except PartedError as err:  # an uneven cut: the codes of a rank do not end with a block
        along = next(a for t in tensors for a in t.along or () if a and a.step > 1 and base.parts[a.dim] > 1)
        raise _misfit(base, along, shape[along.dim]) from err
    return layouts


def _layout(tensor: QuantisedTensor, shape: tuple[int, ...], base: Layout) -> Layout:
    cut = [dim for dim, parts in enumerate(base.parts) if parts > 1]
    if tensor.along is None and cut:
        raise PartedError(
            f"cut along dim {cut[0]}, but how its scales could be cut is not known; {_WHOLE}", dim=cut[0]
        )
    along = tensor.along or (None,) * len(tensor.shape)
    kept = [one if one is not None and one.dim in cut else None for one in along]
    return Layout(
        base.mesh,
        tuple(() if one is None else base.dims[one.dim] for one in kept),
        first_ranks=base.first_ranks,
        split=base.split,
        fused=tuple(None if one is None else _fused(one, shape, base) for one in kept),
        strides=base.strides,
    )


def _fused(along: Along, shape: tuple[int, ...], base: Layout) -> tuple[int, ...] | None:
    """The fused parts of a stored dim, in its own steps.

    Raises
    ------
    PartedError
        If the parts, or an even cut, do not fall on whole steps.
    """
    length, parts = shape[along.dim], base.parts[along.dim]
    runs = base.fused[along.dim] if base.fused else None
    if not along.step:
        raise PartedError(
            f"cut along dim {along.dim} ({length}), but the size of its blocks is not known; give the config.json "
            f"whose quantization_config says it, or {_WHOLE}",
            dim=along.dim,
        )
    if runs is None:
        if length % parts == 0 and -(-length // along.step) % parts:
            raise _misfit(base, along, length)
        return None
    if any(size % along.step for size in runs[:-1]) or any(-(-size // along.step) % parts for size in runs):
        raise _misfit(base, along, " + ".join(map(str, runs)))
    return tuple(-(-size // along.step) for size in runs)


def _misfit(base: Layout, along: Along, size: int | str) -> PartedError:
    axis = base.dims[along.dim][-1]
    return PartedError(
        f"{axis}={base.mesh.axis_size(axis)} would cut through blocks of {along.step} in dim {along.dim} ({size})",
        axis,
        dim=along.dim,
    )


_WHOLE = "leave the weight whole by a rule in front with dims null"


def check_together(weights: Iterable[QuantisedWeight], layouts: Mapping[str, Layout]) -> None:
    """Check that every rank which holds codes holds exactly their scales.

    Parameters
    ----------
    layouts
        Of the tensors of the weights, by name; those that are missing are not looked at.

    Raises
    ------
    PartedError
        With tensor, rank and the places that differ.
    """
    checked: set[Hashable] = set()
    for weight in weights:
        known = [tensor for tensor in weight.tensors if tensor.name in layouts]
        mine = [layouts[tensor.name] for tensor in known]
        kind = (weight.shape, tuple(mine), tuple(tensor._replace(name="") for tensor in known))
        if kind not in checked and len(known) > 1 and known[0] == weight.codes:
            _check(known, weight.shape, mine)
            checked.add(kind)


def _check(tensors: Sequence[QuantisedTensor], shape: tuple[int, ...], layouts: Sequence[Layout]) -> None:
    codes = tensors[0]
    held = _intervals(codes, shape, layouts[0])
    for tensor, layout in zip(tensors[1:], layouts[1:], strict=True):
        its = _intervals(tensor, shape, layout)
        dims = (
            range(len(shape))
            if tensor.along is None
            else {one.dim for one in tensor.along if one is not None}
        )
        for rank, places in held.items():
            for dim in dims:
                mine = places.places.get(dim, [(0, shape[dim])])
                other = its[rank].places.get(dim, [(0, shape[dim])]) if rank in its else []
                if mine != other or UNKNOWN in mine:
                    raise PartedError(_parted(tensor, codes, rank, dim, mine, other))
            if not (places.is_rest_whole and rank in its and its[rank].is_rest_whole):
                raise PartedError(
                    f"{tensor.name or 'a scale'}: rank {rank} would hold codes {codes.name}, but not all of their "
                    "scales; let every rank hold this tensor whole"
                )


def _parted(
    tensor: QuantisedTensor,
    codes: QuantisedTensor,
    rank: int,
    dim: int,
    mine: list[Interval],
    other: list[Interval],
) -> str:
    step = next((a.step for a in tensor.along or () if a is not None and a.dim == dim), 0)
    shown = [
        ", ".join(f"{a}:{b}" if (a, b) != UNKNOWN else "a part of unknown size" for a, b in run) or "none"
        for run in (mine, other)
    ]
    return (
        f"{tensor.name}: on rank {rank} the scales would be parted from their codes {codes.name}: of dim {dim} of "
        f"the weight it would hold codes {shown[0]} and scales of {shown[1]}; cut both alike"
        + (f", at multiples of {step}" if step > 1 else "")
    )


class Held(NamedTuple):
    """What a rank holds of a tensor."""

    places: dict[int, list[Interval]]
    """Dim of the weight -> the places of which it has the codes or scales."""
    is_rest_whole: bool
    """Whether it has all of the stored dims that run along none of the weight's."""


UNKNOWN = (-1, -1)
"""A part of a dim, where it is not known how many places a stored step stands for."""


def _intervals(tensor: QuantisedTensor, shape: tuple[int, ...], layout: Layout) -> dict[int, Held]:
    """What each rank holds; ranks that hold nothing are left out."""
    regions = layout.regions(tensor.shape)
    along = tensor.along or (None,) * len(tensor.shape)
    is_filled = (regions.boxes[..., 1] > regions.boxes[..., 0]).all(axis=1)
    out: dict[int, Held] = {}
    for rank in np.unique(regions.ranks[is_filled]).tolist():
        mine = regions.boxes[is_filled & (regions.ranks == rank)]
        places: dict[int, list[Interval]] = {}
        is_rest_whole = True
        for one, size, bounds in zip(along, tensor.shape, mine.swapaxes(0, 1).tolist(), strict=True):
            runs = _merged(bounds)
            is_whole = runs == [(0, size)]
            if one is None:
                is_rest_whole = is_rest_whole and is_whole
            elif is_whole:
                places[one.dim] = [(0, shape[one.dim])]
            else:
                length, step = shape[one.dim], one.step
                places[one.dim] = [(a * step, min(b * step, length)) if step else UNKNOWN for a, b in runs]
        out[rank] = Held(places, is_rest_whole)
    return out


def _merged(runs: Sequence[Sequence[int]]) -> list[Interval]:
    """Intervals without repeats, those that touch as one."""
    out: list[Interval] = []
    for start, stop in sorted({(a, b) for a, b in runs}):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out
