"""Which ranks' files have an entry, and of what kind: entries are looked up when they are needed.

::

    a.weight   form 1                   form 0    rank 0 has F32 [4, 8]
    b.weight   form 1                   form 1    form 0, and rank 1 has F32 [4, 8]
    step       form 3                   form 3    ...

Of what 60,000 tensors have in common a few forms are made, and what is true of a form is found once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..formats import Entry, Kind, kinds_of

__all__ = ["Holders"]


class _HasEntries(Protocol):
    @property
    def entries(self) -> Mapping[str, Entry]: ...


class _Form(NamedTuple):
    """One more rank has an entry."""

    before: int
    """The form of the ranks before it; -1 if it is the first."""
    rank: int
    kind: Kind


class Holders(Mapping[str, Mapping[int, Entry]]):
    """Name -> rank -> entry, in the order of the files.

    Of one file, which has millions of entries at times, nothing is copied.

    Parameters
    ----------
    files
        One per rank, in rank order.
    """

    def __init__(self, files: Sequence[_HasEntries]) -> None:
        self._entries = [file.entries for file in files]
        self._forms: list[_Form] = []
        self._number: dict[_Form, int] = {}
        self._form: dict[str, int] = {}
        if len(files) > 1:
            for rank in range(len(files)):
                self._form.update(self._forms_with(rank))

    def _forms_with(self, rank: int) -> Iterator[tuple[str, int]]:
        """The form of each entry of a rank, as far as this one."""
        before = self._form.get
        known: dict[tuple[int, int], int] = {}  # kinds of one file are told apart by identity
        for name, kind in kinds_of(self._entries[rank]):
            step = before(name, -1), id(kind)
            form = known.get(step)
            if form is None:
                form = known[step] = self._numbered(_Form(step[0], rank, kind))
            yield name, form

    def _numbered(self, form: _Form) -> int:
        number = self._number.setdefault(form, len(self._forms))
        if number == len(self._forms):
            self._forms.append(form)
        return number

    def __repr__(self) -> str:
        return f"Holders({len(self)} names, {len(self._entries)} ranks)"

    @property
    def _names(self) -> Mapping[str, object]:
        return self._entries[0] if len(self._entries) == 1 else self._form

    def forms(self) -> Iterator[tuple[str, int]]:
        """The name and the form of each entry: those of one form are held by the same ranks, and of equal kinds."""
        yield from self._forms_with(0) if len(self._entries) == 1 else self._form.items()

    def form_of(self, name: str) -> int:
        """The form of one entry."""
        if len(self._entries) != 1:
            return self._form[name]
        entry = self._entries[0][name]
        return self._numbered(_Form(-1, 0, entry.kind))

    def _ranks(self, name: str) -> list[int]:
        if len(self._entries) == 1:
            return [0]
        out, number = [], self._form[name]
        while number >= 0:
            out.append(self._forms[number].rank)
            number = self._forms[number].before
        return out[::-1]

    def __getitem__(self, name: str) -> dict[int, Entry]:
        return {rank: self._entries[rank][name] for rank in self._ranks(name)}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
