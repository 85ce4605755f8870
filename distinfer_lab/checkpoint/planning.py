"""What of a checkpoint goes to a destination, by what name, in what dtype, and with which layout.

::

    select   ["*.weight", "!lm_head*"]      which entries; "!" leaves out
    rename   {"model.*": "net.*"}           a name, or a pattern with stars; states follow their parameter
    dtype    "bfloat16"                     of every tensor of floats of more than one element; `notes` of the plan
                                            name those that stay as they are; quantised weights are refused
    states   what becomes of optimizer states that the destination's strategy does not name:
             "follow"     moments.w has the layout of w
             "replicate"  every rank gets all of moments.w
             "mindspore"  rank r keeps the slice that source rank r held, as MindSpore leaves it
"""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np

from ..arguments import checked
from ..errors import Option, ReshardError, in_lines, listed
from ..formats import sibling_config
from ..layout import Layout, Regions, Strategy
from ..reshard import Holding, plan_holdings
from ..rules import QuantisedWeight, Rules, check_together, is_quantised_config, quantised_weights
from ..text import pattern_of
from .conversion import Conversion, Targets
from .coverage import Surviving, format_box
from .files import CheckpointFiles
from .float_dtypes import check_no_codes, converted_dtypes, float_dtype, unconverted_notes
from .records import TensorRecord, followed_parameter
from .selection import all_names, check_missing, check_shapes, near_names, selected, unmatched

__all__ = ["STATES", "KeptSlices", "PlanOptions", "plan_conversion", "plan_targets"]

MOST_PATTERNS = 8
"""So many names of entries are written out in an error."""


class PlanOptions(TypedDict, total=False):
    """The options of `plan_conversion`: see there."""

    states: str
    dtype: str | np.dtype[Any] | None
    select: Sequence[str] | None
    rename: Mapping[str, str] | None
    allow_missing: Sequence[str]
    same_cards: bool


STATES = ("follow", "replicate", "mindspore")


@checked
def plan_conversion(
    checkpoint: CheckpointFiles,
    dst: Strategy | Rules | None,
    *,
    states: str = "follow",
    dtype: str | np.dtype[Any] | None = None,
    select: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    allow_missing: Sequence[str] = (),
    same_cards: bool = False,
) -> Conversion:
    """Plan the conversion of a checkpoint to a destination strategy.

    Parameters
    ----------
    dst
        The destination: a strategy by the names that the destination has, or rules for it. None:
        rank 0 gets everything.
    states, dtype, select, rename
        See above.
    allow_missing
        Patterns of tensors that a strategy or an index names, and that may be missing in the result.
    same_cards
        See `plan_reshard`.

    Raises
    ------
    ReshardError
        If `dst` lacks a parameter, a tensor is named that no file holds, slices are lost that no other rank
        holds, a pattern fits nothing, two entries would have one name, or holes or overlaps are found.
    """
    if states not in STATES:
        given = Option("states", states)
        raise ReshardError(f"{given} is not one of {', '.join(STATES)}", given)
    wanted = float_dtype(dtype)
    named = dst if isinstance(dst, Strategy) else None
    chosen = _chosen(checkpoint, named, select)
    _check_readable(checkpoint, chosen)
    records = [record for record in checkpoint.tensors.values() if record.name in chosen]
    texts = {name: text for name, text in checkpoint.texts.items() if name in chosen}
    names = _renamed([*(record.name for record in records), *texts], rename or {}, checkpoint)
    config = dst.config if isinstance(dst, Rules) else None
    if config is None and checkpoint.paths:
        config = sibling_config(checkpoint.paths[0])
    weights = _quantised(checkpoint, config)
    dtypes = converted_dtypes(records, wanted)
    if wanted is not None:
        check_no_codes(weights, checkpoint.tensors, dtypes, is_quantised_config(config))
    targets = {record.name: (names[record.name], dtypes[record.name]) for record in records}
    if isinstance(dst, Rules):
        ruled = [record for record in records if not _follows(record, checkpoint)]
        dst = dst.strategy({names[r.name]: r.shape for r in ruled}, {names[r.name]: r.dtype for r in ruled})
    count = 1 if dst is None else dst.ranks
    stated = any(record.kind == "parameter" for record in records)
    holdings = [_destination(record, names[record.name], dst, states, stated) for record in records]
    layouts = {r.name: h for r, h in zip(records, holdings, strict=True) if isinstance(h, Layout)}
    check_together(weights, layouts)
    check_shapes(named or Strategy({}), {names[record.name]: record.shape for record in records})
    check_missing(checkpoint, named, {*names.values(), *checkpoint.texts}, select, allow_missing)
    conversion = _conversion(checkpoint, records, holdings, targets, count, same_cards)
    return replace(
        conversion,
        texts={names[name]: text for name, text in texts.items()},
        states=states,
        plain=tuple(names[r.name] for r in records if _stays_plain(r, names[r.name], dst, stated)),
        allow_missing=(allow_missing,) if isinstance(allow_missing, str) else tuple(allow_missing),
        unmatched=unmatched(allow_missing, all_names(checkpoint, named) | set(names.values())),
        notes=unconverted_notes(records, wanted),
    )


def _chosen(checkpoint: CheckpointFiles, named: Strategy | None, select: Sequence[str] | None) -> set[str]:
    """The entries that `select` takes."""
    names = [*checkpoint.tensors, *checkpoint.texts, *checkpoint.unreadable]
    return set(selected(names, select, [*checkpoint.missing, *(named or ())]))


def plan_targets(checkpoint: CheckpointFiles, dst: Strategy | None, targets: Targets) -> Conversion:
    """Plan for a net, which says of each of its parameters which entry it takes.

    Parameters
    ----------
    dst
        The layouts, by the parameters' names. None: rank 0 gets everything.
    targets
        Entry of the checkpoint -> the parameter's name and dtype.

    Raises
    ------
    ReshardError
        If slices are lost that no other rank holds, or holes or overlaps are found.
    """
    records = [checkpoint.tensors[entry] for entry in targets]
    holdings = [
        _replicated(1, len(record.shape)) if dst is None else dst[targets[record.name][0]]
        for record in records
    ]
    return _conversion(checkpoint, records, holdings, targets, 1 if dst is None else dst.ranks, False)


def _conversion(
    checkpoint: CheckpointFiles,
    records: Sequence[TensorRecord],
    holdings: Sequence[Holding],
    targets: Targets,
    count: int,
    same_cards: bool,
) -> Conversion:
    """The plan of some tensors, with the names and layouts of the destination."""
    plan = plan_holdings(
        [record.name for record in records],
        [record.shape for record in records],
        [record.dtype for record in records],
        _sources(checkpoint, records),
        holdings,
        checkpoint.ranks,
        count,
        placement=range(count) if same_cards else None,
        topology=checkpoint.topology,
    )
    layouts = {targets[r.name][0]: h for r, h in zip(records, holdings, strict=True) if isinstance(h, Layout)}
    shapes = {targets[r.name][0]: r.shape for r in records}
    strategy = Strategy(layouts, {name: shapes[name] for name in layouts}, count)
    return Conversion(plan, checkpoint, strategy, targets)


def _check_readable(checkpoint: CheckpointFiles, chosen: Collection[str]) -> None:
    broken = {name: why for name, why in checkpoint.unreadable.items() if name in chosen}
    if broken:
        name, why = next(iter(broken.items()))
        more = f", and {len(broken) - 1} more entries like it" if len(broken) > 1 else ""
        without, how = Option("select", ["!" + pattern_of(n) for n in broken]), ""
        if len(broken) > MOST_PATTERNS:
            without = Option("select")
            how = ", with a ! before its names or patterns of them (`distinfer inspect --all` lists all)"
        raise ReshardError(
            f"{name} cannot be read{more}: {why}; leave out what cannot be read by {without}{how}",
            without,
            of=why,
            parameter=name,
        )


def _stays_plain(record: TensorRecord, name: str, dst: Strategy | None, stated: bool) -> bool:
    """Whether an entry is no parameter in the destination either; a rule for all names leaves it what it is."""
    if record.kind != "plain" or dst is None or name not in dst:
        return record.kind == "plain"
    return stated and max(dst[name].parts, default=1) == dst[name].optimizer_shards == 1


def _sources(checkpoint: CheckpointFiles, records: Sequence[TensorRecord]) -> list[Holding]:
    """Who holds what; without what was lost, if others have it.

    Raises
    ------
    ReshardError
        If nobody has it: all tensors and boxes that are lost are listed.
    """
    if not checkpoint.lost:
        return [record.layout for record in records]
    covered = checkpoint.coverage()
    holes = {record.name: covered[record.name].holes for record in records if len(covered[record.name].holes)}
    words = [f"{name}: {listed(map(format_box, boxes.tolist()))}" for name, boxes in holes.items()]
    if words:
        lost = in_lines(f"rank {rank} is lost: {file.reason}" for rank, file in checkpoint.lost.items())
        raise ReshardError(
            f"{lost}\nNo other rank holds\n{in_lines(words)}",
            rank=next(iter(checkpoint.lost)),
            parameter=next(iter(holes)),
        )
    gone = frozenset(checkpoint.lost)
    return [Surviving(record.layout, gone) for record in records]


def _follows(record: TensorRecord, checkpoint: CheckpointFiles) -> bool:
    """Whether no rule needs to say how a tensor lies: a state, or a single number."""
    return followed_parameter(record.name, checkpoint.tensors) is not None or not record.shape


def _quantised(checkpoint: CheckpointFiles, config: Mapping[str, Any] | None) -> tuple[QuantisedWeight, ...]:
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for record in checkpoint.tensors.values():
        shapes[record.name], dtypes[record.name] = record.shape, record.dtype
    return quantised_weights(shapes, dtypes, config)


def _renamed(names: Sequence[str], rename: Mapping[str, str], checkpoint: CheckpointFiles) -> dict[str, str]:
    """The destination's name of every entry."""
    rules = [(old, new) for old, new in rename.items()]
    for old, new in rules:
        if old.count("*") != new.count("*"):
            raise ReshardError(
                f"rename: {old!r} and {new!r} have different numbers of stars; give them as many",
                Option("rename"),
            )
    out: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        out[name] = name
        parameter = followed_parameter(name, checkpoint.tensors)
        for old, new in rules:
            found = _by_rule(name, old, new)
            if found is None and parameter is not None:
                inner = _by_rule(parameter, old, new)
                found = None if inner is None else name[: -len(parameter)] + inner
            if found is not None:
                out[name] = found
                used.add(old)
                break
    for old in rename:
        if old not in used:
            raise ReshardError(
                f"rename: no entry is called {old!r}; {near_names(old, names)}", Option("rename")
            )
    _check_new_names(out)
    return out


def _check_new_names(names: Mapping[str, str]) -> None:
    """Refuse entries of one name, and of none."""
    taken: dict[str, str] = {}
    for name, new in names.items():
        if taken.setdefault(new, name) != name:
            raise ReshardError(
                f"rename: {taken[new]} and {name} would both be called {new!r}; give one of them another name",
                Option("rename"),
                parameter=name,
            )
        if not new:
            raise ReshardError(
                f"rename: {name!r} would have no name; give it one by {Option('rename', {name: 'name'})}",
                Option("rename", {name: "name"}),
                parameter=name,
            )


def _by_rule(name: str, old: str, new: str) -> str | None:
    """The new name if the rule fits: what a star stood for is put in place of the other's."""
    found = re.fullmatch("(.*)".join(map(re.escape, old.split("*"))), name, re.DOTALL)
    if found is None:
        return None
    parts = new.split("*")
    return parts[0] + "".join(star + part for star, part in zip(found.groups(), parts[1:], strict=True))


@lru_cache(maxsize=256)
def _replicated(ranks: int, ndim: int) -> Layout:
    """One layout for all tensors that each of `ranks` ranks gets whole."""
    return Layout.replicated(ranks, ndim)


def _destination(record: TensorRecord, name: str, dst: Strategy | None, states: str, stated: bool) -> Holding:
    """Where a tensor goes; `stated` tells whether a source strategy said what is a parameter."""
    if dst is None:
        return _replicated(1, len(record.shape))
    if name in dst:
        return dst[name]
    whole = _replicated(dst.ranks, len(record.shape))
    followed = followed_parameter(name, dst)
    if record.kind == "plain" and (stated or np.prod(record.shape, dtype=object) <= 1):
        return whole
    if followed is not None and states == "follow":
        return dst[followed]
    if followed is not None:
        return whole if states == "replicate" else KeptSlices(record.layout, dst.ranks)
    without = Option("select", [f"!{record.name}"])
    raise ReshardError(
        f"{record.name}: the destination strategy has no layout for it; it names {listed(dst)}. "
        f"Is it the strategy of another net? Else add one, or leave the tensor out by {without}",
        without,
        parameter=record.name,
    )


@dataclass(frozen=True)
class KeptSlices:
    """Destination rank r gets what the r-th holder of a layout has, counted round."""

    layout: Layout
    count: int
    """The number of destination ranks."""

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """The first destination rank."""
        return (0,)

    @property
    def pattern(self) -> Hashable:
        """What equal ones have in common."""
        return ("kept", self.layout, self.count)

    def regions(self, shape: Sequence[int]) -> Regions:
        """Who gets which boxes."""
        held = self.layout.regions(shape)
        each = len(held.ranks) // len(self.layout.ranks)
        ranks = np.repeat(np.arange(self.count, dtype=np.int64), each)
        rows = np.arange(len(ranks)) % len(held.ranks)
        return Regions(ranks, held.boxes[rows], held.starts[rows])
