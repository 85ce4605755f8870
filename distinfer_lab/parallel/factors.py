"""From what the user says of one operator to layouts: factors get mesh axes.

::

    MatMul   inputs (m k) (k n), output (m n)      shard ((2, 1), (1, 4)) on 8 cards
    parts    m 2, k 1, n 4                          mesh  Mesh(m=2, n=4)
    layouts  x (m, -)   w (-, n)   y (m, n)         on 16: Mesh(m=2, n=4, repeat=2)
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

from ..errors import ArgumentTypeError, ShardingError
from ..layout import Layout, Mesh, cut_points
from ..net import AxisStrategy, Node, Rule, Spec
from .sharding import NodeSharding

__all__ = [
    "Axes",
    "Cut",
    "cut_by_axes",
    "cuts_of",
    "data_parallel_parts",
    "describe",
    "mesh_of_parts",
    "misfit",
    "node_name",
    "read_strategy",
]


class Cut(NamedTuple):
    """How a factor is cut."""

    axes: tuple[str, ...] = ()
    """Mesh axes, major first."""
    split: str = "even"
    """How a dim is shared whose size the axes do not divide."""
    fused: tuple[int, ...] | None = None
    """The sizes of the parts of the dim that are each cut by themselves."""


WHOLE = Cut()

Axes = Mapping[str, Cut]
"""How each factor is cut; one that is not named is whole."""


def node_name(node: Node, params: Mapping[str, object]) -> str | None:
    """The name of a node in a strategy file: its operator and its first parameter; None without one."""
    named = [name for name in node.inputs if name in params]
    return f"{node.op.name}_{named[0]}" if named else None


def describe(node: Node, params: Sequence[str]) -> str:
    """A node by its operator and the first parameter that it reads."""
    named = [name for name in node.inputs if name in params]
    return f"{node.op.name} of {named[0]!r}" if named else f"{node.op.name} ({node.output})"


def read_strategy(
    node: Node, rule: Rule, specs: Sequence[Spec], output: Spec, devices: int, what: str
) -> tuple[Mesh, Axes]:
    """The mesh and the axes that a node's own strategy means.

    Raises
    ------
    ShardingError
        If it does not fit the operator, its shapes or the cards.
    ArgumentTypeError
        If it is no tuple of tuples of integers.
    """
    strategy = node.strategy
    assert strategy is not None
    if isinstance(strategy, AxisStrategy):
        mesh, axes = _read_axes(strategy, rule, specs, devices, what)
    else:
        parts = _parts_of_factors(strategy, rule, specs, what)
        mesh, axes = mesh_of_parts(parts, rule, devices, what)
    for dim, (size, factor) in enumerate(zip(output.shape, rule.output, strict=True)):
        cut = axes.get(factor or "", WHOLE)
        n = math.prod(mesh.axis_size(a) for a in cut.axes)
        if size % n and cut.split == "even":
            raise ShardingError(
                f"{what}: the output's dim {dim} has {size} elements, which {n} parts cannot share evenly; "
                f"use {math.gcd(size, n)} parts"
            )
    for factor, cut in axes.items():
        reason = misfit(mesh, factor, cut, rule, (*specs, output))
        if reason is not None:
            raise ShardingError(f"{what}: {reason}")
    return mesh, axes


def misfit(mesh: Mesh, factor: str, cut: Cut, rule: Rule, specs: Sequence[Spec]) -> str | None:
    """Why an operator cannot take a factor cut like this; None if it can.

    Parameters
    ----------
    specs
        Of the inputs, and last of the output.
    """
    axes = [mesh.axis_size(axis) for axis in cut.axes]
    dims = [
        (i, dim, size)
        for i, (spec, factors) in enumerate(zip(specs, (*rule.inputs, rule.output), strict=True))
        for dim, size in enumerate(spec.shape)
        if factors[dim] == factor and math.prod(axes) > 1
    ]
    # Dims of different sizes, as a reshape has them, are cut at the same elements only where all are cut evenly.
    split = cut.split if len({size for *_, size in dims}) == 1 else "even"
    for i, dim, size in dims:
        operand, name = (i, f"input {i}") if i < len(rule.inputs) else (-1, "the output")
        parts = _parts_of(rule, operand, dim, cut)
        reason = _uneven(size, math.prod(axes), parts, split) or _run_apart(
            size, axes, parts, split, rule.runs.get(factor)
        )
        if reason is not None:
            return f"{name}, dim {dim} {reason}"
    return None


def _parts_of(rule: Rule, operand: int, dim: int, cut: Cut) -> tuple[int, ...] | None:
    """The sizes of the parts of a dim that are each cut by themselves; None where there are none.

    An operator that takes a fused tensor apart cuts each part by itself, however its neighbours are fused.
    """
    if operand in rule.fused:
        return rule.fused[operand][dim]
    return None if rule.fused else cut.fused


def _uneven(size: int, n: int, parts: tuple[int, ...] | None, split: str) -> str | None:
    if parts is None and split == "even" and size % n:
        return (
            f"has {size} elements, which {n} parts cannot share evenly; use {_divisor_below(size, n)} parts"
        )
    if parts is not None and (sum(parts) != size or math.gcd(n, *parts) != n):
        return (
            f"consists of {', '.join(map(str, parts))} elements, each of which is cut by itself; {n} cards cannot "
            f"share them evenly, use {math.gcd(n, *parts)} parts"
        )
    return None


def _run_apart(
    size: int, axes: Sequence[int], parts: tuple[int, ...] | None, split: str, run: int | None
) -> str | None:
    if run is None or (parts is None and _between_runs(size, axes, split, run)):
        return None
    n = math.prod(axes)
    return (
        f"has {size} elements in runs of {run}, which {n} parts do not leave whole; use "
        f"{_parts_between_runs(size, n, split, run)} parts"
    )


def _between_runs(size: int, axes: Sequence[int], split: str, run: int) -> bool:
    """Whether a dim is cut between its runs only."""
    points = cut_points(size, axes, split)
    return bool(((points % run == 0) | (points == size)).all())


def _parts_between_runs(size: int, bound: int, split: str, run: int) -> int:
    """The largest number of parts below `bound` that cuts a dim between its runs only, and divides `bound`."""
    fitting = (k for k in range(bound - 1, 1, -1) if bound % k == 0 and (split != "even" or size % k == 0))
    return next((k for k in fitting if _between_runs(size, (k,), split, run)), 1)


def _parts_of_factors(
    strategy: Sequence[Sequence[int]], rule: Rule, specs: Sequence[Spec], what: str
) -> dict[str, int]:
    _check_types(strategy, what)
    _check_count(len(strategy), rule, what)
    parts: dict[str, int] = {}
    for i, (cuts, factors, spec) in enumerate(zip(strategy, rule.inputs, specs, strict=True)):
        if len(cuts) != len(factors):
            raise ShardingError(
                f"{what}: strategy {tuple(cuts)} for input {i} of shape {list(spec.shape)}; "
                "give one number per dim"
            )
        for dim, (n, factor) in enumerate(zip(cuts, factors, strict=True)):
            _check_cut(n, factor, i, dim, spec, what)
            if factor is not None and parts.setdefault(factor, n) != n:
                raise ShardingError(
                    f"{what}: dim {dim} of input {i} is cut into {n} parts, but another dim of factor "
                    f"{factor!r}, which goes with it, into {parts[factor]}; cut both alike"
                )
    return parts


def _check_types(strategy: object, what: str) -> None:
    rows = strategy if isinstance(strategy, Sequence) else (strategy,)
    for row in rows:
        numbers = row if isinstance(row, Sequence) and not isinstance(row, str) else (row, None)
        if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in numbers):
            raise ArgumentTypeError(
                f"{what}: strategy {strategy!r}; give a tuple of integers for each input, "
                "e.g. ((2, 1), (1, 4))"
            )


def _check_count(given: int, rule: Rule, what: str) -> None:
    if given != len(rule.inputs):
        raise ShardingError(
            f"{what} has {len(rule.inputs)} inputs, but {given} strategies; give one per input"
        )


def _check_cut(
    n: int, factor: str | None, i: int, dim: int, spec: Spec, what: str, split: str = "even"
) -> None:
    size = spec.shape[dim]
    if n < 1:
        raise ShardingError(f"{what}: input {i}, dim {dim} is cut into {n} parts; 1 or more are possible")
    if factor is None and n > 1:
        raise ShardingError(
            f"{what}: input {i}, dim {dim} is cut into {n} parts, but the operator needs it whole; use 1"
        )
    if size % n and split == "even":
        raise ShardingError(
            f"{what}: input {i}, dim {dim} has {size} elements, which {n} parts cannot share evenly; "
            f"use {_divisor_below(size, n)} parts"
        )


def _divisor_below(size: int, bound: int) -> int:
    """The largest divisor of `size` below `bound`; `bound` may be anything that a user typed."""
    small = [k for k in range(1, math.isqrt(size) + 1) if size % k == 0]
    return max(k for k in (*small, *(size // k for k in small)) if k < bound)


def mesh_of_parts(parts: Mapping[str, int], rule: Rule, devices: int, what: str) -> tuple[Mesh, Axes]:
    """One axis for each factor that is cut, in the operator's order; cards left over repeat, on the right.

    Raises
    ------
    ShardingError
        If there are more parts than cards, or the cards cannot be shared evenly.
    """
    cut = [(factor, parts[factor]) for factor in rule.order if parts.get(factor, 1) > 1]
    total = math.prod(n for _, n in cut)
    if total > devices or devices % total:
        words = " x ".join(f"{factor} {n}" for factor, n in cut)
        raise ShardingError(
            f"{what}: {words} makes {total} parts for {devices} cards; the product must divide {devices}"
        )
    if devices // total > 1 or not cut:
        cut.append(("repeat", devices // total))
    mesh = Mesh.from_axes(tuple(factor for factor, _ in cut), tuple(n for _, n in cut))
    return mesh, {factor: Cut((factor,)) for factor, _ in cut if factor != "repeat"}


def _read_axes(
    strategy: AxisStrategy, rule: Rule, specs: Sequence[Spec], devices: int, what: str
) -> tuple[Mesh, Axes]:
    """A strategy by named axes; one dim may be cut by several."""
    _check_count(len(strategy.inputs), rule, what)
    mesh = _mesh_of_axes(strategy, devices, what)
    axes: dict[str, tuple[str, ...]] = {}
    uneven: set[str | None] = set()
    for i, (dims, factors, spec) in enumerate(zip(strategy.inputs, rule.inputs, specs, strict=True)):
        if len(dims) != len(factors):
            raise ShardingError(
                f"{what}: a layout of {len(dims)} dims for input {i} of shape {list(spec.shape)}; "
                "give one entry per dim"
            )
        for dim, (cut, factor) in enumerate(zip(dims, factors, strict=True)):
            _check_known(cut, mesh, what)
            n = math.prod(mesh.axis_size(a) for a in cut)
            _check_cut(n, factor, i, dim, spec, what, strategy.split)
            uneven |= {factor} if spec.shape[dim] % n else set()
            if factor is not None and axes.setdefault(factor, cut) != cut:
                raise ShardingError(
                    f"{what}: dim {dim} of input {i} is cut by {cut}, but another dim of factor {factor!r}, "
                    f"which goes with it, by {axes[factor]}; cut both alike"
                )
    _check_used_once({factor: cut for factor, cut in axes.items() if factor not in rule.within}, what)
    _check_within(axes, rule, what)
    splits = {factor: strategy.split if factor in uneven else "even" for factor in axes}
    return mesh, {factor: Cut(cut, splits[factor]) for factor, cut in axes.items() if cut}


def _check_within(axes: Mapping[str, tuple[str, ...]], rule: Rule, what: str) -> None:
    for inner, outer in rule.within.items():
        cut = axes.get(inner, ())
        if cut != axes.get(outer, ())[: len(cut)]:
            raise ShardingError(
                f"{what}: factor {inner!r} is cut by {cut}, but it goes along with factor {outer!r}, which is "
                f"cut by {axes.get(outer, ())}; cut it by the first of these axes, or not at all"
            )


def _mesh_of_axes(strategy: AxisStrategy, devices: int, what: str) -> Mesh:
    names, sizes = strategy.axis_names, strategy.axis_sizes
    total = math.prod(sizes)
    if min(sizes, default=1) < 1 or total > devices or devices % total:
        raise ShardingError(
            f"{what}: a layout of {' x '.join(map(str, sizes))} = {total} cards for {devices}; "
            f"the sizes must be 1 or more, and their product must divide {devices}"
        )
    if devices // total > 1:
        repeat = "repeat"
        while repeat in names:
            repeat += "_"
        names, sizes = (*names, repeat), (*sizes, devices // total)
    return Mesh.from_axes(names, sizes)


def _check_known(cut: Sequence[str], mesh: Mesh, what: str) -> None:
    for axis in cut:
        if axis not in mesh.axis_names:
            raise ShardingError(
                f"{what}: its layout has no axis {axis!r}; the axes are {', '.join(mesh.axis_names)}"
            )


def _check_used_once(axes: Mapping[str, tuple[str, ...]], what: str) -> None:
    used = [axis for cut in axes.values() for axis in cut]
    for axis in used:
        if used.count(axis) > 1:
            where = ", ".join(factor for factor, cut in axes.items() if axis in cut)
            raise ShardingError(
                f"{what}: axis {axis!r} cuts more than once (factor {where}); an axis may cut one factor, once"
            )


def data_parallel_parts(rule: Rule, specs: Sequence[Spec], output: Spec, devices: int) -> dict[str, int]:
    """MindSpore's default: the first dim in as many parts as it and the cards have in common."""
    leading = rule.output or (rule.inputs[0] if rule.inputs else ())
    factor = leading[0] if leading else None
    if factor is None:
        return {}
    mesh, whole = (
        {n: Mesh.from_axes((factor,), (n,)) for n in range(1, devices + 1) if devices % n == 0},
        (*specs, output),
    )
    fitting = [n for n in mesh if misfit(mesh[n], factor, Cut((factor,)), rule, whole) is None]
    return {factor: max(fitting)}


def cuts_of(layout: Layout) -> list[Cut]:
    """How a layout cuts each dim."""
    fused = layout.fused or (None,) * layout.ndim
    return [Cut(axes, layout.split, parts) for axes, parts in zip(layout.dims, fused, strict=True)]


def cut_by_axes(mesh: Mesh, axes: Axes, rule: Rule) -> NodeSharding:
    """The layouts of a node's inputs and output once each factor is cut."""

    def layout(operand: int, factors: Sequence[str | None]) -> Layout:
        cuts = [axes.get(f, WHOLE) if f is not None else WHOLE for f in factors]
        given = tuple(_parts_of(rule, operand, dim, cut) for dim, cut in enumerate(cuts))
        parts = [math.prod(mesh.axis_size(a) for a in cut.axes) for cut in cuts]
        fused = tuple(sizes if n > 1 else None for sizes, n in zip(given, parts, strict=True))
        split = next((cut.split for cut in cuts if cut.split != "even"), "even")
        return Layout(mesh, tuple(cut.axes for cut in cuts), split=split, fused=fused)

    sums = [axis for factor in sorted(rule.sums) for axis in axes.get(factor, WHOLE).axes]
    for inner, outer in rule.within.items():
        if inner in rule.output and outer not in rule.output:
            own = axes.get(inner, WHOLE).axes
            sums += [axis for axis in axes.get(outer, WHOLE).axes if axis not in own]
    inputs = tuple(layout(i, factors) for i, factors in enumerate(rule.inputs))
    cut = tuple(axis for axis in sums if mesh.axis_size(axis) > 1)
    return NodeSharding(inputs, layout(-1, rule.output), cut)
