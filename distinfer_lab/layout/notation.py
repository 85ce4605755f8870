r"""How the dims of a tensor are sharded, as text: the one notation of reprs, rules, nets, editors and commands.

One word per tensor dim, with spaces between them::

    sharding = [ dim { " " dim } ]                    "" is a tensor of no dims
    dim      = axes [ sizes | parts ] [ "/" count ]
    axes     = "-" | name { "+" name }                the mesh axes that shard the dim; "-" is none
    sizes    = "(" size { "," size } ")"              uneven: the size of each shard along the dim
    parts    = "[" size { "|" size } "]"              fused: parts along the dim, each sharded by itself
    count    = a number                               optimizer shards (ZeRO), of dim 0 only
    name     = letters, digits and "_"; any other text in quotes, as Python writes it

A tensor of shape (96, 16) on ``Mesh(dp=2, tp=4)``::

    "- -"                shard (96, 16)    each of the 8 ranks holds all of it
    "- tp"               shard (96, 4)     columns by tp; the 2 groups of dp hold the same
    "tp -"               shard (24, 16)    rows by tp
    "dp+tp -"            shard (12, 16)    rows by dp, each of the 2 pieces by tp
    "dp tp"              shard (48, 4)     rows by dp, columns by tp
    "tp(40,30,20,6) -"   shard (40, 16), (30, 16), (20, 16) or (6, 16)
    "tp[48|24|24] -"     shard (24, 16)    12 rows of the first part, 6 of the second, 6 of the third
    "tp/2 -"             shard (12, 16)    rows by tp; the 2 ranks that would hold the same 24 rows share them

Sizes count elements. Which ranks the mesh has, and how a dim is shared that its axes do not divide, is not part
of the notation: `Layout` takes ``first_ranks``, ``strides`` and ``split`` in addition.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

from ..errors import ArgumentTypeError, LayoutError, Option
from ..text import LONGEST_SHOWN, shown
from ..untrusted import MAX_DIMS

__all__ = [
    "NAME",
    "Dims",
    "Sharding",
    "Sizes",
    "double_quoted",
    "format_dims",
    "format_sharding",
    "parse_dims",
    "parse_sharding",
    "quoted",
    "sharding_of",
    "unquoted",
    "whole_numbers",
]

Dims = tuple[tuple[str, ...], ...]
"""For each tensor dim the mesh axes that shard it, most significant first."""

Sizes = tuple[tuple[int, ...] | None, ...]
"""For each tensor dim sizes in elements, or None."""

NAME = r"""\w+|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
"""The pattern of an axis's name: plain, or in quotes."""

_NUMBER = "[0-9]{1,18}"
_AXES = re.compile(rf"-|(?:{NAME})(?:\+(?:{NAME}))*")
_SIZES = re.compile(rf"\(\s*{_NUMBER}\s*(?:,\s*{_NUMBER}\s*)*\)")
_PARTS = re.compile(rf"\[\s*{_NUMBER}\s*(?:\|\s*{_NUMBER}\s*)*\]")
_SHARDS = re.compile(rf"/{_NUMBER}")
_SPACE = re.compile(r"\s+|$")
_WORD = re.compile(r"\w+|.", re.DOTALL)

_NOT_AXES = ("None", "null")
"""What other notations write for a dim that is not sharded; an axis of this name stands in quotes."""

_FORM = 'a dim is "-" or axes such as "tp" or "dp+tp", followed by sizes "(5,3,2)" or fused parts "[8|4|4]"'


class Sharding(NamedTuple):
    """What a text of the notation says."""

    dims: Dims
    sizes: Sizes = ()
    """For each dim the explicit sizes of its shards, or None; empty where no dim has them."""
    fused: Sizes = ()
    """For each dim the sizes of its fused parts, or None; empty where no dim has them."""
    optimizer_shards: int = 1


def quoted(name: str) -> str:
    """An axis's name as the notation writes it.

    Examples
    --------
    >>> print(quoted("tp"), quoted("data parallel"))
    tp 'data parallel'
    """
    return name if re.fullmatch(r"\w+", name) and name not in _NOT_AXES else repr(name)


def unquoted(name: str) -> str:
    """The axis's name that `quoted` wrote.

    Raises
    ------
    LayoutError
        If it has an escape that Python does not know.
    """
    if name[:1] not in ("'", '"'):
        return name
    try:
        return str(ast.literal_eval(name))
    except (SyntaxError, ValueError) as err:
        raise LayoutError(f"axis name {name}: {err}; write it as a Python string", of=err) from err


def parse_sharding(text: str) -> Sharding:
    """What a text says of each dim.

    Raises
    ------
    LayoutError
        If it is not of the form above; the message names the dim and the position, both from 0.

    Examples
    --------
    >>> parse_sharding("dp+tp -")
    Sharding(dims=(('dp', 'tp'), ()), sizes=(), fused=(), optimizer_shards=1)
    >>> parse_sharding("tp[8|4|4]/2 -").fused
    ((8, 4, 4), None)
    """
    dims: list[tuple[str, ...]] = []
    sizes: list[tuple[int, ...] | None] = []
    fused: list[tuple[int, ...] | None] = []
    shards, at = 1, len(text) - len(text.lstrip())
    while at < len(text):
        if len(dims) == MAX_DIMS:
            raise LayoutError(
                f"sharding {shown(text)}: more than {MAX_DIMS} dims; at most {MAX_DIMS} are supported"
            )
        cursor = _Cursor(text, at, len(dims))
        dims.append(cursor.axes())
        sizes.append(cursor.numbers(_SIZES))
        fused.append(cursor.numbers(_PARTS))
        shards *= cursor.shards()
        at = cursor.end()
    return Sharding(tuple(dims), _unless_empty(sizes), _unless_empty(fused), shards)


def _unless_empty(given: list[tuple[int, ...] | None]) -> Sizes:
    return tuple(given) if any(one is not None for one in given) else ()


class _Cursor:
    """Reads the word of one dim."""

    def __init__(self, text: str, at: int, dim: int) -> None:
        self.text, self.at, self.dim = text, at, dim

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        self.at = self.at if found is None else found.end()
        return found.group() if found else ""

    def axes(self) -> tuple[str, ...]:
        word = self._take(_AXES)
        if not word:
            raise self._error(_FORM)
        if word in _NOT_AXES:
            self.at -= len(word)
            raise self._error('write "-" for a dim that no axis shards')
        return () if word == "-" else tuple(map(unquoted, re.findall(NAME, word)))

    def numbers(self, pattern: re.Pattern[str]) -> tuple[int, ...] | None:
        word = self._take(pattern)
        return tuple(map(int, re.findall(_NUMBER, word))) if word else None

    def shards(self) -> int:
        start, word = self.at, self._take(_SHARDS)
        if word and self.dim:
            self.at = start
            raise self._error("optimizer shards are of dim 0: write /count behind the first dim")
        return int(word[1:]) if word else 1

    def end(self) -> int:
        """Where the next dim begins."""
        space = _SPACE.match(self.text, self.at)
        if space:
            return space.end()
        if self.text[self.at] == ",":
            raise self._error(f"dims have spaces between them, not commas{self._without_commas()}")
        raise self._error(_FORM)

    def _without_commas(self) -> str:
        """What to write, unless the text is long; commas between sizes stay."""
        if len(self.text) > LONGEST_SHOWN:
            return ""
        text = re.sub(r"\([^()]*\)|\s*,\s*", lambda m: m[0] if m[0][0] == "(" else " ", self.text)
        return f": write {double_quoted(text.strip())}"

    def _error(self, remedy: str) -> LayoutError:
        found = _WORD.match(self.text, self.at)
        what = shown(found.group()) if found else "the end"
        return LayoutError(
            f"sharding {shown(self.text)}: dim {self.dim}, position {self.at}: {what} is not expected here; {remedy}",
            dim=self.dim,
        )


def format_sharding(sharding: Sharding) -> str:
    """The text that `parse_sharding` reads.

    Examples
    --------
    >>> format_sharding(Sharding((("tp",), ()), fused=((8, 4, 4), None), optimizer_shards=2))
    'tp[8|4|4]/2 -'
    """
    words = ["+".join(map(quoted, axes)) or "-" for axes in sharding.dims]
    for dim, sizes in enumerate(sharding.sizes):
        words[dim] += "" if sizes is None else f"({','.join(map(str, sizes))})"
    for dim, parts in enumerate(sharding.fused):
        words[dim] += "" if parts is None else f"[{'|'.join(map(str, parts))}]"
    if sharding.optimizer_shards > 1:
        words[0] += f"/{sharding.optimizer_shards}"
    return " ".join(words)


def parse_dims(text: str) -> Dims:
    """The axes of each dim, where a text may say nothing else.

    Raises
    ------
    LayoutError
        If it is not of the form above, or says sizes, fused parts or optimizer shards.
    ArgumentTypeError
        If it is not text; the message has the text for tuples or lists of names.

    Examples
    --------
    >>> parse_dims("dp+tp -")
    (('dp', 'tp'), ())
    """
    if not isinstance(text, str):
        raise ArgumentTypeError(f"dims={shown(text)} is not text; write {_meant(text)}")
    sharding = parse_sharding(text)
    if sharding != Sharding(sharding.dims):
        raise LayoutError(
            f"sharding {shown(text)}: only axes can be given here; write {format_dims(sharding.dims)!r}"
        )
    return sharding.dims


def format_dims(dims: Dims) -> str:
    """The text that `parse_dims` reads.

    Examples
    --------
    >>> format_dims((("dp", "tp"), ()))
    'dp+tp -'
    """
    return format_sharding(Sharding(dims))


def sharding_of(
    dims: str | Sequence[Sequence[str]],
    sizes: Sequence[Sequence[int] | None] = (),
    fused: Sequence[Sequence[int] | None] = (),
    optimizer_shards: int = 1,
) -> Sharding:
    """The sharding given as text, or as tuples of names; the rest can be given by keyword.

    Raises
    ------
    LayoutError
        If a text is not of the form above, something is given in it and by keyword, or a number is not an integer.
    ArgumentTypeError
        If dims are in the form of another library, such as JAX's ``("tp", None)``; the message has the text
        that says the same.

    Examples
    --------
    >>> sharding_of("tp -", optimizer_shards=2) == sharding_of([["tp"], []], (), (), 2) == sharding_of("tp/2 -")
    True
    """
    said = parse_sharding(dims) if isinstance(dims, str) else Sharding(_checked_dims(dims))
    shards = whole_numbers((optimizer_shards,), "optimizer_shards")[0]
    keywords: dict[str, Any] = {
        name: value
        for name, value in (
            ("sizes", _sizes(sizes, "sizes")),
            ("fused", _sizes(fused, "fused")),
            ("optimizer_shards", shards),
        )
        if value != Sharding._field_defaults[name]
    }
    for name in keywords:
        if getattr(said, name) != Sharding._field_defaults[name]:
            raise LayoutError(
                f"sharding {shown(dims)} says {name}, and so does {name}=; give them once", Option(name)
            )
    sharding = said._replace(**keywords) if keywords else said
    _check(sharding)
    return sharding


def _check(sharding: Sharding) -> None:
    """Refuse sizes and fused parts of other dims, empty parts, and a dim that has both."""
    ndim = len(sharding.dims)
    for word, given in (("sizes", sharding.sizes), ("fused", sharding.fused)):
        if given and len(given) != ndim:
            raise LayoutError(
                f"{word} are given for {len(given)} dims of a layout of {ndim} dims; "
                "give one entry per dim, None where there are none"
            )
    for dim, fused in enumerate(sharding.fused):
        if fused is not None and (not fused or min(fused) < 1):
            raise LayoutError(
                f"dim {dim}: fused parts of sizes {shown(fused)}; give 1 or more elements for each", dim=dim
            )
        if fused is not None and sharding.sizes and sharding.sizes[dim] is not None:
            raise LayoutError(f"dim {dim} has explicit sizes and fused parts; give one of them", dim=dim)


def _sizes(given: Sequence[Sequence[int] | None], name: str) -> Sizes:
    return _unless_empty([None if one is None else whole_numbers(one, name) for one in given])


def _checked_dims(given: Sequence[Sequence[str]]) -> Dims:
    """The axes of each dim, given as tuples or lists of names."""
    if isinstance(given, tuple | list) and all(
        isinstance(axes, tuple | list) and all(isinstance(axis, str) for axis in axes) for axes in given
    ):
        return tuple(map(tuple, given))
    raise ArgumentTypeError(f"dims={shown(given)} is not a sharding; write {_meant(given)}")


def _meant(given: object) -> str:
    """The text for dims in a form like JAX's: a name, names or None for each."""
    entries = list(given) if isinstance(given, tuple | list) else [given]
    dims = [
        ()
        if one is None
        else (one,)
        if isinstance(one, str)
        else tuple(one)
        if isinstance(one, tuple | list)
        else (3,)
        for one in entries
    ]
    if given is None or not all(isinstance(axis, str) for dim in dims for axis in dim):
        return 'text such as "- tp": a word per dim, the axes that shard it or "-"'
    plain = [tuple(axis for axis in dim if axis != "-") for dim in dims]
    return double_quoted(format_dims(tuple(plain)))


def whole_numbers(values: Iterable[Any], name: str) -> tuple[int, ...]:
    """The values as Python's integers.

    Raises
    ------
    LayoutError
        If one is not an integer; nothing is rounded.
    """
    given = tuple(values)
    try:
        return tuple(map(index, given))
    except TypeError as err:
        raise LayoutError(f"{name} are {shown(given)}; give integers", Option(name)) from err


def double_quoted(text: str) -> str:
    """The text as a Python string in double quotes, or as `repr` writes it where it has any that would end it.

    Examples
    --------
    >>> print(double_quoted("- tp"))
    "- tp"
    """
    return repr(text) if '"' in text or "\\" in text or not text.isprintable() else f'"{text}"'
