"""Open files, of which only some have a descriptor at any time: 1,024 slices open where 1,024 files may.

::

    with handle as descriptor:      it is opened again if it has to be, and stays while it is used
        os.preadv(descriptor, ...)

The descriptors that were not used for the longest time are closed. A file that is opened again has to be the one that
it was. Files without a name cannot be opened again: several share one (see `Spool`).
"""

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, ClassVar, NamedTuple

from ..errors import CheckpointFileError
from ..untrusted import open_regular

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["FileIdentity", "Handle", "NamedHandle", "Spool", "most_descriptors"]

MOST_DESCRIPTORS = 256
"""More would save nothing: to open a file takes some 10 us."""
SPOOL_PARTS = 64


def most_descriptors() -> int:
    """How many descriptors slice files may have: a quarter of what the process may have, and no more than 256."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else MOST_DESCRIPTORS
    return MOST_DESCRIPTORS if soft < 0 else max(min(soft // 4, MOST_DESCRIPTORS), 4)


class _Pool:
    """The handles that have a descriptor, the one that was not used for the longest time first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.opened: OrderedDict[NamedHandle, None] = OrderedDict()

    def shrink(self, most: int) -> None:
        """Close descriptors that nobody uses now until there are at most so many, if that is possible."""
        idle = [handle for handle in self.opened if not handle.users]
        for handle in idle[: max(len(self.opened) - most, 0)]:
            handle.let_go()


_pool = _Pool()


class Handle(ABC):
    """An open file; entered, it gives a descriptor that is valid until it is left.

    Attributes
    ----------
    base : int
        Where the content begins in the file behind the descriptor, in bytes.
    size : int
        Bytes of the content.
    stat : os.stat_result
        Of the file that was opened, encrypted or not.
    """

    base: int
    size: int
    stat: os.stat_result

    @abstractmethod
    def __enter__(self) -> int: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the file for good."""


class NamedHandle(Handle):
    """A file that is opened by its path, as often as it has to be.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path, self.base, self.users = path, 0, 0
        self._file: BinaryIO | None = None
        self._closed = False
        with _pool.lock:
            self._file = _open(path)
            self.stat = os.fstat(self._file.fileno())
            self.size = self.stat.st_size
            self._took()

    def __repr__(self) -> str:
        return f"NamedHandle({self.path})"

    def __enter__(self) -> int:
        with _pool.lock:
            if self._closed:
                raise OSError(errno.EBADF, "The file was closed")
            if self._file is None:
                self._file = self._opened_again()
                self._took()
            else:
                _pool.opened.move_to_end(self)
            self.users += 1
            return self._file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _pool.lock:
            self.users -= 1
            if self._closed and not self.users:
                self.let_go()

    def close(self) -> None:
        """Let go of the file for good."""
        with _pool.lock:
            self._closed = True
            if not self.users:
                self.let_go()

    def let_go(self) -> None:
        """Close the descriptor, which nobody uses."""
        _pool.opened.pop(self, None)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _took(self) -> None:
        self.users += 1
        _pool.opened[self] = None
        _pool.shrink(most_descriptors())
        self.users -= 1

    def _opened_again(self) -> BinaryIO:
        file = _open(self.path)
        if FileIdentity.of(os.fstat(file.fileno())) != FileIdentity.of(self.stat):
            file.close()
            raise CheckpointFileError(
                f"{self.path} was changed while it was read; start again when it is complete",
                file=self.path,
            )
        return file


def _open(path: str) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as err:
        if err.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    _pool.shrink(0)
    return open_regular(path)


class FileIdentity(NamedTuple):
    """What tells a file from any other, and from what it was before a change, on one host."""

    size: int
    mtime_ns: int
    """Of the last change of the content. Archives and copies may set it, so that different files have equal ones."""
    ctime_ns: int
    """Of the last change of the content or of what the system knows of the file; nobody can set it."""
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "FileIdentity":
        """That of a file whose `os.stat` this is."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class _Shared:
    """A file without a name that several spools share."""

    def __init__(self) -> None:
        self.file: BinaryIO = TemporaryFile()  # noqa: SIM115  closed by its last user
        self.end = self.parts = self.users = 0
        self.busy = False


class Spool(Handle):
    """Content that is kept in a file without a name; up to 64 of them share one.

    Parameters
    ----------
    blocks
        The content.
    stat
        Of the file that the content was made from.

    Raises
    ------
    OSError
        If the disk is full.
    """

    _lock = threading.Lock()
    _shared: ClassVar[list[_Shared]] = []

    def __init__(self, blocks: Iterable[bytes], stat: os.stat_result) -> None:
        self.stat = stat
        self._place = self._taken()
        self.base = self._place.end
        try:
            for block in blocks:
                self._place.file.write(block)
                self._place.end += len(block)
            self._place.file.flush()
        except BaseException:
            self._place.parts = SPOOL_PARTS  # what the file holds from here on is not certain
            self.close()
            raise
        finally:
            self._place.busy = False
        self.size = self._place.end - self.base

    def __repr__(self) -> str:
        return f"Spool({self.size} bytes)"

    def _taken(self) -> _Shared:
        """A file that nobody else writes to now."""
        with self._lock:
            place = next((p for p in self._shared if not p.busy and p.parts < SPOOL_PARTS), None)
            if place is None:
                place = _Shared()
                self._shared.append(place)
            place.busy, place.parts, place.users = True, place.parts + 1, place.users + 1
            return place

    def __enter__(self) -> int:
        return self._place.file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The descriptor stays."""

    def close(self) -> None:
        """Let go of the content for good; the file is closed with its last."""
        with self._lock:
            self._place.users -= 1
            if not self._place.users:
                self._place.file.close()
                self._shared.remove(self._place)
