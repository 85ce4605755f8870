"""The dtypes that files name, and numpy's for them; elements that are smaller than a byte come in units.

::

    I8, BF16, F8_E4M3 ...   an element is whole bytes     a numpy dtype, the shape as the file has it
    F4, F6_E2M3, F6_E3M2    elements share their bytes    a unit of whole bytes, the shape in units

    F4 [8, 4]   ->   F4[2] [8, 2]      two elements in a byte: 16 units of 1 byte
    F6_E2M3 [8, 4]   F6_E2M3[4] [8, 1]     four elements in three bytes
    F4 [4, 2, 3]     F4[2,3] [4, 1, 1]     rows of three do not end on a byte, pairs of rows do

A unit is never cut, so each cut falls between bytes; a dim that cannot be cut between units cannot be shared out, and
the layout says which. torch's float4_e2m1fn_x2 counts F4 in the same units.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

__all__ = [
    "CKPT_TYPES",
    "SAFETENSORS_TYPES",
    "SUB_BYTE_BITS",
    "Stored",
    "as_stored",
    "dtype_name",
    "in_units",
    "type_name_of",
    "unreadable_dtype",
]

DType = np.dtype[Any]

CKPT_TYPES: Mapping[str, DType] = MappingProxyType(
    {
        "Int8": np.dtype("<i1"),
        "UInt8": np.dtype("<u1"),
        "Int16": np.dtype("<i2"),
        "UInt16": np.dtype("<u2"),
        "Int32": np.dtype("<i4"),
        "UInt32": np.dtype("<u4"),
        "Int64": np.dtype("<i8"),
        "UInt64": np.dtype("<u8"),
        "Float16": np.dtype("<f2"),
        "Float32": np.dtype("<f4"),
        "Float64": np.dtype("<f8"),
        "Bool": np.dtype("?"),
        "BFloat16": np.dtype(ml_dtypes.bfloat16),
    }
)
"""MindSpore's tensor_type -> numpy dtype; "str" is apart."""

SAFETENSORS_TYPES: Mapping[str, DType] = MappingProxyType(
    {
        "I8": np.dtype("<i1"),
        "U8": np.dtype("<u1"),
        "I16": np.dtype("<i2"),
        "U16": np.dtype("<u2"),
        "I32": np.dtype("<i4"),
        "U32": np.dtype("<u4"),
        "I64": np.dtype("<i8"),
        "U64": np.dtype("<u8"),
        "F16": np.dtype("<f2"),
        "F32": np.dtype("<f4"),
        "F64": np.dtype("<f8"),
        "C64": np.dtype("<c8"),
        "BOOL": np.dtype("?"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
        "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
        "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
        "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    }
)
"""safetensors' dtype -> numpy dtype, where an element is whole bytes."""

SUB_BYTE_BITS: Mapping[str, int] = MappingProxyType({"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6})
"""safetensors' dtypes of less than a byte -> bits of an element."""

_UNIT = re.compile(r"(\w+)\[([\d,]+)\]")


class Stored(NamedTuple):
    """A dtype and a shape, as numpy has them or as a file does."""

    dtype: Any
    """A numpy dtype, or the file's name of one."""
    shape: tuple[int, ...]


def in_units(type_name: str, shape: Sequence[int]) -> Stored | None:
    """The dtype and the shape, in units, of a tensor whose elements are smaller than a byte.

    The unit is the smallest block of trailing dims, a part of the first of them, that is whole bytes.
    None: the tensor as a whole is not.

    Examples
    --------
    >>> in_units("F4", [8, 4]).shape, dtype_name(in_units("F4", [4, 2, 3]).dtype)
    ((8, 2), 'F4[2,3]')
    """
    bits, units = SUB_BYTE_BITS[type_name], list(shape)
    block: list[int] = []
    for dim in reversed(range(len(units))):
        count = 8 // math.gcd(8, bits)
        if units[dim] % count == 0:
            units[dim] //= count
            return Stored(_unit(type_name, (count, *block), bits * count // 8), tuple(units))
        block.insert(0, units[dim])
        bits *= units[dim]
        units[dim] = 1
    return None


def _unit(type_name: str, block: Sequence[int], nbytes: int) -> DType:
    """The dtype of a unit; its field's name says what the unit holds, so that unlike units are unlike dtypes."""
    return np.dtype([(f"{type_name}[{','.join(map(str, block))}]", f"V{nbytes}")])


def unreadable_dtype(type_name: str) -> DType:
    """What stands for a dtype that is not supported: nothing converts it, and it is equal to itself only."""
    return np.dtype([(type_name or "?", "V1")])


@lru_cache(maxsize=4096)
def dtype_name(dtype: DType) -> str:
    """The name of a dtype for people and for manifests; unlike dtypes have unlike names.

    >>> dtype_name(np.dtype("<f4")), dtype_name(in_units("F6_E3M2", (4,)).dtype)
    ('float32', 'F6_E3M2[4]')
    """
    return dtype.names[0] if dtype.names else str(dtype)


def as_stored(dtype: DType, shape: Sequence[int]) -> Stored | None:
    """The name and the shape that safetensors has for a dtype and a shape; None if it has none.

    >>> as_stored(np.dtype("<f4"), (8, 2))
    Stored(dtype='F32', shape=(8, 2))
    >>> as_stored(*in_units("F4", (4, 2, 3)))
    Stored(dtype='F4', shape=(4, 2, 3))
    """
    unit = _UNIT.fullmatch(dtype.names[0]) if dtype.names else None
    if unit is None or unit[1] not in SUB_BYTE_BITS:
        name = type_name_of(dtype, SAFETENSORS_TYPES)
        return None if name is None else Stored(name, tuple(shape))
    block = [int(n) for n in unit[2].split(",")]
    block = [1] * (len(shape) - len(block)) + block
    return Stored(unit[1], tuple(n * size for n, size in zip(shape, block, strict=True)))


def type_name_of(dtype: DType, names: Mapping[str, DType]) -> str | None:
    """The name of a dtype in one of the tables, whatever its byte order; None if it has none."""
    little = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
    return next((name for name, known in names.items() if known == little), None)
