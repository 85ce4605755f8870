"""JAX's notation: a mesh of named axes, and for each tensor dim the axes that cut it.

::

    PartitionSpec(None, "tp")            rows whole, columns cut by tp
    PartitionSpec(("dp", "tp"), None)    rows cut by dp, each piece by tp: major first

What a spec does not say of the last dims is whole. Every cut is even. Optimizer shards are a further
cut of dim 0 by the axes that replicate; specs can say them where those are whole axes.
"""

from collections.abc import Mapping, Sequence

from ...errors import ArgumentTypeError, LayoutError
from ..layout import Layout
from ..mesh import Mesh
from ..strategy import Strategy

__all__ = ["Entry", "from_layout", "spec_text", "strategy_text", "to_layout"]

Entry = str | Sequence[str] | None
"""One dim of a PartitionSpec."""


def to_layout(mesh: Mesh | Mapping[str, int], spec: Sequence[Entry], ndim: int) -> Layout:
    """The layout that a mesh and a PartitionSpec mean.

    Parameters
    ----------
    mesh
        The grid, or axis name -> size as `jax.sharding.Mesh.shape` gives it; ranks are in row-major order.
    spec
        A `PartitionSpec`, or any sequence of None, a name, or names.
    ndim
        The number of tensor dims.

    Raises
    ------
    ArgumentTypeError
        If an entry is of another kind.
    LayoutError
        If the spec has more entries than there are dims, or names an axis twice or one that is not there.

    Examples
    --------
    >>> to_layout({"dp": 2, "tp": 4}, (None, "tp"), 2)
    Layout(Mesh(dp=2, tp=4), "- tp")
    """
    grid = mesh if isinstance(mesh, Mesh) else Mesh.from_axes(tuple(mesh), tuple(mesh.values()))
    if len(spec) > ndim:
        raise LayoutError(f"PartitionSpec{tuple(spec)} has {len(spec)} entries for a tensor of {ndim} dims")
    dims = [_axes(entry) for entry in spec]
    return Layout(grid, (*dims, *((),) * (ndim - len(dims))))


def _axes(entry: Entry) -> tuple[str, ...]:
    if entry is None:
        return ()
    names = (entry,) if isinstance(entry, str) else tuple(entry)
    if not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(
            f"an entry of a PartitionSpec is None, a name or names of axes, not {entry!r}"
        )
    return names


def from_layout(layout: Layout) -> tuple[str | tuple[str, ...] | None, ...]:
    """The entries of the PartitionSpec that says this layout on its mesh, one per dim.

    Raises
    ------
    LayoutError
        If none can: cuts that are not even, fused parts, a mesh that does not begin at rank 0 or is part
        of a larger grid, or optimizer shards that are not whole axes.

    Examples
    --------
    >>> from_layout(Layout(Mesh(dp=2, tp=4), "tp -", optimizer_shards=2))
    (('tp', 'dp'), None)
    """
    if layout.split != "even" or layout.sizes or layout.fused:
        raise LayoutError(f"{layout!r}: a PartitionSpec can only express even sharding of whole dims")
    if layout.strides or layout.first_ranks != (0,):
        raise LayoutError(f"{layout!r}: JAX's mesh here is that of all ranks, in order, from rank 0 on")
    dims = [*layout.dims]
    if layout.optimizer_shards > 1:
        dims[0] = (*dims[0], *_optimizer_axes(layout))
    return tuple(axes[0] if len(axes) == 1 else axes or None for axes in dims)


def _optimizer_axes(layout: Layout) -> tuple[str, ...]:
    """The last of the axes that replicate, as many as share a shard's rows."""
    mesh, size = layout.mesh, 1
    found: list[str] = []
    for axis in reversed([a for a in mesh.axis_names if a not in layout.axes]):
        if size == layout.optimizer_shards:
            break
        found.insert(0, axis)
        size *= mesh.axis_size(axis)
    if size != layout.optimizer_shards:
        raise LayoutError(
            f"{layout!r}: its {layout.optimizer_shards} optimizer shards are not whole axes; "
            "divide the axis that replicates into two"
        )
    return tuple(found)


def spec_text(layout: Layout) -> str:
    """The PartitionSpec as Python writes it, with P for its name.

    Examples
    --------
    >>> spec_text(Layout(Mesh(dp=2, tp=4), "dp+tp - -"))
    "P(('dp', 'tp'))"
    """
    entries = list(from_layout(layout))
    while entries and entries[-1] is None:
        entries.pop()
    return f"P({', '.join(map(repr, entries))})"


def strategy_text(strategy: Strategy) -> str:
    """Python code that makes a strategy's meshes and, by parameter, its shardings, in JAX.

    Raises
    ------
    LayoutError
        If a layout cannot be said; the text names the parameter.

    Examples
    --------
    >>> print(strategy_text(Strategy({"w": Layout(Mesh(tp=4), "- tp")})))
    import jax
    from jax.sharding import NamedSharding, PartitionSpec as P
    <BLANKLINE>
    mesh = jax.make_mesh((4,), ('tp',))
    shardings = {
        'w': NamedSharding(mesh, P(None, 'tp')),
    }
    """
    meshes = list(dict.fromkeys(layout.mesh for layout in strategy.values()))
    names = {mesh: f"mesh_{i}" if len(meshes) > 1 else "mesh" for i, mesh in enumerate(meshes)}
    lines = ["import jax", "from jax.sharding import NamedSharding, PartitionSpec as P", ""]
    lines += [f"{names[m]} = jax.make_mesh({m.axis_sizes}, {m.axis_names})" for m in meshes]
    lines.append("shardings = {")
    said: dict[Layout, str] = {}
    for name, layout in strategy.items():
        try:
            if layout not in said:
                said[layout] = f"NamedSharding({names[layout.mesh]}, {spec_text(layout)})"
        except LayoutError as err:
            raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
        lines.append(f"    {name!r}: {said[layout]},")
    return "\n".join([*lines, "}"])
