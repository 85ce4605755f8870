"""The staging folder of an output, which only its owner may enter, and the one rename that makes the output visible.

::

    out/                    not there yet, or as it was before
    .out.stage/             job.json      what is being made, from what
                            files/        what will be `out`
                            journals/     which tensors of each file are finished
                            exchange      which folder `files` is, once it is to replace `out`
    .out.lock               held by the process at work; a dead process holds nothing

A run that dies leaves the stage; the next run of the same job goes on with it, up to the very
rename. A stage of another job is cleared away: nobody can use it any more. So is one of another user,
who could have put anything into it.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..errors import CheckpointError, CheckpointFileError, Option, ReshardError, listed
from ..formats import MANIFEST, read_manifest, unnamed_paths
from ..text import printable
from ..unfinished import stage_of
from ..untrusted import parse_json, read_file

__all__ = ["Stage", "check_target", "journal_of", "open_private", "probe_of"]

JOB = "job.json"
FILES = "files"
JOURNALS = "journals"
EXCHANGE = "exchange"
LOCK_BEGINS = b"process "
LARGEST_JOB = 4 << 30
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def journal_of(folder: str | os.PathLike[str], path: str) -> Path:
    """Where the journal of a file of a stage's folder is."""
    return Path(folder).parent / JOURNALS / f"{path}.jsonl"


def probe_of(folder: str | os.PathLike[str]) -> Path:
    """A file that whoever sees a stage's folder sees too."""
    return Path(folder).parent / JOB


def open_private(path: Path, flags: int) -> BinaryIO:
    """Open a file to write it; if there is none, make one that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600), "wb")


class Stage:
    """The work on one output folder; a context manager, which holds the lock.

    Parameters
    ----------
    target
        The folder to be.
    job
        What is made, from what, as JSON can say it: a stage of an equal job is resumed.
    overwrite
        Replace `target` if it exists.
    resume
        False: start over, whatever is there.
    sync
        Wait until names and small files are on the disk.

    Attributes
    ----------
    folder : Path
        Where files are written; journals of them lie in a folder beside it (see `journal_of`).
    resumed : bool
        Whether an earlier run had begun.
    discarded : str
        Why what an earlier run had written was not used; "" if it was, or there was nothing.

    Raises
    ------
    CheckpointFileError
        If `target` exists, or its place cannot be written.
    ReshardError
        If another process is at work on it; the text names that process.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        job: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = True,
        sync: bool = True,
    ) -> None:
        self.target = Path(os.path.abspath(target))
        self._base = stage_of(self.target)
        self.folder = self._base / FILES
        self._lock_path = self.target.with_name(f".{self.target.name}.lock")
        self._job = json.dumps(job, sort_keys=True)
        self._overwrite, self._resume, self._sync = overwrite, resume, sync
        self.resumed, self.discarded = False, ""

    def __enter__(self) -> "Stage":
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        except OSError as err:
            raise CheckpointFileError(
                f"{self.target}: {err.strerror}; choose a folder that can be written", file=self.target
            ) from err
        try:
            self._begin()
        except BaseException:
            self._unlock()
            raise
        return self

    def _begin(self) -> None:
        _check_surplus(self._base)
        if self._has_committed():
            shutil.rmtree(self._base, ignore_errors=True)
        check_target(self.target, self._overwrite)
        try:
            self.resumed = self._resume and _is_own(self._base) and self._same_job()
            self.discarded = "" if self.resumed or not self._has_files() else self._why_discarded()
            if not self.resumed:
                shutil.rmtree(self._base, ignore_errors=True)
                self._make_base()
                self._write(self._base / JOB, [self._job.encode()])
            self.folder.mkdir(exist_ok=True)
        except OSError as err:
            raise CheckpointFileError(
                f"{self.target}: {err.strerror}; choose a folder that can be written", file=self.target
            ) from err

    def _make_base(self) -> None:
        try:
            self._base.mkdir(mode=0o700)
        except FileExistsError as err:
            text = f"{self._base} is in the way, which another user made or which is not a folder; remove it"
            raise OSError(errno.EEXIST, text) from err

    def _has_committed(self) -> bool:
        """Whether the last run died just after its rename, so that `files` is gone, or is what the target was."""
        if not self.target.exists():
            return False
        try:
            return read_file(self._base / EXCHANGE, 100) != _identity(self.folder)
        except OSError:
            return not self.folder.exists()

    def _same_job(self) -> bool:
        try:
            return read_file(self._base / JOB, LARGEST_JOB) == self._job.encode()
        except OSError:
            return False

    def _has_files(self) -> bool:
        return any(path.is_file() for path in self.folder.rglob("*"))

    def _why_discarded(self) -> str:
        """Why what an earlier run has left is of no use."""
        if not self._resume:
            return "resume=False"
        if not _is_own(self._base):
            return "it belongs to another user"
        try:
            before, now = parse_json(read_file(self._base / JOB, LARGEST_JOB)), json.loads(self._job)
            differing = [key for key in now if before.get(key) != now[key]]
        except (OSError, ValueError, AttributeError):
            return f"its {JOB} cannot be read"
        if differing == ["sources"]:
            return "the source is not the one that it read"
        return f"it was of another job, with other {', '.join(differing) or 'options'}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A stage that nothing was written to is no use to a later run.
        if kind is not None and not any(path.is_file() for path in self.folder.rglob("*")):
            shutil.rmtree(self._base, ignore_errors=True)
        self._unlock()

    def write(self, name: str, data: Iterable[bytes]) -> None:
        """Write a small file of the folder to be, block by block."""
        self._write(self.folder / name, data)

    def _write(self, path: Path, data: Iterable[bytes]) -> None:
        with open_private(path, os.O_TRUNC) as file:
            file.writelines(data)
            file.flush()
            if self._sync:
                os.fsync(file.fileno())

    def _sync_folder(self, path: str | os.PathLike[str]) -> None:
        """Wait until a folder's names are on the disk."""
        if not self._sync:
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def commit(self) -> None:
        """Make the stage the target, by one rename.

        Raises
        ------
        CheckpointFileError
            If that fails; the target is as it was before, and the stage is still there.
        """
        check_target(self.target, self._overwrite)  # again: files may have been added there meanwhile
        try:
            # Files were their owner's only; now they get what the umask left to the folder.
            permissions = self.folder.stat().st_mode & 0o666
            for inner, _, names in os.walk(self.folder):
                for name in names:
                    Path(inner, name).chmod(permissions)
                self._sync_folder(inner)
            if self.target.exists():
                # Afterwards `files` is what the target was: a run that took it for its own would write into that.
                self._write(self._base / EXCHANGE, [_identity(self.folder)])
                self._sync_folder(self._base)
                exchange(self.folder, self.target)
            else:
                self.folder.rename(self.target)
            self._sync_folder(self.target.parent)
        except OSError as err:
            raise CheckpointFileError(
                f"{self.target}: {err.strerror}; it is as it was before", file=self.target
            ) from err
        # After an exchange this holds what the target was.
        shutil.rmtree(self._base, ignore_errors=True)

    def _locked(self) -> int:
        while True:
            # Who can open a file can lock it, and would keep its owner out.
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
                os.close(fd)
                raise ReshardError(
                    f"{self.target} is being written by {holder or 'another process'}; wait for it, or stop it",
                    file=self.target,
                ) from err
            # Whoever held it may have removed the file between our two calls.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._lock_path)):
                    self._check_lock(fd)
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                    return fd
            os.close(fd)

    def _check_lock(self, fd: int) -> None:
        """Refuse a file that is not a lock, before it is cut to nothing."""
        if os.pread(fd, len(LOCK_BEGINS), 0) not in (b"", LOCK_BEGINS):
            os.close(fd)
            raise OSError(errno.EEXIST, f"{self._lock_path} is in the way, which is not a lock; move it away")

    def _unlock(self) -> None:
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)


def _check_surplus(base: Path) -> None:
    """Refuse a folder in the place of a stage that holds what no run has left there."""
    if base.is_symlink() or not base.is_dir():
        return
    surplus = {path.name for path in base.iterdir()} - {JOB, FILES, JOURNALS, EXCHANGE}
    if surplus:
        raise CheckpointFileError(
            f"{base} holds what no run left there ({listed(map(printable, sorted(surplus)))}); move that "
            "away, or choose another folder",
            file=base,
        )


def _is_own(base: Path) -> bool:
    """Whether a folder is this user's, so that only what this user let in is in it."""
    with contextlib.suppress(FileNotFoundError):
        status = base.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return False


def _identity(folder: Path) -> bytes:
    return str(folder.stat().st_ino).encode()


def check_target(target: Path, overwrite: bool) -> None:
    """Check that a folder may appear there.

    Raises
    ------
    CheckpointFileError
        If `target` exists, and may not be replaced, or its place cannot be written. Only an intact earlier
        output that holds nothing else, or an empty folder, is replaced.
    """
    if not os.path.lexists(target):  # a link to nothing is in the way, too
        near = next(path for path in target.parents if os.path.exists(path))
        if not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
            raise CheckpointFileError(
                f"{target}: {near} cannot be written; choose a folder that can be written", file=target
            )
        return
    if not overwrite:
        replace = Option("overwrite", True)
        raise CheckpointFileError(
            f"{target} exists; choose another folder, or pass {replace}", replace, file=target
        )
    if reason := _why_kept(target):
        raise CheckpointFileError(
            f"{target}: {reason}, so it is not overwritten; choose another folder, or move away what is to be kept",
            file=target,
        )


def _why_kept(target: Path) -> str:
    """Why a folder is not replaced; "" if it is empty, or an earlier output and nothing else."""
    if target.is_symlink() or not target.is_dir():
        return "it is not a folder"
    try:
        if not any(target.iterdir()):
            return ""
        manifest = read_manifest(target)
        if manifest is None:
            return f"it is not an earlier output (it has no {MANIFEST})"
        unnamed = unnamed_paths(target, manifest)
    except CheckpointError as err:
        return f"it is not an intact earlier output ({err})"
    except OSError as err:
        return f"it cannot be listed ({err.strerror or err})"
    return (
        f"it holds what its {MANIFEST} does not name ({listed(map(printable, unnamed))})" if unnamed else ""
    )


def exchange(one: Path, other: Path) -> None:
    """Swap two folders' names at one moment.

    Raises
    ------
    OSError
        If the filesystem cannot do that, or may not.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError as err:
        raise OSError(
            errno.ENOSYS, "this system cannot exchange two folders at one moment; remove it first"
        ) from err
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, "this filesystem cannot exchange two folders at one moment; remove it first")
        raise OSError(code, os.strerror(code))
