"""One card's shards of initial values: made, or cut, where they are needed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import Region
from .tensor import Source

__all__ = ["InitialPart", "InitialShare"]

Array = NDArray[Any]


@dataclass(frozen=True)
class InitialPart:
    """One shard of an initial value."""

    name: str
    region: Region
    source: Source


@dataclass(frozen=True)
class InitialShare:
    """One card's shards of initial values; arrays of the user are cut before they are sent."""

    parts: tuple[InitialPart, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        sizes = (int(np.prod([b - a for a, b in p.region], dtype=np.int64)) for p in self.parts)
        return sum(n * p.source.dtype.itemsize for n, p in zip(sizes, self.parts, strict=True))

    def read(self) -> dict[str, Array]:
        """The shards by name."""
        return {part.name: part.source.region(part.region, part.name) for part in self.parts}
