"""The two forms of a strategy file: bytes to a `StrategyFile`, and back.

::

    train_strategy.ckpt   protobuf; full shapes are not in it
    train_strategy.json   the same and the full shapes
"""

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from ..errors import CheckpointError, listed
from ..json_kinds import kind_of_json
from ..layout.dialects.mindspore import MindSporeLayout
from ..text import shown
from ..untrusted import parse_json, read_fields, read_int, read_shape
from .recognisers import HEAD_BYTES, recognise_slices
from .strategy_record import OperatorStrategy, StrategyFile
from .strategy_schema import message_class

__all__ = ["decode_strategy", "encode_strategy"]

LARGEST_NUMBER = (1 << 31) - 1
"""Of what is int32 in the protobuf form."""
EMPTY_MESSAGES = (b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x22\x00")
BYTES_PER_MESSAGE = 8
FREE_MESSAGES = 1 << 16
"""An empty message takes 2 bytes of a file and some 50 of memory; a parameter's layout has three in 40 bytes."""
NUMBERS = ("opt_weight_shard_step", "opt_weight_shard_size", "field")
"""Fields of a layout in JSON that are one number each."""
A_STRATEGY = "a strategy file is what training saved by strategy_ckpt_save_file, or JSON layouts"


def decode_strategy(path: str, data: bytes, fields: Any = None) -> StrategyFile:
    """What the bytes of a strategy file say; its form is known by the end of its path.

    Parameters
    ----------
    fields
        The value of its JSON, where it was parsed before.

    Raises
    ------
    CheckpointError
        If they are not a strategy file's; the message names the path.
    """
    return _from_json(path, data, fields) if path.endswith(".json") else _from_protobuf(path, data)


def encode_strategy(path: str, source: StrategyFile) -> bytes:
    """The bytes of a strategy file, in the form that the end of its path says.

    Raises
    ------
    CheckpointError
        If the form cannot hold it; the message names the path.
    """
    return _to_json(path, source) if path.endswith(".json") else _to_protobuf(path, source)


def _from_protobuf(path: str, data: bytes) -> StrategyFile:
    message = message_class("ParallelStrategyMap")()
    if sum(map(data.count, EMPTY_MESSAGES)) > FREE_MESSAGES + len(data) // BYTES_PER_MESSAGE:
        raise CheckpointError(
            f"{path}: not a valid strategy file, or damaged (it consists of empty messages)", file=path
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
            raise CheckpointError(
                f"{path}: the name {name!r:.80} is not UTF-8; the file is damaged", file=path
            )
    operators = {
        item.node_name: OperatorStrategy(
            item.parallel_strategys.stage,
            tuple(tuple(s.dim) for s in item.parallel_strategys.parallel_strategy),
        )
        for item in message.parallel_strategy_item
    }
    known: dict[bytes, MindSporeLayout] = {}
    layouts: dict[str, MindSporeLayout] = {}
    for item in message.parallel_layout_item:
        said = item.parallel_layouts.SerializeToString()
        if said not in known:
            known[said] = _item(path, item.param_name, item.parallel_layouts)
        layouts[item.param_name] = known[said]
    return StrategyFile(message.current_stage, operators, layouts)


def _not_a_strategy(path: str, data: bytes, why: str) -> CheckpointError:
    known = recognise_slices(path, data[:HEAD_BYTES])
    if known:
        return CheckpointError(f"{path}: {known}; {A_STRATEGY}", file=path)
    return CheckpointError(f"{path}: not a valid strategy file, or damaged ({why})", file=path)


def _lacking(message: Any) -> list[str]:
    """Fields that the first incomplete message lacks; of all together there may be millions."""
    items = chain(message.parallel_strategy_item, message.parallel_layout_item)
    first = next((item for item in items if not item.IsInitialized()), message)
    return list(first.FindInitializationErrors())


def _item(path: str, param: str, found: Any) -> MindSporeLayout:
    if not found.dev_matrix or not found.tensor_map:
        raise CheckpointError(
            f"{path}: {param:.200}: its layout has no dev_matrix or no tensor_map", file=path, parameter=param
        )
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


def _from_json(path: str, data: bytes, found: Any) -> StrategyFile:
    try:
        found = parse_json(data, share=True) if found is None else found
        fields = read_fields(found, "its content", "current_stage", "parallel_layout_item")
        operators = read_fields(fields.get("parallel_strategy_item", {}), "parallel_strategy_item")
        layouts = read_fields(fields["parallel_layout_item"], "parallel_layout_item")
        return StrategyFile(
            read_int(fields["current_stage"], "current_stage", high=LARGEST_NUMBER),
            {name: _json_operator(name, item) for name, item in operators.items()},
            _json_items(layouts),
        )
    except ValueError as err:
        known = kind_of_json(found, "strategy")
        words = known or f"not a valid strategy file, or damaged: {err!s:.300}"
        raise CheckpointError(f"{path}: {words}; {A_STRATEGY}", of=known, file=path) from err


def _json_operator(name: str, item: Any) -> OperatorStrategy:
    fields = read_fields(item, f"{name:.80}", "stage", "parallel_strategy")
    return OperatorStrategy(
        read_int(fields["stage"], f"{name:.80}: stage", high=LARGEST_NUMBER),
        tuple(_numbers(sizes, "parallel_strategy") for sizes in _list(fields, "parallel_strategy")),
    )


def _json_items(layouts: Mapping[str, Any]) -> dict[str, MindSporeLayout]:
    """The layouts by name; an object that many names share is read once."""
    known: dict[int, MindSporeLayout] = {}
    for name, item in layouts.items():
        if id(item) not in known:
            known[id(item)] = _json_item(name, item)
    return {name: known[id(item)] for name, item in layouts.items()}


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
        raise CheckpointError(f"{path}: {err}", of=err, file=path) from err
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
            raise CheckpointError(
                f"{path}: {name}: JSON needs its full shape; write a .ckpt strategy file",
                file=path,
                parameter=name,
            )
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
