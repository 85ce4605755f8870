"""MindSpore's encrypted files, as streams of blocks of 64 MiB.

::

    block    magic int32 | GCM only: tag 16 | N int32 | iv length int32, iv | cipher length int32, cipher

Everything is little-endian; N counts what follows it. GCM stores an iv of 16 bytes and uses the
first 12 as its nonce: so do the files that MindSpore 2.10 wrote. `cryptography` does the three modes.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from ..errors import ArgumentTypeError, EncryptionError, Option
from ..secret import secret_key

__all__ = [
    "MODES",
    "check_key",
    "decrypt",
    "encrypt",
    "encrypted_by",
    "with_secret_key",
]

BLOCK_BYTES = 64 << 20
IV_BYTES = TAG_BYTES = 16
GCM_NONCE_BYTES = 12
INT = struct.Struct("<i")
MAGICS = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
MODES = {mode: magic for magic, mode in MAGICS.items()}
KEY_BYTES = {"AES-GCM": (16, 24, 32), "AES-CBC": (16, 24, 32), "SM4-CBC": (16,)}
# Padding adds up to a block of the cipher; the lengths and the iv are fixed.
LARGEST_CIPHER = BLOCK_BYTES + 16


def with_secret_key(file_options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a file writer, whose `enc_key` no repr shows."""
    return {name: secret_key(value) if name == "enc_key" else value for name, value in file_options.items()}


def encrypted_by(head: bytes) -> str:
    """The mode of a file that begins with these four bytes; "" if it is not encrypted."""
    return MAGICS.get(int.from_bytes(head[:4], "little"), "")


def check_key(key: bytes, mode: str) -> None:
    """Refuse a mode that there is not, and a key that it cannot take.

    Raises
    ------
    EncryptionError
        If the mode is unknown or the key's length is not one of those allowed.
    ArgumentTypeError
        If the key is not bytes.
    """
    if mode not in MODES:
        raise EncryptionError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    if not isinstance(key, bytes):
        raise ArgumentTypeError(f"a key is bytes, not {type(key).__name__}")
    if len(key) not in KEY_BYTES[mode]:
        sizes = " or ".join(map(str, KEY_BYTES[mode]))
        raise EncryptionError(f"a key of {len(key)} bytes; {mode} takes {sizes}")


def _cipher(key: bytes, mode: str, iv: bytes, tag: bytes | None) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if mode == "AES-GCM":
        return Cipher(algorithms.AES(key), modes.GCM(iv[:GCM_NONCE_BYTES], tag))
    algorithm = algorithms.SM4(key) if mode == "SM4-CBC" else algorithms.AES(key)
    return Cipher(algorithm, modes.CBC(iv))


def decrypt(path: str, source: BinaryIO, size: int, key: bytes, mode: str) -> Iterator[bytes]:
    """The plain bytes, block by block.

    Raises
    ------
    EncryptionError
        If the key or the mode is wrong, or the file is damaged.
    """
    check_key(key, mode)
    left = size

    def take(count: int, what: str) -> bytes:
        nonlocal left
        if not 0 <= count <= left:
            raise EncryptionError(
                f"{path}: {what} of {count} bytes, but {left} are left; the file is damaged", file=path
            )
        left -= count
        return source.read(count)

    while left:
        _check_magic(path, INT.unpack(take(4, "a block's head"))[0], mode)
        tag = take(TAG_BYTES, "a tag") if mode == "AES-GCM" else None
        total = INT.unpack(take(4, "a block's length"))[0]
        iv_length = INT.unpack(take(4, "an iv's length"))[0]
        if iv_length != IV_BYTES:
            raise EncryptionError(
                f"{path}: an iv of {iv_length} bytes, not {IV_BYTES}; the file is damaged", file=path
            )
        iv = take(iv_length, "an iv")
        length = INT.unpack(take(4, "a cipher's length"))[0]
        if total != 8 + iv_length + length or not 0 <= length <= LARGEST_CIPHER:
            raise EncryptionError(
                f"{path}: a block of {total} bytes with {length} of cipher; the file is damaged", file=path
            )
        yield _decrypt_block(path, take(length, "a cipher"), key, mode, iv, tag)


def _check_magic(path: str, magic: int, mode: str) -> None:
    found = MAGICS.get(magic & 0xFFFFFFFF)
    if found is None:
        raise EncryptionError(
            f"{path}: a block begins with {magic:#x}, which no mode has; the file is damaged", file=path
        )
    if found != mode:
        right = Option("dec_mode", found)
        raise EncryptionError(f"{path} is encrypted by {found}, not {mode}; pass {right}", right, file=path)


def _decrypt_block(path: str, cipher: bytes, key: bytes, mode: str, iv: bytes, tag: bytes | None) -> bytes:
    context = _cipher(key, mode, iv, tag).decryptor()
    try:
        plain: bytes = context.update(cipher) + context.finalize()
    except Exception as err:  # cryptography's InvalidTag, or ValueError of a broken block
        raise EncryptionError(f"{path}: {mode}: the key is wrong, or the file is damaged", file=path) from err
    if mode == "AES-GCM":
        return plain
    pad = plain[-1] if plain else 0
    if not 1 <= pad <= 16 or plain[-pad:] != bytes([pad]) * pad:
        raise EncryptionError(
            f"{path}: {mode}: the key is wrong, or the file is damaged (bad padding)", file=path
        )
    return plain[:-pad]


def encrypt(
    source: BinaryIO, write: Callable[[bytes], Any], key: bytes, mode: str, block_bytes: int = BLOCK_BYTES
) -> None:
    """Write what `source` gives, encrypted block by block."""
    check_key(key, mode)
    while plain := source.read(block_bytes):
        iv = os.urandom(IV_BYTES)
        if mode != "AES-GCM":
            pad = 16 - len(plain) % 16
            plain += bytes([pad]) * pad
        context = _cipher(key, mode, iv, None).encryptor()
        cipher = context.update(plain) + context.finalize()
        write(INT.pack(MODES[mode]))
        if mode == "AES-GCM":
            write(context.tag)
        write(INT.pack(8 + IV_BYTES + len(cipher)) + INT.pack(IV_BYTES) + iv + INT.pack(len(cipher)))
        write(cipher)
