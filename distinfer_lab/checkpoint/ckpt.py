"""MindSpore's `.ckpt`: a byte index of one that is there, and the headers of one to be.

    file      message, message, ...                       [crc trailer, 17 bytes]
    message   0a len  value                               (Checkpoint.value = 1)
    value     0a len  tag   12 len  tensor
    tensor    08 dim ...    12 len  type   1a len  content

Protobuf would hold the whole file; the index needs only the headers, read in small windows. A
tensor in several messages one after another, with one tag, is one tensor.

References
----------
The messages are those of MindSpore's checkpoint.proto (see NOTICE).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .entry import CKPT_TYPES, MAX_DIMS, Entry, Piece, TensorSpec, type_name_of

__all__ = ["CRC_BYTES", "CRC_WORD", "headers", "index_ckpt"]

ReadAt = Callable[[int, int], bytes]

CRC_WORD = b"crc_num"
CRC_BYTES = 17
VARINT_BYTES = 10
LONGEST_NAME = 1 << 16
WINDOW_BYTES = 1 << 12
LEN, VARINT = 2, 0


@dataclass(frozen=True)
class _Tensor:
    dims: tuple[int, ...]
    type_name: str
    content: Piece


class _Cursor:
    """Walks through a range of the file; every step is checked against the range's end."""

    def __init__(self, path: str, read_at: ReadAt, start: int, stop: int) -> None:
        self.path, self.at, self.stop = path, start, stop
        self._read_at = read_at
        self._window, self._window_start = b"", 0

    def fail(self, what: str, at: int | None = None) -> CheckpointError:
        offset = self.at if at is None else at
        return CheckpointError(f"{self.path}: at byte {offset}: {what}; the file is damaged or no .ckpt file")

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes from here on."""
        first = self.at - self._window_start
        if first < 0 or first + count > len(self._window):
            self._window = self._read_at(self.at, max(count, min(WINDOW_BYTES, self.stop - self.at)))
            self._window_start, first = self.at, 0
        return self._window[first : first + min(count, self.stop - self.at)]

    def varint(self) -> int:
        value = 0
        data = self.peek(VARINT_BYTES)
        for i, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                self.at += i + 1
                return value & (2**64 - 1)
        raise self.fail(
            "a number does not end" if len(data) == VARINT_BYTES else "the file ends inside a number"
        )

    def field(self) -> tuple[int, int]:
        key = self.varint()
        return key >> 3, key & 7

    def span(self, what: str) -> tuple[int, int]:
        """The start and stop of a length-delimited field; the cursor moves behind it."""
        length = self.varint()
        if length > self.stop - self.at:
            raise self.fail(f"{what} claims {length} bytes, but only {self.stop - self.at} are left")
        start = self.at
        self.at += length
        return start, self.at

    def text(self, what: str) -> str:
        start, stop = self.span(what)
        if stop - start > LONGEST_NAME:
            raise self.fail(f"{what} of {stop - start} bytes; at most {LONGEST_NAME} are accepted", start)
        try:
            self.at = start
            return self.peek(stop - start).decode()
        except UnicodeDecodeError as err:
            raise self.fail(f"{what} is not UTF-8", start) from err
        finally:
            self.at = stop

    def inside(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Step through the fields of a message that lies at start:stop of this range."""
        outer, self.stop, self.at = self.stop, stop, start
        while self.at < stop:
            yield self.field()
        self.stop = outer


def index_ckpt(path: str, read_at: ReadAt, size: int) -> dict[str, Entry]:
    """Name -> entry, in the order of the file; reads headers only.

    Parameters
    ----------
    path
        For messages.
    read_at
        Gives up to `count` bytes at an offset.
    size
        Bytes of the file, without a crc trailer.

    Raises
    ------
    CheckpointError
        At the first thing that is not as it must be, with its offset.
    """
    cursor = _Cursor(path, read_at, 0, size)
    found: dict[str, list[_Tensor]] = {}
    last = ""
    while cursor.at < size:
        begin = cursor.at
        if cursor.field() != (1, LEN):
            raise cursor.fail("no checkpoint entry begins here", begin)
        name, tensor = _value(cursor, *cursor.span("an entry"))
        if name in found and name != last:
            raise cursor.fail(f"{name!r} comes again, after other entries", begin)
        found.setdefault(name, []).append(tensor)
        if (tensor.dims, tensor.type_name) != (found[name][0].dims, found[name][0].type_name):
            raise cursor.fail(
                f"a further part of {name!r} has other dims or another type than its first", begin
            )
        last = name
    if not found:
        raise CheckpointError(f"{path}: the file holds no entry; it is empty or no .ckpt file")
    return {name: _entry(path, name, tensors) for name, tensors in found.items()}


def _value(cursor: _Cursor, start: int, stop: int) -> tuple[str, _Tensor]:
    name: str | None = None
    tensor: _Tensor | None = None
    for field, wire in cursor.inside(start, stop):
        if (field, wire) == (1, LEN) and name is None:
            name = cursor.text("a name")
        elif (field, wire) == (2, LEN) and tensor is None:
            tensor = _tensor(cursor, *cursor.span("a tensor"))
        elif field == 3:
            raise cursor.fail(f"{name!r} is a map tensor, which is not supported", start)
        else:
            raise cursor.fail(f"field {field} of wire type {wire} does not belong into an entry", start)
    if not name or tensor is None:
        raise cursor.fail("an entry has no name" if not name else f"{name!r} has no tensor", start)
    return name, tensor


def _tensor(cursor: _Cursor, start: int, stop: int) -> _Tensor:
    dims: list[int] = []
    type_name: str | None = None
    content: Piece | None = None
    for field, wire in cursor.inside(start, stop):
        if (field, wire) == (1, VARINT) and len(dims) < MAX_DIMS:
            dims.append(cursor.varint())
        elif (field, wire) == (1, LEN):
            first, last = cursor.span("the dims")
            cursor.at = first
            while cursor.at < last and len(dims) < MAX_DIMS:
                dims.append(cursor.varint())
        elif (field, wire) == (2, LEN) and type_name is None:
            type_name = cursor.text("a type")
        elif (field, wire) == (3, LEN) and content is None:
            first, last = cursor.span("the content")
            content = Piece(first, last - first)
        else:
            raise cursor.fail(f"field {field} of wire type {wire} does not belong into a tensor", start)
    if type_name is None or content is None:
        raise cursor.fail("a tensor has no type" if type_name is None else "a tensor has no content", start)
    return _Tensor(tuple(dims), type_name, content)


def _entry(path: str, name: str, tensors: list[_Tensor]) -> Entry:
    first = tensors[0]
    pieces = tuple(t.content for t in tensors)
    nbytes = sum(piece.nbytes for piece in pieces)
    if first.type_name == "str":
        if nbytes % 4:
            raise CheckpointError(
                f"{path}: {name}: a text of {nbytes} bytes; it must be a multiple of 4 (UTF-32)"
            )
        return Entry(name, "str", np.dtype(f"<U{max(nbytes // 4, 1)}"), (), pieces)
    if first.type_name not in CKPT_TYPES:
        raise CheckpointError(
            f"{path}: {name} is of type {first.type_name!r:.40}, which is not supported; "
            f"supported are {', '.join(CKPT_TYPES)} and str"
        )
    dtype = CKPT_TYPES[first.type_name]
    shape = first.dims
    if shape == (0,) and nbytes == dtype.itemsize:
        shape = ()  # how MindSpore 1.3 writes a tensor of no dims
    if math.prod(shape) * dtype.itemsize != nbytes:
        raise CheckpointError(
            f"{path}: {name} has dims {list(shape)} of {first.type_name}, which take "
            f"{math.prod(shape) * dtype.itemsize} bytes, but its content has {nbytes}; the file is damaged"
        )
    return Entry(name, first.type_name, dtype, shape, pieces)


def headers(spec: TensorSpec, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """For each message of a tensor its header, and how many bytes of content follow it.

    Raises
    ------
    CheckpointError
        If MindSpore has no name for the dtype.
    """
    name = spec.name.encode()
    type_name = "str" if spec.text is not None else type_name_of(spec.dtype, CKPT_TYPES)
    if type_name is None:
        raise CheckpointError(
            f"{spec.name}: a .ckpt file cannot hold dtype {spec.dtype}; convert it to one of {', '.join(CKPT_TYPES)}"
        )
    dims: tuple[Any, ...] = (0,) if spec.text is not None else spec.shape
    fixed = b"".join(b"\x08" + _varint(n) for n in dims) + b"\x12" + _delimited(type_name.encode())
    left = spec.nbytes
    while True:
        size = min(left, chunk_bytes)
        tensor = fixed + b"\x1a" + _varint(size)
        value = b"\x0a" + _delimited(name) + b"\x12" + _varint(len(tensor) + size) + tensor
        yield b"\x0a" + _varint(len(value) + size) + value, size
        left -= size
        if not left:
            return


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(data: bytes) -> bytes:
    return _varint(len(data)) + data
