"""Room on the disk for a file, taken before anything is written to it, so that a full disk is reported at once."""

import ctypes
import errno
import os
import sys
from typing import Any

__all__ = ["allocate"]


def _linux_fallocate() -> Any:
    """The C library's fallocate(2) for files of any size; None where there is none."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call


_fallocate = _linux_fallocate()


def allocate(fd: int, nbytes: int) -> None:
    """Take so much of the disk; nothing where the file system cannot.

    By Linux's own call: `os.posix_fallocate` would write into every block there (man 3 posix_fallocate).
    """
    while _fallocate is not None and _fallocate(fd, 0, 0, nbytes):
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
