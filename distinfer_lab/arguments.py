"""The arguments of public functions, compared with their annotations before anything is done.

::

    open_checkpoint("ckpt", without=1)   open_checkpoint: without=1 should be a collection of integers;
                                         write without=[1]
    conversion.write("out", overwriet=True)      Conversion.write has no argument overwriet; did you mean overwrite?

What an annotation says is what is checked: there is no second list of kinds. Annotations that are texts, and
protocols that cannot be checked, accept everything. NumPy's scalars and arrays are known without NumPy, which
`import distinfer_lab` does not bring in.
"""

import inspect
import numbers
import os
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    Unpack,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from .errors import ArgumentTypeError, DistinferError, Option
from .text import shown

__all__ = ["accepts", "checked", "checked_on_error", "described"]

VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)

PLAIN = (types.NoneType, bool, int, float, str, bytes, list, tuple, dict, set, range, os.PathLike)

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """The function, or the class, that refuses arguments of other kinds than its annotations say.

    Raises
    ------
    ArgumentTypeError
        When it is called: the text names the argument, what was given, and what to give.

    Examples
    --------
    >>> @checked
    ... def take(ranks: Sequence[int] = ()) -> None: ...
    >>> take(ranks=3)
    Traceback (most recent call last):
    distinfer_lab.errors.ArgumentTypeError: take: ranks=3 should be a sequence of integers; write ranks=[3]
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    where, signature = _name_of(function), inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _check(where, signature, args, kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def checked_on_error(function: F) -> F:
    """As `checked`, but only where the call fails with an error of Python: for records that are made by the thousand.

    Raises
    ------
    ArgumentTypeError
        In place of the error, if an argument is of another kind than its annotation says.
    """
    if isinstance(function, type):
        function.__init__ = checked_on_error(function.__init__)  # type: ignore[misc]
        return function
    where, signature = _name_of(function), inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, AttributeError, ValueError, LookupError, OverflowError) as err:
            if not isinstance(err, DistinferError):
                _check(where, signature, args, kwargs, err)
            raise

    return call  # type: ignore[return-value]


def _name_of(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__init__").rpartition(">.")[2]


def _check(
    where: str,
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    cause: Exception | None = None,
) -> None:
    parameters = signature.parameters
    kinds = {name: p.annotation for name, p in parameters.items() if p.kind not in VARIADIC}
    others = next((p.annotation for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    if get_origin(others) is Unpack:
        kinds |= get_type_hints(get_args(others)[0])
    named = [name for name in kinds if name != "self"]
    unknown = [name for name in kwargs if name not in kinds]
    if unknown and (others is None or get_origin(others) is Unpack):
        near = get_close_matches(unknown[0], named, 1)
        rest = f"did you mean {near[0]}?" if near else f"it takes {', '.join(named) or 'none'}"
        raise ArgumentTypeError(
            f"{where} has no argument {unknown[0]}; {rest}", Option(unknown[0])
        ) from cause
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as err:
        raise ArgumentTypeError(f"{where}: {err}; it takes {', '.join(named) or 'none'}", of=err) from cause
    for name, value in {**bound.arguments, **kwargs}.items():
        problem = _problem(name, value, kinds[name]) if name in kinds else ""
        if problem:
            raise ArgumentTypeError(f"{where}: {problem}", _option(name, value)) from cause


def _option(name: str, value: Any) -> Option:
    """An argument as an error's field: without its value if that may be a secret, or is large."""
    return Option(name, value if isinstance(value, PLAIN) and not name.endswith("_key") else None)


def _problem(name: str, value: Any, kind: Any) -> str:
    """What is wrong with an argument; "" if nothing is."""
    # What is given for a key may be a secret; what is not a plain value is described by its kind.
    if not accepts(value, kind) and (name.endswith("_key") or not isinstance(value, PLAIN)):
        return f"{name} is {described(type(value))}, and should be {described(kind)}"
    if not accepts(value, kind):
        for inner_name, one, inner in _items(name, value, kind):
            if not accepts(one, inner):
                return _problem(inner_name, one, inner)
        better = next((one for one in _meant(value) if accepts(one, kind)), None)
        write = "" if better is None else f"; write {name}={shown(better)}"
        return f"{name}={shown(value)} should be {described(kind)}{write}"
    takes_path = any(get_origin(one) is os.PathLike for one in _alternatives(kind))
    if takes_path and isinstance(value, str | os.PathLike) and "\0" in os.fsdecode(value):
        return f"{name}={shown(value)} has a NUL in it, which no path has"
    return ""


def _items(name: str, value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """What is in a dict or list that is of the right kind by itself: its name, it, and the kind it should have."""
    for one in _alternatives(kind):
        origin, inner = get_origin(one), get_args(one)
        if isinstance(value, dict) and origin is Mapping:
            yield from ((f"a key of {name}", key, inner[0]) for key in value)
            yield from ((f"{name}[{shown(key)}]", element, inner[1]) for key, element in value.items())
        elif isinstance(value, list | tuple) and origin in (Sequence, Collection):
            yield from ((f"{name}[{at}]", element, inner[0]) for at, element in enumerate(value))


def _meant(value: Any) -> Iterator[Any]:
    """What may have been meant by a value of the wrong kind, the likeliest first."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        yield int(value)
    if value in ("True", "False"):
        yield value == "True"
    if isinstance(value, str | os.PathLike | int | float):
        yield [value]


def accepts(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that an annotation says.

    Examples
    --------
    >>> accepts(2, int | None), accepts("2", int | None), accepts(["a", 1], Sequence[str])
    (True, False, False)
    """
    if kind in _KINDS:
        return _KINDS[kind](value)
    alternatives = _alternatives(kind)
    if len(alternatives) != 1:
        return any(accepts(value, one) for one in alternatives)
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return value in inner
    if not _checkable(origin):
        return True
    if origin is tuple:
        return isinstance(value, tuple) and _accepts_tuple(value, inner)
    if origin is Sequence and hasattr(value, "__array__"):
        return True
    if not isinstance(value, origin) or (isinstance(value, str | bytes) and issubclass(origin, Iterable)):
        return isinstance(value, origin) and origin in (str, bytes)
    if issubclass(origin, Mapping):
        # What is computed when it is asked for is not gone through.
        items = value.items() if isinstance(value, dict) and inner else ()
        return all(accepts(k, inner[0]) and accepts(v, inner[1]) for k, v in items)
    if issubclass(origin, Collection) and inner and not hasattr(origin, "__array__"):
        return all(accepts(one, inner[0]) for one in cast("Collection[Any]", value))
    return True


def _accepts_tuple(value: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(accepts(one, inner[0]) for one in value)
    return not inner or (len(inner) == len(value) and all(map(accepts, value, inner)))


def _checkable(kind: Any) -> bool:
    """Whether values can be compared with a kind: typed dicts, and most protocols, are for reading only."""
    if not isinstance(kind, type) or is_typeddict(kind):
        return False
    return not getattr(kind, "_is_protocol", False) or bool(getattr(kind, "_is_runtime_protocol", False))


_KINDS: Mapping[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    object: lambda value: True,
    inspect.Parameter.empty: lambda value: True,
    None: lambda value: value is None,
    types.NoneType: lambda value: value is None,
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool) or _is_numpy_bool(value),
    int: lambda value: isinstance(value, int | numbers.Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float | numbers.Real) and not isinstance(value, bool),
}


def _is_numpy_bool(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def described(kind: Any) -> str:
    """A kind in plain English.

    Examples
    --------
    >>> described(str | os.PathLike[str] | None)
    'a path or None'
    >>> described(Mapping[str, int])
    'a mapping of strings to integers'
    """
    words = dict.fromkeys(_described(one, one_of=True) for one in _without_text_of_paths(_alternatives(kind)))
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _without_text_of_paths(kinds: Sequence[Any]) -> list[Any]:
    is_path = any(get_origin(kind) is os.PathLike for kind in kinds)
    return [kind for kind in kinds if not (is_path and kind is str)]


_WORDS: Mapping[Any, tuple[str, str]] = {
    str: ("a string", "strings"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    bytes: ("bytes", "bytes"),
    types.NoneType: ("None", "None"),
    os.PathLike: ("a path", "paths"),
    Callable: ("a function", "functions"),
    Any: ("anything", "anything"),
}

_WORDS_OF_NUMPY: Mapping[str, tuple[str, str]] = {
    "ndarray": ("an array", "arrays"),
    "generic": ("a number", "numbers"),
}


def _described(kind: Any, *, one_of: bool) -> str:
    """One kind, as one thing or as several of it."""
    if len(_alternatives(kind)) > 1:
        inner = dict.fromkeys(
            _described(one, one_of=one_of) for one in _without_text_of_paths(_alternatives(kind))
        )
        return " or ".join(inner)
    origin, inner_kinds = get_origin(kind) or kind, get_args(kind)
    if origin in _WORDS:
        return _WORDS[origin][not one_of]
    if origin is Literal:
        return " or ".join(map(repr, inner_kinds))
    name = getattr(origin, "__name__", str(origin))
    if getattr(origin, "__module__", "") == "numpy" and name in _WORDS_OF_NUMPY:
        return _WORDS_OF_NUMPY[name][not one_of]
    name = name.lower() if getattr(origin, "__module__", "") == "collections.abc" else name
    inner_kinds = tuple(one for one in inner_kinds if one not in (Any, Ellipsis))
    if isinstance(origin, type) and issubclass(origin, Iterable) and inner_kinds:
        parts = [_described(one, one_of=False) for one in inner_kinds]
        join = " to " if issubclass(origin, Mapping) else ", "
        plural = f"{name}s"
        return f"{f'a {name}' if one_of else plural} of {join.join(parts)}"
    article = "an" if name[0] in "AEIOUaeiou" else "a"
    return f"{article} {name}" if one_of else f"{name}s"
