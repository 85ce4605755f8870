"""Reading what somebody else wrote: one way to open a path, to parse JSON, and to take a number from it.

::

    path   -> open_regular   a FIFO, a device or a folder is refused; nothing waits
           -> read_file      and no more than a stated number of bytes
    bytes  -> parse_json     UTF-8, no name twice, no deep nesting, no NaN, no lone surrogate
    object -> read_fields    an object, with the fields that it must have
    number -> read_int       between two stated bounds: before it sizes a loop or an allocation
    shape  -> read_shape     each size, their number and their product

All raise `OSError` (with a `strerror` that says what is wrong) or `ValueError`. The caller knows
the file and what it should be, and adds both.
"""

import errno
import json
import marshal
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from .text import shown

__all__ = [
    "LARGEST_SIZE",
    "MAX_AXES",
    "MAX_DIMS",
    "MOST_RANKS",
    "check_shape",
    "open_regular",
    "parse_json",
    "read_fields",
    "read_file",
    "read_int",
    "read_shape",
]

MAX_DIMS = 30
"""Dims of a tensor. numpy 1.26 stops at 32, and some arrays of ours have two dims more than the tensor."""
MAX_AXES = 32
"""Axes of a mesh."""
MOST_RANKS = 1 << 15
"""Ranks of a layout; every rank costs some hundred bytes of plan for each layout."""
LARGEST_SIZE = 1 << 60
"""Bytes of a tensor, and a bound of offsets: sums and products of a few stay within int64."""

DEEPEST = 32
"""Levels of nested lists and objects in JSON; the deepest of our files has 7."""
BYTES_PER_BRACKET = 6
FREE_BRACKETS = 1 << 18
"""An empty list takes 3 bytes of JSON and 64 of memory, so a large file may not consist of them."""
BYTES_PER_VALUE = 16
FREE_VALUES = 400_000
"""A short text or number takes up to 200 bytes of memory as a part of an object."""
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
MOST_SHARED, LONGEST_SHARED = 1 << 16, 1 << 10
"""How many distinct objects are remembered, and of how many bytes each."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, to read it.

    Raises
    ------
    OSError
        If it is something else, or cannot be opened. Unlike `open`, this never waits for the
        other end of a FIFO, and takes no path that the system cannot spell.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as err:  # a NUL or a lone surrogate in it
        raise OSError(errno.EINVAL, "Not a valid path") from err
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises
    ------
    OSError
        As `open_regular`; or if it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, and at most {limit} are accepted")
        return file.read(size)


def parse_json(
    data: bytes,
    *,
    finite: bool = True,
    read_object: Callable[[list[tuple[str, Any]]], Any] | None = None,
    share: bool = False,
) -> Any:
    r"""The value that JSON text in UTF-8 says.

    Parameters
    ----------
    finite
        Refuse NaN and infinities. Python writes them, and some configurations of models have them.
    read_object
        Gives what stands for an object, the innermost first; it has to refuse a name that is there twice.
        By default a dict.
    share
        Small objects that are equal are one dict, which nobody may change then: a strategy says the same of a
        thousand tensors.

    Raises
    ------
    ValueError
        If it is not JSON, or is JSON that two readers may understand differently.

    Examples
    --------
    >>> parse_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the name 'a' is there twice
    >>> parse_json(b'["\\ud800"]')
    Traceback (most recent call last):
    ValueError: a text holds half a surrogate pair
    """
    if data.count(b"[") + data.count(b"{") > FREE_BRACKETS + len(data) // BYTES_PER_BRACKET:
        raise ValueError("it consists of empty lists or objects")
    if read_object is None and data.count(b",") > FREE_VALUES + len(data) // BYTES_PER_VALUE:
        raise ValueError("it has too many short values for its size")
    options: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _float} if finite else {}
    read_object = read_object or (_SharedObjects() if share else _object)
    try:
        found = json.loads(data.decode("utf-8-sig"), object_pairs_hook=read_object, **options)
        if not _is_shallow(data) and isinstance(found, dict | list):
            _check_depth(found)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as err:
        raise ValueError(f"it is not UTF-8 text (byte {err.start})") from None
    except UnicodeEncodeError:
        raise ValueError("a text holds half a surrogate pair") from None
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    return found


def _is_shallow(data: bytes) -> bool:
    """Whether brackets are nested so little that nothing recurses too deeply; brackets within texts count, too."""
    brackets = data.translate(None, NOT_BRACKETS)
    for _ in range(DEEPEST):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"its lists and objects are nested more than {DEEPEST} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {shown(twice)} is there twice")
    return found


class _SharedObjects:
    """Reads objects as dicts, of which small ones that are equal are one."""

    def __init__(self) -> None:
        self._known: dict[bytes, dict[str, Any]] = {}

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if any(isinstance(value, dict) for _, value in pairs):
            return _object(pairs)
        key = marshal.dumps(pairs, 2)  # which tells 1 from 1.0 and True, as equality does not
        found = self._known.get(key)
        if found is None:
            found = _object(pairs)
            if len(self._known) < MOST_SHARED and len(key) <= LONGEST_SHARED:
                self._known[key] = found
        return found


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits:.40} is too large")
    return value


def read_fields(value: Any, name: str, *required: str) -> dict[str, Any]:
    """The value, if it is an object of JSON with these fields.

    Raises
    ------
    ValueError
        If it is not; the text names the first field that it lacks.

    Examples
    --------
    >>> read_fields({"a": 1}, "the tensor", "a", "shape")
    Traceback (most recent call last):
    ValueError: the tensor lacks the field 'shape'
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}; it should be an object")  # noqa: TRY004 - of a file
    lacking = next((field for field in required if field not in value), None)
    if lacking is not None:
        raise ValueError(f"{name} lacks the field {lacking!r}")
    return value


def read_int(value: Any, name: str, low: int = 0, high: int = LARGEST_SIZE) -> int:
    """The value, if it is an integer (and not true or false) from `low` to `high`, both included.

    Raises
    ------
    ValueError
        If it is not; the text names it.

    Examples
    --------
    >>> read_int(3, "rank", 0, 7)
    3
    >>> read_int(2.0, "rank", 0, 7)
    Traceback (most recent call last):
    ValueError: rank is 2.0; it should be an integer from 0 to 7
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {shown(value)}; it should be an integer from {low} to {high}")
    return value


def read_shape(value: Any, name: str, itemsize: int = 1) -> tuple[int, ...]:
    """The shape that a list of sizes gives.

    Raises
    ------
    ValueError
        If it is not a list of sizes, or no array can have that shape.
    """
    if not isinstance(value, list | tuple) or not all(type(n) is int for n in value):
        raise ValueError(f"{name} is {shown(value)}; it should be a list of sizes")
    check_shape(value, name, itemsize)
    return tuple(value)


def check_shape(shape: Sequence[int], name: str, itemsize: int = 1) -> None:
    """Refuse a shape that no array can have; a size of 0 does not excuse the others.

    Raises
    ------
    ValueError
        If it has too many dims, a size below 0, or sizes whose product is too large.
    """
    if len(shape) > MAX_DIMS:
        raise ValueError(f"{name} has {len(shape)} dims; at most {MAX_DIMS} are supported")
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} is {shown(list(shape))}; no size may be below 0")
    if math.prod(n or 1 for n in shape) * itemsize > LARGEST_SIZE:
        raise ValueError(f"{name} is {shown(list(shape))}, which is larger than any array")
