"""A slice file that is open: an index of its entries, and reads of boxes.

Opening reads headers only; a read takes the byte runs of its box and no others, except that
runs too short to be worth a call of the system each are read together with the gaps between
them, in windows of a few MiB.
"""

import contextlib
import math
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import CheckpointError, CheckpointFileError, listed
from ..layout import Box, windows
from ..text import printable
from .box_reads import contiguous_from, last_cut_dim, rows_to_read, run_bytes, stepped_dim
from .ckpt import CRC_BYTES, CRC_WORD
from .entry import Entry, Place, SlicesInFiles, byte_runs, stretches
from .entry_table import EntryTable
from .file_formats import format_of
from .handles import FileIdentity, Handle
from .recognisers import HEAD_BYTES, recognise_file

__all__ = ["SliceFile"]

Array = NDArray[Any]

WINDOW_BYTES = 4 << 20
MOST_BUFFERS = 1024
"""How many buffers one read may fill (IOV_MAX)."""
LONG_RUN = 32 << 10
"""From this length on the system puts the runs of a view in their places; shorter ones are staged.

To make a buffer for each run of a view takes its time, so this is more than where the buffers are there (`scatter`).
"""
STAGING_BYTES = 512 << 10
"""What is staged at one time stays in the processor's cache."""


class SliceFile(SlicesInFiles, Displayed):
    """One rank's file (see `open_slice`); a context manager.

    Attributes
    ----------
    path : str
        The file.
    format : str
        The name of its format: "ckpt", "safetensors".
    entries : Mapping[str, Entry]
        In the order of the file.
    nbytes_read : int
        Bytes of content read so far.
    cut : str
        That the file, whose header is whole, ends before its last tensor does; "" if it does not.
    """

    def __init__(self, path: str, handle: Handle, crc_check: bool = False) -> None:
        self.path, self._handle, self._stat = path, handle, handle.stat
        self.size = handle.size
        self.nbytes_read = 0
        self._counting = threading.Lock()
        self._last: Entry | None = None
        self._texts: Mapping[str, str] = {}
        self.cut = ""
        self.entries: Mapping[str, Entry]
        format = format_of(path)
        self.format = format.name
        end = self._content_end(crc_check) if format.has_checksum else self.size
        try:
            if not self.size:
                raise self._error("the file is empty (0 bytes)")
            self.entries, self._texts, cut = format.index(path, self._read_at, end)
            self.cut = f"{path}: {cut}" if cut else ""
        except CheckpointError as err:
            known = recognise_file(path, self._read_at(0, HEAD_BYTES))
            words = f"{path}: {known}" if known else f"{err}; copy or download it again"
            raise CheckpointError(words, of=known or err, file=path) from err
        self._closer = weakref.finalize(self, handle.close)

    def _content_end(self, crc_check: bool) -> int:
        """Where the entries end: before the checksum, if there is one."""
        tail = self._read_at(max(self.size - CRC_BYTES, 0), CRC_BYTES)
        if not tail.startswith(CRC_WORD) or len(tail) < CRC_BYTES:
            if crc_check:
                raise self._error("the file carries no checksum; open it with crc_check=False")
            return self.size
        end = self.size - CRC_BYTES
        if crc_check and (found := self._crc(end)) != int.from_bytes(tail[len(CRC_WORD) :], "big"):
            raise self._error(f"its checksum is wrong (the content's is {found}); it is damaged")
        return end

    def _error(self, what: str, name: str | None = None) -> CheckpointError:
        return CheckpointError(f"{self.path}: {what}", file=self.path, parameter=name)

    def _crc(self, end: int) -> int:
        crc = 0
        for at in range(0, end, WINDOW_BYTES):
            crc = zlib.crc32(self._read_at(at, min(WINDOW_BYTES, end - at)), crc)
        return crc

    def _read_at(self, offset: int, count: int) -> bytes:
        with self._handle as fd:
            return os.pread(fd, count, self._handle.base + offset)

    def __enter__(self) -> "SliceFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def files(self) -> tuple["SliceFile", ...]:
        """Itself."""
        return (self,)

    @property
    def identity(self) -> FileIdentity:
        """Of the file when it was opened: another file, or a changed one, has another."""
        return FileIdentity.of(self._stat)

    def check_unchanged(self) -> None:
        """Raise if the file was changed, or put aside for another, since it was opened.

        Raises
        ------
        CheckpointFileError
            If so.
        """
        try:
            now = os.stat(self.path)
        except OSError as err:
            words = f"{self.path}: {err.strerror}; it went away while it was read"
            raise CheckpointFileError(words, file=self.path) from err
        if FileIdentity.of(now) != self.identity:
            words = f"{self.path} was changed while it was read; start again when it is complete"
            raise CheckpointFileError(words, file=self.path)

    def close(self) -> None:
        """Close the file; reads fail from now on."""
        self._closer()

    def __repr__(self) -> str:
        return f"SliceFile({printable(self.path)}, {counted(len(self.entries), 'entry')})"

    def path_of(self, name: str) -> str:
        """The file, which holds every entry."""
        return self.path

    def entry(self, name: str) -> Entry:
        """The entry of that name.

        Raises
        ------
        CheckpointError
            If there is none.
        """
        if name not in self.entries:
            raise self._error(f"the file has no entry {name!r}; it has {listed(self.entries)}", name)
        entry = self.entries[name]
        if entry.problem:
            raise self._error(f"{name}: {entry.problem}", name)
        return entry

    def text(self, name: str) -> str:
        """A text entry.

        Raises
        ------
        CheckpointError
            If it is not a text.
        """
        entry = self.entry(name)
        if not entry.is_text:
            raise self._error(f"{name} is a tensor, not a text", name)
        if name in self._texts:
            return self._texts[name]
        data = bytearray(entry.nbytes)
        self._fill(entry, 0, memoryview(data))
        try:
            return data.decode("utf-32-le")
        except UnicodeDecodeError as err:
            raise self._error(f"{name}: its text is not UTF-32; the file is damaged", name) from err

    def read(self, name: str, box: Box | None = None) -> Array:
        """The elements of a box of an entry (of all of it, if no box is given), in the box's shape.

        Raises
        ------
        CheckpointError
            If there is no such tensor, or the file ends too early.
        """
        entry = self.entry(name)
        box = Box.whole(entry.shape) if box is None else box
        out = np.empty(box.shape, entry.dtype)
        self.read_into(name, box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int = WINDOW_BYTES) -> int:
        """Read a box into an array of its shape and dtype, or a view of one; gives the bytes that were read.

        Parameters
        ----------
        buffer_bytes
            The most memory for what is read beside `out`: rows of which the box has a part only,
            and pieces on their way to a view that is not contiguous.
        """
        entry = self.entry(name)
        if entry.is_text:
            raise self._error(f"{name} is a text, not a tensor; use text({name!r})", name)
        box.within(Box.whole(entry.shape))
        if (out.shape, out.dtype) != (box.shape, entry.dtype):
            raise self._error(
                f"{name}: an array of shape {list(out.shape)} and dtype {out.dtype} for a box of "
                f"shape {list(box.shape)} and dtype {entry.dtype}; it must fit",
                name,
            )
        if not out.size:
            return 0
        if out.flags.c_contiguous:
            return self._read_box(entry, box, out, buffer_bytes)
        if len(entry.pieces) == 1 and last_cut_dim(entry.shape, box) < 1 and run_bytes(out) >= LONG_RUN:
            return self._scatter_box(entry, box, out)
        read = 0
        for window in windows(box.shape, entry.dtype.itemsize, max(min(buffer_bytes // 2, STAGING_BYTES), 1)):
            part = np.empty(window.shape, entry.dtype)
            read += self._read_box(entry, window.moved(box.start), part, buffer_bytes // 2)
            window.of(out)[...] = part
        return read

    def _readable(self, name: str) -> Entry:
        """As `entry`; that of the last call is kept, as many reads of one tensor follow each other."""
        last = self._last
        if last is None or last.name != name:
            self._last = last = self.entry(name)
        return last

    def place(self, name: str) -> Place | None:
        """Where the content of a tensor lies, if it is in one piece; None: `entry` says what else it is."""
        if not isinstance(self.entries, EntryTable):
            return None
        found = self.entries.place_of(name)
        if found is None or found[0].problem or found[0].type_name == "str":
            return None
        return Place(self, *found)

    def fill_window(self, offset: int, target: memoryview) -> bool:
        """Fill `target` with the bytes of the file from `offset` on, whatever entries they are of.

        False if the system did not: whoever goes on entry by entry (`fill`) says which cannot be read.
        """
        done = False
        with contextlib.suppress(OSError), self._handle as fd:
            done = os.preadv(fd, [target], self._handle.base + offset) == len(target)
        if done:
            self._count_read(len(target))
        return done

    def fill(self, name: str, start: int, target: memoryview) -> None:
        """Fill `target` with the content of an entry from byte `start` on.

        Raises
        ------
        CheckpointError, CheckpointFileError
            If the file cannot be read, or ends too early.
        """
        self._fill(self._readable(name), start, target)

    def scatter(self, name: str, start: int, targets: Sequence[memoryview], nbytes: int) -> None:
        """Fill `targets`, one after the other, with the content of an entry from byte `start` on.

        Parameters
        ----------
        nbytes
            Of all targets together.

        Raises
        ------
        CheckpointError, CheckpointFileError
            If the file cannot be read, or ends too early.
        """
        entry = self._readable(name)
        for first in range(0, len(targets), MOST_BUFFERS):
            part = targets[first : first + MOST_BUFFERS]
            count = nbytes if len(part) == len(targets) else sum(map(len, part))
            if not self._scattered(entry, start, part, count):
                at = start
                for target in part:
                    self._fill(entry, at, target)
                    at += len(target)
            start += count

    def _scattered(self, entry: Entry, start: int, targets: Sequence[memoryview], nbytes: int) -> bool:
        """Whether the system filled all targets at once."""
        offset, count = next(stretches(entry.pieces, start, nbytes))
        if count < nbytes:  # another piece follows
            return False
        try:
            with self._handle as fd:
                done = os.preadv(fd, targets, self._handle.base + offset) == nbytes
        except OSError:  # whoever goes on target by target says which
            return False
        if done:
            self._count_read(nbytes)
        return done

    def _count_read(self, nbytes: int) -> None:
        """So many more bytes of content were read."""
        with self._counting:
            self.nbytes_read += nbytes

    def _scatter_box(self, entry: Entry, box: Box, out: Array) -> int:
        """Read one run of the file into the runs of a view."""
        whole = contiguous_from(out)
        targets = [out[index].reshape(-1).view(np.uint8).data for index in np.ndindex(*out.shape[:whole])]
        starts, nbytes = byte_runs(entry.shape, box, entry.dtype.itemsize)
        self.scatter(entry.name, starts[0], targets, nbytes)
        return nbytes

    def _read_box(self, entry: Entry, box: Box, out: Array, buffer_bytes: int) -> int:
        """Read a box into a contiguous array, run by run or in whole rows, whichever costs less."""
        rows = rows_to_read(entry, box, buffer_bytes)
        if rows:
            return self._read_rows(entry, box, out, rows)
        target = out.reshape(-1).view(np.uint8).data
        starts, nbytes = byte_runs(entry.shape, box, entry.dtype.itemsize)
        if len(starts) == 1 or len(entry.pieces) > 1:
            for at, start in enumerate(starts):
                self._fill(entry, start, target[at * nbytes : (at + 1) * nbytes])
            return len(target)
        # Straight to the system: a million short runs are common. What fails or falls short is looked into.
        first, read = entry.pieces[0].offset, os.preadv
        with self._used(entry, first) as fd:
            for at, start in enumerate(starts):
                part = target[at * nbytes : (at + 1) * nbytes]
                try:
                    count = read(fd, [part], self._handle.base + first + start)
                except OSError:
                    count = 0
                if count != nbytes:
                    self._pread(entry, first + start, part)
        self._count_read(len(target))
        return len(target)

    def _read_rows(self, entry: Entry, box: Box, out: Array, rows: int) -> int:
        """Read runs of a few rows with the gaps between, and keep what the box holds of them."""
        dim = stepped_dim(entry.shape, box)
        row = math.prod(entry.shape[dim + 1 :])
        inner = tuple(slice(a, b) for a, b in zip(box.start[dim + 1 :], box.stop[dim + 1 :], strict=True))
        steps = [math.prod(entry.shape[d + 1 :]) for d in range(dim)]
        window = np.empty((min(rows, box.shape[dim]), *entry.shape[dim + 1 :]), entry.dtype)
        for index in np.ndindex(*out.shape[:dim]):
            outer = sum((a + i) * step for a, i, step in zip(box.start, index, steps, strict=False))
            for first in range(box.start[dim], box.stop[dim], rows):
                part = window[: min(rows, box.stop[dim] - first)]
                start = (outer + first * row) * entry.dtype.itemsize
                self._fill(entry, start, part.reshape(-1).view(np.uint8).data)
                at = first - box.start[dim]
                out[(*index, slice(at, at + len(part)))] = part[(slice(None), *inner)]
        return math.prod(out.shape[: dim + 1]) * row * entry.dtype.itemsize

    def _fill(self, entry: Entry, start: int, target: memoryview) -> None:
        """Fill `target` with the content from byte `start` on, across its pieces."""
        self._count_read(len(target))
        if len(entry.pieces) == 1:
            # Straight to the system; what fails or falls short is looked into.
            with contextlib.suppress(OSError), self._handle as fd:
                if os.preadv(fd, [target], self._handle.base + entry.pieces[0].offset + start) == len(target):
                    return
        for offset, count in stretches(entry.pieces, start, len(target)):
            self._pread(entry, offset, target[:count])
            target = target[count:]

    @contextlib.contextmanager
    def _used(self, entry: Entry, offset: int) -> Iterator[int]:
        """The descriptor, for as long as it is used; what the system says against it is said of the entry."""
        try:
            with self._handle as fd:
                yield fd
        except CheckpointFileError:
            raise
        except OSError as err:
            words = f"{self.path}: {entry.name} at byte {offset}: {err.strerror}"
            raise CheckpointFileError(words, file=self.path, parameter=entry.name) from err

    def _preadv(self, entry: Entry, offset: int, target: memoryview) -> int:
        with self._used(entry, offset) as fd:
            return os.preadv(fd, [target], self._handle.base + offset)

    def _pread(self, entry: Entry, offset: int, target: memoryview) -> None:
        while len(target):
            count = self._preadv(entry, offset, target)
            if not count:
                raise self._error(
                    f"the file became shorter while {entry.name} was read; wait for its writer, or copy it again",
                    entry.name,
                )
            target, offset = target[count:], offset + count
