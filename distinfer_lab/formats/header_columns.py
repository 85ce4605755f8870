"""The header of a safetensors file as columns, if it is spelled as writers spell it: a tenth of what parsing takes.

::

    {"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,8],"data_offsets":[0,64]},"b.weight":{...}}

Whatever is spelled otherwise is for a parser of JSON, and so are all errors.
"""

import re
from array import array
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["HeaderColumns", "header_columns"]

_NUMBER = "(0|[1-9][0-9]{0,17})"
_FORM = r'"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\]'
_ENTRY = re.compile(
    rf'"([^"\\\x00-\x1f]*)":{{({_FORM.replace("(", "(?:")}),"data_offsets":\[{_NUMBER},{_NUMBER}\]}}[,}}]'
)
_TEXT = r'"(?:[^"\\]|\\.)*+"'
_TEXTS = re.compile(rf"{{(?:\s*+{_TEXT}\s*+:\s*+{_TEXT}\s*+,?+)*+\s*+}}")
_SPELLING = len('"":{,"data_offsets":[,]},')
"""Characters of an entry beside its name, its form and its offsets."""
METADATA_FIRST = '{"__metadata__":'
CHARACTERS = 1 << 18
"""What is matched at one time: what a match gives takes several times the text."""


class HeaderColumns(NamedTuple):
    """What a header says, one tensor per row."""

    metadata: str
    """As JSON; "null" if there is none."""
    names: dict[str, int]
    """Name -> row, in order."""
    kinds: "array[int]"
    begin: "array[int]"
    end: "array[int]"


class _Kinds(dict[str, int]):
    """The number of each form, a dtype and a shape as the header spells them."""

    def __init__(self, number: Callable[[str, list[int]], int]) -> None:
        self._number = number

    def __missing__(self, form: str) -> int:
        type_name, sizes = re.fullmatch(_FORM, form).groups()  # type: ignore[union-attr]
        shape = [int(size) for size in sizes.split(",")] if sizes else []
        if ",".join(map(str, shape)) != sizes:
            raise ValueError
        number = self[form] = self._number(type_name, shape)
        return number


def header_columns(text: str, number: Callable[[str, list[int]], int]) -> HeaderColumns | None:
    """The columns of a header; None if it is spelled otherwise, or a tensor is there twice.

    Parameters
    ----------
    number
        The number of a dtype and a shape; a ValueError says that they are not right.
    """
    text = text.rstrip(" \t\r\n")
    metadata, at = _metadata(text)
    # Of two closing braces only those at the end are in place: an entry before the last ends with a comma.
    if not text.startswith("{") or not text.startswith('"', at) or text.find("}}", at) != len(text) - 2:
        return None
    out = HeaderColumns(metadata, {}, array("q"), array("q"), array("q"))
    kinds = _Kinds(number)
    while at < len(text):
        found = _ENTRY.findall(text, at, at + CHARACTERS)
        if not found:
            return None
        columns = names, forms, begin, end = tuple(zip(*found, strict=True))
        out.names.update(zip(names, range(len(out.kinds), len(out.kinds) + len(names)), strict=True))
        try:
            out.kinds.extend(map(kinds.__getitem__, forms))
        except ValueError:
            return None
        out.begin.extend(map(int, begin))
        out.end.extend(map(int, end))
        at += len(found) * _SPELLING + sum(sum(map(len, column)) for column in columns)
    # What lies between two entries leaves as long a rest, in which none is found, or one a second time.
    return out if len(out.names) == len(out.kinds) else None


def _metadata(text: str) -> tuple[str, int]:
    """The metadata that a header begins with, as JSON, and where the first entry is."""
    if not text.startswith(METADATA_FIRST):
        return "null", 1
    found = _TEXTS.match(text, len(METADATA_FIRST))
    if found is None:  # not only texts: for the parser, which has limits
        return "", len(text)
    return found[0], found.end() + 1 if text.startswith(",", found.end()) else len(text)
