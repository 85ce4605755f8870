"""Hypothesis strategies that several tests share: meshes, layouts, tensors."""

import math

import numpy as np
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh


@st.composite
def meshes(draw: st.DrawFn, max_axes: int = 3, max_size: int = 4) -> Mesh:
    """A mesh of 1 to `max_axes` axes."""
    sizes = draw(st.lists(st.integers(1, max_size), min_size=1, max_size=max_axes))
    return Mesh(tuple("abcdef"[: len(sizes)]), tuple(sizes))


@st.composite
def layouts(draw: st.DrawFn, ndim: int, mesh: Mesh | None = None, max_axes: int = 3) -> Layout:
    """Any layout of `ndim` dims: axes in any order, replicas, optimizer shards, uneven rows, a stage."""
    mesh = mesh or draw(meshes(max_axes))
    dims: list[list[str]] = [[] for _ in range(ndim)]
    for axis in draw(st.permutations(mesh.axis_names)):
        where = draw(st.integers(-1, ndim - 1)) if ndim else -1
        if where >= 0:
            dims[where].append(axis)
    plain = Layout(mesh, tuple(tuple(d) for d in dims))
    shards = 1
    if ndim:
        shards = draw(st.sampled_from([n for n in range(1, plain.replicas + 1) if plain.replicas % n == 0]))
    sizes: tuple[tuple[int, ...] | None, ...] = ()
    if ndim and shards == 1 and draw(st.booleans()):
        rows = draw(st.lists(st.integers(0, 5), min_size=plain.parts[0], max_size=plain.parts[0]))
        sizes = (tuple(rows), *(None for _ in range(ndim - 1)))
    first = draw(st.sampled_from([0, mesh.size, 3 * mesh.size]))
    return Layout(mesh, plain.dims, shards, sizes, (first,))


@st.composite
def layouts_with_shape(draw: st.DrawFn, max_ndim: int = 3) -> tuple[Layout, tuple[int, ...]]:
    """A layout and a shape that it can cut."""
    layout = draw(layouts(draw(st.integers(0, max_ndim))))
    return layout, draw(shapes_for(layout))


@st.composite
def shapes_for(draw: st.DrawFn, *layouts: Layout) -> tuple[int, ...]:
    """A shape that every one of these layouts, of equal ndim, can cut (uneven ones: at most one per dim)."""
    shape = []
    for dim in range(layouts[0].ndim):
        explicit = [layout.sizes[dim] for layout in layouts if layout.sizes and layout.sizes[dim] is not None]
        if explicit:
            shape.append(sum(explicit[0]))
            continue
        step = math.lcm(*(x.parts[dim] * (x.optimizer_shards if dim == 0 else 1) for x in layouts))
        shape.append(step * draw(st.integers(1, 3)))
    return tuple(shape)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """A tensor whose every element is different, so that a misplaced one shows."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
