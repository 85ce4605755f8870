"""A folder that only its owner may enter, in which the cards of a group have their sockets.

It exists as long as the context that made it. Its maker holds a lock on it meanwhile; a lock goes with
its process however that ends, so the folder of one that was killed is known by having none, and the next
group removes it. (systemd's cleaning of old temporary files leaves a locked folder alone, too.)
"""

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .doors import can_check_users

__all__ = ["private_folder"]

PREFIX = "distinfer-cards-"
PATH_BYTES = 80
"""The most for the folder's own path: the address of a Unix socket has 108 bytes, on some systems 104."""
ATTEMPTS = 3
"""Another group that removes abandoned folders may take a new one for abandoned before it is locked."""


@contextlib.contextmanager
def private_folder() -> Iterator[str | None]:
    """A new folder of mode 0700, removed at the end; None where sockets in it would not do.

    That is where the system does not tell who is at the other end of a Unix socket, or where no folder for
    temporary files holds sockets and has a path that is short enough.
    """
    for base in _bases() if can_check_users() else ():
        _remove_abandoned(base)
        try:
            folder, lock = _make(base)
        except OSError:
            continue
        try:
            yield str(folder)
        finally:
            _remove(folder)
            os.close(lock)
        return
    yield None


def _bases() -> Iterator[Path]:
    # Not XDG_RUNTIME_DIR first: it goes when its user logs out, though work may go on.
    for base in dict.fromkeys((tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp")):
        if base and len(os.fsencode(base)) + 1 + len(PREFIX) + 8 <= PATH_BYTES:
            yield from [Path(base)] * ATTEMPTS


def _make(base: Path) -> tuple[Path, int]:
    """A new folder and its lock.

    Raises
    ------
    OSError
        If the base holds no folders, locks or sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    lock = -1
    try:
        lock = _locked(folder)
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(folder / "trial"))
        (folder / "trial").unlink()
    except OSError:
        _remove(folder)
        if lock >= 0:
            os.close(lock)
        raise
    return folder, lock


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of a folder.

    Raises
    ------
    OSError
        If the folder is no folder of this user's alone, or another process holds its lock.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(lock)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise PermissionError(f"{folder} belongs to another user, or is open to others")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_abandoned(base: Path) -> None:
    """Remove the folders whose makers were killed."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = _locked(folder)
            _remove(folder)
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder of sockets; one that holds anything else stays."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        folder.rmdir()
