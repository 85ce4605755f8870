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
    return Mesh.from_axes(tuple("abcdef"[: len(sizes)]), tuple(sizes))


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
        return Layout(mesh, plain.dims, optimizer_shards=shards, sizes=sizes, first_ranks=(first,))
    # The neighbours of the last axis are k ranks apart, as if another axis ran inside it.
    apart = draw(st.integers(1, 3))
    strides = (
        ()
        if apart == 1
        else tuple(apart * math.prod(mesh.axis_sizes[i + 1 :]) for i in range(len(mesh.axis_sizes)))
    )
    return Layout(
        mesh,
        plain.dims,
        strides=strides,
        optimizer_shards=shards,
        sizes=sizes,
        first_ranks=(first,),
        split=draw(st.sampled_from(SPLITS)),
    )


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

    A value may have several readers, and a net several outputs. Half of the nets also give the
    gradients of the sum of their outputs by every parameter.
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
        values = [build.input("x", Spec((8, 12), np.dtype("float64")))]
    else:
        inputs["x"] = random.integers(0, 16, (8,))
        ids = build.input("x", Spec((8,), np.dtype("int64")))
        values = [_cut(draw, build, operators.Gather(), devices, param(16, 12), ids)]
    for _ in range(draw(st.integers(1, 5))):
        values.append(_more(draw, build, devices, param, values))
    read = {name for node in build.nodes for name in node.inputs}
    outputs = [name for name in values if name not in read]
    if draw(st.booleans()):
        mean = operators.ReduceMean() if draw(st.booleans()) else operators.ReduceSum()
        loss, *others = (build.add(mean, value) for value in outputs)
        for other in others:
            loss = build.add(operators.Add(), loss, other)
        grads = differentiate(build, loss, list(params))
        return build.graph([loss, *grads.values()]), devices, params, inputs
    graph = build.graph(outputs)
    return graph, devices, {name: params[name] for name in graph.params}, inputs


def _more(
    draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], values: list[str]
) -> str:
    """One or more nodes on one or two values of two dims, which end in a value of two dims."""
    value = values[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(values))
    rows, columns = build.spec(value).shape
    if rows % 2 or columns < 4:  # too narrow for the others
        width = draw(st.sampled_from([4, 6, 12]))
        return _cut(draw, build, operators.MatMul(True), devices, value, param(rows, width))
    if draw(st.integers(0, 3)) == 0:
        several = [_batched, _lost, _classified, _fused, _parts_of_parts]
        further = draw(st.sampled_from([*several, _attended] if columns % 2 == 0 else several))
        return further(draw, build, devices, param, value)
    kinds = _kinds(draw, build, param, value)
    like = [name for name in values if name != value and build.spec(name).shape == (rows, columns)]
    if like:
        other = draw(st.sampled_from(like))
        kinds |= {
            f"{op.name} of two": lambda op=op: (op, [value, other])
            for op in (operators.Add(), operators.Sub(), operators.Mul())
        }
        kinds["MatMul of two"] = lambda: (operators.MatMul(True), [value, other])
    op, operands = kinds[draw(st.sampled_from(sorted(kinds)))]()
    return _cut(draw, build, op, devices, *operands)


def _kinds(
    draw: st.DrawFn, build: GraphBuilder, param: Callable[..., str], value: str
) -> dict[str, Callable[[], tuple[Operator, list[str]]]]:
    """What may be done to a value of two dims."""
    rows, columns = build.spec(value).shape
    width = draw(st.sampled_from([4, 6, 12]))
    unary = (
        *(operators.Neg(), operators.Tanh(), operators.GeLU(), operators.Sigmoid(), operators.SiLU()),
        *(operators.ErfGeLU(), operators.ReLU(), operators.Square(), operators.Identity()),
        *(operators.Scale(0.5), operators.AddScalar(0.5), operators.Normalise(), operators.RootMeanSquare()),
        *(operators.Softmax(draw(st.sampled_from([0, 1]))), operators.Transpose((1, 0))),
        *(operators.ReduceSum((0,), True), operators.ReduceMean((1,), True)),
    )
    kinds: dict[str, Callable[[], tuple[Operator, list[str]]]] = {
        op.name: lambda op=op: (op, [value]) for op in unary
    }
    return kinds | {
        "MatMul": lambda: (operators.MatMul(), [value, param(columns, width)]),
        "MatMul tb": lambda: (operators.MatMul(False, True), [value, param(width, columns)]),
        "MatMul ta": lambda: (operators.MatMul(True), [value, param(rows, width)]),
        "BiasAdd": lambda: (operators.BiasAdd(), [value, param(columns)]),
        "Add": lambda: (operators.Add(), [value, param(columns)]),
        "Sub": lambda: (operators.Sub(), [param(1, columns), value]),
        "Mul": lambda: (operators.Mul(), [value, param(rows, 1)]),
        "Div": lambda: (operators.Div(), [value, build.add(operators.Exp(), param(rows, columns))]),
        "RMSNorm": lambda: (operators.RMSNorm(), [value, param(columns)]),
        "LayerNorm": lambda: (operators.LayerNorm(), [value, param(columns), param(columns)]),
        "Part": lambda: (_part(draw, 0, rows, 2), [value]),
        "Part of columns": lambda: (_part(draw, 1, columns, 1), [value]),
        "twice": lambda: (operators.Mul(), [value, value]),
    }


def _part(draw: st.DrawFn, dim: int, size: int, step: int) -> Operator:
    """A part of a dim that consists of one to four, in sizes that are multiples of `step`."""
    points = draw(st.sets(st.integers(1, max(size // step - 1, 1)), max_size=3)) if size > step else set()
    sizes = tuple(b - a for a, b in pairwise([0, *sorted(point * step for point in points), size]))
    return operators.Part(dim, sizes, draw(st.integers(0, len(sizes) - 1)))


def _parts_of_parts(
    draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str
) -> str:
    """A part of a part, along one dim or two."""
    for dim in draw(st.sampled_from([(0, 0), (1, 1), (0, 1), (1, 0)])):
        size = build.spec(value).shape[dim]
        if size >= 4:
            value = _cut(draw, build, _part(draw, dim, size, 2 if dim == 0 else 1), devices, value)
    return value


def _fused(draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str) -> str:
    """Three parts of one product, used apart: q * k + v."""
    columns = build.spec(value).shape[1]
    size = draw(st.sampled_from([2, 4, 6]))
    fused = _cut(draw, build, operators.MatMul(), devices, value, param(columns, 3 * size))
    q, k, v = (_cut(draw, build, operators.Part(1, (size,) * 3, i), devices, fused) for i in range(3))
    product = _cut(draw, build, operators.Mul(), devices, q, k)
    return _cut(draw, build, operators.Add(), devices, product, v)


def _classified(
    draw: st.DrawFn, build: GraphBuilder, devices: int, param: Callable[..., str], value: str
) -> str:
    """The cross entropy with one-hot labels; as one column."""
    rows, columns = build.spec(value).shape
    labels = build.add(operators.Positions(rows), build.add(operators.Constant(0, "int64")))
    hot = _cut(draw, build, operators.OneHot(columns + rows, "float64"), devices, labels)
    logits = _cut(draw, build, operators.MatMul(), devices, value, param(columns, columns + rows))
    losses = _cut(draw, build, operators.SoftmaxCrossEntropyWithLogits(), devices, logits, hot)
    return _cut(draw, build, operators.Reshape((rows, 1)), devices, losses)


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
    """As query heads, rotated, which share KV heads; and back to two dims."""
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
    classes = rows + draw(st.sampled_from([0, 0, 1, 4]))
    logits = _cut(draw, build, operators.MatMul(), devices, value, param(columns, classes))
    op = operators.PartialLogSumExp(draw(st.integers(1, 8)))
    runs = _cut(draw, build, op, devices, logits, labels)
    losses = _cut(draw, build, operators.SparseCrossEntropy(), devices, runs)
    return _cut(draw, build, operators.Reshape((rows, 1)), devices, losses)


def shared_sizes(op: Operator, *specs: Spec) -> dict[str, int]:
    """Factor -> a number whose divisors may all cut it: what its sizes have in common, and the sizes of its parts."""
    rule = op.rule(*specs)
    sizes: dict[str, int] = {}
    for operand, (spec, factors) in enumerate(
        [*zip(specs, rule.inputs, strict=True), (op.infer(*specs), rule.output)]
    ):
        fused = rule.fused.get(operand if operand < len(specs) else -1, (None,) * len(factors))
        for factor, size, parts in zip(factors, spec.shape, fused, strict=True):
            if factor is not None:  # a reshape's has two sizes, and must cut both
                sizes[factor] = math.gcd(sizes.get(factor, 0), *(parts or (size,)))
    for factor, run in rule.runs.items():
        whole, rest = divmod(sizes[factor], run)
        sizes[factor] = 1 if rest else whole
    return sizes


def _cut(draw: st.DrawFn, build: GraphBuilder, op: Operator, devices: int, *operands: str) -> str:
    """Add a node, with no strategy or with a random one that fits.

    Parameters get one reader each, so that no two readers can want one in two ways.
    """
    if draw(st.integers(0, 3)) == 0:
        return build.add(op, *operands)
    specs = [build.spec(name) for name in operands]
    rule = op.rule(*specs)
    sizes = shared_sizes(op, *specs)
    left, parts = devices, {}
    for factor in draw(st.permutations(sorted(sizes.keys() - rule.within.keys()))):
        parts[factor] = draw(st.sampled_from([k for k in divisors(sizes[factor]) if left % k == 0]))
        left //= parts[factor]
    strategy = tuple(tuple(parts.get(f or "", 1) for f in factors) for factors in rule.inputs)
    return build.add(op, *operands, strategy=strategy)
