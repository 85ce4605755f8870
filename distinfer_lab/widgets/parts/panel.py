"""The base of every panel: parts one below the other, a line for errors, words and a still picture."""

import os
from collections.abc import Iterable
from typing import Any

import ipywidgets

from ...views import Drawing
from ...views.drawing import finish, notes
from .guard import ErrorLine
from .picture import with_still

__all__ = ["Panel", "close_all", "still_of"]


class Panel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Parts one below the other, and what went wrong below them.

    The pictures in a panel keep JupyterLab from taking keys that were meant for its buttons and
    lists as commands (see picture.js). A panel says what it is in `__repr__`, and shows it in `static`.
    """

    def __init__(self, *parts: Any) -> None:
        self.errors = ErrorLine()
        super().__init__([*parts, self.errors])
        self.add_class("distinfer-panel")

    @property
    def static(self) -> Drawing:
        """The picture as it is where there is no kernel; of a panel without one, its text."""
        return still_of("", repr(self))

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the still picture to `file`."""
        self.static.save(file)

    def close(self) -> None:
        """Be shown no more, with all parts."""
        close_all(self.children)
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**kwargs), repr(self), self.static)


def close_all(parts: Iterable[Any]) -> None:
    """Close widgets and all that is in them, which ipywidgets would keep for ever."""
    for part in parts:
        if not isinstance(part, Panel):  # a panel does it itself
            close_all(getattr(part, "children", ()))
        part.close()


def still_of(svg: str, words: str) -> Drawing:
    """The still picture of a panel; where it has none (yet), its words on a card."""
    return Drawing(svg or finish(notes([words]), words), words)
