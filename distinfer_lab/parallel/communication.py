"""What a program sends between cards: predicted, or counted by the cards while it runs.

::

    Communication of 2 collectives on 4 cards, in bytes
      AllReduce      MatMul of 'w'    1 call  at most 576 from a card, 2304 in all
      AllGather      x                1 call  at most 192 from a card, 768 in all
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted

__all__ = ["Communication", "Sent"]

Rows = NDArray[np.int64]


class Sent(NamedTuple):
    """What one collective sends."""

    value: str
    """What comes of it, by its name in the program."""
    operator: str
    """Whose output is summed or moved: "MatMul of 'w'"; the name of an input or a parameter."""
    kind: str
    """AllReduce, ReduceScatter, AllGather, AllToAll, Permute, Broadcast or Exchange."""
    calls: int
    """How often it runs."""
    sent_bytes: tuple[int, ...]
    """For each card what it sends to others, in all calls."""


@dataclass(frozen=True, repr=False)
class Communication(Displayed):
    """One row for every collective of a program that sends anything, in order."""

    ranks: int
    rows: tuple[Sent, ...]

    @property
    def sent_bytes(self) -> Rows:
        """What each card sends in all, int64, shape (ranks,)."""
        rows = np.array([row.sent_bytes for row in self.rows], np.int64).reshape(-1, self.ranks)
        total: Rows = rows.sum(axis=0)
        return total

    def by_kind(self) -> Mapping[str, tuple[int, int]]:
        """For each kind of collective its calls, and the bytes that all cards send."""
        out: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            calls, nbytes = out.get(row.kind, (0, 0))
            out[row.kind] = (calls + row.calls, nbytes + sum(row.sent_bytes))
        return out

    def times(self, count: int) -> "Communication":
        """The same for `count` runs."""
        rows = (
            row._replace(calls=row.calls * count, sent_bytes=tuple(n * count for n in row.sent_bytes))
            for row in self.rows
        )
        return Communication(self.ranks, tuple(rows))

    def with_counts(self, counted: Sequence[Sequence[int] | Rows]) -> "Communication":
        """The same rows, with what the cards counted.

        Parameters
        ----------
        counted
            For each card the bytes that it sent for each row.
        """
        rows = (
            row._replace(sent_bytes=tuple(int(card[i]) for card in counted))
            for i, row in enumerate(self.rows)
        )
        return Communication(self.ranks, tuple(rows))

    def __iter__(self) -> Iterator[Sent]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        count = counted(len(self), "collective")
        lines = [f"Communication of {count} on {counted(self.ranks, 'card')}, in bytes"]
        wide = max((len(row.operator) for row in self.rows), default=0)
        most = max((len(str(max(row.sent_bytes))) for row in self.rows), default=0)
        for row in self.rows:
            calls = counted(row.calls, "call")
            lines.append(
                f"  {row.kind:<13}  {row.operator:<{wide}}  {calls:>8}  "
                f"at most {max(row.sent_bytes):>{most}} from a card, {sum(row.sent_bytes)} in all"
            )
        return "\n".join(lines)
