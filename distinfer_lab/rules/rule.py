"""A rule: which names it is for, and which mesh axes cut the dims of those tensors.

::

    {"match": "*.q_proj.weight", "dims": "tp -", "units": "num_attention_heads"}
    {"match": "*.norm.weight", "dims": null}

A file of rules is JSON: a list of objects with the fields of `Rule`, of which "match" and "dims" are needed. Dims may
also be lists of axes, `[["tp"], []]`, as the JSON of a strategy has them.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError
from ..json_kinds import kind_of_json
from ..layout.notation import Dims, format_dims, parse_dims
from ..text import shown
from ..untrusted import parse_json, read_file
from .expressions import check_expression
from .patterns import name_fits

__all__ = ["STAGES", "Rule", "fits", "read_rule_file", "rules_json"]

LARGEST_FILE = 1 << 24
STAGES = ("first", "last", "embedding", "head", "all")

Size = int | str
Fused = tuple[int | tuple[Size, ...] | None, ...]


@dataclass(frozen=True)
class Rule:
    """How the tensors of some names are cut.

    Parameters
    ----------
    match
        A pattern of names, compared part by part (see `patterns.py`).
    dims
        The mesh axes that shard each dim, as text: ``"tp -"`` (see `layout/notation.py`); axes that the mesh
        lacks shard nothing. None: every rank holds everything, whatever the number of dims.
    fused
        For each dim None, or the parts that follow one another along it, each of which is cut by itself: a
        number of equal parts, or the size of each, in elements: a number or an expression.
    units
        How many units the cut dim consists of, which are never cut apart (attention heads): a number or
        an expression. With more ranks than units, several ranks hold the same one.
    unit_size
        Elements of one unit along the cut dim: a number or an expression. `units` times `unit_size` must be
        the size of the dim, as far as the configuration has the fields. By default the size need only be a
        multiple of units times the head size.
    split
        How a dim is cut whose size the number of parts does not divide, see `Layout`.
    stage
        Which pipeline stages hold a tensor, where the mesh has an axis `pp`. None: the stage of the tensor's
        layer, or all stages where its name has no layer number. "first", "last" and "all" override that;
        "head" is the last stage; "embedding" is the first, and the last one, too, where the checkpoint has no
        head of its own.

    Notes
    -----
    An expression is made of numbers, fields of the model's config.json, `+`, `*`, `//`, parentheses and `or`,
    which takes the first side whose fields are there: ``"head_dim or hidden_size // num_attention_heads"``.
    """

    match: str
    dims: str | None
    fused: Fused = ()
    units: Size | None = None
    unit_size: Size | None = None
    split: str = "even"
    stage: str | None = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            object.__setattr__(self, "dims", format_dims(self.axes))

    @cached_property
    def axes(self) -> Dims | None:
        """For each dim the axes that shard it, most significant first; None if every rank holds everything."""
        return None if self.dims is None else parse_dims(self.dims)


def fits(rule: Rule, name: str) -> bool:
    """Whether a rule is for a tensor of this name."""
    return name_fits(rule.match, name)


def rules_json(rules: tuple[Rule, ...]) -> str:
    """Rules as a file of rules has them, one a line; fields with their default are left out."""
    return "[\n" + ",\n".join(f"  {json.dumps(dict(_fields(rule)))}" for rule in rules) + "\n]"


def _fields(rule: Rule) -> Iterator[tuple[str, Any]]:
    values = asdict(rule)
    return (
        (f.name, values[f.name]) for f in fields(Rule) if f.default is MISSING or values[f.name] != f.default
    )


def read_rule_file(path: str | os.PathLike[str], known: str) -> tuple[Rule, ...]:
    """The rules of a JSON file.

    Parameters
    ----------
    known
        The names of the tables that could have been meant instead, for the error message.

    Raises
    ------
    CheckpointFileError
        If there is no such file.
    CheckpointError
        If its content is not a list of rules.
    """
    path = Path(path)
    try:
        items = parse_json(read_file(path, LARGEST_FILE))
    except OSError as err:
        raise CheckpointFileError(
            f"{path}: {err.strerror}; rules are a file, or one of {known}", file=path
        ) from err
    except ValueError as err:
        raise CheckpointError(f"{path}: it is not valid JSON: {err}", of=err, file=path) from err
    if not isinstance(items, list):
        words = kind_of_json(items, "rules") or f"it holds {shown(items)}"
        raise CheckpointError(
            f'{path}: {words}; rules are a list of {{"match", "dims"}} objects', of=words, file=path
        )
    return tuple(_rule(path, number, item) for number, item in enumerate(items))


def _rule(path: Path, number: int, item: Any) -> Rule:
    problem = _problem_of_fields(item)
    if problem:
        raise CheckpointError(f"{path}: rule {number} ({shown(item)}) {problem}", file=path)
    if not _has_valid_types(item):
        raise CheckpointError(
            f"{path}: rule {number} ({shown(item['match'])}) has a field of another type; fused are numbers, lists "
            "of numbers or expressions, or null; units and unit_size a number or an expression; stage one of "
            f"{', '.join(STAGES)}",
            file=path,
        )
    try:
        given = {key: _tuples(value) if key == "fused" else value for key, value in item.items()}
        rule = Rule(**{**given, "dims": _text_of(item["dims"])})
        sizes = [size for part in rule.fused if isinstance(part, tuple) for size in part]
        for text in (rule.units, rule.unit_size, *sizes):
            check_expression(text)
    except (ArgumentTypeError, ValueError) as err:
        raise CheckpointError(
            f"{path}: rule {number} ({shown(item['match'])}): {err}", of=err, file=path
        ) from err
    return rule


def _problem_of_fields(item: Any) -> str | None:
    """What is wrong with the names of a rule's fields."""
    names = [field.name for field in fields(Rule)]
    if not isinstance(item, dict):
        return f"is not an object with match and dims (and {', '.join(names[2:])})"
    unknown = next((name for name in item if name not in names), None)
    if unknown is not None:
        near = get_close_matches(unknown, names, 1)
        way_out = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(names)}"
        return f"has an unknown field {shown(unknown)}; {way_out}"
    missing = [name for name in ("match", "dims") if name not in item]
    if missing:
        return f"lacks {' and '.join(missing)}; a rule has at least match and dims"
    return None


def _text_of(dims: Any) -> Any:
    """The dims as text, where they are lists of axes, as the JSON of a strategy has them."""
    lists = isinstance(dims, list) and all(_is_list(axes, str) for axes in dims)
    return format_dims(tuple(map(tuple, dims))) if lists else dims


def _has_valid_types(item: dict[str, Any]) -> bool:
    fused = item.get("fused", [])
    return (
        isinstance(item["match"], str)
        and _is_list(fused, int, list, type(None))
        and all(_is_list(part, int, str) for part in fused if isinstance(part, list))
        and all(type(item.get(name)) in (int, str, type(None)) for name in ("units", "unit_size"))
        and isinstance(item.get("split", ""), str)
        and item.get("stage") in (None, *STAGES)
    )


def _is_list(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(item) in kinds for item in value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
