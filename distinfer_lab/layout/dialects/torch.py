"""torch's notation (DTensor): for each MESH axis what it does with the tensor.

::

    mesh ("dp", "tp")    [Replicate(), Shard(1)]      rows whole, columns cut by tp
                         [Shard(0), Shard(0)]         rows cut by dp, each piece by tp: left to right
                         [_StridedShard(0, 4), Shard(0)]     rows cut by the 4 of tp, each piece by dp

A dim is cut as `torch.chunk` cuts it: pieces of ceil(n / parts), the last ones smaller or empty. The
factor of a strided shard is the number of pieces that the dim was cut into before; where no axis to the
right cut it so, it means that the tensor is fused of so many parts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import ArgumentTypeError, LayoutError
from ..layout import Layout
from ..mesh import Mesh
from ..strategy import Strategy

__all__ = ["Placement", "Replicate", "Shard", "StridedShard", "from_layout", "strategy_text", "to_layout"]


class Replicate(NamedTuple):
    """All ranks along the axis hold the same."""


class Shard(NamedTuple):
    """The axis cuts a dim."""

    dim: int


class StridedShard(NamedTuple):
    """The axis cuts a dim that is cut into `split_factor` pieces already, each by itself."""

    dim: int
    split_factor: int


Placement = Replicate | Shard | StridedShard


def to_layout(
    mesh: Mesh | Mapping[str, int],
    placements: Sequence[Any],
    shape: Sequence[int],
) -> Layout:
    """The layout that a mesh and DTensor placements mean.

    Parameters
    ----------
    mesh
        The grid, or axis name -> size; ranks are in row-major order.
    placements
        One for each mesh axis: torch's own, or those of this module.
    shape
        The full shape of the tensor.

    Raises
    ------
    ArgumentTypeError
        If a placement is of another kind; partial values are none that can be stored.
    LayoutError
        If they are too many or too few, name a dim that is not there, or a split factor fits nothing.

    Examples
    --------
    >>> to_layout({"dp": 2, "tp": 4}, [StridedShard(0, 4), Shard(0)], (16, 3))
    Layout(Mesh(dp=2, tp=4), "tp+dp -")
    """
    grid = mesh if isinstance(mesh, Mesh) else Mesh.from_axes(tuple(mesh), tuple(mesh.values()))
    if len(placements) != len(grid.axis_names):
        raise LayoutError(f"{len(placements)} placements for {grid!r}; give one for each axis")
    dims: list[list[str]] = [[] for _ in shape]
    fused: list[tuple[int, ...] | None] = [None] * len(shape)
    # From the right: the factor of a strided shard counts the pieces that axes to its right made.
    for axis, given in reversed(list(zip(grid.axis_names, placements, strict=True))):
        placement = _placement(given)
        if isinstance(placement, Replicate):
            continue
        dim = placement.dim + len(shape) if placement.dim < 0 else placement.dim
        if not 0 <= dim < len(shape):
            raise LayoutError(f"axis {axis}: {placement} of a tensor of {len(shape)} dims")
        factor = placement.split_factor if isinstance(placement, StridedShard) else 1
        sizes = [grid.axis_size(a) for a in dims[dim]]
        place = next((i for i in range(len(sizes) + 1) if math.prod(sizes[:i]) == factor), None)
        if place is None:
            fused[dim] = _fused(axis, dims[dim], shape[dim], factor)
            place = 0
        dims[dim].insert(place, axis)
    # How torch shares an uneven dim among strided shards is not a layout of whole runs.
    strided = any(isinstance(_placement(given), StridedShard) for given in placements)
    split = "even" if strided else "torch_chunk"
    return Layout(grid, tuple(map(tuple, dims)), split=split, fused=tuple(fused))


def _placement(given: Any) -> Placement:
    """Our own record of a placement, which torch's is known from by its class's name."""
    if isinstance(given, Replicate | Shard | StridedShard):
        return given
    kind = type(given).__name__
    if kind == "Replicate":
        return Replicate()
    if kind == "Shard":
        return Shard(int(given.dim))
    if kind == "_StridedShard":
        return StridedShard(int(given.dim), int(given.split_factor))
    raise ArgumentTypeError(f"a placement is Replicate(), Shard(dim) or _StridedShard(dim, n), not {given!r}")


def _fused(axis: str, before: Sequence[str], length: int, factor: int) -> tuple[int, ...]:
    if before or factor < 1 or length % factor:
        raise LayoutError(
            f"axis {axis}: a split factor of {factor} fits neither the axes to its right that cut the dim "
            f"({', '.join(before) or 'none'}) nor equal parts of its {length} elements"
        )
    return (length // factor,) * factor


def from_layout(layout: Layout) -> tuple[Placement, ...]:
    """The placements that say this layout on its mesh, one per axis.

    Raises
    ------
    LayoutError
        If none can: explicit sizes, unequal fused parts, GSPMD's split of several axes, optimizer shards,
        or a mesh that does not begin at rank 0 or is part of a larger grid.

    Examples
    --------
    >>> from_layout(Layout(Mesh(dp=2, tp=4), "tp+dp -"))
    (StridedShard(dim=0, split_factor=4), Shard(dim=0))
    """
    _check(layout)
    mesh = layout.mesh
    out: list[Placement] = [Replicate()] * len(mesh.axis_names)
    for dim, axes in enumerate(layout.dims):
        parts = len(layout.fused[dim] or ()) if layout.fused else 0
        for place, axis in enumerate(axes):
            at = mesh.axis_index(axis)
            before = [a for a in axes[:place] if mesh.axis_index(a) > at]
            factor = math.prod(map(mesh.axis_size, before)) * max(parts, 1)
            out[at] = Shard(dim) if factor == 1 else StridedShard(dim, factor)
    if layout.split != "even" and any(isinstance(placement, StridedShard) for placement in out):
        raise LayoutError(f"{layout!r}: strided shards can only express even sharding; use split='even'")
    return tuple(out)


def _check(layout: Layout) -> None:
    if layout.sizes or layout.optimizer_shards > 1:
        raise LayoutError(f"{layout!r}: placements cannot express explicit sizes or optimizer shards")
    if layout.strides or layout.first_ranks != (0,):
        raise LayoutError(f"{layout!r}: a DeviceMesh here is that of all ranks, in order, from rank 0 on")
    if layout.split == "gspmd_ceil" and any(len(axes) > 1 for axes in layout.dims):
        raise LayoutError(f"{layout!r}: torch shards by one axis after the other, not by their product")
    for axes, parts in zip(layout.dims, layout.fused, strict=False):
        if parts is None or not axes:
            continue
        if len(axes) > 1 or len(set(parts)) > 1 or parts[0] % layout.mesh.axis_size(axes[0]):
            raise LayoutError(
                f"{layout!r}: placements can only express equal fused parts, each sharded evenly by one axis"
            )


def strategy_text(strategy: Strategy) -> str:
    """Python code that makes a strategy's meshes and, by parameter, its placements, in torch.

    Raises
    ------
    LayoutError
        If a layout cannot be said; the text names the parameter.

    Examples
    --------
    >>> print(strategy_text(Strategy({"w": Layout(Mesh(tp=4), "- tp")})))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard
    <BLANKLINE>
    mesh = init_device_mesh("cpu", (4,), mesh_dim_names=('tp',))
    placements = {
        'w': (mesh, [Shard(1)]),
    }
    """
    meshes = list(dict.fromkeys(layout.mesh for layout in strategy.values()))
    names = {mesh: f"mesh_{i}" if len(meshes) > 1 else "mesh" for i, mesh in enumerate(meshes)}
    body = []
    said: dict[Layout, str] = {}
    for name, layout in strategy.items():
        try:
            if layout not in said:
                words = ", ".join(map(_text, from_layout(layout)))
                said[layout] = f"({names[layout.mesh]}, [{words}])"
        except LayoutError as err:
            raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
        body.append(f"    {name!r}: {said[layout]},")
    lines = ["from torch.distributed.device_mesh import init_device_mesh"]
    lines.append("from torch.distributed.tensor import Replicate, Shard")
    if any("_StridedShard" in line for line in body):
        lines.append("from torch.distributed.tensor.placement_types import _StridedShard")
    lines.append("")
    for mesh in meshes:
        grid = f"{mesh.axis_sizes}, mesh_dim_names={mesh.axis_names}"
        lines.append(f'{names[mesh]} = init_device_mesh("cpu", {grid})')
    return "\n".join([*lines, "placements = {", *body, "}"])


def _text(placement: Placement) -> str:
    if isinstance(placement, StridedShard):
        return f"_StridedShard({placement.dim}, split_factor={placement.split_factor})"
    return f"Shard({placement.dim})" if isinstance(placement, Shard) else "Replicate()"
