"""Strategy files: which rank holds which slice of each parameter, and how operators were cut.

::

    train_strategy.ckpt   protobuf; full shapes are not in it
    train_strategy.json   the same and the full shapes

`as_strategy` also takes our own JSON layouts (see `layout/dialects/plain.py`), which can say every layout.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, LayoutError
from ..layout import Mesh, Strategy
from ..layout.dialects.mindspore import MindSporeLayout
from ..layout.dialects.plain import strategy_from_json, strategy_to_json
from ..untrusted import parse_json, read_file
from .strategy_codecs import decode_strategy, encode_strategy
from .strategy_record import OperatorStrategy, StrategyFile

__all__ = [
    "as_strategy",
    "merge_pipeline_strategys",
    "read_operators",
    "read_strategy",
    "write_strategy",
]

LARGEST_BYTES = 1 << 30


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
        fields = _json(data) if name.endswith(".json") else None
        if _is_plain(fields):
            return strategy_from_json(fields)
        return decode_strategy(name, data, fields).strategy()
    except LayoutError as err:
        raise CheckpointError(f"{os.fspath(source)}: {err}", of=err, file=source) from err


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
    return decode_strategy(name, _content(name))


def _content(name: str) -> bytes:
    try:
        return read_file(name, LARGEST_BYTES)
    except OSError as err:
        remedy = "check the path of the strategy file"
        if isinstance(err, FileNotFoundError) and (mesh := _mesh_or_none(name)) is not None:
            rules = f'Rules({mesh!r}, read_rules("llama"), config)'
            remedy = f"if a mesh is meant, add the rules that say what its axes shard: {rules}"
        raise CheckpointFileError(f"{name}: {err.strerror}; {remedy}", file=name) from err


def _mesh_or_none(text: str) -> Mesh | None:
    try:
        return Mesh.parse(text)
    except LayoutError:
        return None


def _json(data: bytes) -> Any:
    """The value of JSON; None if it is damaged."""
    try:
        return parse_json(data, share=True)
    except ValueError:
        return None


def _is_plain(fields: Any) -> bool:
    """Whether a value of JSON is a strategy in our own notation."""
    return isinstance(fields, dict) and "tensors" in fields


def read_operators(path: str | os.PathLike[str]) -> Mapping[str, OperatorStrategy]:
    """What a strategy file says of operators; JSON layouts of our own say nothing of them.

    Raises
    ------
    CheckpointFileError, CheckpointError
        See `read_strategy`.
    """
    name = os.fspath(path)
    data = _content(name)
    fields = _json(data) if name.endswith(".json") else None
    return {} if _is_plain(fields) else decode_strategy(name, data, fields).operators


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
        raise CheckpointFileError(
            f"{name}: {err.strerror}; choose a folder that can be written", file=name
        ) from err


def _written(path: str, source: StrategyFile | Strategy) -> bytes:
    as_json = path.endswith(".json")
    if isinstance(source, StrategyFile):
        return encode_strategy(path, source)
    try:
        return _written(path, StrategyFile.from_strategy(source))
    except LayoutError as err:
        if as_json:
            return json.dumps(strategy_to_json(source), indent=1).encode()
        raise CheckpointError(
            f"{path}: {err}; give the file a name that ends in .json, and it takes any cut", of=err, file=path
        ) from err


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
        raise CheckpointFileError(f"{folder}: no .ckpt strategy files there; check the folder", file=folder)
    operators: dict[str, OperatorStrategy] = {}
    layouts: dict[str, MindSporeLayout] = {}
    for path in paths:
        found = read_strategy(path)
        stage = next((item.stage for item in found.operators.values()), 0)
        for name, layout in found.layouts.items():
            if f"{stage}-{name}" in layouts:
                raise CheckpointError(
                    f"{path}: stage {stage} has {name!r} already, from another file; remove one",
                    file=path,
                    parameter=name,
                )
            layouts[f"{stage}-{name}"] = layout
        operators |= found.operators
    return StrategyFile(1, operators, layouts)
