"""The folder of an embedded cluster, which only its owner may enter: for sockets and for Dask's own files.

Dask puts the folders of its workers first on the path of imports, and by default makes them below one folder of
a fixed name that it takes from whoever made it: who owned that could run code here.

It exists as long as the context that made it. Its maker holds a lock on it meanwhile; a lock goes with
its process however that ends, so the folder of one that was killed is known by having none, and the next
group removes it. (systemd's cleaning of old temporary files leaves a locked folder alone, too.)
"""

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..comm import can_check_users
from ..errors import CardError

__all__ = ["holds_sockets", "private_folder"]

PREFIX = "distinfer-cards-"
SCRATCH = "dask-scratch-space"
"""Dask's name for the folder in which its workers have theirs."""
PATH_BYTES = 90
"""The most for the folder's own path: the address of a Unix socket has 108 bytes, on some systems 104."""
ATTEMPTS = 3
"""Another group that removes abandoned folders may take a new one for abandoned before it is locked."""


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder of mode 0700, removed at the end with all that is in it.

    Raises
    ------
    CardError
        If there is nowhere to make it.
    """
    folder, lock = _make()
    maker = os.getpid()
    try:
        yield folder
    finally:
        os.close(lock)
        if maker == os.getpid():  # what ends may be a forked child, whose parent goes on
            _leave(folder)


def _leave(folder: Path) -> None:
    """Remove a folder, and Dask's own from the path of imports.

    Dask leaves them there: who made a folder of the same name later could have modules imported.
    """
    sys.path[:] = [path for path in sys.path if not path.startswith(f"{folder}{os.sep}")]
    shutil.rmtree(folder, ignore_errors=True)


def holds_sockets(folder: Path) -> bool:
    """Whether cards can have Unix sockets in a folder, and tell which user is at the other end of one."""
    if not can_check_users() or not _is_short(folder):
        return False
    path = folder / "trial"
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) <= PATH_BYTES


def _make() -> tuple[Path, int]:
    """A new folder and its lock."""
    # Not XDG_RUNTIME_DIR first: it goes when its user logs out, though work may go on.
    named = dict.fromkeys((tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp"))
    bases = [Path(base) for base in named if base]
    bases.sort(key=lambda base: not _is_short(base / f"{PREFIX}12345678"))
    failed = "none was found"
    for base in (base for base in bases for _ in range(ATTEMPTS)):
        _remove_abandoned(base)
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            return folder, _locked(folder)
        except OSError as err:
            failed = str(err)
    raise CardError(
        f"no folder for temporary files can be made and locked ({failed}); set TMPDIR to a folder on a local disk "
        "that you can write to"
    )


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of a folder.

    Raises
    ------
    OSError
        If the folder is not this user's alone, or another process holds its lock.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(lock)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} belongs to another user, or is open to others")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)  # it may have been removed before it was locked
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_abandoned(base: Path) -> None:
    """Remove the folders whose makers were killed; one that holds anything of another kind stays."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = _locked(folder)
            if all(path.name == SCRATCH or stat.S_ISSOCK(path.lstat().st_mode) for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
