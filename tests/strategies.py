"""Hypothesis strategies that several tests share: meshes, layouts, nets."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import reject, settings
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError
from distinfer_lab.layout import SPLITS, Layout, Mesh
from distinfer_lab.net import Graph, GraphBuilder, Operator, Spec, differentiate, operators


def examples(count: int, thorough: int | None = None) -> int:
    """How many examples a test takes that is content with `count` by default; ten times as many if thorough."""
    if settings.get_current_profile_name() != "thorough":
        return count
    return count * 10 if thorough is None else thorough


@st.composite
def meshes(draw: st.DrawFn, max_axes: int = 3, max_size: int = 4) -> Mesh:
    """A mesh of 1 to `max_axes` axes."""
    sizes = draw(st.lists(st.integers(1, max_size), min_size=1, max_size=max_axes))
    return Mesh(tuple("abcdef"[: len(sizes)]), tuple(sizes))


@st.composite
def layouts(
    draw: st.DrawFn, ndim: int, mesh: Mesh | None = None, max_axes: int = 3, split: str = "even"
) -> Layout:
    """Any layout of `ndim` dims: axes in any order, replicas, optimizer shards, uneven rows, a stage.

    With `split="any"` also uneven splits of every kind, and meshes that are part of a larger grid.
    """
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
    if split == "even":
        return Layout(mesh, plain.dims, shards, sizes, (first,))
    # The neighbours of the last axis are k ranks apart, as if another axis ran inside it.
    apart = draw(st.integers(1, 3))
    strides = (
        ()
        if apart == 1
        else tuple(apart * math.prod(mesh.axis_sizes[i + 1 :]) for i in range(len(mesh.axis_sizes)))
    )
    return Layout(mesh, plain.dims, shards, sizes, (first,), draw(st.sampled_from(SPLITS)), strides=strides)


@st.composite
def any_layouts(draw: st.DrawFn, shape: tuple[int, ...], mesh: Mesh | None = None) -> Layout:
    """Any layout, of every kind that there is, that can cut a tensor of this shape."""
    layout = draw(layouts(len(shape), mesh, split="any"))
    fused: list[tuple[int, ...] | None] = []
    for length in shape:
        cuts = sorted(draw(st.sets(st.integers(1, max(length - 1, 1)), max_size=2)) if length > 1 else [])
        fused.append(tuple(b - a for a, b in pairwise([0, *cuts, length])) if cuts else None)
    if draw(st.booleans()):
        layout = replace(layout, sizes=(), fused=tuple(fused))
    if layout.sizes and layout.sizes[0] is not None:
        cuts = sorted(draw(st.integers(0, shape[0])) for _ in layout.sizes[0][1:])
        layout = replace(
            layout, sizes=(tuple(b - a for a, b in pairwise([0, *cuts, shape[0]])), *layout.sizes[1:])
        )
    try:
        layout.regions(shape)
    except LayoutError:  # an even split that does not come out even
        layout = replace(layout, split=draw(st.sampled_from(SPLITS[1:])))
    return layout


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


@st.composite
def layout_pairs(draw: st.DrawFn, max_ndim: int = 3) -> tuple[Layout, Layout, tuple[int, ...]]:
    """Two layouts of one tensor, and a shape that both can cut."""
    ndim = draw(st.integers(0, max_ndim))
    src, dst = draw(layouts(ndim)), draw(layouts(ndim))
    shape = draw(shapes_for(src, dst))
    try:
        src.boxes(shape), dst.boxes(shape)
    except LayoutError:  # explicit sizes of one that the other cannot cut
        reject()
    return src, dst, shape


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """A tensor whose every element is different, so that a misplaced one shows."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def divisors(n: int) -> list[int]:
    """The numbers that divide n."""
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def random_nets(draw: st.DrawFn) -> tuple[Graph, int, dict[str, Any], dict[str, Any]]:
    """A random net of two dims, random valid strategies, cards, whole float64 parameters and inputs.

    Half of the nets also give the gradients of the sum of their output by every parameter.
    """
    devices = draw(st.sampled_from([1, 2, 4, 6, 8]))
    build, random = GraphBuilder(), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    params: dict[str, Any] = {}

    def param(*shape: int) -> str:
        name = f"p{len(params)}"
        params[name] = random.normal(size=shape)
        return build.param(name, Spec(shape, np.dtype("float64")))

    inputs: dict[str, Any] = {}
    if draw(st.booleans()):
        inputs["x"] = random.normal(size=(8, 12))
        value = build.input("x", Spec((8, 12), np.dtype("float64")))
    else:
        inputs["x"] = random.integers(0, 16, (8,))
        ids = build.input("x", Spec((8,), np.dtype("int64")))
        value = _cut(draw, build, operators.Gather(), devices, param(16, 12), ids)
    for _ in range(draw(st.integers(1, 5))):
        value = _more(draw, build, devices, param, value)
    if draw(st.booleans()):
        loss = build.add(operators.ReduceMean() if draw(st.booleans()) else operators.ReduceSum(), value)
        grads = differentiate(build, loss, list(params))
        return build.graph([loss, *grads.values()]), devices, params, inputs
    graph = build.graph([value])
    return graph, devices, {name: params[name] for name in graph.params}, inputs


def _more(draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str) -> str:
    """One or two more nodes on a value of two dims, which end in a value of two dims."""
    rows, columns = build.spec(value).shape
    width = draw(st.sampled_from([4, 6, 12]))
    if rows % 2 or columns < 4:  # too narrow for the others
        return _cut(draw, build, operators.MatMul(True), devices, value, param(rows, width))
    kinds: dict[str, Callable[[], tuple[Operator, list[str]]]] = {
        "MatMul": lambda: (operators.MatMul(), [value, param(columns, width)]),
        "MatMul tb": lambda: (operators.MatMul(False, True), [value, param(width, columns)]),
        "MatMul ta": lambda: (operators.MatMul(True), [value, param(rows, width)]),
        "BiasAdd": lambda: (operators.BiasAdd(), [value, param(columns)]),
        "Add": lambda: (operators.Add(), [value, param(columns)]),
        "Sub": lambda: (operators.Sub(), [param(1, columns), value]),
        "Mul": lambda: (operators.Mul(), [value, param(rows, 1)]),
        "Div": lambda: (operators.Div(), [value, build.add(operators.Exp(), param(rows, columns))]),
        "Neg": lambda: (operators.Neg(), [value]),
        "Tanh": lambda: (operators.Tanh(), [value]),
        "GeLU": lambda: (operators.GeLU(), [value]),
        "Sigmoid": lambda: (operators.Sigmoid(), [value]),
        "SiLU": lambda: (operators.SiLU(), [value]),
        "ErfGeLU": lambda: (operators.ErfGeLU(), [value]),
        "RMSNorm": lambda: (operators.RMSNorm(), [value, param(columns)]),
        "Part": lambda: (operators.Part(0, (rows // 2,) * 2, draw(st.integers(0, 1))), [value]),
        "Part of columns": lambda: (operators.Part(1, (columns - 2, 2), draw(st.integers(0, 1))), [value]),
        "ReLU": lambda: (operators.ReLU(), [value]),
        "Softmax": lambda: (operators.Softmax(draw(st.sampled_from([0, 1]))), [value]),
        "LayerNorm": lambda: (operators.LayerNorm(), [value, param(columns), param(columns)]),
        "ReduceSum": lambda: (operators.ReduceSum((0,), True), [value]),
        "ReduceMean": lambda: (operators.ReduceMean((1,), True), [value]),
        "Transpose": lambda: (operators.Transpose((1, 0)), [value]),
        "twice": lambda: (operators.Mul(), [value, value]),
    }
    if draw(st.integers(0, 6)) == 0:
        further = draw(st.sampled_from([_batched, _attended, _lost]))
        return further(draw, build, devices, param, value)
    op, operands = kinds[draw(st.sampled_from(sorted(kinds)))]()
    return _cut(draw, build, op, devices, *operands)


def _batched(
    draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str
) -> str:
    """To three dims by a reshape, a batched product there, and back by a flatten."""
    rows, columns = build.spec(value).shape
    split = draw(st.sampled_from(divisors(columns)))
    folded = _cut(draw, build, operators.Reshape((rows, split, columns // split)), devices, value)
    product = _cut(draw, build, operators.BatchMatMul(), devices, folded, param(rows, columns // split, 4))
    return _cut(draw, build, operators.Flatten(), devices, product)


def _attended(
    draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str
) -> str:
    """As query heads, rotated, which share key heads; and back to two dims."""
    rows, columns = build.spec(value).shape
    heads, size = columns // 2, 2
    groups = draw(st.sampled_from(divisors(heads)))
    tokens = draw(st.sampled_from(divisors(rows)))
    query = _cut(draw, build, operators.Reshape((rows // tokens, tokens, heads, size)), devices, value)
    query = _cut(draw, build, operators.Transpose((0, 2, 1, 3)), devices, query)
    position = build.add(operators.Constant(draw(st.integers(0, 9)), "int64"))
    angles = build.add(operators.Angles(tokens, (0.7,), "float64"), position)
    query = _cut(draw, build, operators.Rotary(), devices, query, angles)
    keys, values = (param(rows // tokens, heads // groups, tokens, n) for n in (size, 4))
    shares = _cut(draw, build, operators.AttentionWeights(scale=0.4), devices, query, keys)
    out = _cut(draw, build, operators.GroupedMatMul(), devices, shares, values)
    out = _cut(draw, build, operators.Transpose((0, 2, 1, 3)), devices, out)
    return _cut(draw, build, operators.Reshape((rows, heads * 4)), devices, out)


def _lost(draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str) -> str:
    """The cross entropy with some labels, the classes cut; as one column."""
    rows, columns = build.spec(value).shape
    labels = build.add(operators.Positions(rows), build.add(operators.Constant(0, "int64")))
    logits = build.add(operators.MatMul(), value, param(columns, rows))
    parts = draw(st.sampled_from([n for n in divisors(rows) if devices % n == 0]))
    cut_rows = draw(st.sampled_from([n for n in divisors(rows) if devices // parts % n == 0]))
    op = operators.RunsOfClasses(parts)
    runs = build.add(op, logits, labels, strategy=((cut_rows, parts), (cut_rows,)))
    losses = _cut(draw, build, operators.SparseCrossEntropy(), devices, runs)
    return _cut(draw, build, operators.Reshape((rows, 1)), devices, losses)


def _cut(draw: st.DrawFn, build: GraphBuilder, op: Operator, devices: int, *operands: str) -> str:
    """Add a node, with no strategy or with a random one that fits.

    Parameters get one reader each, so that no two readers can want one in two ways.
    """
    if draw(st.integers(0, 3)) == 0:
        return build.add(op, *operands)
    specs = [build.spec(name) for name in operands]
    rule = op.rule(*specs)
    sizes: dict[str, int] = {}
    for spec, factors in [*zip(specs, rule.inputs, strict=True), (op.infer(*specs), rule.output)]:
        for factor, size in zip(factors, spec.shape, strict=True):
            if (
                factor is not None and factor not in rule.within
            ):  # a reshape's has two sizes, and must cut both
                sizes[factor] = math.gcd(sizes.get(factor, 0), size)
    for fused, factors in zip(rule.fused.values(), rule.inputs, strict=False):
        for parts_of, factor in zip(fused, factors, strict=True):
            sizes |= {factor: math.gcd(sizes[factor], *parts_of)} if factor and parts_of else {}
    left, parts = devices, {}
    for factor in draw(st.permutations(sorted(sizes))):
        parts[factor] = draw(st.sampled_from([k for k in divisors(sizes[factor]) if left % k == 0]))
        left //= parts[factor]
    strategy = tuple(tuple(parts.get(f or "", 1) for f in factors) for factors in rule.inputs)
    return build.add(op, *operands, strategy=strategy)
