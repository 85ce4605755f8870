"""A destination by rules: patterns of names say which dims a mesh axis cuts, as one knows it of a kind of model.

::

    llama   *.q_proj.weight   rows cut by tp, by whole heads
            *.o_proj.weight   columns cut by tp
            *.norm.weight     whole on every rank

The first rule whose pattern fits a tensor's name is taken; a tensor that none fits is an error, so that
nothing is cut by accident. Scales of quantised weights need no rules: they are cut as their weight.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import checked, checked_on_error
from ..display import Displayed
from ..errors import ArgumentTypeError, CheckpointFileError, LayoutError, in_lines, listed
from ..layout import Layout, Mesh, Strategy
from ..layout.mesh import checked_mesh
from ..text import printable, shown
from .configuration import Part, layer_of, model_types, part_of
from .coupled import unlike
from .cut import CONFIG, Item, MisfitError, Sizes, sizes_of
from .families import MODEL_TYPES, RULES
from .quantised import QuantisedWeight, quantised_weights
from .rule import Rule, fits, read_rule_file
from .scales import PartedError
from .stages import AXIS, on_stages, stages_of

__all__ = ["Rules", "read_rules"]

MOST_TRIED = 1 << 10
"""Sizes of an axis, below and above one that does not fit, that are tried to find one that does."""

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A part of a name that is a number: of a layer, of an expert."""

Shapes = Mapping[str, tuple[int, ...]]


@checked_on_error
@dataclass(frozen=True, repr=False)
class Rules(Displayed):
    """A destination described by rules, for whatever tensors there are.

    Parameters
    ----------
    mesh
        The grid of destination ranks. Its axis `pp`, if it has one that no rule cuts by, shares out the layers.
    rules
        In the order in which they are tried.
    config
        The model's configuration (`config.json` of a Hugging Face folder), where sizes are looked up.

    Examples
    --------
    >>> config = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2}
    >>> llama = Rules(Mesh(tp=4), RULES["llama"], config)
    >>> llama.strategy({"layers.0.k_proj.weight": (16, 64), "norm.weight": (64,)})
    Strategy of 2 parameters on 4 ranks
      layers.0.k_proj.weight  [16, 64]  tp -  Mesh(tp=2, tp_repeat=2)
      norm.weight  [64]  -  Mesh(tp=4)
    """

    mesh: Mesh
    rules: tuple[Rule, ...]
    config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        checked_mesh(self.mesh)
        if isinstance(self.rules, str) or not all(isinstance(rule, Rule) for rule in self.rules):
            given = shown(self.rules) if isinstance(self.rules, str) else '"llama"'
            raise ArgumentTypeError(
                f"rules={shown(self.rules)} are not Rule objects; write read_rules({given}), which reads those of "
                "a known kind of model or of a file"
            )
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.config is not None and not isinstance(self.config, Mapping):
            raise ArgumentTypeError(
                f"config is what a config.json says, as a mapping, not {type(self.config).__name__}; "
                "read it by json.load"
            )

    @property
    def idle_axes(self) -> tuple[str, ...]:
        """The axes of the mesh by which nothing is cut: along them ranks hold the same."""
        cut = {axis for rule in self.rules for axes in rule.axes or () for axis in axes}
        return tuple(axis for axis in self.mesh.axis_names if axis not in cut and axis != AXIS)

    @property
    def absent_axes(self) -> tuple[str, ...]:
        """The axes that rules of one's own cut by, and that the mesh lacks: there they cut nothing."""
        known = {rule for rules in RULES.values() for rule in rules}
        own = (rule for rule in self.rules if rule not in known)
        axes = dict.fromkeys(axis for rule in own for dim in rule.axes or () for axis in dim)
        return tuple(axis for axis in axes if axis not in self.mesh.axis_names)

    @property
    def unknown_model_types(self) -> tuple[str, ...]:
        """What the configuration says of the kind of model, if the rules were not written for it.

        Rules of one's own are for whatever model they are given for.
        """
        mine = set(self.rules)
        tables = [table for table, rules in RULES.items() if mine.issuperset(rules)]
        if mine.difference(*(RULES[table] for table in tables)):
            return ()
        known = {kind for table in tables for kind in MODEL_TYPES[table]}
        kinds = model_types(self.config or {})
        return kinds if tables and kinds and not known.intersection(kinds) else ()

    def __repr__(self) -> str:
        lines = [f"Rules for {self.mesh!r}"]
        if self.unknown_model_types:
            lines.append(f"  not written for model_type {' '.join(self.unknown_model_types)}")
        for rule in self.rules:
            lines.append(f"  {rule.match}  {'whole' if rule.dims is None else rule.dims}")
        return "\n".join(map(printable, lines))

    def strategy(self, shapes: Shapes, dtypes: Mapping[str, np.dtype[Any]] | None = None) -> Strategy:
        """The layouts of tensors of these names and shapes.

        Parameters
        ----------
        dtypes
            Their dtypes, which tell the codes of quantised weights from other tensors; without them, whatever
            has a scale by its name is quantised.

        Raises
        ------
        LayoutError
            If no rule fits a name, or a rule does not fit a shape; a line for each cause.
        """
        return _Laying(self, shapes, dtypes).strategy()

    @cached_property
    def has_stages(self) -> bool:
        return not any(AXIS in axes for rule in self.rules for axes in rule.axes or ())

    @cached_property
    def _numbers(self) -> str:
        """What stands for the numbers in names, so that a rule is looked up once for all layers; "" if it may not."""
        specific = any(NUMBER.search(rule.match) or "[" in rule.match for rule in self.rules)
        return "" if specific else "0"

    def number_of(self, name: str, known: dict[str, int | None]) -> int | None:
        """The number of the first rule that fits a name."""
        kind = NUMBER.sub(self._numbers, name) if self._numbers else name
        if kind not in known:
            known[kind] = next((number for number, rule in enumerate(self.rules) if fits(rule, name)), None)
        return known[kind]


class _Cause(NamedTuple):
    """Why tensors cannot be laid out; equal ones are one."""

    text: str
    axis: str | None = None
    """The axis of which another size may do."""
    reason: str = ""

    @classmethod
    def of(cls, error: LayoutError) -> "_Cause":
        """That of an error."""
        if isinstance(error, MisfitError):
            return cls(str(error), error.axis, error.reason)
        return cls(str(error), getattr(error, "axis", None))


class _Laying:
    """One call of `Rules.strategy`; what is equal for many names is worked out once."""

    def __init__(self, rules: Rules, shapes: Shapes, dtypes: Mapping[str, np.dtype[Any]] | None) -> None:
        self.rules, self.shapes = rules, {name: tuple(shape) for name, shape in shapes.items()}
        self._known: dict[str, int | None] = {}
        self._parts: dict[str, Part] = {}
        self._sizes: dict[tuple[int, str, int | None], Sizes] = {}
        weights = quantised_weights(self.shapes, dtypes, rules.config)
        self.weights = {weight.codes.name: weight for weight in weights if self._is_by_weight(weight)}
        followers = {t.name for weight in self.weights.values() for t in weight.tensors[1:]}
        # What a rule is needed for -> the name that rules know it by.
        self.names = {
            n: self.weights[n].name if n in self.weights else n for n in self.shapes if n not in followers
        }
        numbers = {name: rules.number_of(known, self._known) for name, known in self.names.items()}
        self.ruled = {name: number for name, number in numbers.items() if number is not None}
        self.items = {name: self._item(name) for name in self.ruled}

    def _is_by_weight(self, weight: QuantisedWeight) -> bool:
        """Whether the rule for the weight lays out its tensors, not one that is for the codes by their own name."""
        by_weight, own = (
            self.rules.number_of(name, self._known) for name in (weight.name, weight.codes.name)
        )
        return own is None or (by_weight is not None and by_weight <= own)

    def _part(self, name: str) -> Part:
        kind = NUMBER.sub("0", name)
        if kind not in self._parts:
            self._parts[kind] = part_of(kind, self.rules.config or {})
        part = self._parts[kind]
        return part if part.layer is None else replace(part, layer=layer_of(name))

    def _item(self, name: str) -> Item:
        rule, weight, part = self.rules.rules[self.ruled[name]], self.weights.get(name), self._part(name)
        key = (self.ruled[name], part.section, part.layer)
        if key not in self._sizes:
            self._sizes[key] = sizes_of(rule, part, self.rules.config)
        sizes = self._sizes[key]
        if weight is None:
            return Item(rule, self.shapes[name], sizes)
        return Item(rule, weight.shape, sizes, tuple(tensor._replace(name="") for tensor in weight.tensors))

    def strategy(self) -> Strategy:
        """The layouts."""
        mesh = self.rules.mesh
        ruled = (self.rules.rules[number] for number in set(self.ruled.values()))
        stages = stages_of(mesh, map(self._part, self.shapes), ruled) if self.rules.has_stages else None
        inner = mesh if stages is None else _resized(mesh, AXIS, 1)
        done: dict[Item, list[Layout] | LayoutError] = {}
        placed: dict[tuple[Item, tuple[int, ...]], list[Layout]] = {}
        laid: dict[str, Layout] = {}
        causes: dict[_Cause, list[str]] = {}
        for name, item in self.items.items():
            if item not in done:
                done[item] = self._laid(item, inner)
            layouts = done[item]
            if isinstance(layouts, LayoutError):
                causes.setdefault(_Cause.of(layouts), []).append(name)
                continue
            if stages is not None:
                held = stages.of(item.rule, self._part(name))
                if (item, held) not in placed:
                    placed[item, held] = [on_stages(layout, stages.count, held) for layout in layouts]
                layouts = placed[item, held]
            tensors = self.weights[name].tensors if name in self.weights else ()
            laid |= zip([t.name for t in tensors] or [name], layouts, strict=True)
        self._raise(causes, laid)
        return Strategy({name: laid[name] for name in self.shapes}, self.shapes, mesh.size)

    def _laid(self, item: Item, mesh: Mesh) -> list[Layout] | LayoutError:
        try:
            layouts = item.layouts(mesh)
            if not item.tensors:
                layouts[0].regions(item.shape)
        except LayoutError as err:
            return err
        return layouts

    def _raise(self, causes: Mapping[_Cause, Sequence[str]], laid: Mapping[str, Layout]) -> None:
        problems = [*self._problems(causes), *unlike(laid, self.shapes, self.rules.config)]
        unruled = [known for name, known in self.names.items() if name not in self.ruled]
        if unruled:
            problems.append(
                f"no rule for {listed(unruled)}; add one, or end the rules with "
                '{"match": "*", "dims": null}, which leaves the rest whole (`distinfer rules llama` shows the form '
                "of rules; --rules llama,mine.json adds yours)"
            )
        if problems:
            named = [CONFIG] if self.rules.config is None else []
            first = next((names[0] for names in causes.values()), None)
            raise LayoutError(in_lines(problems), *named, parameter=first)

    def _problems(self, causes: Mapping[_Cause, Sequence[str]]) -> Iterator[str]:
        ways = {cause.axis: self._way_out(cause.axis) for cause in causes if cause.axis is not None}
        for (cause, axis, reason), names in causes.items():
            if axis is None:
                known = (
                    "" if self.names[names[0]] == names[0] else f" (rules know it as {self.names[names[0]]})"
                )
                yield f"{listed([f'{name} {list(self.shapes[name])}' for name in names], 1)}: {cause}{known}"
            else:
                why = f"; {reason}" if reason else ""
                yield f"{cause} of {listed(map(repr, names), 1)}: {ways[axis]}{why}"

    def _way_out(self, axis: str) -> str:
        """The sizes of an axis nearest to its own by which every one of these tensors can be cut."""
        mesh = self.rules.mesh
        size = mesh.axis_size(axis)
        items = set(self.items.values())

        def does(count: int) -> bool:
            other = _resized(mesh, axis, count)
            return not any(isinstance(self._laid(item, other), MisfitError | PartedError) for item in items)

        fewer = next(filter(does, range(size - 1, max(size - 1 - MOST_TRIED, 0), -1)), None)
        more = next(filter(does, range(size + 1, size + 1 + MOST_TRIED)), None)
        words = [f"{axis}={count}" for count in (fewer, more) if count is not None]
        return f"use {' or '.join(words)}" if words else f"no size of {axis} near it does for all tensors"


def _resized(mesh: Mesh, axis: str, size: int) -> Mesh:
    at = mesh.axis_index(axis)
    return Mesh.from_axes(mesh.axis_names, (*mesh.axis_sizes[:at], size, *mesh.axis_sizes[at + 1 :]))


@checked
def read_rules(name: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[Rule, ...]:
    """The rules of a known kind of model, of a file, or of several of them.

    Parameters
    ----------
    name
        A key of `RULES`, the path of a JSON file (a list of objects with the fields of `Rule`), or several of
        these, as a list or in one text with commas between them. Rules of files come before those of known
        kinds, whatever the order, so that yours are tried first.

    Raises
    ------
    CheckpointFileError
        If there is no such file.
    CheckpointError
        If its content is not a list of rules.

    Examples
    --------
    >>> read_rules("llama")[0].match
    '*.embed_tokens.weight'
    """
    names = [name] if isinstance(name, str | os.PathLike) else list(name)
    each = [one for text in names for one in _separated(text)]
    own = [rule for one in each if one not in RULES for rule in read_rule_file(one, ", ".join(RULES))]
    known = [rule for one in each if one in RULES for rule in RULES[one]]
    return (*own, *known)


def _separated(text: str | os.PathLike[str]) -> list[str]:
    if not isinstance(text, str) or Path(text).is_file():
        return [os.fspath(text)]
    names = [one.strip() for one in text.split(",") if one.strip()]
    if not names:
        raise CheckpointFileError(f"{text!r}: no rules; give a file, or one of {', '.join(RULES)}", file=text)
    return names
