"""The content of a file's shards, step by step, read from source slices into one bounded memory.

::

    slot | slot         what is filled while the other is written; one where nobody reads ahead
    scratch | staging   rows of slices with what lies between their runs

A step is a block of rows where a shard is a table of bytes (see `tables`), otherwise a window: a run of the shard,
in the order of its bytes.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..display import counted
from ..layout import Box
from .rank_reads import TensorRead
from .row_blocks import BLOCK_BYTES, BlockReader, RowBlock, RowPlan, row_plan_of
from .sources import BoxReader

__all__ = ["SMALLEST_BUFFER", "ShardReader", "window_bytes"]

Array = NDArray[Any]
Step = Box | RowBlock

LARGEST_WINDOW = 3 << 20
"""A window is hashed and written while it is in the processor's cache: 8 MiB take twice the time of 2."""
SMALLEST_BUFFER = 64 << 10
"""Below this the work is all overhead."""


def window_bytes(buffer_bytes: int, windows: int = 1) -> int:
    """The size of a window where so many of them, and what is read beside them, share a buffer."""
    return max(min(buffer_bytes // (windows + 1), LARGEST_WINDOW), 1)


class ShardReader:
    """The content of shards, in their order.

    Parameters
    ----------
    tensors
        The shards.
    sources
        Source rank -> what holds its slices.
    buffer_bytes
        The most memory for data.
    ahead
        Read the next step in a thread while one is worked on.
    check
        Called before every step; raises if the work is to stop.

    Attributes
    ----------
    read_bytes : int
        What was read so far.
    """

    def __init__(
        self,
        tensors: Sequence[TensorRead],
        sources: Mapping[int, BoxReader],
        buffer_bytes: int,
        ahead: bool,
        check: Callable[[], None],
    ) -> None:
        self._tensors, self._sources, self._ahead, self._check = tensors, sources, ahead, check
        self.read_bytes = 0
        self._window = window_bytes(buffer_bytes, 2 if ahead else 1)
        # Rows of slices go to scratch memory, what sources need themselves to what is left of a window.
        self._block = min(2 * self._window // 3, BLOCK_BYTES)
        self._by_bytes = {
            rank: found for rank, source in sources.items() if (found := source.by_bytes) is not None
        }
        self._tables = self._found_tables()
        largest = max((_source_bytes(tensor) for tensor in tensors), default=0)
        element = max((tensor.source_dtype.itemsize for tensor in tensors), default=1)
        size = max(min(self._window, largest), element)
        self._slots = [np.empty(size, np.uint8) for _ in range(2 if ahead else 1)]
        scratch = max((table.scratch_bytes for table in self._tables.values()), default=0)
        self._scratch = np.empty(min(scratch, self._block), np.uint8)
        self._blocks = BlockReader(self._slots, self._scratch)

    def __repr__(self) -> str:
        return f"ShardReader({counted(len(self._tensors), 'tensor')}, {self.nbytes} bytes)"

    @property
    def nbytes(self) -> int:
        """Of its memory."""
        return sum(map(len, self._slots)) + len(self._scratch)

    def _steps(self, tensor: TensorRead) -> Iterator[Step]:
        """In what pieces a shard is filled, in the order of its bytes."""
        table = self._tables.get(tensor.name)
        return tensor.windows(self._window) if table is None else table.blocks(self._block)

    def content(self) -> Generator[Array, None, None]:
        """The content of all steps, in the sources' dtype, each there until the next is asked for."""
        filled = (tensor for tensor in self._tensors if tensor.nbytes)
        steps = ((tensor, step) for tensor in filled for step in self._steps(tensor))
        return self._read_ahead(steps) if self._ahead else self._read_in_turn(steps)

    def _found_tables(self) -> dict[str, RowPlan]:
        """Those shards that are read from files as tables of bytes, by name."""
        found = {tensor.name: self._table(tensor) for tensor in self._tensors}
        return {name: table for name, table in found.items() if table is not None}

    def _table(self, tensor: TensorRead) -> RowPlan | None:
        ranks = {part.src_rank for part in tensor.parts}
        if not ranks <= self._by_bytes.keys():
            return None
        entries = {rank: self._by_bytes[rank].entry(tensor.source) for rank in ranks}
        if any(entry.dtype != tensor.dtype or entry.is_text for entry in entries.values()):
            return None
        return row_plan_of(tensor, lambda rank: entries[rank].shape, self._block)

    def _read_in_turn(self, steps: Iterable[tuple[TensorRead, Step]]) -> Generator[Array, None, None]:
        for tensor, step in steps:
            yield self._fill(tensor, step, 0)

    def _read_ahead(self, steps: Iterable[tuple[TensorRead, Step]]) -> Generator[Array, None, None]:
        """While one step is worked on, a thread reads the next."""
        waiting: Future[Array] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as reader:
            for number, (tensor, step) in enumerate(steps):
                following = reader.submit(self._fill, tensor, step, number % 2)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _fill(self, tensor: TensorRead, step: Step, slot: int) -> Array:
        self._check()
        if isinstance(step, Box):
            nbytes = step.size * tensor.source_dtype.itemsize
            data: Array = self._slots[slot][:nbytes].view(tensor.source_dtype).reshape(step.shape)
            read = tensor.fill(step, data, self._sources, self._window - len(self._scratch))
        else:
            data, read = self._blocks.read(tensor.source, step, self._by_bytes, slot)
        self.read_bytes += read
        return data


def _source_bytes(tensor: TensorRead) -> int:
    """Bytes of a shard before it is converted."""
    return math.prod(tensor.shape) * tensor.source_dtype.itemsize
