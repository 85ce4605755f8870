"""What a slice file holds: names, dtypes, shapes, and which bytes of the file are whose."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

from ..layout import Box

__all__ = [
    "CKPT_TYPES",
    "SAFETENSORS_TYPES",
    "ByteSource",
    "Entry",
    "Piece",
    "TensorSpec",
    "byte_runs",
    "type_name_of",
]

MAX_DIMS = 64

CKPT_TYPES: dict[str, np.dtype[Any]] = {
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
"""MindSpore's tensor_type -> numpy dtype; "str" is apart."""

SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
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
    "BOOL": np.dtype("?"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
"""safetensors' dtype -> numpy dtype."""


class ByteSource(Protocol):
    """A file whose entries are read as the bytes that they are."""

    def fill(self, name: str, start: int, target: memoryview) -> None:
        """Fill `target` with the content of an entry from byte `start` on."""

    def scatter(self, name: str, start: int, targets: Sequence[memoryview], nbytes: int) -> None:
        """The same for many targets, one after the other, of so many bytes together."""


class Piece(NamedTuple):
    """A run of bytes of a file."""

    offset: int
    nbytes: int


class Entry(NamedTuple):
    """One tensor, or one text, of a slice file."""

    name: str
    type_name: str
    """As the file spells it; "str" is text."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """The runs that make up the content, in order."""

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        return sum(piece.nbytes for piece in self.pieces)

    @property
    def is_text(self) -> bool:
        """Whether the entry is a text and no tensor."""
        return self.type_name == "str"


class TensorSpec(NamedTuple):
    """What will be written: a tensor of this dtype and shape, or a text."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    text: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        if self.text is not None:
            return 4 * len(self.text)
        return math.prod(self.shape) * self.dtype.itemsize


def type_name_of(dtype: np.dtype[Any], names: dict[str, np.dtype[Any]]) -> str | None:
    """The name of a dtype in one of the tables, whatever its byte order; None if it has none."""
    little = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
    return next((name for name, known in names.items() if known == little), None)


def stretches(pieces: Sequence[Piece], start: int, nbytes: int) -> Iterator[Piece]:
    """Where so many bytes of a content from byte `start` on lie in the file, stretch by stretch."""
    for piece in pieces:
        if start >= piece.nbytes:
            start -= piece.nbytes
            continue
        count = min(piece.nbytes - start, nbytes)
        if not count:
            return
        yield Piece(piece.offset + start, count)
        start, nbytes = 0, nbytes - count


def byte_runs(shape: tuple[int, ...], box: Box, itemsize: int) -> tuple[list[int], int]:
    """Where each contiguous run of a box begins in a row-major tensor, in order, and the bytes of each run."""
    whole = len(shape)
    while whole and box.start[whole - 1] == 0 and box.stop[whole - 1] == shape[whole - 1]:
        whole -= 1
    # Dims before `whole - 1` are stepped through; that one is cut; those after it are whole.
    inner = math.prod(shape[whole:]) * itemsize
    if whole == 0:
        return [0], inner
    last = whole - 1
    starts = np.array([box.start[last] * inner], np.int64)
    step = inner
    for dim in range(last, 0, -1):
        step *= shape[dim]
        rows = np.arange(box.start[dim - 1], box.stop[dim - 1], dtype=np.int64) * step
        starts = np.add.outer(rows, starts).ravel()
    return starts.tolist(), (box.stop[last] - box.start[last]) * inner
