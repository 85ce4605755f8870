"""From the strategy of one operator to layouts: factors get mesh axes.

::

    MatMul   inputs (m k) (k n), output (m n)      shard ((2, 1), (1, 4)) on 8 cards
    parts    m 2, k 1, n 4                          mesh  Mesh(m=2, n=4)
    layouts  x (m, -)   w (-, n)   y (m, n)         on 16: Mesh(m=2, n=4, repeat=2)
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import NamedTuple

from ..display import counted
from ..errors import ArgumentTypeError, ShardingError
from ..layout import Layout, Mesh, cut_points
from ..net import AxisStrategy, Node, Rule, Spec
from .sharding import NodeSharding

__all__ = [
    "Axes",
    "FactorSharding",
    "data_parallel_parts",
    "describe",
    "dim_shardings",
    "mesh_of_parts",
    "misfit",
    "node_name",
    "read_strategy",
    "shard_by_axes",
]


class FactorSharding(NamedTuple):
    """How a factor is sharded."""

    axes: tuple[str, ...] = ()
    """Mesh axes, major first."""
    split: str = "even"
    """How a dim is divided whose size the axes do not divide evenly."""
    fused: tuple[int, ...] | None = None
    """The sizes of the parts of the dim that are each sharded by themselves."""


WHOLE = FactorSharding()

Axes = Mapping[str, FactorSharding]
"""How each factor is sharded; one that is not named is whole."""


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
        If it is not a tuple of tuples of integers.
    """
    strategy = node.strategy
    assert strategy is not None
    if isinstance(strategy, AxisStrategy):
        mesh, axes = _read_axes(strategy, rule, specs, devices, what)
    else:
        parts = _parts_of_factors(strategy, rule, specs, what)
        mesh, axes = mesh_of_parts(parts, rule, devices, what)
    for dim, (size, factor) in enumerate(zip(output.shape, rule.output, strict=True)):
        sharding = axes.get(factor or "", WHOLE)
        n = math.prod(mesh.axis_size(a) for a in sharding.axes)
        if size % n and sharding.split == "even":
            raise ShardingError(
                f"{what}: the output's dim {dim} has {size} elements, which {n} parts cannot share evenly; "
                f"use {math.gcd(size, n)} parts",
                dim=dim,
            )
    for factor, sharding in axes.items():
        reason = misfit(mesh, factor, sharding, rule, (*specs, output))
        if reason is not None:
            raise ShardingError(f"{what}: {reason}")
    return mesh, axes


def misfit(
    mesh: Mesh, factor: str, sharding: FactorSharding, rule: Rule, specs: Sequence[Spec]
) -> str | None:
    """Why an operator cannot take a factor that is sharded like this; None if it can.

    Parameters
    ----------
    specs
        Of the inputs, and last of the output.
    """
    axes = [mesh.axis_size(axis) for axis in sharding.axes]
    dims = [
        (i, dim, size)
        for i, (spec, factors) in enumerate(zip(specs, (*rule.inputs, rule.output), strict=True))
        for dim, size in enumerate(spec.shape)
        if factors[dim] == factor and math.prod(axes) > 1
    ]
    # Dims of different sizes, as a reshape has them, are split at the same elements only where all are even.
    split = sharding.split if len({size for *_, size in dims}) == 1 else "even"
    for i, dim, size in dims:
        operand, name = (i, f"input {i}") if i < len(rule.inputs) else (-1, "the output")
        parts = _parts_of(rule, operand, dim, sharding)
        reason = _uneven(size, math.prod(axes), parts, split) or _run_apart(
            size, axes, parts, split, rule.runs.get(factor)
        )
        if reason is not None:
            return f"{name}, dim {dim} {reason}"
    return None


def _parts_of(rule: Rule, operand: int, dim: int, sharding: FactorSharding) -> tuple[int, ...] | None:
    """The sizes of the parts of a dim that are each sharded by themselves; None where there are none.

    An operator that takes a fused tensor apart shards each part by itself, however its neighbours are fused.
    """
    if operand in rule.fused:
        return rule.fused[operand][dim]
    return None if rule.fused else sharding.fused


def _uneven(size: int, n: int, parts: tuple[int, ...] | None, split: str) -> str | None:
    if parts is None and split == "even" and size % n:
        return (
            f"has {size} elements, which {n} parts cannot share evenly; use {_divisor_below(size, n)} parts"
        )
    if parts is not None and (sum(parts) != size or math.gcd(n, *parts) != n):
        return (
            f"consists of {', '.join(map(str, parts))} elements, each of which is sharded by itself; {n} cards "
            f"cannot share them evenly, use {math.gcd(n, *parts)} parts"
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
    """Whether a dim is split between its runs only."""
    points = cut_points(size, axes, split)
    return bool(((points % run == 0) | (points == size)).all())


def _parts_between_runs(size: int, bound: int, split: str, run: int) -> int:
    """The largest number of parts below `bound` that splits a dim between its runs only, and divides `bound`."""
    fitting = (k for k in range(bound - 1, 1, -1) if bound % k == 0 and (split != "even" or size % k == 0))
    return next((k for k in fitting if _between_runs(size, (k,), split, run)), 1)


def _parts_of_factors(
    strategy: Sequence[Sequence[int]], rule: Rule, specs: Sequence[Spec], what: str
) -> dict[str, int]:
    _check_types(strategy, what)
    _check_count(len(strategy), rule, what)
    parts: dict[str, int] = {}
    for i, (counts, factors, spec) in enumerate(zip(strategy, rule.inputs, specs, strict=True)):
        if len(counts) != len(factors):
            raise ShardingError(
                f"{what}: strategy {tuple(counts)} for input {i} of shape {list(spec.shape)}; "
                "give one number per dim"
            )
        for dim, (n, factor) in enumerate(zip(counts, factors, strict=True)):
            _check_parts(n, factor, i, dim, spec, what)
            if factor is not None and parts.setdefault(factor, n) != n:
                raise ShardingError(
                    f"{what}: dim {dim} of input {i} is sharded into {n} parts, but another dim of factor "
                    f"{factor!r}, which must be sharded alike, into {parts[factor]}; use one number for both",
                    dim=dim,
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
            f"{what} has {counted(len(rule.inputs), 'input')}, but {counted(given, 'strategy')}; give one per input"
        )


def _check_parts(
    n: int, factor: str | None, i: int, dim: int, spec: Spec, what: str, split: str = "even"
) -> None:
    size = spec.shape[dim]
    if n < 1:
        raise ShardingError(f"{what}: input {i}, dim {dim} is sharded into {n} parts; use 1 or more", dim=dim)
    if factor is None and n > 1:
        raise ShardingError(
            f"{what}: input {i}, dim {dim} is sharded into {n} parts, but the operator needs it whole; use 1",
            dim=dim,
        )
    if size % n and split == "even":
        raise ShardingError(
            f"{what}: input {i}, dim {dim} has {size} elements, which {n} parts cannot share evenly; "
            f"use {_divisor_below(size, n)} parts",
            dim=dim,
        )


def _divisor_below(size: int, bound: int) -> int:
    """The largest divisor of `size` below `bound`; `bound` may be any number that a user typed."""
    small = [k for k in range(1, math.isqrt(size) + 1) if size % k == 0]
    return max(k for k in (*small, *(size // k for k in small)) if k < bound)


def mesh_of_parts(parts: Mapping[str, int], rule: Rule, devices: int, what: str) -> tuple[Mesh, Axes]:
    """One axis for each factor that is sharded, in the operator's order; cards left over replicate, on the right.

    Raises
    ------
    ShardingError
        If there are more parts than cards, or the cards cannot be shared evenly.
    """
    sharded = [(factor, parts[factor]) for factor in rule.order if parts.get(factor, 1) > 1]
    total = math.prod(n for _, n in sharded)
    if total > devices or devices % total:
        product = " x ".join(f"{factor} {n}" for factor, n in sharded)
        raise ShardingError(
            f"{what}: {product} makes {total} parts for {devices} cards; the product must divide {devices}"
        )
    if devices // total > 1 or not sharded:
        sharded.append(("repeat", devices // total))
    mesh = Mesh.from_axes(tuple(factor for factor, _ in sharded), tuple(n for _, n in sharded))
    return mesh, {factor: FactorSharding((factor,)) for factor, _ in sharded if factor != "repeat"}


def _read_axes(
    strategy: AxisStrategy, rule: Rule, specs: Sequence[Spec], devices: int, what: str
) -> tuple[Mesh, Axes]:
    """A strategy by named axes; one dim may be sharded by several."""
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
        for dim, (names, factor) in enumerate(zip(dims, factors, strict=True)):
            _check_known(names, mesh, what)
            n = math.prod(mesh.axis_size(a) for a in names)
            _check_parts(n, factor, i, dim, spec, what, strategy.split)
            uneven |= {factor} if spec.shape[dim] % n else set()
            if factor is not None and axes.setdefault(factor, names) != names:
                raise ShardingError(
                    f"{what}: dim {dim} of input {i} is sharded by {names}, but another dim of factor {factor!r}, "
                    f"which must be sharded alike, by {axes[factor]}; use the same axes for both",
                    dim=dim,
                )
    _check_used_once({factor: names for factor, names in axes.items() if factor not in rule.within}, what)
    _check_within(axes, rule, what)
    splits = {factor: strategy.split if factor in uneven else "even" for factor in axes}
    return mesh, {factor: FactorSharding(names, splits[factor]) for factor, names in axes.items() if names}


def _check_within(axes: Mapping[str, tuple[str, ...]], rule: Rule, what: str) -> None:
    for inner, outer in rule.within.items():
        names = axes.get(inner, ())
        if names != axes.get(outer, ())[: len(names)]:
            raise ShardingError(
                f"{what}: factor {inner!r} is sharded by {names}, but factor {outer!r}, which it follows, by "
                f"{axes.get(outer, ())}; shard it by the first of these axes, or not at all"
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


def _check_known(names: Sequence[str], mesh: Mesh, what: str) -> None:
    for axis in names:
        if axis not in mesh.axis_names:
            raise ShardingError(
                f"{what}: its layout has no axis {axis!r}; the axes are {', '.join(mesh.axis_names)}"
            )


def _check_used_once(axes: Mapping[str, tuple[str, ...]], what: str) -> None:
    used = [axis for names in axes.values() for axis in names]
    for axis in used:
        if used.count(axis) > 1:
            where = ", ".join(factor for factor, names in axes.items() if axis in names)
            raise ShardingError(
                f"{what}: axis {axis!r} is used more than once (factor {where}); an axis may shard one factor, once"
            )


def data_parallel_parts(rule: Rule, specs: Sequence[Spec], output: Spec, devices: int) -> dict[str, int]:
    """MindSpore's default: the first dim in as many parts as divide both it and the number of cards."""
    leading = rule.output or (rule.inputs[0] if rule.inputs else ())
    factor = leading[0] if leading else None
    if factor is None:
        return {}
    mesh, whole = (
        {n: Mesh.from_axes((factor,), (n,)) for n in range(1, devices + 1) if devices % n == 0},
        (*specs, output),
    )
    fitting = [n for n in mesh if misfit(mesh[n], factor, FactorSharding((factor,)), rule, whole) is None]
    return {factor: max(fitting)}


def dim_shardings(layout: Layout) -> list[FactorSharding]:
    """How a layout shards each dim."""
    fused = layout.fused or (None,) * layout.ndim
    return [FactorSharding(axes, layout.split, parts) for axes, parts in zip(layout.dims, fused, strict=True)]


def shard_by_axes(mesh: Mesh, axes: Axes, rule: Rule) -> NodeSharding:
    """The layouts of a node's inputs and output once each factor is sharded."""

    def layout(operand: int, factors: Sequence[str | None]) -> Layout:
        shardings = [axes.get(f, WHOLE) if f is not None else WHOLE for f in factors]
        given = tuple(_parts_of(rule, operand, dim, sharding) for dim, sharding in enumerate(shardings))
        parts = [math.prod(mesh.axis_size(a) for a in sharding.axes) for sharding in shardings]
        fused = tuple(sizes if n > 1 else None for sizes, n in zip(given, parts, strict=True))
        split = next((sharding.split for sharding in shardings if sharding.split != "even"), "even")
        return Layout(mesh, tuple(sharding.axes for sharding in shardings), split=split, fused=fused)

    sums = [axis for factor in sorted(rule.sums) for axis in axes.get(factor, WHOLE).axes]
    for inner, outer in rule.within.items():
        if inner in rule.output and outer not in rule.output:
            own = axes.get(inner, WHOLE).axes
            sums += [axis for axis in axes.get(outer, WHOLE).axes if axis not in own]
    inputs = tuple(layout(i, factors) for i, factors in enumerate(rule.inputs))
    summed = tuple(axis for axis in sums if mesh.axis_size(axis) > 1)
    return NodeSharding(inputs, layout(-1, rule.output), summed)
