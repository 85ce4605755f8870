"""From a rule and a tensor's shape to a layout.

::

    8 key-value heads of 4, [32, 64]        tp=4   rows cut in 4, two heads a rank
                                            tp=16  mesh (tp=8, tp_repeat=2): two ranks hold the same head
    query, key, value in one, [32+8+8, 64]  tp=2   each of the three cut in two: fused=(32, 8, 8)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..errors import LayoutError, Option
from ..layout import Layout, Mesh
from .configuration import Part
from .expressions import AbsentField, evaluate, label
from .quantised import QuantisedTensor
from .rule import Rule
from .scales import layouts_of_tensors

__all__ = ["Item", "MisfitError", "Sizes", "sizes_of"]

MOST_FUSED = 1 << 10
ONE_TENSOR = (
    "the parts are one tensor: ranks that repeat a smaller part (keys, values) would repeat the larger (queries); "
    "more ranks repeat whole slices by an axis of their own, as in dp=2,tp=..."
)
HEAD_SIZE = "head_dim or hidden_size // num_attention_heads or n_embd // n_head"


class MisfitError(LayoutError):
    """Mesh axes do not divide a dim, or the units of it, that they are to cut.

    Attributes
    ----------
    axis : str
        The last of them, another size of which may do.
    reason : str
        What the numbers alone do not say; "" if there is nothing.
    """

    def __init__(
        self, cut: Layout, dim: int, size: str, why: str = "does not divide", reason: str = ""
    ) -> None:
        self.reason = reason
        axes = cut.dims[dim]
        parts = ",".join(f"{axis}={cut.mesh.axis_size(axis)}" for axis in axes)
        self.axis = axes[-1]
        super().__init__(f"{parts} {why} dim {dim} ({size})", dim=dim)


@dataclass(frozen=True)
class Sizes:
    """What a rule's expressions are for one tensor."""

    units: int | None = None
    unit_size: int | None = None
    """Elements; None if the configuration does not say it and the rule does not need it."""
    is_exact: bool = False
    """Whether units times unit_size must be all of the dim, and not a part of it."""
    fused: tuple[int | tuple[int, ...] | None, ...] = ()
    source: str = "the rule"
    problem: str | None = None
    """Why they are not known, which matters where a dim is cut."""


def sizes_of(rule: Rule, part: Part, config: Mapping[str, Any] | None) -> Sizes:
    """The sizes that a rule says, for tensors of one part of a model."""
    if rule.dims is None:
        return Sizes()
    try:
        fused = tuple(
            tuple(evaluate(size, part.lookup) for size in one) if isinstance(one, tuple) else one
            for one in rule.fused
        )
        units = None if rule.units is None else evaluate(rule.units, part.lookup)
    except AbsentField as err:
        return Sizes(problem=_absent(rule, str(err), part, config))
    except ValueError as err:
        return Sizes(problem=str(err))
    try:
        unit_size = _unit_size(rule, part)
    except ValueError as err:
        return Sizes(problem=str(err))
    where = f" ({part.section})" if part.section else ""
    said = any(isinstance(size, str) for size in (rule.units, rule.unit_size))
    source = f"the configuration{where}" if said else "the rule"
    return Sizes(units, unit_size, rule.unit_size is not None and unit_size is not None, fused, source)


def _unit_size(rule: Rule, part: Part) -> int | None:
    """The elements of a unit; None where the configuration says no size of heads, so that any will do."""
    size = (
        rule.unit_size if rule.unit_size is not None else HEAD_SIZE if isinstance(rule.units, str) else None
    )
    try:
        return None if size is None else evaluate(size, part.lookup)
    except AbsentField:
        return None


def _absent(rule: Rule, field: str, part: Part, config: Mapping[str, Any] | None) -> str:
    if rule.units is not None:
        field = label(rule.units)
    what = f"whole {field}" if rule.units is not None else f"parts of {field} elements"
    if config is None:
        return (
            f"cut by {what}, which no configuration says; "
            f"give the model's config.json as {CONFIG}, or write the number into the rules"
        )
    where = f" ({part.section})" if part.section else ""
    return (
        f"cut by {what}, but the configuration{where} has no {field}; add it to the config.json, or write the "
        "number into the rules"
    )


@dataclass(frozen=True)
class Item:
    """What one rule lays out: a tensor, or a quantised weight with its scales."""

    rule: Rule
    shape: tuple[int, ...]
    """Of a quantised weight its logical shape."""
    sizes: Sizes
    tensors: tuple[QuantisedTensor, ...] = ()
    """The tensors of a quantised weight, without their names."""

    @cached_property
    def _hash(self) -> int:
        return hash((self.rule.match, self.shape, self.sizes, self.tensors))

    def __hash__(self) -> int:
        return self._hash

    def layouts(self, mesh: Mesh) -> list[Layout]:
        """The layout of the tensor, or those of all tensors of the weight.

        Raises
        ------
        MisfitError
            If another size of an axis would do.
        LayoutError
            If the rule is not for such a tensor.
        """
        base = self._layout(mesh)
        return layouts_of_tensors(self.tensors, self.shape, base) if self.tensors else [base]

    def _layout(self, mesh: Mesh) -> Layout:
        rule, shape = self.rule, self.shape
        if rule.axes is None:
            return Layout(mesh, ((),) * len(shape))
        if len(rule.axes) != len(shape):
            raise LayoutError(
                f"the rule for {rule.match!r} is for {len(rule.axes)} dims, the tensor has {len(shape)}"
            )
        known = set(mesh.axis_names)
        plain = Layout(mesh, tuple(tuple(axis for axis in axes if axis in known) for axes in rule.axes))
        if max(plain.parts, default=1) == 1:
            return plain
        if self.sizes.problem is not None:
            raise LayoutError(self.sizes.problem)
        cut = replace(plain, fused=self._fused(plain))
        if self.sizes.units is not None or self.sizes.unit_size is not None:
            cut = self._by_units(cut)
        for dim, parts in enumerate(cut.parts):
            runs = self._runs(cut, dim)
            if any(size % parts for size in runs):
                if rule.split == "even" or cut.fused:
                    raise MisfitError(cut, dim, " + ".join(map(str, runs)))
                return replace(cut, split=rule.split)
        return cut

    def _runs(self, cut: Layout, dim: int) -> tuple[int, ...]:
        return (cut.fused[dim] if cut.fused else None) or (self.shape[dim],)

    def _fused(self, plain: Layout) -> tuple[tuple[int, ...] | None, ...]:
        """The sizes of what is fused, for each dim that is cut."""
        said = (*self.sizes.fused, *(None,) * len(self.shape))
        return tuple(
            None if parts is None or plain.parts[dim] == 1 else self._runs_of(dim, parts)
            for dim, parts in enumerate(said[: len(self.shape)])
        )

    def _runs_of(self, dim: int, parts: int | tuple[int, ...]) -> tuple[int, ...]:
        size, match = self.shape[dim], self.rule.match
        if isinstance(parts, int):
            if not 1 <= parts <= MOST_FUSED or size % parts:
                raise LayoutError(
                    f"the rule for {match!r} says {parts} equal parts, but dim {dim} has {size} elements",
                    dim=dim,
                )
            return (size // parts,) * parts
        if sum(parts) != size:
            raise LayoutError(
                f"the rule for {match!r} says fused parts of {' + '.join(map(str, parts))} elements, but dim {dim} "
                f"has {size}; {_REMEDY}",
                dim=dim,
            )
        return parts

    def _by_units(self, cut: Layout) -> Layout:
        """The layout that cuts no unit apart; its axis is divided where there are more ranks than units."""
        dim = cut.parts.index(max(cut.parts))
        parts, axes, runs = cut.parts[dim], cut.dims[dim], self._runs(cut, dim)
        units = self._checked_units(dim, runs)
        if units % parts == 0:
            return cut
        kind = label(self.rule.units) if isinstance(self.rule.units, str) else "units"
        shown = f"{units} {kind} in {' + '.join(map(str, runs))}"
        if parts % units or len(axes) != 1:
            raise MisfitError(cut, dim, shown)
        if len(set(runs)) > 1:
            raise MisfitError(cut, dim, shown, "exceeds the units of the smallest fused part of", ONE_TENSOR)
        names, sizes = list(cut.mesh.axis_names), list(cut.mesh.axis_sizes)
        at = names.index(axes[0])
        names[at : at + 1] = [axes[0], f"{axes[0]}_repeat"]
        sizes[at : at + 1] = [units, parts // units]
        return replace(cut, mesh=Mesh.from_axes(tuple(names), tuple(sizes)))

    def _checked_units(self, dim: int, runs: tuple[int, ...]) -> int:
        units, unit_size, total = self.sizes.units, self.sizes.unit_size, sum(runs)
        if units is None:
            units = min(runs) // (unit_size or 1) or 1
        expected = units * (unit_size or 1)
        is_exact = self.sizes.is_exact and len(runs) == 1
        if (is_exact and expected != total) or any(size % expected for size in runs):
            kind = label(self.rule.units) if self.rule.units is not None else "units"
            each = f" of {unit_size}" if unit_size is not None else ""
            raise LayoutError(
                f"{self.sizes.source} says {units} {kind}{each}, {expected} elements, but dim {dim} has "
                f"{' + '.join(map(str, runs))}; {_REMEDY}",
                dim=dim,
            )
        return units


CONFIG = Option("config")
_REMEDY = (
    "is the config.json that of these weights? If this tensor differs from others, put a rule for its name in front, "
    "with units and unit_size as numbers"
)
