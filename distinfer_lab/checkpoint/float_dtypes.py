"""What `dtype=` of a conversion may be, and what it converts: floats, but no codes of quantised weights."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from ..display import counted
from ..dtypes import dtype_name
from ..errors import Option, ReshardError, listed
from ..rules import QuantisedWeight
from ..text import pattern_of
from .records import TensorRecord

__all__ = ["DTYPES", "check_no_codes", "converted_dtypes", "float_dtype", "unconverted_notes"]

DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
"""What `dtype` may be, and what it converts."""

MOST_PATTERNS = 24
"""How many patterns a message lists."""

ALIASES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "fp64": "float64",
    "f64": "float64",
    "double": "float64",
    "fp8": "float8_e4m3fn",
    "float8": "float8_e4m3fn",
    "float8_e4m3": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}


def float_dtype(dtype: str | np.dtype[Any] | None) -> np.dtype[Any] | None:
    """A dtype to which floats can be converted, by its name or a short form of it.

    Raises
    ------
    ReshardError
        If it is not one.

    Examples
    --------
    >>> float_dtype("bf16"), float_dtype("torch.float32")
    (dtype(bfloat16), dtype('float32'))
    """
    if dtype is None:
        return None
    chosen: np.dtype[Any] | None = None
    if isinstance(dtype, str):
        name = dtype.strip().lower().removeprefix("torch.")
        chosen = DTYPES.get(ALIASES.get(name, name))
    else:
        chosen = np.dtype(dtype)
    if chosen is None or chosen not in DTYPES.values():  # numpy takes None for float64
        given = Option("dtype", dtype)
        raise ReshardError(
            f"{given} is not one of {', '.join(DTYPES)} (or bf16, fp16, half, fp32, fp64, fp8)", given
        )
    return chosen


def converted_dtypes(
    records: Iterable[TensorRecord], dtype: np.dtype[Any] | None
) -> dict[str, np.dtype[Any]]:
    """The dtype of each tensor in the destination: floats of more than one element are converted."""
    return {
        record.name: dtype
        if dtype is not None and record.dtype in DTYPES.values() and np.prod(record.shape, dtype=object) > 1
        else record.dtype
        for record in records
    }


def unconverted_notes(records: Iterable[TensorRecord], dtype: np.dtype[Any] | None) -> tuple[str, ...]:
    """Which tensors of floats a conversion leaves as they are, and why: a sentence for each reason."""
    kept: dict[str, list[str]] = {}
    for record in records if dtype is not None else ():
        if record.dtype.kind in "biu" or record.dtype == dtype:
            continue
        if record.dtype not in DTYPES.values():
            kept.setdefault(f"of {dtype_name(record.dtype)}, which is not converted", []).append(record.name)
        elif np.prod(record.shape, dtype=object) <= 1:
            kept.setdefault("of one element or none", []).append(record.name)
    return tuple(
        f"not converted to {dtype_name(dtype)}: {counted(len(names), 'tensor')} {why} ({listed(names)})"
        for why, names in kept.items()
        if dtype is not None
    )


def check_no_codes(
    weights: Collection[QuantisedWeight],
    records: Mapping[str, TensorRecord],
    targets: Mapping[str, np.dtype[Any]],
    is_quantised: bool,
) -> None:
    """Refuse to convert codes of quantised weights, or their scales.

    Parameters
    ----------
    records
        The tensors of the checkpoint, by name.
    targets
        The dtype of each tensor that is written.
    is_quantised
        Whether the configuration says that weights are quantised: floats of 8 bits are codes, then, whether
        their scales are found or not.

    Raises
    ------
    ReshardError
        With the weights that are quantised.
    """
    converted = {name for name, dtype in targets.items() if dtype != records[name].dtype}
    if not converted:
        return
    refused = {
        weight.codes.name: f"with {listed([tensor.name for tensor in weight.tensors[1:]], 3)}"
        for weight in weights
        if any(tensor.name in converted for tensor in weight.tensors)
    }
    if is_quantised:
        scales = {tensor.name for weight in weights for tensor in weight.tensors}
        lone = [name for name in converted - scales if records[name].dtype.itemsize == 1]
        refused |= dict.fromkeys(sorted(lone), "by quantization_config")
    if refused:
        codes, how = next(iter(refused.items()))
        patterns = _leaving_out(refused, weights, records)
        option, without = Option("dtype"), Option("select", patterns)
        rest = f", or convert the rest by {without}" if len(patterns) <= MOST_PATTERNS else ""
        raise ReshardError(
            f"quantised weights cannot be converted by {option}: {listed(refused, 3)} "
            f"({dtype_name(records[codes].dtype)} codes {how}); leave {option} out{rest}",
            option,
            without,
            parameter=codes,
        )


def _leaving_out(
    refused: Collection[str], weights: Iterable[QuantisedWeight], records: Collection[str]
) -> list[str]:
    """Patterns that leave out codes and their scales, and nothing else of the checkpoint."""
    belonging = {weight.codes.name: [tensor.name for tensor in weight.tensors] for weight in weights}
    left = {name for codes in refused for name in belonging.get(codes, [codes])}
    kept = [name for name in records if name not in left]

    @cache
    def is_exact(pattern: str) -> bool:
        return not any(fnmatchcase(name, pattern) for name in kept)

    chosen = {next(filter(is_exact, _patterns(name)), pattern_of(name)) for name in left}
    return [f"!{pattern}" for pattern in sorted(chosen)]


def _patterns(name: str) -> tuple[str, ...]:
    """Patterns for a tensor in all layers: of its module, and of itself."""
    module, _, last = pattern_of(name).rpartition(".")
    above, _, inner = module.rpartition(".")
    return (f"*.{inner}.*", f"*.{inner}.{last}") if above else (f"{module}.*",) if module else ()
