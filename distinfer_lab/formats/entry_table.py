"""The entries of a file as columns: a million of them take some 150 bytes each; each `Entry` is made on demand.

::

    name      row     kind      offset   nbytes
    a.weight  0       0         512      4096          kinds   0   F32 float32 [32, 32]
    a.scale   1       1         4608     32                    1   F32 float32 [8]
    b.weight  2       0         4640     4096

What a model's layers have in common, dtype and shape, is there once. Few tensors have further pieces.
"""

from array import array
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .entry import Entry, Kind, Piece

__all__ = ["EntryTable", "kinds_of"]

Rows = NDArray[np.int64]


class EntryTable(Mapping[str, Entry]):
    """Name -> entry, in the order of the file.

    Attributes
    ----------
    offset, nbytes : array of int64
        Of the first piece of each entry.
    """

    def __init__(self) -> None:
        self.offset, self.nbytes = array("q"), array("q")
        self._kind = array("q")
        self._row: dict[str, int] = {}
        self._kinds: list[Kind] = []
        self._number: dict[Kind, int] = {}
        self._further: dict[int, list[Piece]] = {}

    def __repr__(self) -> str:
        return f"EntryTable({len(self)} entries, {len(self._kinds)} kinds)"

    def number_of(self, kind: Kind) -> int:
        """The number of a kind, which `add` takes."""
        if kind not in self._number:
            self._number[kind] = len(self._kinds)
            self._kinds.append(kind)
        return self._number[kind]

    def add(self, name: str, kind: int, offset: int, nbytes: int) -> bool:
        """Append an entry of one piece; False if there is one of this name, and nothing was changed."""
        row = len(self._kind)
        if self._row.setdefault(name, row) != row:
            return False
        self._kind.append(kind)
        self.offset.append(offset)
        self.nbytes.append(nbytes)
        return True

    def fill(self, rows: dict[str, int], kinds: "array[int]", offset: Rows, nbytes: Rows) -> None:
        """Take columns in place of what is there: the row of each name, in order, and what `add` takes of each."""
        self._row, self._kind = rows, kinds
        self.offset, self.nbytes = array("q", offset.tobytes()), array("q", nbytes.tobytes())

    def share_names(self, known: "dict[tuple[int, str], dict[str, int]]") -> None:
        """Share the names with a table before that has the same in the same order, as the files of many ranks do.

        Parameters
        ----------
        known
            Names by their number and the first of them; those of this table are added. No name may be added to
            a table from now on.
        """
        rows = known.setdefault((len(self._row), next(iter(self._row), "")), self._row)
        if list(rows) == list(self._row):
            self._row = rows

    def extend(self, name: str, piece: Piece) -> None:
        """Append a further piece to an entry."""
        self._further.setdefault(self._row[name], []).append(piece)

    def change(self, name: str, kind: Kind) -> None:
        """Give an entry another kind."""
        self._kind[self._row[name]] = self.number_of(kind)

    def begins_like(self, other: "EntryTable") -> bool:
        """Whether its first entries can be read, and are those of another: names, places, dtypes and shapes."""
        count = len(other)
        same = list(islice(self._row, count)) == list(other._row) and self._further == other._further
        if not same or self.offset[:count] != other.offset or self.nbytes[:count] != other.nbytes:
            return False
        numbers = set(zip(self._kind[:count], other._kind, strict=True))
        kinds = [(self._kinds[one], other._kinds[two]) for one, two in numbers]
        return all(not one.problem and one[1:3] == two[1:3] for one, two in kinds)

    def kind_of(self, name: str) -> Kind:
        """The kind of an entry."""
        return self._kinds[self._kind[self._row[name]]]

    def kinds(self) -> Iterator[tuple[str, Kind]]:
        """The name and the kind of each entry; those of one kind have one object."""
        return zip(self._row, map(self._kinds.__getitem__, self._kind), strict=True)

    def place_of(self, name: str) -> tuple[Kind, int] | None:
        """The kind of an entry, and where its content begins; None if there is none, or it is in several pieces."""
        row = self._row.get(name)
        if row is None or row in self._further:
            return None
        return self._kinds[self._kind[row]], self.offset[row]

    def __getitem__(self, name: str) -> Entry:
        row = self._row[name]
        kind = self._kinds[self._kind[row]]
        pieces = (Piece(self.offset[row], self.nbytes[row]), *self._further.get(row, ()))
        return Entry(name, kind.type_name, kind.dtype, kind.shape, pieces, kind.problem)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, name: object) -> bool:
        return name in self._row


def kinds_of(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Kind]]:
    """The name and the kind of each entry; those of one kind have one object."""
    if isinstance(entries, EntryTable):
        yield from entries.kinds()
        return
    known: dict[Kind, Kind] = {}
    for name, entry in entries.items():
        kind = entry.kind
        yield name, known.setdefault(kind, kind)
