"""Strategy files: which rank holds which slice of each parameter, and how operators were cut.

::

    train_strategy.ckpt   protobuf; full shapes are not in it
    train_strategy.json   the same and the full shapes

Where pipeline stages were merged into one file, a parameter is named "<stage>-<name>". `as_strategy`
also takes our own notation (see `layout/dialects/plain.py`), which can say every layout.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, EncodeError

from ..arguments import checked
from ..display import Displayed, counted
from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, LayoutError, listed
from ..json_kinds import kind_of_json
from ..layout import Layout, Mesh, Strategy
from ..layout.dialects.mindspore import MindSporeLayout, from_layout, to_layout
from ..layout.dialects.plain import strategy_from_json, strategy_to_json
from ..text import printable, shown
from ..untrusted import parse_json, read_fields, read_file, read_int, read_shape
from .recognisers import HEAD_BYTES, recognise_slices
from .strategy_schema import message_class

__all__ = [
    "OperatorStrategy",
    "StrategyFile",
    "as_strategy",
    "merge_pipeline_strategys",
    "read_operators",
    "read_strategy",
    "write_strategy",
]

LARGEST_BYTES = 1 << 30
LARGEST_NUMBER = (1 << 31) - 1
"""Of what is int32 in the protobuf form."""
MOST_STAGE_DIGITS = 6
EMPTY_MESSAGES = (b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x22\x00")
BYTES_PER_MESSAGE = 8
FREE_MESSAGES = 1 << 16
"""An empty message takes 2 bytes of a file and some 50 of memory; a parameter's layout has three in 40 bytes."""
NUMBERS = ("opt_weight_shard_step", "opt_weight_shard_size", "field")
"""Fields of a layout in JSON that are one number each."""
A_STRATEGY = "a strategy file is what training saved by strategy_ckpt_save_file, or JSON layouts"
STAGE_NAME = re.compile(r"(\d+)-(.+)", re.DOTALL)


class OperatorStrategy(NamedTuple):
    """How one operator was cut."""

    stage: int
    """Its pipeline stage."""
    inputs: tuple[tuple[int, ...], ...]
    """For each input, for each dim, the number of parts."""


@dataclass(frozen=True, repr=False)
class StrategyFile(Displayed):
    """What a strategy file says, by its own names."""

    current_stage: int = 1
    """How often the file was saved (no pipeline stage)."""
    operators: Mapping[str, OperatorStrategy] = field(default_factory=dict)
    """`<operator>_<parameter>` -> its strategy."""
    layouts: Mapping[str, MindSporeLayout] = field(default_factory=dict)
    """Parameter, as named in the file -> its layout."""

    @property
    def merged(self) -> bool:
        """Whether every parameter is named "<stage>-<name>", as merging pipeline stages does."""
        return bool(self.layouts) and all(STAGE_NAME.fullmatch(name) for name in self.layouts)

    def strategy(self) -> Strategy:
        """The layouts as a Strategy; a parameter of several merged stages lies on the ranks of all.

        Raises
        ------
        LayoutError
            If a layout is not possible; the text names the parameter.
        """
        if not self.layouts:
            raise LayoutError(
                "the strategy file holds no parameter's layout; save it after the net was compiled"
            )
        stages: dict[str, list[int]] = {}
        items: dict[str, MindSporeLayout] = {}
        for full_name, item in self.layouts.items():
            found = STAGE_NAME.fullmatch(full_name) if self.merged else None
            name = found[2] if found else full_name
            if name in items and items[name] != item:
                raise LayoutError(f"{name}: its pipeline stages lay it out differently; they must agree")
            items[name] = item
            stages.setdefault(name, []).append(_stage(full_name, found[1]) if found else 0)
        shapes = {n: item.tensor_shape for n, item in items.items() if item.tensor_shape is not None}
        return Strategy({n: _layout(n, item, stages[n]) for n, item in items.items()}, shapes)

    @classmethod
    def from_strategy(
        cls,
        strategy: Strategy,
        operators: Mapping[str, OperatorStrategy] | None = None,
        current_stage: int = 1,
    ) -> "StrategyFile":
        """The file that says this strategy; layouts beyond the first stage get "<stage>-" names.

        Raises
        ------
        LayoutError
            If MindSpore cannot say a layout; the text names the parameter.
        """
        layouts: dict[str, MindSporeLayout] = {}
        staged = any(layout.first_ranks != (0,) for layout in strategy.values())
        for name, layout in strategy.items():
            try:
                item = from_layout(layout, strategy.shapes.get(name))
            except LayoutError as err:
                raise LayoutError(f"{name}: {err}") from err
            for first in layout.first_ranks:
                layouts[f"{first // layout.mesh.size}-{name}" if staged else name] = item
        return cls(current_stage, dict(operators or {}), layouts)

    def __repr__(self) -> str:
        lines = [
            f"StrategyFile of {counted(len(self.layouts), 'parameter')} "
            f"and {counted(len(self.operators), 'operator')}"
        ]
        for name, item in self.layouts.items():
            lines.append(
                f"  {printable(name)}  "
                f"dev_matrix {shown(item.dev_matrix)} tensor_map {shown(item.tensor_map)}"
            )
        return "\n".join(lines)


def _stage(full_name: str, digits: str) -> int:
    if len(digits) > MOST_STAGE_DIGITS:
        raise LayoutError(f"{full_name:.80}: pipeline stage {digits:.20} is larger than any supported")
    return int(digits)


def _layout(name: str, item: MindSporeLayout, stages: Sequence[int]) -> Layout:
    try:
        return to_layout(item, sorted(set(stages)))
    except LayoutError as err:
        raise LayoutError(f"{name}: {err}") from err


def as_strategy(source: Strategy | StrategyFile | str | os.PathLike[str]) -> Strategy:
    """A Strategy, whether it is given as one or as a file: MindSpore's, or JSON layouts of our own.

    A folder holds a strategy file for each pipeline stage; they are merged.

    Raises
    ------
    CheckpointFileError
        If there is no such file, or it cannot be read.
    CheckpointError
        If it is no strategy file.
    """
    if isinstance(source, Strategy):
        return source
    if isinstance(source, StrategyFile):
        return source.strategy()
    if not isinstance(source, str | os.PathLike):
        raise ArgumentTypeError(f"a strategy is a Strategy or a strategy file's path, not {source!r:.60}")
    name = os.fspath(source)
    try:
        if os.path.isdir(name):
            return _merged_stages(name).strategy()
        data = _content(name)
        plain = _plain_json(data) if name.endswith(".json") else None
        return _read(name, data).strategy() if plain is None else strategy_from_json(plain)
    except LayoutError as err:
        raise CheckpointError(f"{os.fspath(source)}: {err}") from err


@checked
def read_strategy(path: str | os.PathLike[str]) -> StrategyFile:
    """Read a strategy file, protobuf or JSON.

    Raises
    ------
    CheckpointFileError
        If there is no such file, or it cannot be read.
    CheckpointError
        If it is no strategy file.
    """
    name = os.fspath(path)
    return _read(name, _content(name))


def _content(name: str) -> bytes:
    try:
        return read_file(name, LARGEST_BYTES)
    except OSError as err:
        remedy = "check the path of the strategy file"
        if isinstance(err, FileNotFoundError) and (mesh := _mesh_or_none(name)) is not None:
            rules = f'Rules({mesh!r}, read_rules("llama"), config)'
            remedy = f"if a mesh is meant, add the rules that say what its axes shard: {rules}"
        raise CheckpointFileError(f"{name}: {err.strerror}; {remedy}") from err


def _mesh_or_none(text: str) -> Mesh | None:
    try:
        return Mesh.parse(text)
    except LayoutError:
        return None


def _plain_json(data: bytes) -> Any:
    """The object if it is one of our own notation; None if it is MindSpore's, or damaged."""
    try:
        found = parse_json(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "tensors" in found else None


def _read(name: str, data: bytes) -> StrategyFile:
    return _from_json(name, data) if name.endswith(".json") else _from_protobuf(name, data)


def _from_protobuf(path: str, data: bytes) -> StrategyFile:
    message = message_class("ParallelStrategyMap")()
    if sum(map(data.count, EMPTY_MESSAGES)) > FREE_MESSAGES + len(data) // BYTES_PER_MESSAGE:
        raise CheckpointError(
            f"{path}: not a valid strategy file, or damaged (it consists of empty messages)"
        )
    try:
        message.ParseFromString(data)
    except DecodeError as err:
        raise _not_a_strategy(path, data, str(err)) from err
    if not message.IsInitialized():
        raise _not_a_strategy(path, data, f"it lacks {listed(_lacking(message))}")
    names = [item.node_name for item in message.parallel_strategy_item]
    names += [item.param_name for item in message.parallel_layout_item]
    for name in names:
        if not isinstance(name, str):  # how the library gives bytes that are no text
            raise CheckpointError(f"{path}: the name {name!r:.80} is not UTF-8; the file is damaged")
    operators = {
        item.node_name: OperatorStrategy(
            item.parallel_strategys.stage,
            tuple(tuple(s.dim) for s in item.parallel_strategys.parallel_strategy),
        )
        for item in message.parallel_strategy_item
    }
    layouts = {
        item.param_name: _item(path, item.param_name, item.parallel_layouts)
        for item in message.parallel_layout_item
    }
    return StrategyFile(message.current_stage, operators, layouts)


def _not_a_strategy(path: str, data: bytes, why: str) -> CheckpointError:
    known = recognise_slices(path, data[:HEAD_BYTES])
    if known:
        return CheckpointError(f"{path}: {known}; {A_STRATEGY}")
    return CheckpointError(f"{path}: not a valid strategy file, or damaged ({why})")


def _lacking(message: Any) -> list[str]:
    """Fields that the first incomplete message lacks; of all together there may be millions."""
    items = chain(message.parallel_strategy_item, message.parallel_layout_item)
    first = next((item for item in items if not item.IsInitialized()), message)
    return list(first.FindInitializationErrors())


def _item(path: str, param: str, found: Any) -> MindSporeLayout:
    if not found.dev_matrix or not found.tensor_map:
        raise CheckpointError(f"{path}: {param:.200}: its layout has no dev_matrix or no tensor_map")
    maps = [tuple(m.dim) for m in found.tensor_map]
    tensor_map: tuple[Any, ...] = maps[0]
    if len(maps) > 1:
        # One message per dim; a tensor of one dim has an empty one behind it.
        tensor_map = tuple(m for m in maps if m)
    return MindSporeLayout(
        tuple(found.dev_matrix[0].dim),
        tensor_map,
        found.opt_weight_shard_step,
        found.opt_weight_shard_size,
        tuple(found.param_split_shape[0].dim) if found.param_split_shape else (),
        tuple(found.indices_offset[0].dim) if found.indices_offset else (),
        found.field,
    )


def _from_json(path: str, data: bytes) -> StrategyFile:
    found: Any = None
    try:
        found = parse_json(data)
        fields = read_fields(found, "its content", "current_stage", "parallel_layout_item")
        operators = read_fields(fields.get("parallel_strategy_item", {}), "parallel_strategy_item")
        layouts = read_fields(fields["parallel_layout_item"], "parallel_layout_item")
        return StrategyFile(
            read_int(fields["current_stage"], "current_stage", high=LARGEST_NUMBER),
            {name: _json_operator(name, item) for name, item in operators.items()},
            {name: _json_item(name, item) for name, item in layouts.items()},
        )
    except ValueError as err:
        known = kind_of_json(found, "strategy")
        words = known or f"not a valid strategy file, or damaged: {err!s:.300}"
        raise CheckpointError(f"{path}: {words}; {A_STRATEGY}") from err


def _json_operator(name: str, item: Any) -> OperatorStrategy:
    fields = read_fields(item, f"{name:.80}", "stage", "parallel_strategy")
    return OperatorStrategy(
        read_int(fields["stage"], f"{name:.80}: stage", high=LARGEST_NUMBER),
        tuple(_numbers(sizes, "parallel_strategy") for sizes in _list(fields, "parallel_strategy")),
    )


def _json_item(name: str, found: Any) -> MindSporeLayout:
    item = read_fields(found, f"{name:.80}", "dev_matrix", "tensor_map", *NUMBERS)

    def number(key: str) -> int:
        return read_int(item[key], f"{name:.80}: {key}", -LARGEST_NUMBER, LARGEST_NUMBER)

    entries = (_numbers(e, "tensor_map") if isinstance(e, list) else e for e in _list(item, "tensor_map"))
    return MindSporeLayout(
        _numbers(item["dev_matrix"], "dev_matrix"),
        tuple(e if isinstance(e, tuple) else read_int(e, "tensor_map", -1, LARGEST_NUMBER) for e in entries),
        number("opt_weight_shard_step"),
        number("opt_weight_shard_size"),
        _numbers(item.get("param_split_shape", []), "param_split_shape"),
        _numbers(item.get("indices_offset", []), "indices_offset"),
        number("field"),
        read_shape(item["tensor_shape"], f"{name:.80}: tensor_shape") if "tensor_shape" in item else None,
    )


def _list(item: Any, key: str) -> list[Any]:
    if not isinstance(item[key], list):
        raise ValueError(f"{key} is {shown(item[key])}; it should be a list")  # noqa: TRY004 - of a file
    return list(item[key])


def _numbers(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} has {shown(value)}; it should be a list of integers")  # noqa: TRY004
    return tuple(read_int(number, name, -1) for number in value)


def read_operators(path: str | os.PathLike[str]) -> Mapping[str, OperatorStrategy]:
    """What a strategy file says of operators; JSON layouts of our own say nothing of them.

    Raises
    ------
    CheckpointFileError, CheckpointError
        See `read_strategy`.
    """
    name = os.fspath(path)
    data = _content(name)
    if name.endswith(".json") and _plain_json(data) is not None:
        return {}
    return _read(name, data).operators


@checked
def write_strategy(path: str | os.PathLike[str], source: StrategyFile | Strategy) -> None:
    """Write a strategy file, JSON if the name ends so, else protobuf; in MindSpore's own bytes.

    A Strategy that MindSpore cannot say (fused parts, uneven cuts) goes into a file named .json as
    JSON layouts of our own, which are read wherever a strategy file is.

    Raises
    ------
    CheckpointFileError
        If the place cannot be written.
    CheckpointError
        If the format cannot say something (JSON needs the full shapes, protobuf MindSpore's cuts).
    """
    name = os.fspath(path)
    data = _written(name, source)
    temporary = Path(f"{name}.tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(name)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise CheckpointFileError(f"{name}: {err.strerror}; choose a folder that can be written") from err


def _written(path: str, source: StrategyFile | Strategy) -> bytes:
    as_json = path.endswith(".json")
    if isinstance(source, StrategyFile):
        return _to_json(path, source) if as_json else _to_protobuf(path, source)
    try:
        return _written(path, StrategyFile.from_strategy(source))
    except LayoutError as err:
        if as_json:
            return json.dumps(strategy_to_json(source), indent=1).encode()
        raise CheckpointError(
            f"{path}: {err}; give the file a name that ends in .json, and it takes any cut"
        ) from err


def _to_protobuf(path: str, source: StrategyFile) -> bytes:
    message = message_class("ParallelStrategyMap")(current_stage=source.current_stage)
    for name, operator in source.operators.items():
        item = message.parallel_strategy_item.add(node_name=name)
        item.parallel_strategys.stage = operator.stage
        for parts in operator.inputs:
            item.parallel_strategys.parallel_strategy.add(dim=parts)
    for name, layout in source.layouts.items():
        _add_layout(message.parallel_layout_item.add(param_name=name).parallel_layouts, layout)
    try:
        data: bytes = message.SerializeToString()
    except EncodeError as err:
        raise CheckpointError(f"{path}: {err}") from err
    return data


def _add_layout(target: Any, layout: MindSporeLayout) -> None:
    target.dev_matrix.add(dim=layout.dev_matrix)
    if any(isinstance(e, tuple) for e in layout.tensor_map):
        for entry in layout.tensor_map:
            target.tensor_map.add(dim=entry if isinstance(entry, tuple) else (entry,))
        if len(layout.tensor_map) == 1:
            target.tensor_map.add()
    else:
        target.tensor_map.add(dim=layout.tensor_map)
    target.param_split_shape.add(dim=layout.split_sizes)
    target.indices_offset.add(dim=layout.split_offsets)
    target.field = layout.field
    target.opt_weight_shard_step = layout.opt_shard_step
    target.opt_weight_shard_size = layout.opt_shard_size


def _to_json(path: str, source: StrategyFile) -> bytes:
    layouts = {}
    for name, layout in source.layouts.items():
        if layout.tensor_shape is None:
            raise CheckpointError(f"{path}: {name}: JSON needs its full shape; write a .ckpt strategy file")
        layouts[name] = {
            "dev_matrix": layout.dev_matrix,
            "field": layout.field,
            "opt_weight_shard_size": layout.opt_shard_size,
            "opt_weight_shard_step": layout.opt_shard_step,
            "tensor_map": layout.tensor_map,
            "tensor_shape": layout.tensor_shape,
        }
        if layout.split_sizes:
            layouts[name] |= {"param_split_shape": layout.split_sizes, "indices_offset": layout.split_offsets}
    operators = {
        name: {"parallel_strategy": item.inputs, "stage": item.stage}
        for name, item in source.operators.items()
    }
    found = {
        "current_stage": source.current_stage,
        "parallel_layout_item": layouts,
        "parallel_strategy_item": operators,
    }
    return json.dumps(found, separators=(",", ":"), sort_keys=True).encode()


@checked
def merge_pipeline_strategys(
    src_strategy_dirs: str | os.PathLike[str], dst_strategy_file: str | os.PathLike[str]
) -> None:
    """Merge the strategy files of all pipeline stages, a folder of `.ckpt` files, into one.

    The stage of a file is the one that its operators name.

    Raises
    ------
    CheckpointFileError
        If the folder cannot be read or has no strategy file.
    CheckpointError
        If a file is no strategy file, or two files are of one stage.
    """
    write_strategy(dst_strategy_file, _merged_stages(src_strategy_dirs))


def _merged_stages(src_strategy_dirs: str | os.PathLike[str]) -> StrategyFile:
    """The strategy files of all pipeline stages as one."""
    folder = Path(src_strategy_dirs)
    paths = sorted(folder.glob("*.ckpt"))
    if not paths:
        raise CheckpointFileError(f"{folder}: no .ckpt strategy files there; check the folder")
    operators: dict[str, OperatorStrategy] = {}
    layouts: dict[str, MindSporeLayout] = {}
    for path in paths:
        found = read_strategy(path)
        stage = next((item.stage for item in found.operators.values()), 0)
        for name, layout in found.layouts.items():
            if f"{stage}-{name}" in layouts:
                raise CheckpointError(
                    f"{path}: stage {stage} has {name!r} already, from another file; remove one"
                )
            layouts[f"{stage}-{name}"] = layout
        operators |= found.operators
    return StrategyFile(1, operators, layouts)
