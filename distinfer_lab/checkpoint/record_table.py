"""The records of a checkpoint's tensors: a million take some 40 bytes each, as what they share is there once."""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any

from .records import TensorRecord

__all__ = ["RecordTable"]


class RecordTable(Mapping[str, TensorRecord]):
    """Name -> record, in the order in which they were added; records are made on demand."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._forms: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def __repr__(self) -> str:
        return f"RecordTable({len(self)} tensors, {len(self._forms)} forms)"

    def add(self, record: TensorRecord) -> int:
        """Add a record; gives the number of its form, which others may share."""
        form = record.dtype, record.shape, record.layout, record.kind
        key = record.dtype, record.shape, id(record.layout), record.kind  # the layout lives on in `_forms`
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self._forms)
            self._forms.append(form)
        self._number[record.name] = number
        return number

    def add_same(self, name: str, number: int) -> None:
        """Add a tensor that differs from one that was added in its name only."""
        self._number[name] = number

    def __getitem__(self, name: str) -> TensorRecord:
        return TensorRecord(name, *self._forms[self._number[name]])

    def records(self) -> Iterator[TensorRecord]:
        """All records; quicker than name by name."""
        forms = self._forms
        for name, number in self._number.items():
            yield TensorRecord._make((name, *forms[number]))

    def values(self) -> ValuesView[TensorRecord]:
        return _Records(self)

    def items(self) -> ItemsView[str, TensorRecord]:
        return _Items(self)

    def __contains__(self, name: object) -> bool:
        return name in self._number

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)


class _Records(ValuesView[TensorRecord]):
    _mapping: RecordTable

    def __iter__(self) -> Iterator[TensorRecord]:
        return self._mapping.records()


class _Items(ItemsView[str, TensorRecord]):
    _mapping: RecordTable

    def __iter__(self) -> Iterator[tuple[str, TensorRecord]]:
        return ((record.name, record) for record in self._mapping.records())
