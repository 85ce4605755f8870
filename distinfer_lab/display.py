"""How records draw and save themselves without knowing how.

`views` registers functions here, by a class's public name; a record that inherits `Displayed` asks
this registry when Jupyter shows it, and one that inherits `Saved` when it is saved. When a drawing is
missing or fails, plain text is what is shown: a picture is never worth an exception. A file is written
as it was asked for, or not at all.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .arguments import checked
from .errors import ArgumentTypeError, CheckpointFileError, DistinferError
from .text import escape, printable

__all__ = [
    "Displayed",
    "Saved",
    "counted",
    "format_bytes",
    "load_later",
    "public_name",
    "register",
    "register_file",
    "show",
]

MOST_LINES, LONGEST_LINE = 60, 400
"""Of a record's text what is shown in a notebook."""

_loaders: list[Callable[[], None]] = []
_html: dict[str, Callable[[Any], str]] = {}
_files: dict[str, dict[str, Callable[[Any, Path], None]]] = {}

PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    "<body>{body}</body></html>\n"
)
"""What Jupyter shows of a record, as a file."""


def public_name(cls: type) -> str:
    """The name under which a class is exported: its package's, not its module's.

    Examples
    --------
    >>> public_name(Displayed)
    'distinfer_lab.display.Displayed'
    """
    return ".".join([*cls.__module__.split(".")[:2], cls.__qualname__])


def register(cls: type | str, to_html: Callable[[Any], str]) -> None:
    """Let `to_html` draw every instance of `cls` (the nearest registered base wins).

    A class may be given by its `public_name`: so a view need not import what it draws.
    """
    _html[cls if isinstance(cls, str) else public_name(cls)] = to_html


def register_file(cls: type | str, suffixes: Iterable[str], write: Callable[[Any, Path], None]) -> None:
    """Let `write(record, path)` save every instance of `cls` in files whose names end in one of these."""
    name = cls if isinstance(cls, str) else public_name(cls)
    _files.setdefault(name, {}).update(dict.fromkeys(suffixes, write))


def load_later(load: Callable[[], None]) -> None:
    """Let `load` register the views when the first record is shown: a program that shows nothing pays nothing."""
    _loaders.append(load)


def _load_views() -> None:
    while _loaders:
        _loaders.pop()()


def _html_of(record: object) -> str | None:
    _load_views()
    names = (public_name(c) for c in type(record).__mro__)
    to_html = next((_html[n] for n in names if n in _html), None)
    return None if to_html is None else to_html(record)


def show(record: object, include: object = None, exclude: object = None) -> dict[str, str]:
    """What Jupyter shows of a record: its text, and its picture or the same text as HTML.

    It never raises and is never long: a repr that fails says so, of many lines the first are shown.
    A NamedTuple, which has no bases, takes part by a `_repr_mimebundle_` that calls it.
    """
    words = _shortened(printable(_text_of(record), keep="\n"))
    try:
        html = _html_of(record)
    except Exception as err:
        # Reprs never raise; the text says why the picture is missing.
        return {"text/plain": f"{words}\n(no picture: {type(err).__name__}: {printable(str(err))})"}
    return {"text/plain": words, "text/html": f"<pre>{escape(words)}</pre>" if html is None else html}


class Displayed:
    """Gives a record its `_repr_mimebundle_`: text and HTML, with a picture where a view is registered."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return show(self, include, exclude)


class Saved(Displayed):
    """Gives a record `save`: files of its text, its picture, or what else is registered for its class."""

    __slots__ = ()

    @checked
    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the record to a file, as what its name ends in; a file that is there is replaced.

        Every record has `.txt` and `.html`, as it is printed and as Jupyter shows it. Where it has a picture it has
        `.svg` and `.png`; where programs read it, `.json`; a strategy has `.ckpt`, MindSpore's own strategy file.

        Raises
        ------
        ArgumentTypeError
            If the name ends in something else.
        CheckpointFileError
            If the file cannot be written.
        CheckpointError
            If the format cannot say it.
        """
        _load_views()
        path = Path(file)
        if path.is_symlink():
            path = path.resolve()
        known = {".txt": _write_text, ".html": _write_page}
        for name in map(public_name, reversed(type(self).__mro__)):
            known |= _files.get(name, {})
        if path.suffix not in known:
            raise ArgumentTypeError(
                f"{path}: a {type(self).__name__} is saved as {', '.join(sorted(known))}, not as {path.suffix!r}; "
                "give a name that ends in one of them",
                file=path,
            )
        try:
            # What is there stays until the new file is complete.
            with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
                part = Path(folder, path.name)
                known[path.suffix](self, part)
                if path.exists() and not path.is_file():
                    raise CheckpointFileError(f"{path} is not a regular file; choose another name", file=path)
                part.replace(path)
        except (OSError, ValueError) as err:
            if isinstance(err, DistinferError):
                raise
            why = getattr(err, "strerror", None) or err
            raise CheckpointFileError(
                f"{path}: {why}; choose a place that can be written", file=path
            ) from err


def _write_text(record: object, path: Path) -> None:
    path.write_text(printable(repr(record), keep="\n") + "\n", encoding="utf-8")


def _write_page(record: object, path: Path) -> None:
    shown = show(record)
    text = f"<pre>{escape(shown['text/plain'])}</pre>"
    body = shown.get("text/html", text)
    page = PAGE.format(title=escape(path.stem), body=body if body == text else text + body)
    path.write_text(page, encoding="utf-8")


def _text_of(record: object) -> str:
    try:
        return repr(record)
    except Exception as err:
        return f"{type(record).__name__} (cannot be described: {type(err).__name__}: {err})"


def _shortened(words: str) -> str:
    lines = words.split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"  ... and {len(lines) - MOST_LINES:,} lines more"]
    return "\n".join(line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…" for line in lines)


def counted(count: int, noun: str) -> str:
    """A number of things.

    Examples
    --------
    >>> counted(1, "card"), counted(1024, "card"), counted(2, "entry")
    ('1 card', '1,024 cards', '2 entries')
    """
    nouns = f"{noun[:-1]}ies" if noun.endswith(("gy", "ry")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else nouns}"


def format_bytes(count: float) -> str:
    """A number of bytes with a unit that keeps it short.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1536), format_bytes(3 << 30)
    ('999 B', '1.5 KiB', '3 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.1f}".removesuffix(".0") + f" {units[0]}"
