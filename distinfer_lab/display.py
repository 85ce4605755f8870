"""How records draw themselves without knowing how.

`views` registers one function per class here; a record that inherits `Displayed` asks this
registry when Jupyter shows it. With an empty registry, or when a drawing fails, plain text
is what is shown: a picture is never worth an exception.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["Displayed", "register"]

_html: dict[type, Callable[[Any], str]] = {}


def register(cls: type, to_html: Callable[[Any], str]) -> None:
    """Let `to_html` draw every instance of `cls` (the nearest registered base wins)."""
    _html[cls] = to_html


class Displayed:
    """Gives a record its `_repr_mimebundle_`: text always, HTML where a view is registered."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        bundle = {"text/plain": repr(self)}
        to_html = next((_html[c] for c in type(self).__mro__ if c in _html), None)
        if to_html is None:
            return bundle
        try:
            bundle["text/html"] = to_html(self)
        except Exception as err:
            # Reprs never raise; the text says why the picture is missing.
            bundle["text/plain"] += f"\n(no picture: {type(err).__name__}: {err})"
        return bundle
