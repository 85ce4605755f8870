"""Small tensors, many at a time: what lies side by side in a source file is read by one call.

::

    rank 0   [ a | b |  | c ]      one window of the file, with what lies between the tensors
    rank 1   [ a | b |  | c ]
                  |
    batch    [   a   |   b   |   c   ]      contents in the order of the destination file

Tensors with equal pieces are of one form: runs of bytes, which numpy puts in their places for all of them at once. A
tensor of another kind, or one that is larger, is left to `shard_reader`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import le
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import counted
from ..formats import ByteSource, ByteWindows, Kind, byte_runs
from .converting import convert
from .rank_reads import ReadItem, TensorRead

__all__ = ["Batch", "SmallTensors", "is_small"]

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
Files = Mapping[int, ByteSource]

SMALL_BYTES = 32 << 10
"""Shards of so many bytes are large: what a call of the system for each costs is little beside them."""
MOST_AMPLIFIED = 2
"""How many times the bytes that are wanted of a tensor may be read, as of half of its columns."""
LARGEST_GAP = 3 << 10
"""So many bytes that nobody wants are read rather than to read twice; less than a read costs, as they take memory."""


class _Runs(NamedTuple):
    """A piece of a shard, as runs of bytes of one length."""

    src_rank: int
    src: Rows
    """Where each begins in the content of the slice."""
    dst: Rows
    """Where each begins in the shard."""
    nbytes: int


@dataclass(frozen=True, eq=False)
class _Form:
    """What equal tensors have in common."""

    runs: tuple[_Runs, ...]
    spans: Mapping[int, tuple[int, int]]
    """Source rank -> the first byte of its slice that is wanted, and how many from there on."""
    nbytes: int
    """Of the shard as it is read."""
    source_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    written_bytes: int
    """Of the shard as it is written."""

    @cached_property
    def own_bytes(self) -> int:
        """Memory of the runs."""
        return sum(runs.src.nbytes + runs.dst.nbytes for runs in self.runs)

    @cached_property
    def cost(self) -> int:
        """Memory that a tensor takes in a batch, without gaps: what is read, places of runs, contents."""
        read = sum(nbytes for _, nbytes in self.spans.values())
        return read + 2 * self.own_bytes + self.nbytes + 2 * self.written_bytes


class Batch(NamedTuple):
    """The content of some tensors."""

    tensors: Sequence[TensorRead]
    content: Bytes
    """One shard after the other."""
    overflowed: Rows
    """For each tensor the finite values that became infinite when they were converted."""


def is_small(tensor: TensorRead) -> bool:
    """Whether a tensor may be read with others."""
    size = max(tensor.dtype.itemsize, tensor.source_dtype.itemsize) * math.prod(tensor.shape)
    return 0 < size < SMALL_BYTES and bool(tensor.parts)


class SmallTensors:
    """Reads small tensors in batches.

    Parameters
    ----------
    tensors
        In the order in which they are written.
    sources
        Source rank -> its file, of those that have one.
    most_bytes
        The most memory.
    check
        Called before every batch; raises if the work is to stop.

    Attributes
    ----------
    others : list of TensorRead
        Those that have to be read in another way; complete after the last batch.
    read_bytes : int
        What was read so far.
    nbytes : int
        The most memory that was used so far.
    """

    def __init__(
        self, tensors: Sequence[TensorRead], sources: Files, most_bytes: int, check: Callable[[], None]
    ) -> None:
        self._tensors, self._sources, self._check = tensors, sources, check
        self._most = most_bytes // 2  # for a batch; as much for what is known of forms
        self._gap = min(LARGEST_GAP, self._most // 64)
        # Both know objects by their identity, and keep them, so that no other one can get it.
        self._forms: dict[tuple[Any, ...], tuple[_Form | None, tuple[Any, ...]]] = {}
        self._ranks: dict[int, tuple[tuple[int, ...], tuple[ReadItem, ...]]] = {}
        self._kept = self.read_bytes = self.nbytes = 0
        self.others: list[TensorRead] = []

    def __repr__(self) -> str:
        return f"SmallTensors({counted(len(self._tensors), 'tensor')})"

    def batches(self) -> Iterator[Batch]:
        """The contents of all tensors but `others`; each is there until the next is asked for."""
        plan = _BatchPlan(self._gap)
        for tensor in self._tensors:
            ranks = self._ranks_of(tensor)
            sources = [self._sources[rank] for rank in ranks if rank in self._sources]
            found = [place for source in sources if (place := source.place(tensor.source)) is not None]
            form = self._form(tensor, [place.kind for place in found]) if len(found) == len(ranks) else None
            if form is None:
                self.others.append(tensor)
                continue
            if plan.nbytes + form.cost + len(ranks) * self._gap > self._most:
                yield self._read(plan)
                plan = _BatchPlan(self._gap)
            plan.add(tensor, form, [(place.file, place.offset) for place in found])
        if plan.tensors:
            yield self._read(plan)

    def _ranks_of(self, tensor: TensorRead) -> tuple[int, ...]:
        key = id(tensor.parts)
        if key not in self._ranks:
            self._ranks[key] = tuple(dict.fromkeys(part.src_rank for part in tensor.parts)), tensor.parts
        return self._ranks[key][0]

    def _form(self, tensor: TensorRead, kinds: Sequence[Kind]) -> _Form | None:
        """The form of a tensor whose slices are of these kinds; None if it is to be read in another way."""
        # By identity: plans share equal pieces, and files share kinds, so that nothing has to be compared.
        key = (id(tensor.parts), tensor.source_dtype, tensor.dtype, *map(id, kinds))
        if key not in self._forms:
            ranks = self._ranks_of(tensor)
            form = _form_of(tensor, dict(zip(ranks, kinds, strict=True)))
            if form is not None and form.cost + len(ranks) * self._gap > self._most:
                form = None
            own = 0 if form is None else form.own_bytes
            if self._kept + own > self._most:
                self._forms.clear()
                self._kept = 0
            self._kept += own
            self._forms[key] = form, (tensor.parts, *kinds)
        return self._forms[key][0]

    def _read(self, plan: "_BatchPlan") -> Batch:
        self._check()
        self.nbytes = max(self.nbytes, plan.nbytes + self._kept)
        memory = {rank: self._read_rank(rank, plan) for rank in plan.windows}
        content = np.empty(plan.size, np.uint8)
        overflowed = np.zeros(len(plan.tensors), np.int64)
        for form, members in plan.members.values():
            rows = np.array(members, np.int64)
            overflowed[rows[:, 0]] = _put(form, rows[:, 1], rows[:, 2:], memory, content)
        return Batch(plan.tensors, content, overflowed)

    def _read_rank(self, rank: int, plan: "_BatchPlan") -> Bytes:
        """What one source rank gives of a batch."""
        windows = plan.windows[rank]
        memory = np.empty(windows.size, np.uint8)
        at = 0
        for file, begin, end in windows.runs:
            if not file.fill_window(begin, memory[at : at + end - begin].data):
                self._read_singly(rank, plan, memory)
                break
            at += end - begin
        self.read_bytes += windows.size
        return memory

    def _read_singly(self, rank: int, plan: "_BatchPlan", memory: Bytes) -> None:
        """Read tensor by tensor: an error says which it concerns."""
        for form, members in plan.members.values():
            if rank in form.spans:
                first, nbytes = form.spans[rank]
                column = 2 + list(form.spans).index(rank)
                for row in members:
                    target = memory[row[column] :][:nbytes].data
                    self._sources[rank].fill(plan.tensors[row[0]].source, first, target)


class _Windows:
    """Runs of the files of one source rank, to be read into one memory, one after the other."""

    def __init__(self, largest_gap: int) -> None:
        self._gap = largest_gap
        self.runs: list[list[Any]] = []
        """A file, where a run begins in it and where it ends."""
        self.size = 0

    def add(self, file: ByteWindows, begin: int, nbytes: int) -> int:
        """Take so many bytes more; where they will be in the memory."""
        last = self.runs[-1] if self.runs else None
        if last is not None and last[0] is file and 0 <= begin - last[2] <= self._gap:
            self.size += begin - last[2]
            last[2] = begin + nbytes
        else:
            self.runs.append([file, begin, begin + nbytes])
        self.size += nbytes
        return self.size - nbytes


class _BatchPlan:
    """A batch that is being put together."""

    def __init__(self, largest_gap: int) -> None:
        self._gap = largest_gap
        self.tensors: list[TensorRead] = []
        self.windows: dict[int, _Windows] = {}
        self.members: dict[int, tuple[_Form, list[tuple[int, ...]]]] = {}
        """By form: which tensor, where its content goes, and where what each source rank gives of it will be."""
        self.size = self.nbytes = 0

    def add(self, tensor: TensorRead, form: _Form, places: Sequence[tuple[ByteWindows, int]]) -> None:
        """Take a tensor whose slices lie there, in the order of the form's source ranks."""
        row = [len(self.tensors), self.size]
        for (rank, (first, nbytes)), (file, offset) in zip(form.spans.items(), places, strict=True):
            windows = self.windows.get(rank) or self.windows.setdefault(rank, _Windows(self._gap))
            before = windows.size
            row.append(windows.add(file, offset + first, nbytes))
            self.nbytes += windows.size - before - nbytes
        self.members.setdefault(id(form), (form, []))[1].append(tuple(row))
        self.tensors.append(tensor)
        self.size += form.written_bytes
        self.nbytes += form.cost


def _put(form: _Form, at: Rows, places: Rows, memory: Mapping[int, Bytes], content: Bytes) -> Rows | int:
    """Put tensors of one form together; gives how many values of each overflowed.

    Parameters
    ----------
    at
        Where each goes in `content`.
    places
        Where what a source rank gives of each is in its memory, a column for each rank.
    """
    count, same = len(at), form.dtype == form.source_dtype
    shards = content if same else np.empty(count * form.nbytes, np.uint8)
    begins = at if same else np.arange(count) * form.nbytes
    column = dict(zip(form.spans, places.T, strict=True))
    for rank, src, dst, nbytes in form.runs:
        there = column[rank][:, None] + (src - form.spans[rank][0])
        _by_runs(shards, nbytes)[begins[:, None] + dst] = _by_runs(memory[rank], nbytes)[there]
    if same:
        return 0
    values, overflowed = convert(shards.view(form.source_dtype).reshape(count, -1), form.dtype)
    _by_runs(content, form.written_bytes)[at] = values.view(f"V{form.written_bytes}")[:, 0]
    return overflowed


def _by_runs(memory: Bytes, nbytes: int) -> Array:
    """The runs of so many bytes that begin at each byte of a memory."""
    return np.ndarray((len(memory) - nbytes + 1,), f"V{nbytes}", memory.data, strides=(1,))


def _form_of(tensor: TensorRead, kinds: Mapping[int, Kind]) -> _Form | None:
    """The form of a tensor, of slices by source rank; None if a slice is not as planned, which its reader tells."""
    for part in tensor.parts:
        kind = kinds[part.src_rank]
        fits = len(kind.shape) == len(part.src.stop) and all(map(le, part.src.stop, kind.shape))
        if kind.dtype != tensor.source_dtype or not fits:
            return None
    itemsize, count = tensor.source_dtype.itemsize, math.prod(tensor.shape)
    runs = tuple(_runs_of(part, kinds[part.src_rank].shape, tensor.shape, itemsize) for part in tensor.parts)
    spans: dict[int, tuple[int, int]] = {}
    for rank, src, _, nbytes in runs:
        first, last = int(src[0]), int(src[-1]) + nbytes
        if rank in spans:
            first, last = min(first, spans[rank][0]), max(last, sum(spans[rank]))
        spans[rank] = first, last - first
    wanted = sum(one.nbytes * len(one.src) for one in runs)
    if sum(nbytes for _, nbytes in spans.values()) > MOST_AMPLIFIED * wanted + LARGEST_GAP:
        return None
    sizes = count * itemsize, tensor.source_dtype, tensor.dtype, count * tensor.dtype.itemsize
    return _Form(runs, spans, *sizes)


def _runs_of(part: ReadItem, src_shape: tuple[int, ...], shape: tuple[int, ...], itemsize: int) -> _Runs:
    """The runs of a piece, as long as they are contiguous on both sides."""
    src, src_bytes = byte_runs(src_shape, part.src, itemsize)
    dst, dst_bytes = byte_runs(shape, part.dst, itemsize)
    # The longer ones are of whole shorter ones: both end with trailing dims of the same piece.
    nbytes = min(src_bytes, dst_bytes)
    return _Runs(part.src_rank, _divided(src, src_bytes, nbytes), _divided(dst, dst_bytes, nbytes), nbytes)


def _divided(starts: Sequence[int], nbytes: int, shorter: int) -> Rows:
    """Where each of the shorter runs begins that make up the longer ones."""
    return np.add.outer(np.array(starts, np.int64), np.arange(0, nbytes, shorter)).ravel()
