"""Opening a slice file by its path; one that is encrypted is decrypted into a file without a name."""

import os

from ..arguments import checked
from ..errors import CheckpointError, CheckpointFileError, EncryptionError, Option
from .encryption import decrypt, encrypted_by
from .handles import Handle, NamedHandle, Spool
from .recognisers import HEAD_BYTES, recognise_unopened
from .slice_file import SliceFile

__all__ = ["open_slice"]


@checked
def open_slice(
    path: str | os.PathLike[str],
    *,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
) -> SliceFile:
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
        handle: Handle = NamedHandle(name)
    except OSError as err:
        known = recognise_unopened(name, err)
        raise CheckpointFileError(f"{name}: {known}", of=known, file=name) from err
    try:
        with handle as fd:
            head = os.pread(fd, HEAD_BYTES, 0)
        if mode := encrypted_by(head):
            return _open_decrypted(name, handle, mode, dec_key, dec_mode)
        if dec_key is not None:
            key = Option("dec_key")
            raise EncryptionError(f"{name} is not encrypted; leave out {key}", key, file=name)
        return SliceFile(name, handle, crc_check)
    except BaseException:
        handle.close()
        raise


def _open_decrypted(name: str, handle: Handle, found: str, key: bytes | None, mode: str) -> SliceFile:
    """Decrypt the file, as a stream, into one without a name, and open that."""
    if key is None:
        needed, by = Option("dec_key"), Option("dec_mode", found)
        words = f"{name} is encrypted by {found}; pass {needed} (and {by})"
        raise EncryptionError(words, needed, by, file=name)
    with handle as fd, os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        plain = Spool(decrypt(name, file, handle.size, key, mode), handle.stat)
    try:
        opened = SliceFile(name, plain)
    except CheckpointError as err:
        plain.close()
        words = f"{name}: the key is wrong, or the file is damaged: {err}"
        raise EncryptionError(words, of=err, file=name) from err
    handle.close()
    return opened
