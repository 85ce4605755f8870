"""Writing slice files: headers first, then pieces in any order, then one rename.

::

    with SliceWriter(path, specs) as writer:        <path>.tmp, of its final size at once
        writer.write("w", box, array)               each piece straight to its place
                                                    on leaving: all there? checksum or cipher,
                                                    fsync, rename; after an error: nothing

With `resume=True` an error leaves `<path>.tmp`, and the next writer of the same entries goes on with it:
it looks at what is there by `blocks`, and adopts the tensors that are right.
"""

import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..arguments import checked
from ..display import counted, format_bytes
from ..errors import ArgumentTypeError, CheckpointError, CheckpointFileError, EncryptionError, Option
from ..layout import Box
from .allocation import allocate
from .ckpt import CRC_WORD
from .encryption import check_key, encrypt
from .entry import Entry, TensorSpec, byte_runs, stretches
from .file_formats import format_of
from .limits import check_format, check_read_back, check_specs

__all__ = ["CHUNK_BYTES", "SliceWriter", "save_slice"]

Array = NDArray[Any]

CHUNK_BYTES = 536_870_912
"""Where MindSpore 2.x begins another message of one tensor."""
WINDOW_BYTES = 4 << 20
WRITE_BYTES = 512 << 10
"""What is written at one time. For more, Linux looks for huge pages to cache it in: where memory was in pieces, 2 MiB
at a time took twice as long."""


class SliceWriter:
    """Writes one rank's file; a context manager.

    Parameters
    ----------
    path
        Where the file will be. It appears when it is complete, in place of one before it.
    specs
        What it will hold, in order.
    format
        "ckpt" or "safetensors"; by default that of the name, which has to agree.
    chunk_bytes
        The most content of one message of a `.ckpt` file.
    crc_check
        Append a checksum (`.ckpt`).
    enc_key, enc_mode
        Encrypt.
    sync
        Wait until the file is on the disk.
    metadata
        What a safetensors file says of itself.
    resume
        Go on with a file that a writer of the same entries has left, whole or in part, and
        leave one if this one fails (not if it encrypts: plain bytes never have a name).
    permissions
        Of the file, before the umask.

    Attributes
    ----------
    entries : Mapping[str, Entry]
        Where everything lies in the file.
    resumed : bool
        Whether a file was there to go on with.
    frame : str
        xxh3-128 of the (plain) file's bytes outside the tensors, in order, in hex; once it is complete.
    cipher : str or None
        xxh3-128 of all bytes of an encrypted file, in hex; once it is complete.

    Raises
    ------
    CheckpointError
        If the format cannot hold what is asked, or options exclude each other.
    CheckpointFileError
        If the place cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        specs: Sequence[TensorSpec],
        *,
        format: str | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        crc_check: bool = False,
        enc_key: bytes | None = None,
        enc_mode: str = "AES-GCM",
        sync: bool = True,
        metadata: Mapping[str, str] | None = None,
        resume: bool = False,
        permissions: int = 0o666,
    ) -> None:
        self.path = os.fspath(path)
        self.specs = tuple(specs)
        self._format = format_of(self.path)
        check_format(self.path, self._format.name if format is None else format)
        self._check_options(chunk_bytes, crc_check, enc_key, enc_mode)
        # A .ckpt file without an entry has a checksum at least: one of no bytes is what a failed copy leaves.
        self._crc = crc_check or (self._format.has_checksum and not self.specs)
        self._key, self._mode, self._sync = enc_key, enc_mode, sync
        self._temporary, self._permissions = f"{self.path}.tmp", permissions
        self._is_complete, self.cipher = False, None if enc_key is None else ""
        self._keep = resume and enc_key is None
        self.entries: Mapping[str, Entry]
        frame, self.entries, self._size = self._format.lay_out(self.specs, chunk_bytes, metadata)
        self._left = {spec.name: spec.nbytes for spec in self.specs if spec.text is None}
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as err:
            raise CheckpointFileError(
                f"{self.path}: {err.strerror}; choose a folder that can be written", file=self.path
            ) from err
        try:
            self.resumed = self._keep and self._holds(frame)
            if not self.resumed and os.fstat(self._file.fileno()).st_size:
                # Only then: ext4 flushes a file that was cut to nothing when it is closed.
                os.truncate(self._file.fileno(), 0)
            self._take_room()
            self._write_frame(frame)
            check_read_back(self.path, self._read_at, self._size, self.specs, self.entries, self._format)
        except BaseException:
            self._discard()
            raise

    def _check_options(
        self,
        chunk_bytes: int,
        crc: bool,
        key: bytes | None,
        mode: str,
    ) -> None:
        if chunk_bytes < 1:
            given = Option("chunk_bytes", chunk_bytes)
            raise CheckpointError(f"{self.path}: {given} must be 1 or more", given, file=self.path)
        if (crc or key is not None) and not self._format.has_checksum:
            raise CheckpointError(
                f"{self.path}: only .ckpt files carry a checksum or are encrypted", file=self.path
            )
        if key is not None:
            check_key(key, mode)
            if crc:
                raise EncryptionError(
                    f"{self.path}: an encrypted file carries no checksum; choose one of them", file=self.path
                )
        check_specs(self.path, self.specs, self._format)

    def _open(self) -> Any:
        if self._key is not None:
            # The plain bytes never have a name; only the cipher does.
            return tempfile.TemporaryFile(dir=Path(self.path).parent)
        if self._keep and Path(self.path).exists():
            Path(self.path).replace(self._temporary)
        return os.fdopen(self._open_temporary(), "r+b")

    def _open_temporary(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        if not self._keep:
            # One that is there may be another user's, who could write to it for ever.
            Path(self._temporary).unlink(missing_ok=True)
            flags |= os.O_EXCL
        return os.open(self._temporary, flags, self._permissions)

    def _holds(self, frame: Sequence[tuple[int, bytes]]) -> bool:
        """Whether the file that is there has this layout."""
        fd = self._file.fileno()
        whole = os.fstat(fd).st_size >= self._size > 0
        return whole and all(os.pread(fd, len(data), offset) == data for offset, data in frame)

    def _take_room(self) -> None:
        """Give the file its size: a disk that is too full is reported before anything is written."""
        fd = self._file.fileno()
        try:
            if self._size:
                allocate(fd, self._size)
            os.truncate(fd, self._size)
        except OSError as err:
            if not self.resumed:
                os.truncate(fd, 0)
            raise CheckpointFileError(
                f"{self.path}: {err.strerror}; the file was not completed, it takes {format_bytes(self._size)}",
                file=self.path,
            ) from err

    def _read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, offset)

    def _write_frame(self, frame: Sequence[tuple[int, bytes]]) -> None:
        self._frame = xxhash.xxh3_128()
        for offset, data in frame:
            self._pwrite(memoryview(data), offset)
            self._frame.update(data)

    def __repr__(self) -> str:
        return f"SliceWriter({self.path}, {counted(len(self.entries), 'entry')})"

    def __enter__(self) -> "SliceWriter":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is not None:
            self._discard()
        else:
            self.complete()

    def complete(self) -> None:
        """Give the file its name; at the end of the context this was done, or is.

        Raises
        ------
        CheckpointError
            If something of it was not written.
        CheckpointFileError
            If the file cannot be completed.
        """
        if self._is_complete:
            return
        try:
            self._commit()
        except BaseException:
            self._discard()
            raise
        self._is_complete = True
        self.frame = self._frame.hexdigest()

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor as they are in the file now, in order, block by block."""
        for piece in self.entries[name].pieces:
            for at in range(0, piece.nbytes, WINDOW_BYTES):
                count = min(WINDOW_BYTES, piece.nbytes - at)
                yield os.pread(self._file.fileno(), count, piece.offset + at)

    def adopt(self, name: str) -> None:
        """Take a tensor for written."""
        self._left[name] = 0

    def write(self, name: str, box: Box, array: Array) -> None:
        """Write the elements of a box; every element must be written once.

        Raises
        ------
        CheckpointError
            If there is no such tensor, or the array does not fit the box.
        """
        entry = self.entries.get(name)
        if entry is None or entry.is_text:
            raise CheckpointError(
                f"{self.path}: no tensor {name!r} was announced", file=self.path, parameter=name
            )
        if array.shape != box.shape or array.dtype != entry.dtype:
            raise CheckpointError(
                f"{self.path}: {name}: an array of shape {list(array.shape)} and dtype {array.dtype} for a box of "
                f"shape {list(box.shape)} and dtype {entry.dtype}",
                file=self.path,
                parameter=name,
            )
        box.within(Box.whole(entry.shape))
        if not array.size:
            return
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        starts, nbytes = byte_runs(entry.shape, box, entry.dtype.itemsize)
        for at, start in enumerate(starts):
            self._scatter(entry, start, source[at * nbytes : (at + 1) * nbytes])
        self._left[name] -= len(source)

    def write_bytes(self, name: str, start: int, source: memoryview) -> None:
        """Write the content of a tensor from byte `start` on; every byte must be written once."""
        self._scatter(self.entries[name], start, source)
        self._left[name] -= len(source)

    def write_contents(self, names: Sequence[str], source: memoryview) -> None:
        """Write whole contents, one after the other in `source`; those side by side in the file go in one call."""
        first = at = 0
        begin = end = -1
        for name in names:
            for offset, nbytes in self.entries[name].pieces:
                if offset != end:
                    self._pwrite(source[first:at], begin)
                    first, begin = at, offset
                at, end = at + nbytes, offset + nbytes
            self._left[name] = 0
        self._pwrite(source[first:at], begin)

    def _scatter(self, entry: Entry, start: int, source: memoryview) -> None:
        for offset, count in stretches(entry.pieces, start, len(source)):
            self._pwrite(source[:count], offset)
            source = source[count:]

    def _pwrite(self, source: memoryview, offset: int) -> None:
        while len(source):
            try:
                count = os.pwrite(self._file.fileno(), source[:WRITE_BYTES], offset)
            except OSError as err:
                raise CheckpointFileError(
                    f"{self.path}: {err.strerror}; the file was not completed", file=self.path
                ) from err
            source, offset = source[count:], offset + count

    def _commit(self) -> None:
        for name, left in self._left.items():
            if left:
                raise CheckpointError(
                    f"{self.path}: {name}: {left} bytes were not written, or some twice",
                    file=self.path,
                    parameter=name,
                )
        try:
            if self._crc:
                self._append_crc()
            if self._key is not None:
                self._encrypt(self._key)
            elif self._sync:
                os.fsync(self._file.fileno())
            self._file.close()
            Path(self._temporary).replace(self.path)
        except OSError as err:
            raise CheckpointFileError(
                f"{self.path}: {err.strerror}; the file was not completed", file=self.path
            ) from err

    def _append_crc(self) -> None:
        crc = 0
        for at in range(0, self._size, WINDOW_BYTES):
            crc = zlib.crc32(os.pread(self._file.fileno(), min(WINDOW_BYTES, self._size - at), at), crc)
        trailer = CRC_WORD + crc.to_bytes(10, "big")
        self._pwrite(memoryview(trailer), self._size)
        self._frame.update(trailer)

    def _encrypt(self, key: bytes) -> None:
        self._file.seek(0)
        digest = xxhash.xxh3_128()
        with os.fdopen(self._open_temporary(), "wb") as target:

            def write(data: bytes) -> None:
                target.write(data)
                digest.update(data)

            encrypt(self._file, write, key, self._mode)
            self.cipher = digest.hexdigest()
            target.flush()
            if self._sync:
                os.fsync(target.fileno())

    def _discard(self) -> None:
        self._file.close()
        if not self._keep and not self._is_complete:
            Path(self._temporary).unlink(missing_ok=True)


@checked
def save_slice(
    path: str | os.PathLike[str], values: Mapping[str, Array | np.generic | str], **options: Any
) -> None:
    """Write a file that holds these arrays and texts; options as `SliceWriter` takes them.

    Raises
    ------
    ArgumentTypeError
        If a value is neither an array nor a text.
    """
    specs = []
    for name, value in values.items():
        if isinstance(value, str):
            specs.append(TensorSpec(name, np.dtype("<U1"), (), value))
        elif isinstance(value, np.ndarray | np.generic):
            specs.append(TensorSpec(name, _little(value.dtype), value.shape))
        else:
            raise ArgumentTypeError(
                f"{os.fspath(path)}: {name} is {type(value).__name__}, not an array or a text",
                file=path,
                parameter=name,
            )
    with SliceWriter(path, specs, **options) as writer:
        for name, value in values.items():
            if not isinstance(value, str):
                array = np.asarray(value)
                writer.write(name, Box.whole(array.shape), array.astype(_little(array.dtype), copy=False))


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
