"""Single files: MindSpore's `load_checkpoint`, `save_checkpoint` and the functions that go with them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked
from ..errors import ArgumentTypeError, CheckpointError, ContextError, Option
from ..formats import as_strategy, open_slice, save_slice
from ..layout import Strategy
from ..net import Cell, Parameter, Tensor
from .matching import kind_of

__all__ = ["build_searched_strategy", "load_checkpoint", "load_param_into_net", "save_checkpoint"]

PathLike = str | os.PathLike[str]


@checked
def load_checkpoint(
    ckpt_file_name: PathLike,
    net: Cell | None = None,
    strict_load: bool = False,
    filter_prefix: str | Sequence[str] | None = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    *,
    crc_check: bool = False,
) -> dict[str, Parameter | str]:
    """Read one file: name -> Parameter (string entries: the string), and into `net` if one is given.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If the file is missing, damaged, encrypted with another key, or does not fit the net.
    """
    prefixes = (filter_prefix,) if isinstance(filter_prefix, str) else tuple(filter_prefix or ())
    out: dict[str, Parameter | str] = {}
    with open_slice(ckpt_file_name, dec_key=dec_key, dec_mode=dec_mode, crc_check=crc_check) as file:
        for name, entry in file.entries.items():
            if not name.startswith(prefixes) or not prefixes:
                out[name] = file.text(name) if entry.is_text else Parameter(file.read(name), name)
    if prefixes and not out:
        given = Option("filter_prefix", prefixes)
        raise CheckpointError(
            f"nothing is left of {os.fspath(ckpt_file_name)} after {given}; use fewer prefixes", given
        )
    if net is not None:
        load_param_into_net(net, out, strict_load)
    return out


@checked
def load_param_into_net(
    net: Cell, parameter_dict: Mapping[str, object], strict_load: bool = False
) -> tuple[list[str], list[str]]:
    """Set a net's parameters; gives the names that were not loaded, of the net and of the dict.

    Raises
    ------
    CheckpointError
        If a shape differs, or a dtype that may not be converted.
    """
    params = net.parameters_dict()
    for name, param in params.items():
        if name not in parameter_dict:
            continue
        value = parameter_dict[name]
        array = value.asnumpy() if isinstance(value, Parameter | Tensor) else np.asarray(value)
        same_kind = kind_of(array.dtype) == kind_of(np.dtype(param.dtype))
        if array.shape != param.shape or not same_kind or (strict_load and array.dtype != param.dtype):
            raise CheckpointError(
                f"{name}: the net has shape {list(param.shape)} and dtype {param.dtype}, the checkpoint "
                f"{list(array.shape)} and {array.dtype}",
                parameter=name,
            )
        param.set_data(array)
    return [n for n in params if n not in parameter_dict], [n for n in parameter_dict if n not in params]


@checked
def save_checkpoint(
    save_obj: Cell | Mapping[str, object] | Sequence[Mapping[str, object]],
    ckpt_file_name: PathLike,
    integrated_save: bool = True,
    async_save: bool = False,
    append_dict: Mapping[str, object] | None = None,
    enc_key: bytes | None = None,
    enc_mode: str = "AES-GCM",
    *,
    format: str = "ckpt",
    crc_check: bool = False,
) -> None:
    """Write a net, a mapping of name to value, or a list of {"name", "data"}, whole, to one file.

    Parameters
    ----------
    integrated_save, async_save
        Accepted for MindSpore's scripts; the values are merged, and the file is there on return.
    append_dict
        Further entries: numbers, strings, Tensors.

    Raises
    ------
    ArgumentTypeError
        If `save_obj` is of another kind.
    CheckpointFileError, CheckpointError
        If the file cannot be written.
    """
    values = {**_named_values(save_obj), **(append_dict or {})}
    arrays = {name: _saved_value(value) for name, value in values.items()}
    save_slice(ckpt_file_name, arrays, format=format, enc_key=enc_key, enc_mode=enc_mode, crc_check=crc_check)


def _named_values(
    given: Cell | Mapping[str, object] | Sequence[Mapping[str, object]],
) -> Mapping[str, object]:
    if isinstance(given, Cell):
        return given.parameters_dict()
    if isinstance(given, Mapping):
        return given
    for item in given:
        if not {"name", "data"} <= item.keys():
            raise ArgumentTypeError(
                f"save_obj: each item of a list is a mapping {{'name': ..., 'data': ...}}, not {dict(item)!r:.60}"
            )
    return {str(item["name"]): item["data"] for item in given}


def _saved_value(value: object) -> NDArray[Any] | str:
    if isinstance(value, Parameter | Tensor):
        return value.asnumpy()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    # MindSpore keeps a plain float as Float32, and a plain int as Int64.
    return array.astype(np.float32) if isinstance(value, float) else array


@checked
def build_searched_strategy(strategy_filename: PathLike) -> Strategy:
    """The layouts of a training strategy file, by parameter.

    Raises
    ------
    ContextError
        If no file is named.
    CheckpointFileError, CheckpointError
        If it is missing or damaged.
    """
    if not strategy_filename:
        raise ContextError("build_searched_strategy needs the name of a strategy file")
    return as_strategy(strategy_filename)
