"""safetensors, one file per rank: a byte index of one that is there, and the header of one to be.

::

    8 bytes  little-endian length of the header
    header   {"name": {"dtype": "F32", "shape": [..], "data_offsets": [a, b]}, "__metadata__": {..}}
    data     the tensors, little-endian, row-major

References
----------
The format is described at https://github.com/huggingface/safetensors.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dtypes import (
    SAFETENSORS_TYPES,
    SUB_BYTE_BITS,
    Stored,
    as_stored,
    dtype_name,
    in_units,
    unreadable_dtype,
)
from ..errors import CheckpointError
from ..text import shown
from ..untrusted import LARGEST_SIZE, parse_json
from .entry import Kind, TensorSpec, content_bytes
from .entry_table import EntryTable
from .file_format import FileIndex, FileLayout, ReadAt
from .header_columns import header_columns

__all__ = ["LONGEST_HEADER", "METADATA", "TEXT_KEY", "Safetensors", "header", "index_safetensors"]

LONGEST_HEADER = 100_000_000
"""As the safetensors library has it."""
METADATA = "__metadata__"
TEXT_KEY = "text:"
AGAIN = "copy or download it again"
LARGEST_UNIT = 16 << 10
"""A unit of elements that share bytes must fit into the smallest buffer, more than once."""
ANY_SIZE = -1
"""In place of the size of a content that is not known."""
TENSOR = ("a tensor",)
"""What stands for the description of a tensor that was entered."""


class Safetensors:
    """safetensors, as a `FileFormat`."""

    name = "safetensors"
    title = "safetensors"
    head = rb".{8}\{\s*\""
    has_checksum = False

    def index(self, path: str, read_at: ReadAt, size: int) -> FileIndex:
        return index_safetensors(path, read_at, size)

    def problem(self, spec: TensorSpec) -> str:
        return "safetensors reserves this name" if spec.name == METADATA and spec.text is None else ""

    def lay_out(
        self, specs: Sequence[TensorSpec], chunk_bytes: int, metadata: Mapping[str, str] | None
    ) -> FileLayout:
        head, ordered = header(specs, metadata)
        table, at = EntryTable(), len(head)
        for spec in ordered:
            nbytes = spec.nbytes
            table.add(spec.name, table.number_of(Kind("", spec.dtype, spec.shape)), at, nbytes)
            at += nbytes
        return FileLayout([(0, head)], table, at)


def index_safetensors(path: str, read_at: ReadAt, size: int) -> FileIndex:
    """The entries and texts of a file; of one that is cut, too, if its header is whole.

    Raises
    ------
    CheckpointError
        If the header is not as it must be.
    """
    length = int.from_bytes(read_at(0, 8), "little")
    if size < 10 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
        raise CheckpointError(
            f"{path}: a header of {length} bytes in a file of {size}; the file is cut or no safetensors file",
            file=path,
        )
    if (common := _Index(path, 8 + length, size).indexed_common(read_at(8, length))) is not None:
        return common
    index = _Index(path, 8 + length, size)
    try:
        found = parse_json(read_at(8, length), read_object=index.item)
    except ValueError as err:
        raise CheckpointError(
            f"{path}: the header is not JSON ({err}); no safetensors file", of=err, file=path
        ) from err
    if not isinstance(found, tuple):
        raise CheckpointError(f"{path}: the header is not a JSON object; no safetensors file", file=path)
    return index.indexed(found)


class _Index:
    """Takes a header apart while it is parsed: of a tensor only three numbers stay.

    The parser calls `item` with the pairs of every object, the innermost first. What describes a tensor is entered
    and replaced by a mark, so a header of a million tensors is never there as objects of Python. All else is kept,
    and `indexed` says by name what is wrong with it.
    """

    def __init__(self, path: str, data: int, size: int) -> None:
        self._path, self._data, self._size = path, data, size
        self._table = EntryTable()
        self._kinds: dict[tuple[Any, ...], tuple[int, int | None]] = {}
        self._marked = array("q"), array("q"), array("q")

    def item(self, pairs: list[tuple[str, Any]]) -> Any:
        """A mark for the description of a tensor; any other object as it is."""
        if len(pairs) == 3 and (found := self._description(dict(pairs))):
            for column, number in zip(self._marked, found, strict=True):
                column.append(number)
            return TENSOR
        return tuple(pairs)  # which no array of JSON is

    def _description(self, item: Mapping[str, Any]) -> tuple[int, int, int] | None:
        """The kind of a tensor, where its content begins in the file, and its bytes; None if it is not right."""
        try:
            type_name, shape, (begin, end) = item["dtype"], item["shape"], item["data_offsets"]
            if not all(type(n) is int for n in shape):  # 2.0 and true are found as 2 and 1
                return None
            kind, nbytes = self._kinds.get((type_name, *shape)) or self._kind(type_name, shape)
        except (KeyError, TypeError, ValueError):
            return None
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= LARGEST_SIZE:
            return None
        return None if nbytes not in (None, end - begin) else (kind, self._data + begin, end - begin)

    def _kind(self, type_name: Any, shape: Any) -> tuple[int, int | None]:
        """The number of a kind, and the bytes of its content; None: any number of bytes.

        Raises
        ------
        ValueError
            If it is not a dtype and a shape.
        """
        if not isinstance(type_name, str) or not _are_sizes(shape):
            raise ValueError
        kind = _kind(type_name, tuple(shape))
        number = self._table.number_of(kind)
        nbytes = None if kind.problem else content_bytes(kind.shape, kind.dtype.itemsize)
        self._kinds[type_name, *shape] = number, nbytes
        return number, nbytes

    def indexed_common(self, data: bytes) -> FileIndex | None:
        """The entries and the texts of a header that is spelled as writers do and right; None of any other."""
        sizes: dict[int, int] = {}

        def number(type_name: str, shape: list[int]) -> int:
            kind, nbytes = self._kind(type_name, shape)
            sizes[kind] = ANY_SIZE if nbytes is None else nbytes
            return kind

        try:
            found = header_columns(data.decode(), number)
            if found is None or METADATA in found.names:
                return None
            texts = _texts(parse_json(found.metadata.encode(), read_object=self.item))
        except ValueError:
            return None
        if self._marked[0]:  # a tensor in the metadata
            return None
        begin, end, kinds = (np.array(c, np.int64) for c in (found.begin, found.end, found.kinds))
        wanted = np.array([sizes.get(kind, ANY_SIZE) for kind in range(max(sizes) + 1)])[kinds]
        if ((end - begin != wanted) & (wanted != ANY_SIZE) | (begin > end)).any():
            return None
        self._table.fill(found.names, found.kinds, self._data + begin, end - begin)
        return self._completed(texts)

    def indexed(self, found: Sequence[tuple[str, Any]]) -> FileIndex:
        """The entries and the texts of a parsed header."""
        texts: dict[str, str] | None = None
        marked = zip(*self._marked, strict=True)
        for name, item in found:
            if name == METADATA and texts is None:
                texts = _texts(item)
                continue
            described = next(marked, None) if item is TENSOR else self._described(name, item)
            if described is None or not self._table.add(name, *described):
                raise self._fail(name, "the header has it twice")
        if next(marked, None) is not None:
            raise CheckpointError(
                f"{self._path}: the header describes a tensor within another; the file is damaged",
                file=self._path,
            )
        return self._completed(texts or {})

    def _completed(self, texts: Mapping[str, str]) -> FileIndex:
        cut = self._cut(self._tiled_end())
        self._add_texts(texts)
        return FileIndex(self._table, texts, cut)

    def _fail(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: {name:.200}: {what}; the file is damaged", file=self._path, parameter=name
        )

    def _described(self, name: str, pairs: Any) -> tuple[int, int, int]:
        """As `_description`, of an object that `item` did not take: it has further keys, or is wrong."""
        item = dict(pairs) if isinstance(pairs, tuple) else {}
        if len(item) < len(pairs if isinstance(pairs, tuple) else ()):
            raise self._fail(name, "its header entry has a field twice")
        if not {"dtype", "shape", "data_offsets"} <= item.keys():
            raise self._fail(name, "its header entry lacks dtype, shape or data_offsets")
        shape, offsets = item["shape"], item["data_offsets"]
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._fail(
                name, f"shape {shown(shape)} or data_offsets {shown(offsets)} are not lists of sizes"
            )
        if not isinstance(item["dtype"], str):
            raise self._fail(name, f"dtype {item['dtype']!r:.40} is not a text")
        found = self._description(item)
        if found is None:
            try:
                takes = f"{self._kind(item['dtype'], shape)[1]} bytes"
            except ValueError:  # elements of less than a byte
                takes = "a part of a byte"
            raise self._fail(
                name,
                f"shape {shown(shape)} of {item['dtype']:.40} takes {takes}; its data_offsets {offsets} do not "
                "fit that",
            )
        return found

    def _tiled_end(self) -> int:
        """Where the last content ends; they lie one after another, without an overlap or a hole."""
        offset = np.frombuffer(self._table.offset, np.int64)
        nbytes = np.frombuffer(self._table.nbytes, np.int64)
        order = np.lexsort((nbytes, offset))
        ends = self._data + np.cumsum(nbytes[order])
        wrong = np.flatnonzero(offset[order] != ends - nbytes[order])
        if len(wrong):
            first = wrong[0]
            row = int(order[first])
            raise CheckpointError(
                f"{self._path}: {list(self._table)[row]:.200}: its data begins at byte {offset[row]}, "
                f"not {ends[first] - nbytes[row]}; tensors overlap or leave a hole",
                file=self._path,
            )
        return int(ends[-1] if len(ends) else self._data)

    def _cut(self, end: int) -> str:
        """How much a file lacks of the contents, which end at `end`; the tensors that are not whole say so, too.

        Raises
        ------
        CheckpointError
            If bytes follow that nothing owns.
        """
        left = self._size - end
        if left > 0:
            raise CheckpointError(
                f"{self._path}: {left} bytes follow the last tensor; the file is damaged", file=self._path
            )
        if not left:
            return ""
        cut = f"the file is cut: its last {-left} bytes are missing (it has {self._size} of {end})"
        for row, name in enumerate(list(self._table)):
            begin, nbytes = self._table.offset[row], self._table.nbytes[row]
            if nbytes and begin + nbytes > self._size:
                self._table.change(name, self._table.kind_of(name)._replace(problem=f"{cut}; {AGAIN}"))
        return cut

    def _add_texts(self, texts: Mapping[str, str]) -> None:
        kind = self._table.number_of(Kind("str", np.dtype("<U1"), ()))
        for name in texts:
            if not self._table.add(name, kind, self._data, 0):
                raise self._fail(name, "it is a tensor, and a text of the metadata, too")


def _kind(type_name: str, shape: tuple[int, ...]) -> Kind:
    """The kind of a tensor; one that is not supported says so."""
    if type_name in SUB_BYTE_BITS:
        found = in_units(type_name, shape)
        if found is None:
            raise ValueError
        stored, problem = found, ""
        if found.dtype.itemsize > LARGEST_UNIT:
            problem = f"rows of shape {list(shape)} of {type_name} do not end on whole bytes, which is not supported"
    elif type_name in SAFETENSORS_TYPES:
        stored, problem = Stored(SAFETENSORS_TYPES[type_name], shape), ""
    else:
        stored = Stored(unreadable_dtype(f"{type_name:.40}"), shape)
        problem = f"its dtype {type_name!r:.40} is not supported"
    if content_bytes(stored.shape, stored.dtype.itemsize) is None:
        problem = f"its shape {list(shape)!r:.200} is larger than an array can be, or has too many dims"
    return Kind(type_name, stored.dtype, stored.shape, problem)


def _texts(metadata: Any) -> dict[str, str]:
    """The texts that we keep in the metadata; anything else there is not for us."""
    pairs = metadata if isinstance(metadata, tuple) and metadata != TENSOR else ()
    texts = (pair for pair in pairs if pair[0].startswith(TEXT_KEY) and isinstance(pair[1], str))
    return {key.removeprefix(TEXT_KEY): text for key, text in texts}


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in value)


def header(
    specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, list[TensorSpec]]:
    """The bytes before the data, and the tensors in the order of their data: big items first.

    `metadata` is what the file says of itself; by default that its format is MindSpore's.

    Raises
    ------
    CheckpointError
        If safetensors has no name for a dtype.
    """
    tensors = sorted((s for s in specs if s.text is None), key=lambda s: (-s.dtype.itemsize, s.name))
    texts = {TEXT_KEY + s.name: s.text for s in specs if s.text is not None}
    write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    found = ['{"__metadata__":' + write(dict(metadata or {"format": "ms"}) | texts)]
    kinds: dict[tuple[np.dtype[Any], tuple[int, ...]], str] = {}
    at = 0
    for spec in tensors:
        kind = kinds.get((spec.dtype, spec.shape))
        if kind is None:
            kind = kinds[spec.dtype, spec.shape] = write(_described(spec)).removesuffix("}")
        end = at + spec.nbytes
        found.append(f'{write(spec.name)}:{kind},"data_offsets":[{at},{end}]}}')
        at = end
    text = (",".join(found) + "}").encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, tensors


def _described(spec: TensorSpec) -> dict[str, Any]:
    """What the header says of all tensors of one dtype and shape."""
    stored = as_stored(np.dtype(spec.dtype), spec.shape)
    if stored is None:
        raise CheckpointError(
            f"{spec.name}: a safetensors file cannot hold dtype {dtype_name(spec.dtype)}; convert it to one of "
            f"{', '.join(SAFETENSORS_TYPES)}",
            parameter=spec.name,
        )
    return {"dtype": stored.dtype, "shape": list(stored.shape)}
