"""What was written of the tensors of a file, as columns: some 50 bytes for each of a million tensors."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..display import counted
from ..formats import Entry

__all__ = ["TensorReport", "TensorReports"]

DIGEST_BYTES = 16


class TensorReport(NamedTuple):
    """One tensor of a destination file."""

    digest: str | None
    """xxh3-128 of its bytes, in hex; None if none was asked for."""
    pieces: tuple[tuple[int, int], ...]
    """Offset and length of the runs in the file that make it up."""
    overflowed: int
    """Finite values that became infinite when they were converted."""


class TensorReports(Mapping[str, TensorReport]):
    """Tensor -> its report.

    Parameters
    ----------
    names
        The tensors; `enter` says of each what there is to say, before it is read.
    entries
        Where the file has them.
    """

    def __init__(self, names: Iterable[str], entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self._row = {name: row for row, name in enumerate(names)}
        self._digests = bytearray(DIGEST_BYTES * len(self._row))
        self._has_digest = bytearray(len(self._row))
        self._overflowed: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"TensorReports({counted(len(self), 'tensor')})"

    def enter(self, name: str, digest: str | None, overflowed: int) -> None:
        """Say what was found of a tensor."""
        row = self._row[name]
        if digest is not None:
            self._digests[DIGEST_BYTES * row : DIGEST_BYTES * (row + 1)] = bytes.fromhex(digest)
            self._has_digest[row] = True
        if overflowed:
            self._overflowed[name] = overflowed

    def digest_of(self, name: str) -> str | None:
        """The digest of a tensor; None if none was taken."""
        row = self._row[name]
        digest = self._digests[DIGEST_BYTES * row : DIGEST_BYTES * (row + 1)].hex()
        return digest if self._has_digest[row] else None

    def __getitem__(self, name: str) -> TensorReport:
        digest = self.digest_of(name)
        pieces = tuple((piece.offset, piece.nbytes) for piece in self.entries[name].pieces)
        return TensorReport(digest, pieces, self._overflowed.get(name, 0))

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)
