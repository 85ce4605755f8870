"""Which ranks' files have an entry: names and ranks are kept, the entries are looked up when they are needed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ..formats import Entry

__all__ = ["Holders"]


class _HasEntries(Protocol):
    @property
    def entries(self) -> Mapping[str, Entry]: ...


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
        self._ranks: dict[str, list[int]] | None = None
        if len(files) > 1:
            self._ranks = {}
            for rank, entries in enumerate(self._entries):
                for name in entries:
                    self._ranks.setdefault(name, []).append(rank)

    def __repr__(self) -> str:
        return f"Holders({len(self)} names, {len(self._entries)} ranks)"

    @property
    def _names(self) -> Mapping[str, object]:
        if self._ranks is not None:
            return self._ranks
        return self._entries[0] if self._entries else {}

    def __getitem__(self, name: str) -> dict[int, Entry]:
        ranks = (0,) if self._ranks is None else self._ranks[name]
        return {rank: self._entries[rank][name] for rank in ranks}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
