"""The slice files of all ranks, opened together: what they hold, who holds it, and reads of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import xxhash

from ..arguments import checked_on_error
from ..display import Displayed, counted
from ..dtypes import dtype_name
from ..errors import CheckpointError, Option, listed
from ..layout import Box, Layout, Strategy
from ..reshard import Topology
from ..rules import name_in_any_layer
from ..text import printable
from .coverage import Coverage, coverage, format_box
from .records import TensorRecord
from .sources import Slices, SliceSource

__all__ = ["CheckpointFiles"]

BLOCK_BYTES = 4 << 20
SAMPLE_BYTES = 4 << 10


@dataclass(frozen=True, repr=False, eq=False)
class CheckpointFiles(Displayed):
    """Sliced checkpoint files, opened together (see `open_checkpoint`); a context manager."""

    files: tuple[Slices, ...]
    """One per rank, in rank order."""
    tensors: Mapping[str, TensorRecord]
    texts: Mapping[str, str]
    """Text entries, which are equal on all ranks."""
    missing: tuple[str, ...]
    """Tensors that the strategy or an index names, and no file holds; a plan that takes one is refused."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Entries that can be listed but not read, and why; a plan has to leave them out."""
    sources: tuple[SliceSource, ...] = ()
    """Where the slices are, in rank order: what a worker opens."""
    topology: Topology | None = None
    """The hosts of those cards: a plan has shards sent within a host where it can."""
    folder: str = ""
    """Where the manifest lies that says what the files hold; "" if none does."""
    marks: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Tensor -> rank -> digest, of a few tensors that distinguish the files of an output (see places.py)."""
    notes: tuple[str, ...] = ()
    """What was chosen among several saves, which files are not used, and what does not agree: a sentence each."""

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return len(self.files)

    @property
    def format(self) -> str:
        """The format of the files, ckpt or safetensors; ckpt where there are none."""
        return next((file.format for file in self.files if file.format), "ckpt")

    @property
    def paths(self) -> tuple[str, ...]:
        """What it is read from, in rank order: files or folders; nothing if it is in the memory of cards."""
        return tuple(source.path for source in self.sources if source.path)

    @property
    def lost(self) -> Mapping[int, Slices]:
        """The ranks whose slices are not there, and why."""
        return {rank: file for rank, file in enumerate(self.files) if file.is_lost}

    def coverage(self) -> dict[str, Coverage]:
        """How many copies of each tensor's boxes are there, and which boxes are not."""
        seen: dict[tuple[Layout, tuple[int, ...]], Coverage] = {}
        out: dict[str, Coverage] = {}
        for name, record in self.tensors.items():
            key = record.layout, record.shape
            if key not in seen:
                seen[key] = coverage(*key, self.lost)
            out[name] = seen[key]
        return out

    @property
    def strategy(self) -> Strategy:
        """The layout and the full shape of every tensor, states and plain entries included."""
        return Strategy(
            {name: record.layout for name, record in self.tensors.items()},
            {name: record.shape for name, record in self.tensors.items()},
            self.ranks,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all slices, replicas counted each."""
        return sum(entry.nbytes for file in self.files for entry in file.entries.values())

    @property
    def full_nbytes(self) -> int:
        """Bytes of all tensors, each counted once."""
        return sum(int(np.prod(r.shape, dtype=object)) * r.dtype.itemsize for r in self.tensors.values())

    @checked_on_error
    def read(self, rank: int, name: str, box: Box | None = None) -> Any:
        """Read a box of what one rank holds, in the coordinates of its slice."""
        return self.files[rank].read(name, box)

    @checked_on_error
    def digest(self, rank: int, name: str) -> str:
        """The xxh3-128 of the bytes of one slice, in hex; read in blocks.

        Raises
        ------
        CheckpointError
            If there is no such rank, or its file has no such tensor.
        """
        if rank >= self.ranks:
            raise CheckpointError(
                f"{name}: there is no rank {rank}; the checkpoint has {self.ranks}", parameter=name, rank=rank
            )
        file = self.files[rank]
        entry = file.entry(name)
        digest = xxhash.xxh3_128()
        rows = entry.shape[0] if entry.shape else 1
        step = max(BLOCK_BYTES * rows // max(entry.nbytes, 1), 1)
        for first in range(0, rows, step):
            box = Box.whole(entry.shape)
            if entry.shape:
                box = Box((first, *box.start[1:]), (min(first + step, rows), *box.stop[1:]))
            digest.update(file.read(name, box).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def start_equal(self, one: str, other: str) -> bool:
        """Return whether two tensors of one shape and dtype agree in a few KiB that one rank holds of both.

        If no rank holds the same part of both, nothing is compared and they are assumed to be equal.
        """
        if self.tensors[one].layout != self.tensors[other].layout:
            return True
        file = next((f for f in self.files if one in f.entries and other in f.entries), None)
        if file is None:
            return True
        nbytes = min(file.entries[one].nbytes, file.entries[other].nbytes)
        count = min(nbytes, SAMPLE_BYTES)
        samples = bytearray(count), bytearray(count)
        for start in {0, (nbytes - count) // 2, nbytes - count}:
            for name, sample in zip((one, other), samples, strict=True):
                file.fill(name, start, memoryview(sample))
            if samples[0] != samples[1]:
                return False
        return True

    @checked_on_error
    def check_replicas(self, names: Sequence[str] | None = None) -> None:
        """Read the slices that should be equal, and compare them.

        Raises
        ------
        CheckpointError
            If two differ; the text names the files: one is damaged, or out of its place.
        """
        unknown = [name for name in names or () if name not in self.tensors]
        if unknown:
            raise CheckpointError(
                f"{unknown[0]}: there is no such tensor; there is {listed(self.tensors)}",
                parameter=unknown[0],
            )
        for name in self.tensors if names is None else names:
            record = self.tensors[name]
            # Of a fused tensor a rank has several boxes, one after another.
            boxes = record.layout.regions(record.shape).boxes.reshape(len(record.layout.ranks), -1)
            seen: dict[bytes, tuple[int, str]] = {}
            copies = np.unique(boxes, axis=0, return_counts=True)[1] if boxes.size else [len(boxes)]
            if max(copies, default=1) == 1:
                continue
            for rank, box in zip(record.layout.ranks.tolist(), boxes, strict=True):
                if rank in self.lost:
                    continue
                digest = self.digest(rank, name)
                first, known = seen.setdefault(box.tobytes(), (rank, digest))
                if known != digest:
                    without = [Option("without", [first]), Option("without", [rank])]
                    raise CheckpointError(
                        f"{name}: rank {first} ({self.files[first].path}) and rank {rank} "
                        f"({self.files[rank].path}) should hold equal slices, but they differ; "
                        "one file is damaged, or the files are not in rank order; leave the wrong one out "
                        f"by {without[0]} or {without[1]}",
                        *without,
                        file=self.files[first].path,
                        parameter=name,
                    )

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return self.describe()

    def describe(self, *, by_layer: bool = False) -> str:
        """What the files hold, a line for each tensor.

        Parameters
        ----------
        by_layer
            One line for the tensors that are the same in several layers: their names differ in the layer's number
            only, and they have one shape, dtype and layout.
        """
        lines = [
            f"Checkpoint of {counted(self.ranks, 'rank')}: {counted(len(self.tensors), 'tensor')}, "
            f"{self.full_nbytes} bytes ({self.nbytes} in the slices)"
        ]
        lines += self._tensor_lines(by_layer)
        lines += [f"  {printable(name)}  text" for name in self.texts]
        lines += [
            f"  {printable(name)}  cannot be read: {reason}" for name, reason in self.unreadable.items()
        ]
        if self.lost:
            lines += [f"  rank {rank} is lost: {printable(file.reason)}" for rank, file in self.lost.items()]
            for name, found in self.coverage().items():
                if len(found.holes):
                    holes = listed(map(format_box, found.holes.tolist()))
                    lines.append(f"  {printable(name)}  cannot be recovered: {holes}")
        copies = [found for found in self.coverage().values() if found.fewest]
        if copies:
            fewest, most = min(found.fewest for found in copies), max(found.most for found in copies)
            words = f"{fewest} to {most} ranks" if fewest != most else counted(fewest, "rank")
            lines.append(f"  every slice that is there is held by {words}")
        lines += [f"  {printable(name)}  is named, but in no file" for name in self.missing]
        lines += [f"  note: {printable(note)}" for note in self.notes]
        return "\n".join(lines)

    def _tensor_lines(self, by_layer: bool) -> list[str]:
        groups: dict[object, list[TensorRecord]] = {}
        for name, record in self.tensors.items():
            key = (name_in_any_layer(name), *record[1:]) if by_layer else name
            groups.setdefault(key, []).append(record)
        return [_line(records) for records in groups.values()]


def _line(records: Sequence[TensorRecord]) -> str:
    """Tensors that differ in the number of their layer only, in one line."""
    first, many = records[0], len(records) > 1
    name = name_in_any_layer(first.name) if many else first.name
    layers = f"  in {len(records):,} layers" if many else ""
    cut = first.layout.describe_cut()
    return f"  {printable(name)}  {list(first.shape)} {dtype_name(first.dtype)}  {cut}  {first.kind}{layers}"
