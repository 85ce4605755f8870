"""Several files as one: the shards of a Hugging Face folder, or the parts that one rank saved.

Where an index says which file a tensor is in, it decides; what index and files do not agree on is said in notes.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import CheckpointError, CheckpointFileError, Option, listed
from ..layout import Box
from ..text import printable
from .entry import Entry, Place, SlicesInFiles
from .file_format import Members
from .file_formats import members_of
from .slice_file import WINDOW_BYTES, SliceFile
from .slice_opening import open_slice

__all__ = ["FileSet", "PartFiles", "open_files", "paths_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class PartFiles(os.PathLike[str]):
    """Several files that together hold one rank's slices, to be opened as one `FileSet`."""

    path: str
    """The folder that they lie in, for texts."""
    files: tuple[str, ...]

    def __fspath__(self) -> str:
        return self.path


class FileSet(SlicesInFiles, Displayed):
    """Several files that together hold one rank's slices; used like a `SliceFile`.

    Parameters
    ----------
    path
        What holds them: a folder or an index.
    files
        File name -> file.
    listed_in
        Tensor -> file name, as an index has it. It decides where two files have a tensor.

    Raises
    ------
    CheckpointError
        If two files have an entry of one name, and no index says whose counts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        files: Mapping[str, SliceFile],
        listed_in: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self._files = os.fspath(path), dict(files)
        self._of: dict[str, SliceFile] = {}
        self._twice: dict[str, str] = {}
        self._index = listed_in
        for short, file in self._files.items():
            for name in file.entries:
                here = listed_in is not None and listed_in.get(name) == short
                if name in self._of:
                    self._twice[name] = self._of[name].path if here else file.path
                    self._check_once(file, name)
                if here or name not in self._of:
                    self._of[name] = file
        self.entries: Mapping[str, Entry] = _EntriesOf(self._of)

    def _check_once(self, file: SliceFile, name: str) -> None:
        other = self._of[name]
        # Each part may carry the same counters and texts.
        if _equal_scalars(file, other, name):
            del self._twice[name]
        elif self._index is None or name not in self._index:
            choose, stated = Option("file", Path(file.path).name), Option("strategy")
            raise CheckpointError(
                f"{file.path}: {name} is also in {other.path}, so they are not parts of one save; choose one by "
                f"{choose}, or, if they are the slices of ranks, give {stated}",
                choose,
                stated,
                file=file.path,
                parameter=name,
            )

    @property
    def missing(self) -> tuple[str, ...]:
        """Tensors that the index lists, and no file holds."""
        return tuple(name for name in self._index or () if name not in self.entries)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the index and the files does not agree."""
        if self._index is None:
            return ()
        index, out = self._index, []
        if self.missing:
            first = self.missing[0]
            out.append(
                f"{self.path}: the index lists {listed(self.missing)}, which {index[first]} does not hold"
            )
        forgotten = [n for n, entry in self.entries.items() if n not in index and not entry.is_text]
        if forgotten:
            out.append(
                f"{self.path}: the index does not list {listed(forgotten)}; they are in its files, and are used"
            )
        moved = [n for n in index if n in self._of and Path(self._of[n].path).name != index[n]]
        if moved:
            here = self._of[moved[0]].path
            out.append(
                f"{here} holds {listed(moved)}, which the index lists in {index[moved[0]]}; they are used"
            )
        for name, file in self._twice.items():
            out.append(
                f"{file} holds {name} too, which is taken from {self._of[name].path}, as the index says"
            )
        return tuple(out)

    @property
    def format(self) -> str:
        """The format of the files."""
        return next((file.format for file in self.files), "safetensors")

    @property
    def files(self) -> list[SliceFile]:
        """The files, in order."""
        return list(self._files.values())

    @property
    def cut(self) -> str:
        """See `SliceFile`: of the first file that is cut."""
        return next((file.cut for file in self.files if file.cut), "")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def nbytes_read(self) -> int:
        """Bytes of content read so far."""
        return sum(file.nbytes_read for file in self.files)

    def __enter__(self) -> "FileSet":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = f"{counted(len(self.files), 'file')}, {counted(len(self.entries), 'entry')}"
        return f"FileSet({printable(self.path)}, {counts})"

    def _holder(self, name: str) -> SliceFile:
        if name not in self._of:
            raise CheckpointError(
                f"{self.path} has no entry {name!r}; it has {listed(self.entries)}",
                file=self.path,
                parameter=name,
            )
        return self._of[name]

    def path_of(self, name: str) -> str:
        """The file that holds an entry; what holds them all, if none does."""
        return self._of[name].path if name in self._of else self.path

    def entry(self, name: str) -> Entry:
        """See `SliceFile.entry`."""
        return self._holder(name).entry(name)

    def text(self, name: str) -> str:
        """See `SliceFile.text`."""
        return self._holder(name).text(name)

    def read(self, name: str, box: Box | None = None) -> Array:
        """See `SliceFile.read`."""
        return self._holder(name).read(name, box)

    def read_into(self, name: str, box: Box, out: Array, buffer_bytes: int = WINDOW_BYTES) -> int:
        """See `SliceFile.read_into`."""
        return self._holder(name).read_into(name, box, out, buffer_bytes)

    def place(self, name: str) -> Place | None:
        """See `SliceFile.place`."""
        return self._of[name].place(name) if name in self._of else None

    def fill(self, name: str, start: int, target: memoryview) -> None:
        """See `SliceFile.fill`."""
        self._holder(name).fill(name, start, target)

    def scatter(self, name: str, start: int, targets: Sequence[memoryview], nbytes: int) -> None:
        """See `SliceFile.scatter`."""
        self._holder(name).scatter(name, start, targets, nbytes)

    def check_unchanged(self) -> None:
        """See `SliceFile.check_unchanged`."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()


class _EntriesOf(Mapping[str, Entry]):
    """The entries of several files, each looked up in its own."""

    def __init__(self, files: Mapping[str, SliceFile]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> Entry:
        return self._files[name].entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _equal_scalars(file: SliceFile, other: SliceFile, name: str) -> bool:
    """Whether two files hold the same text, or the same tensor of one element, by a name."""
    one, two = file.entries[name], other.entries[name]
    if one.is_text or two.is_text:
        return one.is_text and two.is_text and file.text(name) == other.text(name)
    if one.shape != two.shape or one.dtype != two.dtype or math.prod(one.shape) != 1:
        return False
    return bool(file.read(name).tobytes() == other.read(name).tobytes())


def paths_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The files that `open_files` opens.

    Raises
    ------
    CheckpointError
        If they are those of an index, and it is damaged.
    """
    found = _members(path)
    return (os.fspath(path),) if found is None else found.files


def _members(path: str | os.PathLike[str]) -> Members | None:
    return Members(path.files) if isinstance(path, PartFiles) else members_of(path)


def open_files(path: str | os.PathLike[str], **options: Any) -> SliceFile | FileSet:
    """Open what holds one rank's slices: a file, several, or a folder of a `FolderFormat` or its index.

    Parameters
    ----------
    options
        Of `open_slice`.

    Raises
    ------
    CheckpointFileError, CheckpointError, EncryptionError
        As `open_slice`; and if a file that the index lists is missing.
    """
    found = _members(path)
    if found is None:
        return open_slice(path, **options)
    if found.index_name:
        _check_shards(found)
    with ExitStack() as stack:
        files = {Path(p).name: stack.enter_context(open_slice(p, **options)) for p in found.files}
        out = FileSet(path, files, found.listed_in)
        stack.pop_all()
        return out


def _check_shards(members: Members) -> None:
    """Every file that an index lists must be there."""
    paths = members.files
    missing = [path for path in paths if not os.path.lexists(path)]
    if not missing:
        return
    there = [Path(path).name for path in paths if path not in missing]
    choose = [Option("file", name) for name in there[:1]]
    some = f", or open what is there by {choose[0]}" if choose else ""
    raise CheckpointFileError(
        f"{missing[0]}: the index {members.index_name} lists this file, and it is not there "
        f"({len(missing)} of {len(paths)} are missing); put it there{some}",
        *choose,
        file=missing[0],
    )
