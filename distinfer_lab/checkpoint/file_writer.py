"""One destination file, written from source slices through a bounded buffer.

A tensor comes step by step (see `filling`): each is converted if that is asked for, hashed and written in one go.
A finished tensor is entered in the file's journal; a later run looks at the bytes again, and does not redo what has
the digest that the journal says.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..display import counted
from ..errors import CheckpointFileError, DistinferError
from ..formats import SliceWriter, TensorSpec, with_secret_key
from .converting import convert
from .journal import Journal
from .rank_reads import RankReadPlan, TensorRead
from .shard_reader import ShardReader, window_bytes
from .small_tensors import Batch, SmallTensors, is_small
from .sources import BoxReader
from .staging import journal_of
from .tensor_reports import TensorReports

__all__ = [
    "Control",
    "FileReport",
    "FileWork",
    "Unwatched",
    "WriteTask",
    "Written",
    "write_file",
]

Array = NDArray[Any]


class Control(Protocol):
    """How a long work is watched and stopped."""

    def advance(self, nbytes: int) -> None:
        """So many more bytes of destination shards are there."""
        ...

    def check(self) -> None:
        """Raise if the work is to stop."""
        ...


class Unwatched:
    """`Control` of work that nobody watches."""

    def __repr__(self) -> str:
        return "Unwatched()"

    def advance(self, nbytes: int) -> None:
        """See `Control`."""

    def check(self) -> None:
        """See `Control`."""


@dataclass(frozen=True)
class FileReport:
    """What was written to one file, and what it took."""

    path: str
    """Relative to the output folder."""
    rank: int
    tensors: TensorReports
    nbytes: int
    """Bytes of all shards."""
    read_bytes: int
    """Bytes of content read from source files."""
    reused_bytes: int
    """Bytes that an earlier run had written."""
    buffer_bytes: int
    """The most memory that was used for data at one time."""
    frame: str | None = None
    """xxh3-128 of the file's bytes outside the tensors, in hex; None if no digests were taken."""
    cipher: str | None = None
    """xxh3-128 of all bytes of the file, in hex, if it is encrypted."""
    started_over: bool = False
    """Whether the journal of an earlier run was damaged, so that nothing of that run was used."""


@dataclass(frozen=True)
class WriteTask:
    """What one destination file holds; small, and can be pickled.

    Parameters
    ----------
    share
        The shards, and where their pieces are.
    folder, path
        The stage, and the file's path within it.
    texts
        Text entries.
    buffer_bytes
        The most memory for data.
    digests
        Whether to take digests; without them nothing can be verified or resumed.
    options
        Of `SliceWriter`.
    """

    share: RankReadPlan
    folder: str
    path: str
    texts: Mapping[str, str] = field(default_factory=dict)
    buffer_bytes: int = 32 << 20
    digests: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", with_secret_key(self.options))

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return self.share.nbytes

    @property
    def specs(self) -> list[TensorSpec]:
        """The entries of the file."""
        tensors = [TensorSpec(t.name, t.dtype, t.shape) for t in self.share.tensors]
        return tensors + [TensorSpec(n, np.dtype("<U1"), (), text) for n, text in self.texts.items()]


class Written(NamedTuple):
    """What was written by whoever did the work, and what it took."""

    files: tuple[FileReport, ...]
    """In the order of the tasks."""
    served_bytes: int = 0
    """Bytes of content that cards read from source files for other cards."""
    moved_bytes: int = 0
    """Bytes that cards sent to other cards."""
    private_bytes: int | None = None
    """The most private memory that a worker took beyond what it has when idle; None if not measured."""


def write_file(
    task: WriteTask,
    control: Control,
    sources: Mapping[int, BoxReader] | None = None,
    *,
    ahead: bool = False,
) -> FileReport:
    """Write a destination file, or what an earlier run has left to write of it.

    Parameters
    ----------
    sources
        Source rank -> what holds its slices. None: the share's files, opened for as long as it takes.
    ahead
        Read the next window in a thread while one is worked on.

    Raises
    ------
    CheckpointError, CheckpointFileError
        If a source file is damaged or changes, or the destination cannot be written.
    """
    with ExitStack() as stack:
        own = task.share.opened(stack) if sources is None else {}
        with FileWork(task, control, ahead) as work:
            work.reuse()
            work.write(own if sources is None else sources)
            report = work.complete()
        for source in own.values():
            source.check_unchanged()
        return report


class FileWork:
    """One destination file at work; a context manager, at whose end the file is complete.

    Parameters
    ----------
    ahead
        Read the next window in a thread while one is worked on.

    Attributes
    ----------
    left : tuple of TensorRead
        What is still to be written; all, until `reuse` was called.
    """

    def __init__(self, task: WriteTask, control: Control, ahead: bool = False) -> None:
        self.task, self.control, self.ahead = task, control, ahead
        self.left = task.share.tensors
        self.reused = self._read = self._buffer = 0
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"FileWork({self.task.path}, {counted(len(self.left), 'tensor')} left)"

    def __enter__(self) -> "FileWork":
        task = self.task
        with self._told(), ExitStack() as stack:
            path = Path(task.folder, task.path)
            options = {"resume": True, "permissions": 0o600, **task.options}
            self.writer = stack.enter_context(SliceWriter(path, task.specs, **options))
            self.journal = stack.enter_context(
                Journal(journal_of(task.folder, task.path), self.writer.resumed)
            )
            self._stack = stack.pop_all()
            self.reports = TensorReports((tensor.name for tensor in task.share.tensors), self.writer.entries)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told():
            self._stack.__exit__(kind, error, trace)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of an error of the system which file it concerns."""
        try:
            yield
        except OSError as err:
            if isinstance(err, DistinferError):
                raise
            raise CheckpointFileError(
                f"{self.task.folder}/{self.task.path}: {err.strerror}; the file was not completed, "
                "what was written is kept",
                file=f"{self.task.folder}/{self.task.path}",
            ) from err

    def reuse(self) -> None:
        """Take over what an earlier run wrote, if it is what that run said."""
        with self._told():
            self.left = tuple(tensor for tensor in self.task.share.tensors if not self._reused(tensor))

    def write(self, sources: Mapping[int, BoxReader]) -> None:
        """Write what is left."""
        others = self._write_small(sources)
        filling = ShardReader(others, sources, self.task.buffer_bytes, self.ahead, self.control.check)
        with self._told(), closing(filling.content()) as content:
            for tensor in others:
                self._write(tensor, content)
        self._read += filling.read_bytes
        self._buffer = max(self._buffer, filling.nbytes if others else 0)
        self.left = ()

    def _write_small(self, sources: Mapping[int, BoxReader]) -> Sequence[TensorRead]:
        """Write small tensors of files, many at a time, in the order of the file; gives those that are left."""
        files = {rank: found for rank, source in sources.items() if (found := source.by_bytes) is not None}
        if not self.task.share.sources.keys() <= files.keys():
            return self.left  # what other cards send comes in the order of the plan
        by_name = {tensor.name: tensor for tensor in self.left if is_small(tensor)}
        ordered = [by_name[name] for name in self.writer.entries if name in by_name]
        most = window_bytes(self.task.buffer_bytes)
        small = SmallTensors(ordered, files, most, self.control.check)
        with self._told():
            for batch in small.batches():
                self._write_batch(batch)
        self._read, self._buffer = small.read_bytes, small.nbytes
        for tensor in small.others:
            del by_name[tensor.name]
        return [tensor for tensor in self.left if tensor.name not in by_name]

    def _write_batch(self, batch: Batch) -> None:
        content = batch.content.data
        self.writer.write_contents([tensor.name for tensor in batch.tensors], content)
        found: list[tuple[str, str, int]] = []
        at = 0
        for tensor, overflowed in zip(batch.tensors, batch.overflowed.tolist(), strict=True):
            digest = None
            if self.task.digests:
                digest = xxhash.xxh3_128_hexdigest(content[at : at + tensor.nbytes])
                found.append((tensor.name, digest, overflowed))
            at += tensor.nbytes
            self.reports.enter(tensor.name, digest, overflowed)
        self.journal.enter(found)
        self.control.advance(at)

    def complete(self) -> FileReport:
        """Give the file its name, now that everything is written."""
        with self._told():
            self.writer.complete()
        return FileReport(
            self.task.path,
            self.task.share.rank,
            self.reports,
            self.task.nbytes,
            self._read,
            self.reused,
            self._buffer,
            self.writer.frame if self.task.digests else None,
            self.writer.cipher if self.task.digests else None,
            self.journal.damaged,
        )

    def _reused(self, tensor: TensorRead) -> bool:
        entered = self.journal.entered.get(tensor.name)
        if entered is None:
            return False
        digest = xxhash.xxh3_128()
        for block in self.writer.blocks(tensor.name):
            self.control.check()
            digest.update(block)
        if digest.hexdigest() != entered[0]:
            return False
        self.writer.adopt(tensor.name)
        self.reports.enter(tensor.name, *entered)
        self.reused += tensor.nbytes
        self.control.advance(tensor.nbytes)
        return True

    def _write(self, tensor: TensorRead, content: Iterator[Array]) -> None:
        digest = xxhash.xxh3_128() if self.task.digests else None
        overflowed = 0
        at, nbytes = 0, tensor.nbytes
        while at < nbytes:  # steps follow each other in the order of the shard's bytes
            data = next(content)
            if tensor.dtype != tensor.source_dtype:
                data, counts = convert(data.reshape(1, -1), tensor.dtype)
                overflowed += int(counts[0])
            written = data.reshape(-1).view(np.uint8).data
            if digest is not None:
                digest.update(written)
            self.writer.write_bytes(tensor.name, at, written)
            at += len(written)
            self.control.advance(len(written))
        found = None if digest is None else digest.hexdigest()
        if found is not None:
            self.journal.enter([(tensor.name, found, overflowed)])
        self.reports.enter(tensor.name, found, overflowed)
