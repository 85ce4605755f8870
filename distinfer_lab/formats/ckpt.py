"""MindSpore's `.ckpt`: a byte index of an existing file, and the headers of a new one.

::

    file      message, message, ...                       [crc trailer, 17 bytes]
    message   0a len  value                               (Checkpoint.value = 1)
    value     0a len  tag   12 len  tensor
    tensor    08 dim ...    12 len  type   1a len  content

Protobuf would hold the whole file; the index needs only the headers, read in small windows. A
tensor in several messages one after another, with one tag, is one tensor. Two ways lead through a file: messages
spelled as every writer does are matched by two regular expressions (2 us each); any other goes field by field.

References
----------
The messages are those of MindSpore's checkpoint.proto (see NOTICE).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import CKPT_TYPES, dtype_name, type_name_of, unreadable_dtype
from ..errors import CheckpointError, Option
from .entry import Kind, Piece, TensorSpec, content_bytes
from .entry_table import EntryTable
from .file_format import FileIndex, FileLayout, ReadAt

__all__ = ["CRC_BYTES", "CRC_WORD", "Ckpt", "headers", "index_ckpt"]

CRC_WORD = b"crc_num"
CRC_BYTES = 17
VARINT_BYTES = 10
LONGEST_NAME = 1 << 16
LARGEST_TEXT = 64 << 20
WINDOW_BYTES = 1 << 12
LARGEST_WINDOW = 1 << 20
MOST_SIZES = 64
MOST_KNOWN = 1 << 16
FREE_SINGLE, BYTES_PER_SINGLE = 1 << 14, 512
"""Messages that are read field by field, some 50 us each; parts of a large tensor have MiB each."""
MAP_TENSOR = "map tensor"
LEN, VARINT = 2, 0

_VARINT = rb"([\x80-\xff]{0,9}[\x00-\x7f])"
_DIM = rb"\x08[\x80-\xff]{0,9}[\x00-\x7f]"
ENTRY_HEAD = re.compile(rb"\x0a" + _VARINT + rb"\x0a" + _VARINT, re.DOTALL)
TENSOR_HEAD = re.compile(
    rb"\x12" + _VARINT + rb"((?:" + _DIM + rb")*\x12[\x00-\x7f]\w{1,32})\x1a" + _VARINT, re.DOTALL
)
DIM, DIMS = re.compile(_DIM), re.compile(rb"(?:" + _DIM + rb")*")
"""How writers spell an entry: its fields in order, each once."""


class Ckpt:
    """MindSpore's `.ckpt`, as a `FileFormat`."""

    name = "ckpt"
    title = "MindSpore .ckpt"
    head = rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x0a[\x80-\xff]{0,2}[\x00-\x7f][ -~]{1,500}\x12"
    has_checksum = True

    def index(self, path: str, read_at: ReadAt, size: int) -> FileIndex:
        return FileIndex(index_ckpt(path, read_at, size), {})

    def problem(self, spec: TensorSpec) -> str:
        length = len(spec.name.encode())
        if length > LONGEST_NAME:
            return f"its name takes {length} bytes, and a .ckpt file holds at most {LONGEST_NAME}"
        if spec.text is not None and spec.nbytes > LARGEST_TEXT:
            return f"its text takes {spec.nbytes} bytes, and at most {LARGEST_TEXT} are supported"
        return ""

    def lay_out(
        self, specs: Sequence[TensorSpec], chunk_bytes: int, metadata: Mapping[str, str] | None
    ) -> FileLayout:
        frame: list[tuple[int, bytes]] = []
        table = EntryTable()
        at = parts = 0
        for spec in specs:
            content = b"" if spec.text is None else spec.text.encode("utf-32-le")
            kind = Kind("" if spec.text is None else "str", spec.dtype, spec.shape)
            for part, (head, size) in enumerate(headers(spec, chunk_bytes)):
                frame.append((at, head + content[:size]))
                content = content[size:]
                if part:
                    parts += 1
                    table.extend(spec.name, Piece(at + len(head), size))
                else:
                    table.add(spec.name, table.number_of(kind), at + len(head), size)
                at += len(head) + size
        if parts > FREE_SINGLE // 2 + at // BYTES_PER_SINGLE:
            given, least = Option("chunk_bytes", chunk_bytes), Option("chunk_bytes", BYTES_PER_SINGLE)
            raise CheckpointError(
                f"{given} cuts tensors into {parts} tiny parts, too many to be read again; use {least} or more",
                given,
                least,
            )
        return FileLayout(frame, table, at)


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
        return CheckpointError(
            f"{self.path}: at byte {offset}: {what}; the file is damaged or no .ckpt file", file=self.path
        )

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


def index_ckpt(path: str, read_at: ReadAt, size: int) -> EntryTable:
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
    index = _Index(path)
    window_bytes, single = WINDOW_BYTES, 0
    while cursor.at < size:
        window = read_at(cursor.at, min(window_bytes, size - cursor.at))
        passed = index.add_common(window, cursor.at, size)
        # Many small entries are read in large windows; large ones are passed over, their headers alone are read.
        window_bytes = min(4 * window_bytes, LARGEST_WINDOW) if 0 < passed < len(window) else WINDOW_BYTES
        cursor.at += passed
        if not passed:
            single += 1
            if single > FREE_SINGLE + size // BYTES_PER_SINGLE:
                raise cursor.fail(
                    f"{single} entries are in parts that are tiny, or in a spelling of their own"
                )
            _add_any(cursor, index)
    index.close()
    return index.table


def _add_any(cursor: _Cursor, index: "_Index") -> None:
    """Add the message at the cursor, whatever the order and the spelling of its fields."""
    begin = cursor.at
    if cursor.field() != (1, LEN):
        raise cursor.fail("no checkpoint entry begins here", begin)
    name, tensor = _value(cursor, *cursor.span("an entry"))
    wrong = index.add(name, tensor)
    if wrong:
        raise cursor.fail(wrong, begin)


class _Index:
    """Puts entries together from their messages: those of one name, one after another, are one entry."""

    def __init__(self, path: str) -> None:
        self.path, self.table = path, EntryTable()
        self._open: tuple[str, str, tuple[int, ...], int] | None = None
        """Name, type, dims and bytes of the entry that a further message may go on with."""
        self._numbers = _Numbers()
        self._known: dict[tuple[bytes, int], tuple[int, str, tuple[int, ...]]] = {}

    def add(self, name: str, tensor: "_Tensor") -> str:
        """Add a message; what is wrong with it, or ""."""
        if self._open is not None and name == self._open[0]:
            _, type_name, dims, nbytes = self._open
            if (tensor.type_name, tensor.dims) != (type_name, dims):
                return f"a further part of {name!r:.200} has other dims or another type than its first"
            self.table.extend(name, tensor.content)
            self._open = name, type_name, dims, nbytes + tensor.content.nbytes
            return ""
        self.close()
        if not self.table.add(name, 0, *tensor.content):
            return f"{name!r:.200} comes again, after other entries"
        self._open = name, tensor.type_name, tensor.dims, tensor.content.nbytes
        return ""

    def close(self) -> None:
        """No message goes on with the last entry: its kind is certain."""
        if self._open is None:
            return
        name, type_name, dims, nbytes = self._open
        found = _kind(type_name, dims, nbytes)
        if isinstance(found, str):
            raise CheckpointError(
                f"{self.path}: {name:.200}: {found}; the file is damaged", file=self.path, parameter=name
            )
        self.table.change(name, found)
        self._open = None

    def add_common(self, window: bytes, start: int, size: int) -> int:
        """Add the messages at the beginning of a window that are spelled as writers do, each a whole entry.

        Parameters
        ----------
        start
            Where the window begins in the file.
        size
            Bytes of the file.

        Returns
        -------
        Bytes of the messages; the last may end behind the window. 0 where the first is not of that kind.
        """
        at, known, number, add = 0, self._known, self._numbers, self.table.add
        last = None
        while head := ENTRY_HEAD.match(window, at):
            value_size, name_size = head.groups()
            first = head.end()
            # A regular expression takes no start above int64, so what a damaged number says is cut to the window.
            body = TENSOR_HEAD.match(window, min(first + number[name_size], len(window)))
            if not body:
                break
            tensor_size, form, content_size = body.groups()
            content, nbytes, end = body.end(), number[content_size], head.end(1) + number[value_size]
            # Both lengths end where the content does, and that is within the file.
            if not content + nbytes == body.end(1) + number[tensor_size] == end <= size - start:
                break
            found = known.get((form, nbytes)) or self._learn(form, nbytes)
            try:
                name = window[first : body.start()].decode()
            except UnicodeDecodeError:
                break
            if not found or not name or len(name) > LONGEST_NAME:
                break
            if not last:
                if self._open is not None and self._open[0] == name:
                    break
                self.close()
            if not add(name, found[0], start + content, nbytes):
                break
            at, last = end, (name, found, nbytes)
        if last:
            self._open = last[0], last[1][1], last[1][2], last[2]
        return at

    def _learn(self, form: bytes, nbytes: int) -> tuple[int, str, tuple[int, ...]] | None:
        """The kind that dims and type, as bytes, and the size of the content stand for; None: it is not whole."""
        dims, type_name = DIMS.match(form), form.rpartition(b"\x12")[2][1:].decode()
        assert dims is not None
        sizes = tuple(_number(dim[1:]) for dim in DIM.findall(dims[0]))
        kind = _kind(type_name, sizes, nbytes)
        if isinstance(kind, str) or form[dims.end() + 1] != len(type_name) or len(sizes) > MOST_SIZES:
            return None
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        found = self._known[form, nbytes] = self.table.number_of(kind), type_name, sizes
        return found


class _Numbers(dict[bytes, int]):
    """Varints by their bytes: most are short, and come again."""

    def __missing__(self, data: bytes) -> int:
        if len(self) >= MOST_KNOWN:
            self.clear()
        found = self[data] = _number(data)
        return found


def _number(data: bytes) -> int:
    """A varint."""
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * i)
    return value & (2**64 - 1)


def _value(cursor: _Cursor, start: int, stop: int) -> tuple[str, _Tensor]:
    name: str | None = None
    tensor: _Tensor | None = None
    for field, wire in cursor.inside(start, stop):
        if (field, wire) == (1, LEN) and name is None:
            name = cursor.text("a name")
        elif (field, wire) == (2, LEN) and tensor is None:
            tensor = _tensor(cursor, *cursor.span("a tensor"))
        elif (field, wire) == (3, LEN) and tensor is None:
            first, last = cursor.span("a map tensor")
            tensor = _Tensor((), MAP_TENSOR, Piece(first, last - first))
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
        if (field, wire) == (1, VARINT) and len(dims) < MOST_SIZES:
            dims.append(cursor.varint())
        elif (field, wire) == (1, LEN):
            first, last = cursor.span("the dims")
            cursor.at = first
            while cursor.at < last and len(dims) < MOST_SIZES:
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


def _kind(type_name: str, dims: tuple[int, ...], nbytes: int) -> Kind | str:
    """The kind of an entry with a content of so many bytes, or why there is none."""
    if type_name == "str":
        if nbytes % 4:
            return f"a text of {nbytes} bytes; it must be a multiple of 4 (UTF-32)"
        problem = f"its text of {nbytes} bytes is above {LARGEST_TEXT}, which is not supported"
        return Kind("str", np.dtype("<U1"), (), problem if nbytes > LARGEST_TEXT else "")
    if type_name not in CKPT_TYPES:
        return Kind(
            type_name, unreadable_dtype(type_name), dims, f"its type {type_name!r:.40} is not supported"
        )
    dtype = CKPT_TYPES[type_name]
    if dims == (0,) and nbytes == dtype.itemsize:
        dims = ()  # how MindSpore 1.3 writes a tensor of no dims
    needed = content_bytes(dims, dtype.itemsize)
    if needed is None:
        return Kind(type_name, dtype, dims, f"its dims {list(dims)} are larger than an array can have")
    if needed != nbytes:
        return f"dims {list(dims)} of {type_name} take {needed} bytes, but its content has {nbytes}"
    return Kind(type_name, dtype, dims)


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
        other, without = Option("format", "safetensors"), Option("select", [f"!{spec.name}"])
        raise CheckpointError(
            f"{spec.name}: a .ckpt file cannot hold dtype {dtype_name(spec.dtype)}, only {', '.join(CKPT_TYPES)}; "
            f"write {other}, or leave it out by {without}",
            other,
            without,
            parameter=spec.name,
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
