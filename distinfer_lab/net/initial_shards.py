"""One card's shards of initial values: made where they are needed, or taken of an array."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import Region
from .tensor import ValueSource

__all__ = ["InitialBox", "InitialShard", "InitialShards"]

Array = NDArray[Any]


class InitialBox(NamedTuple):
    """A box of an initial value; a shard has several where the value is fused."""

    whole: Region
    """In the coordinates of the whole value."""
    shard: Region
    """The same, in the shard."""
    source: ValueSource


@dataclass(frozen=True)
class InitialShard:
    """One shard of an initial value."""

    name: str
    shape: tuple[int, ...]
    boxes: tuple[InitialBox, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the shard."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.boxes[0].source.dtype.itemsize

    def read(self) -> Array:
        """The shard."""
        if len(self.boxes) == 1:
            return self.boxes[0].source.region(self.boxes[0].whole, self.name)
        out = np.empty(self.shape, self.boxes[0].source.dtype)
        for box in self.boxes:
            out[tuple(slice(a, b) for a, b in box.shard)] = box.source.region(box.whole, self.name)
        return out


@dataclass(frozen=True)
class InitialShards:
    """One card's shards of initial values; of a user's array only the card's shards are sent."""

    parts: tuple[InitialShard, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        return sum(part.nbytes for part in self.parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each shard."""
        return {part.name: part.nbytes for part in self.parts}

    def read(self) -> dict[str, Array]:
        """The shards by name."""
        return {part.name: part.read() for part in self.parts}
