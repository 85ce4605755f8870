"""A slice file that is open: an index of its entries, and reads of boxes.

Opening reads headers only; a read takes the byte runs of its box and no others, except that
runs too short to be worth a call of the system each are read together with the gaps between
them, in windows of a few MiB.
"""

import math
import os
import tempfile
import threading
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, CheckpointFileError, EncryptionError, listed
from ..layout import Box
from .ckpt import CRC_BYTES, CRC_WORD, index_ckpt
from .encryption import MAGICS, decrypt
from .entry import Entry, byte_runs
from .safetensors_file import index_safetensors

__all__ = ["SliceFile", "open_slice"]

Array = NDArray[Any]

SHORT_RUN_BYTES = 4096
WINDOW_BYTES = 4 << 20


def open_slice(
    path: str | os.PathLike[str],
    *,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
) -> "SliceFile":
    """Open one rank's checkpoint file, `.ckpt` or `.safetensors`.

    Parameters
    ----------
    dec_key, dec_mode
        For an encrypted file: 16, 24 or 32 bytes, and "AES-GCM", "AES-CBC" or "SM4-CBC". It
        is decrypted as a stream into a file without a name; memory holds two blocks of 64 MiB.
    crc_check
        Compare the checksum at the end of a `.ckpt` file, which takes a read of the whole.

    Raises
    ------
    CheckpointFileError
        If there is no such file, or it cannot be read.
    EncryptionError
        If it is encrypted and no key, a wrong key or a wrong mode is given.
    CheckpointError
        If it is not what it should be.
    """
    name = os.fspath(path)
    try:
        file: Any = Path(name).open("rb")  # noqa: SIM115  closed by SliceFile
    except OSError as err:
        raise CheckpointFileError(f"{name}: {err.strerror}; check the path") from err
    try:
        size = os.fstat(file.fileno()).st_size
        magic = int.from_bytes(os.pread(file.fileno(), 4, 0), "little")
        if magic in MAGICS:
            with file:
                plain = _decrypted(name, file, size, dec_key, dec_mode, MAGICS[magic])
            return _open_plain(name, plain, False, True)
        if dec_key is not None:
            raise EncryptionError(f"{name} is not encrypted; leave out dec_key")
        return _open_plain(name, file, crc_check, False)
    except BaseException:
        file.close()
        raise


def _decrypted(name: str, file: BinaryIO, size: int, key: bytes | None, mode: str, found: str) -> BinaryIO:
    if key is None:
        raise EncryptionError(f"{name} is encrypted by {found}; pass dec_key (and dec_mode={found!r})")
    plain = tempfile.TemporaryFile()  # noqa: SIM115  closed by SliceFile
    try:
        for block in decrypt(name, file, size, key, mode):
            plain.write(block)
        plain.flush()
    except BaseException:
        plain.close()
        raise
    return plain


def _open_plain(name: str, file: BinaryIO, crc_check: bool, was_encrypted: bool) -> "SliceFile":
    try:
        return SliceFile(name, file, crc_check)
    except CheckpointError as err:
        file.close()
        if was_encrypted:
            raise EncryptionError(f"{name}: the key is wrong, or the file is damaged: {err}") from err
        raise


class SliceFile:
    """One rank's file (see `open_slice`); a context manager.

    Attributes
    ----------
    path : str
        The file.
    format : str
        "ckpt" or "safetensors".
    entries : Mapping[str, Entry]
        In the order of the file.
    nbytes_read : int
        Bytes of content read so far.
    """

    def __init__(self, path: str, file: BinaryIO, crc_check: bool = False) -> None:
        self.path = path
        self._fd = file.fileno()
        self._closer = weakref.finalize(self, file.close)
        self.size = os.fstat(self._fd).st_size
        self.nbytes_read = 0
        self._counting = threading.Lock()
        self._texts: dict[str, str] = {}
        self.format = "safetensors" if path.endswith(".safetensors") else "ckpt"
        if self.format == "safetensors":
            entries, self._texts = index_safetensors(path, self._read_at, self.size)
            for name, text in self._texts.items():
                entries[name] = Entry(name, "str", np.dtype(f"<U{max(len(text), 1)}"), (), ())
        else:
            entries = index_ckpt(path, self._read_at, self._content_end(crc_check))
        self.entries: Mapping[str, Entry] = MappingProxyType(entries)

    def _content_end(self, crc_check: bool) -> int:
        """Where the entries end: before the checksum, if there is one."""
        tail = self._read_at(max(self.size - CRC_BYTES, 0), CRC_BYTES)
        if not tail.startswith(CRC_WORD) or len(tail) < CRC_BYTES:
            if crc_check:
                raise CheckpointError(
                    f"{self.path}: the file carries no checksum; open it with crc_check=False"
                )
            return self.size
        end = self.size - CRC_BYTES
        if crc_check and (found := self._crc(end)) != int.from_bytes(tail[len(CRC_WORD) :], "big"):
            raise CheckpointError(
                f"{self.path}: its checksum is wrong (the content's is {found}); it is damaged"
            )
        return end

    def _crc(self, end: int) -> int:
        crc = 0
        for at in range(0, end, WINDOW_BYTES):
            crc = zlib.crc32(self._read_at(at, min(WINDOW_BYTES, end - at)), crc)
        return crc

    def _read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def __enter__(self) -> "SliceFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reads fail from now on."""
        self._closer()

    def __repr__(self) -> str:
        return f"SliceFile({self.path}, {len(self.entries)} entries)"

    def entry(self, name: str) -> Entry:
        """The entry of that name.

        Raises
        ------
        CheckpointError
            If there is none.
        """
        if name not in self.entries:
            raise CheckpointError(f"{self.path} has no entry {name!r}; it has {listed(self.entries)}")
        return self.entries[name]

    def text(self, name: str) -> str:
        """A text entry.

        Raises
        ------
        CheckpointError
            If it is not a text.
        """
        entry = self.entry(name)
        if not entry.is_text:
            raise CheckpointError(f"{self.path}: {name} is a tensor, not a text")
        if name in self._texts:
            return self._texts[name]
        data = bytearray(entry.nbytes)
        self._fill(entry, 0, memoryview(data))
        try:
            return data.decode("utf-32-le")
        except UnicodeDecodeError as err:
            raise CheckpointError(
                f"{self.path}: {name}: its text is not UTF-32; the file is damaged"
            ) from err

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

    def read_into(self, name: str, box: Box, out: Array) -> None:
        """Read a box into an array of its shape and dtype, which must be C-contiguous."""
        entry = self.entry(name)
        if entry.is_text:
            raise CheckpointError(f"{self.path}: {name} is a text, not a tensor; use text({name!r})")
        box.within(Box.whole(entry.shape))
        if (out.shape, out.dtype) != (box.shape, entry.dtype) or not out.flags.c_contiguous:
            raise CheckpointError(
                f"{self.path}: {name}: an array of shape {list(out.shape)} and dtype {out.dtype} for a box of "
                f"shape {list(box.shape)} and dtype {entry.dtype}; it must fit and be C-contiguous"
            )
        if not out.size:
            return
        runs = list_of_runs(entry, box)
        if runs is None:
            self._read_windows(entry, box, out)
            return
        target = out.reshape(-1).view(np.uint8).data
        at = 0
        for start, nbytes in runs:
            self._fill(entry, start, target[at : at + nbytes])
            at += nbytes

    def _read_windows(self, entry: Entry, box: Box, out: Array) -> None:
        """Read runs of a few rows with the gaps between, and keep what the box holds of them."""
        dim = _stepped_dim(entry.shape, box)
        row = math.prod(entry.shape[dim + 1 :])
        rows = max(WINDOW_BYTES // (row * entry.dtype.itemsize), 1)
        inner = tuple(slice(a, b) for a, b in zip(box.start[dim + 1 :], box.stop[dim + 1 :], strict=True))
        steps = [math.prod(entry.shape[d + 1 :]) for d in range(dim)]
        window = np.empty((rows, *entry.shape[dim + 1 :]), entry.dtype)
        for index in np.ndindex(*out.shape[:dim]):
            outer = sum((a + i) * step for a, i, step in zip(box.start, index, steps, strict=False))
            for first in range(box.start[dim], box.stop[dim], rows):
                part = window[: min(rows, box.stop[dim] - first)]
                start = (outer + first * row) * entry.dtype.itemsize
                self._fill(entry, start, part.reshape(-1).view(np.uint8).data)
                at = first - box.start[dim]
                out[(*index, slice(at, at + len(part)))] = part[(slice(None), *inner)]

    def _fill(self, entry: Entry, start: int, target: memoryview) -> None:
        """Fill `target` with the content from byte `start` on, across its pieces."""
        with self._counting:
            self.nbytes_read += len(target)
        for piece in entry.pieces:
            if start >= piece.nbytes:
                start -= piece.nbytes
                continue
            count = min(piece.nbytes - start, len(target))
            self._pread(entry, piece.offset + start, target[:count])
            target = target[count:]
            start = 0
            if not len(target):
                return

    def _pread(self, entry: Entry, offset: int, target: memoryview) -> None:
        while len(target):
            try:
                count = os.preadv(self._fd, [target], offset)
            except OSError as err:
                raise CheckpointFileError(
                    f"{self.path}: {entry.name} at byte {offset}: {err.strerror}"
                ) from err
            if not count:
                raise CheckpointError(f"{self.path}: the file became shorter while {entry.name} was read")
            target, offset = target[count:], offset + count


def list_of_runs(entry: Entry, box: Box) -> list[tuple[int, int]] | None:
    """The byte runs of a box; None if they are many and short, so that windows are better."""
    runs = byte_runs(entry.shape, box, entry.dtype.itemsize)
    first = next(runs)
    count = box.size * entry.dtype.itemsize // first[1]
    if count > 16 and first[1] < SHORT_RUN_BYTES:
        return None
    return [first, *runs]


def _stepped_dim(shape: tuple[int, ...], box: Box) -> int:
    """The dim whose rows a window takes: the one before the last cut dim."""
    last = len(shape) - 1
    while box.start[last] == 0 and box.stop[last] == shape[last]:
        last -= 1
    return max(last - 1, 0)
