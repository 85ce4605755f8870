"""A list of names with a field that narrows it."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import ipywidgets
import traitlets

from ...text import printable
from .guard import ErrorLine

__all__ = ["MOST_LISTED", "SearchList"]

MOST_LISTED = 500
"""How many names are listed at one time; a page is slow with many thousands."""


class SearchList(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Names to choose one of; typing a part of a name, or a pattern with stars, narrows the list.

    Parameters
    ----------
    names
        The names.
    errors
        Where errors of the choice's observers are shown.
    labels
        Name -> what is shown in its place; by default the name.
    description
        What is chosen.

    Attributes
    ----------
    value : str
        The chosen name, "" for none. It may be set, also to one that is narrowed away.
    """

    value = traitlets.Unicode()

    def __init__(
        self,
        names: Sequence[str],
        errors: ErrorLine,
        *,
        labels: Mapping[str, str] | None = None,
        description: str = "Parameter",
    ) -> None:
        wide = ipywidgets.Layout(width="min(100%, 520px)")
        hint = "part of a name, or *.weight"
        self.search = ipywidgets.Text(description="Search", placeholder=hint, layout=wide)
        self.listed = ipywidgets.Select(description=description, rows=6, layout=wide)
        self.count = ipywidgets.HTML()
        super().__init__([self.search, self.listed, self.count])
        self._narrowing = False
        self.search.observe(errors.guard(lambda change: self._narrow()), "value")
        self.listed.observe(errors.guard(self._choose), "value")
        self.observe(lambda change: self._mark(), "value")
        self.show(names, labels)

    def show(self, names: Sequence[str], labels: Mapping[str, str] | None = None) -> None:
        """List other names, or the same in another order; the choice stays if it is among them."""
        self._names, self._labels = list(names), dict(labels or {})
        if self.value and self.value not in self._names:
            self.value = ""
        self._narrow()

    def _narrow(self) -> None:
        words = self.search.value.strip().lower()
        found = [name for name in self._names if _fits(name.lower(), words)]
        self._narrowing = True
        try:
            shown = found[:MOST_LISTED]
            self.listed.options = [(printable(self._labels.get(name, name)), name) for name in shown]
            self._mark()
        finally:
            self._narrowing = False
        rest = f"; the first {MOST_LISTED} are listed" if len(found) > MOST_LISTED else ""
        self.count.value = f"<small>{len(found):,} of {len(self._names):,}{rest}</small>"

    def _mark(self) -> None:
        """Show the choice in the list, if it is listed."""
        listed = [name for _, name in self.listed.options]
        self.listed.index = listed.index(self.value) if self.value in listed else None

    def _choose(self, change: Any) -> None:
        if not self._narrowing and change["new"] is not None:
            self.value = change["new"]

    def __repr__(self) -> str:
        return f"SearchList({len(self._names)} names)"


def _fits(name: str, words: str) -> bool:
    return fnmatchcase(name, words) if "*" in words else words in name
