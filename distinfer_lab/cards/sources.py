"""Shards in the memory of cards, as the source of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from ..errors import CardError
from ..layout import Box
from .store import open_store

__all__ = ["CardSource"]

Array = NDArray[Any]


@dataclass(frozen=True)
class CardSource:
    """A `checkpoint.SliceSource`: the shards that the card of a rank's number holds, to be opened there.

    Parameters
    ----------
    store
        The name under which the card keeps its group's store.
    placement
        What they are part of.
    """

    store: str
    placement: str
    path: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()

    def open(self) -> "FromMemory":
        """See `SliceSource`."""
        return FromMemory(open_store(self.store).placed(self.placement).values)


class FromMemory(NamedTuple):
    """The shards in this card's store, as a `checkpoint.OpenSource`."""

    values: Mapping[str, Array]

    @property
    def by_bytes(self) -> None:
        """See `BoxReader`."""
        return None

    @property
    def nbytes_read(self) -> int:
        """None from files."""
        return 0

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int) -> int:
        """See `BoxReader`."""
        if name not in self.values:
            raise CardError(f"this card holds no shard of {name!r}", parameter=name)
        out[...] = box.of(self.values[name])
        return 0

    def check_unchanged(self) -> None:
        """The card's turn of work keeps it."""

    def close(self) -> None:
        """There is nothing to close."""
