"""Layouts by rules: patterns of names say which dims a mesh axis cuts, as one knows it of a kind of model.

    llama   *.q_proj.weight   rows cut by tp, by whole heads
            *.o_proj.weight   columns cut by tp
            *norm.weight      held by all

The first rule whose pattern fits a tensor's name is taken; a tensor that none fits is an error, so that
nothing is cut by accident. A file of rules is a JSON list of objects with the fields of `Rule`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..display import Displayed
from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, LayoutError, in_lines, listed
from ..layout import Layout, Mesh, Strategy

__all__ = ["RULES", "Rule", "Rules", "mesh_of", "read_rules"]

LARGEST_FILE = 1 << 24
MOST_RANKS = 1 << 22
MOST_FUSED = 1 << 10
MOST_TRIED = 1 << 10
"""Sizes of an axis, below and above one that does not do, that are tried to tell which would."""


@dataclass(frozen=True)
class Rule:
    """How the tensors of some names lie.

    Parameters
    ----------
    match
        A pattern of names, with stars.
    dims
        For each tensor dim the mesh axes that cut it; axes that the mesh lacks cut nothing. None: all
        hold everything, whatever the number of dims.
    fused
        For each dim None, or what lies one after another along it and is cut by itself: a number of
        equal parts, or their sizes in elements.
    units
        What may not be cut apart along the cut dim (heads): a number, or the field of the model's
        configuration that says it. With more ranks than units, several ranks hold the same one.
    split
        How a dim is cut whose size the number of parts does not divide, see `Layout`.
    """

    match: str
    dims: tuple[tuple[str, ...], ...] | None
    fused: tuple[int | tuple[int, ...] | None, ...] = ()
    units: int | str | None = None
    split: str = "even"


ROWS: tuple[tuple[str, ...], ...] = (("tp",), ())
COLUMNS: tuple[tuple[str, ...], ...] = ((), ("tp",))
VECTOR: tuple[tuple[str, ...], ...] = (("tp",),)

RULES: Mapping[str, tuple[Rule, ...]] = {
    # Linear layers store [in, out] here, and query, key and value as one: Conv1D of transformers' GPT-2.
    "gpt2": (
        Rule("*wte.weight", ROWS, split="torch_chunk"),
        Rule("*lm_head.weight", ROWS, split="torch_chunk"),
        Rule("*attn.c_attn.weight", COLUMNS, fused=(None, 3), units="n_head"),
        Rule("*attn.c_attn.bias", VECTOR, fused=(3,), units="n_head"),
        Rule("*attn.c_proj.weight", ROWS, units="n_head"),
        Rule("*mlp.c_fc.weight", COLUMNS),
        Rule("*mlp.c_fc.bias", VECTOR),
        Rule("*mlp.c_proj.weight", ROWS),
        Rule("*wpe.weight", None),
        Rule("*c_proj.bias", None),
        Rule("*ln_*", None),
        Rule("*attn.bias", None),
        Rule("*attn.masked_bias", None),
    ),
    # Linear layers store [out, in]. Mistral, Qwen2 and others name and cut their weights alike.
    "llama": (
        Rule("*embed_tokens.weight", ROWS, split="torch_chunk"),
        Rule("*lm_head.weight", ROWS, split="torch_chunk"),
        Rule("*q_proj.weight", ROWS, units="num_attention_heads"),
        Rule("*k_proj.weight", ROWS, units="num_key_value_heads"),
        Rule("*v_proj.weight", ROWS, units="num_key_value_heads"),
        Rule("*q_proj.bias", VECTOR, units="num_attention_heads"),
        Rule("*k_proj.bias", VECTOR, units="num_key_value_heads"),
        Rule("*v_proj.bias", VECTOR, units="num_key_value_heads"),
        Rule("*o_proj.weight", COLUMNS, units="num_attention_heads"),
        Rule("*gate_up_proj.weight", ROWS, fused=(2, None)),
        Rule("*gate_proj.weight", ROWS),
        Rule("*up_proj.weight", ROWS),
        Rule("*down_proj.weight", COLUMNS),
        Rule("*o_proj.bias", None),
        Rule("*gate_proj.bias", VECTOR),
        Rule("*up_proj.bias", VECTOR),
        Rule("*down_proj.bias", None),
        Rule("*norm.weight", None),
        Rule("*rotary_emb.inv_freq", None),
    ),
}
"""The tables that are known by name."""


class MisfitError(LayoutError):
    """Mesh axes do not divide a dim, or the units of it, that they are to cut.

    Attributes
    ----------
    axis : str
        The last of them, another size of which may do.
    """

    def __init__(self, cut: Layout, dim: int, size: str) -> None:
        axes = cut.dims[dim]
        parts = ",".join(f"{axis}={cut.mesh.axis_size(axis)}" for axis in axes)
        self.axis = axes[-1]
        super().__init__(f"{parts} does not divide dim {dim} ({size})")


@dataclass(frozen=True, repr=False)
class Rules(Displayed):
    """A destination that is said by rules, for whatever tensors there are.

    Parameters
    ----------
    mesh
        The grid of destination ranks.
    rules
        In the order in which they are tried.
    config
        The model's configuration (`config.json` of a Hugging Face folder), where `units` are looked up.

    Examples
    --------
    >>> llama = Rules(Mesh(("tp",), (4,)), RULES["llama"], {"num_key_value_heads": 2})
    >>> llama.strategy({"layers.0.k_proj.weight": (16, 64), "norm.weight": (64,)})
    Strategy of 2 parameters on 4 ranks
      layers.0.k_proj.weight  [16, 64]  tp, -  Mesh(tp=2, tp_repeat=2)
      norm.weight  [64]  -  Mesh(tp=4)
    """

    mesh: Mesh
    rules: tuple[Rule, ...]
    config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.config is not None and not isinstance(self.config, Mapping):
            raise ArgumentTypeError(
                f"config is what a config.json says, as a mapping, not {type(self.config).__name__}; "
                "read it by json.load"
            )

    @property
    def idle_axes(self) -> tuple[str, ...]:
        """The axes of the mesh by which no rule cuts: along them ranks hold the same."""
        cut = {axis for rule in self.rules for axes in rule.dims or () for axis in axes}
        return tuple(axis for axis in self.mesh.axis_names if axis not in cut)

    def __repr__(self) -> str:
        lines = [f"Rules for {self.mesh!r}"]
        for rule in self.rules:
            cut = "whole" if rule.dims is None else ", ".join("+".join(dim) or "-" for dim in rule.dims)
            lines.append(f"  {rule.match}  {cut}")
        return "\n".join(lines)

    def strategy(self, shapes: Mapping[str, tuple[int, ...]]) -> Strategy:
        """The layouts of tensors of these names and shapes.

        Raises
        ------
        LayoutError
            If no rule fits a name, or a rule does not fit a shape; a line for each cause.
        """
        layouts: dict[str, Layout] = {}
        causes: dict[tuple[str, str | None], list[str]] = {}
        unruled: list[str] = []
        for name, shape in shapes.items():
            rule = self._rule_of(name)
            if rule is None:
                unruled.append(name)
                continue
            try:
                layouts[name] = self._layout(rule, shape)
                layouts[name].regions(shape)
            except LayoutError as err:
                causes.setdefault((str(err), getattr(err, "axis", None)), []).append(name)
        problems = self._problems(causes, shapes)
        if unruled:
            problems.append(
                f"no rule for {listed(unruled)}; add one, or end the rules with "
                '{"match": "*", "dims": null}, which leaves the rest whole'
            )
        if problems:
            raise LayoutError(in_lines(problems))
        return Strategy(layouts, shapes, self.mesh.size)

    def _rule_of(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if fnmatchcase(name, rule.match)), None)

    def _problems(
        self, causes: Mapping[tuple[str, str | None], Sequence[str]], shapes: Mapping[str, tuple[int, ...]]
    ) -> list[str]:
        ways = {axis: self._way_out(axis, shapes) for _, axis in causes if axis is not None}
        return [
            f"{listed([f'{name} {list(shapes[name])}' for name in names], 1)}: {cause}"
            if axis is None
            else f"{cause} of {listed(map(repr, names), 1)}: {ways[axis]}"
            for (cause, axis), names in causes.items()
        ]

    def _way_out(self, axis: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The sizes of an axis nearest to its own by which every one of these tensors can be cut."""
        at, size = self.mesh.axis_index(axis), self.mesh.axis_size(axis)
        found = {(self._rule_of(name), shape) for name, shape in shapes.items()}
        cut = [(rule, shape) for rule, shape in found if rule is not None]

        def fits(count: int) -> bool:
            sizes = (*self.mesh.axis_sizes[:at], count, *self.mesh.axis_sizes[at + 1 :])
            other = Rules(Mesh(self.mesh.axis_names, sizes), self.rules, self.config)
            return not any(other._is_misfit(rule, shape) for rule, shape in cut)

        fewer = next(filter(fits, range(size - 1, max(size - 1 - MOST_TRIED, 0), -1)), None)
        more = next(filter(fits, range(size + 1, size + 1 + MOST_TRIED)), None)
        words = [f"{axis}={count}" for count in (fewer, more) if count is not None]
        return f"use {' or '.join(words)}" if words else f"no size of {axis} near it does for all tensors"

    def _is_misfit(self, rule: Rule, shape: tuple[int, ...]) -> bool:
        try:
            self._layout(rule, shape)
        except MisfitError:
            return True
        except LayoutError:  # which no other size would mend
            return False
        return False

    def _layout(self, rule: Rule, shape: tuple[int, ...]) -> Layout:
        if rule.dims is None:
            return Layout(self.mesh, ((),) * len(shape))
        if len(rule.dims) != len(shape):
            raise LayoutError(
                f"the rule for {rule.match!r} is for {len(rule.dims)} dims, the tensor has {len(shape)}"
            )
        known = set(self.mesh.axis_names)
        dims = tuple(tuple(axis for axis in axes if axis in known) for axes in rule.dims)
        plain = Layout(self.mesh, dims)
        mesh = self.mesh if rule.units is None else self._by_units(rule, plain, shape)
        cut = Layout(mesh, dims, fused=_fused(rule, shape))
        runs = [run or (size,) for run, size in zip(cut.fused or (None,) * len(shape), shape, strict=True)]
        for dim, parts in enumerate(cut.parts):
            if any(size % parts for size in runs[dim]):
                if rule.split == "even" or cut.fused:
                    raise MisfitError(cut, dim, " + ".join(map(str, runs[dim])))
                return Layout(mesh, dims, split=rule.split)
        return cut

    def _by_units(self, rule: Rule, plain: Layout, shape: tuple[int, ...]) -> Mesh:
        """The mesh, its cutting axis divided where there are more ranks than units."""
        parts = max(plain.parts, default=1)
        if parts == 1:
            return self.mesh
        units = rule.units if isinstance(rule.units, int) else (self.config or {}).get(str(rule.units))
        if not isinstance(units, int) or units < 1:
            raise LayoutError(
                f"cut by whole {rule.units}, which no configuration says; "
                "give the model's config.json as config=, or write the number into the rules"
            )
        if units % parts == 0:
            return self.mesh
        dim = plain.parts.index(parts)
        axes = plain.dims[dim]
        if parts % units or len(axes) != 1:
            kind = rule.units if isinstance(rule.units, str) else "units"
            raise MisfitError(plain, dim, f"{units} {kind} in {shape[dim]}")
        names, sizes = list(self.mesh.axis_names), list(self.mesh.axis_sizes)
        at = names.index(axes[0])
        names[at : at + 1] = [axes[0], f"{axes[0]}_repeat"]
        sizes[at : at + 1] = [units, parts // units]
        return Mesh(tuple(names), tuple(sizes))


def _fused(rule: Rule, shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, ...]:
    out: list[tuple[int, ...] | None] = []
    for size, parts in zip(shape, rule.fused, strict=False):
        if isinstance(parts, int):
            if not 1 <= parts <= MOST_FUSED or size % parts:
                raise LayoutError(
                    f"the rule for {rule.match!r} says {parts} equal parts, but the dim has {size} elements"
                )
            out.append((size // parts,) * parts)
        else:
            out.append(parts)
    return tuple(out)


def mesh_of(text: str) -> Mesh:
    """The mesh that a text like "dp=2,tp=4" says, the outermost axis first.

    Raises
    ------
    LayoutError
        If it says none.

    Examples
    --------
    >>> mesh_of("dp=2,tp=4")
    Mesh(dp=2, tp=4)
    """
    names, sizes, ranks = [], [], 1
    for item in text.split(","):
        name, _, size = item.partition("=")
        if not name.strip().isidentifier() or not size.strip().isdecimal() or len(size) > 9 or not int(size):
            raise LayoutError(
                f"{text!r} is no mesh: write the axes and their sizes, outermost first, as in dp=2,tp=4"
            )
        names.append(name.strip())
        sizes.append(int(size))
        ranks *= int(size)
    if ranks > MOST_RANKS:
        raise LayoutError(f"{text!r} is a mesh of {ranks} ranks; at most {MOST_RANKS} are accepted")
    return Mesh(tuple(names), tuple(sizes))


def read_rules(name: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """The rules of a known kind of model, or of a file.

    Raises
    ------
    CheckpointFileError
        If there is no such file.
    CheckpointError
        If it holds no rules.
    """
    if os.fspath(name) in RULES:
        return RULES[os.fspath(name)]
    path = Path(name)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CheckpointError(f"{path}: rules above {LARGEST_FILE} bytes are not accepted")
        found = json.loads(path.read_bytes())
    except OSError as err:
        raise CheckpointFileError(
            f"{path}: {err.strerror}; rules are a file, or one of {', '.join(RULES)}"
        ) from err
    except (ValueError, RecursionError) as err:
        raise CheckpointError(f"{path}: it is no JSON: {err!s:.200}") from err
    if not isinstance(found, list):
        raise CheckpointError(f'{path}: rules are a list of {{"match", "dims"}} objects')
    return tuple(_rule(path, number, item) for number, item in enumerate(found))


def _rule(path: Path, number: int, item: Any) -> Rule:
    names = [field.name for field in fields(Rule)]
    if not isinstance(item, dict) or not {"match", "dims"} <= item.keys() <= set(names):
        raise CheckpointError(
            f"{path}: rule {number} is no object with match and dims (and {', '.join(names[2:])}): {item!r:.120}"
        )
    good = (
        isinstance(item["match"], str)
        and (item["dims"] is None or _lists(item["dims"], list))
        and all(_lists(axes, str) for axes in item["dims"] or [])
        and _lists(item.get("fused", []), int, list, type(None))
        and all(_lists(part, int) for part in item.get("fused", []) if isinstance(part, list))
        and isinstance(item.get("units"), int | str | None)
        and isinstance(item.get("split", ""), str)
    )
    if not good:
        raise CheckpointError(
            f"{path}: rule {number} ({item['match']!r:.80}) has a field of another type; dims are a list of axes "
            'for each dim, [[], ["tp"]], or null; fused numbers, lists of numbers or null; units a number or a name'
        )
    return Rule(**{key: _tuples(value) for key, value in item.items()})


def _lists(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(item) in kinds for item in value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
