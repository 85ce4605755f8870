"""Reading an output once more, at the disk's speed, against the digests of its manifest.

Every byte is under one: tensors and the rest of each file, the small files, and the manifest itself. A file that the
manifest does not name is a difference, too.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from ..arguments import checked
from ..display import Displayed, counted, format_bytes
from ..errors import CheckpointError, Option, ReshardError, listed
from ..formats import Manifest, ManifestBeside, ManifestFile, gaps, read_manifest, unnamed_paths
from ..rules import layer_of
from ..text import printable
from ..untrusted import open_regular
from .files import CheckpointFiles
from .places import check_places

__all__ = [
    "Verification",
    "check_beginnings",
    "check_source",
    "check_taken_for_equal",
    "unnamed_slices",
    "verify_folder",
]

BLOCK_BYTES = 4 << 20
BEGINNINGS, BEGINNING_BYTES = 64, 4 << 10
STATED = Option("strategy")
TAKEN_FOR_EQUAL = (
    "no strategy names any tensor of these files, so each was taken to hold everything; but {}. If they are "
    f"slices, give the strategy that they were saved with: {STATED}"
)


@dataclass(frozen=True, repr=False)
class Verification(Displayed):
    """What was read, and what differs."""

    folder: str
    files: int
    nbytes: int
    """Bytes of all files that the manifest names."""
    differences: tuple[str, ...]
    """What is wrong, file by file and tensor by tensor."""

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {"ok": self.ok}

    def __repr__(self) -> str:
        words = "all as written" if self.ok else counted(len(self.differences), "difference")
        lines = [
            f"{printable(self.folder)}: {counted(self.files, 'file')}, {format_bytes(self.nbytes)}, {words}"
        ]
        return "\n".join(lines + [f"  {printable(text)}" for text in self.differences])


@checked
def verify_folder(folder: str | os.PathLike[str], *, threads: int = 1) -> Verification:
    """Compare every byte of a folder with its manifest, and look for files that it does not name.

    Parameters
    ----------
    threads
        How many files are read at one time.

    Raises
    ------
    CheckpointError
        If the folder has no manifest, or a damaged one.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError(
            f"{os.fspath(folder)}: there is no manifest in it; only what reshard wrote has one",
            file=folder,
        )
    every = manifest.named
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        found = list(pool.map(lambda file: _differences(Path(folder), file), every))
    found.append(_unnamed(folder, manifest))
    differences = tuple(text for texts in found for text in texts)
    return Verification(os.fspath(folder), len(every), sum(file.size for file in every), differences)


def _unnamed(folder: str | os.PathLike[str], manifest: Manifest) -> list[str]:
    try:
        paths = unnamed_paths(folder, manifest)
    except OSError as err:
        return [f"{err.filename}: {err.strerror}"]
    return [f"{printable(path)}: it is not in the manifest, so it was added later" for path in paths]


def check_source(checkpoint: CheckpointFiles) -> None:
    """Read all of a source: slices that should be equal are compared, and all with the manifest if it has one.

    Raises
    ------
    CheckpointError
        If something differs; the text names the files.
    ReshardError
        If the source has no files.
    """
    if not checkpoint.paths:
        raise ReshardError(
            "verify_source=True compares files, but the checkpoint lies on cards; leave it out",
            Option("verify_source", True),
        )
    _check_replicas(checkpoint)
    manifest = read_manifest(checkpoint.folder) if checkpoint.folder else None
    folder = Path(checkpoint.folder)
    files = () if manifest is None else manifest.named
    used = [f for f in files if isinstance(f, ManifestBeside) or (f.frame and f.rank not in checkpoint.lost)]
    differences = [text for file in used for text in _differences(folder, file)]
    if differences:
        without = Option("without")
        raise CheckpointError(
            f"{checkpoint.folder}: {listed(differences)}; leave a damaged file out by {without}, or copy it "
            "once more",
            without,
            file=checkpoint.folder,
        )


def check_taken_for_equal(checkpoint: CheckpointFiles) -> None:
    """Compare the files of a source of which no strategy says who holds what: each is taken to hold everything.

    Raises
    ------
    CheckpointError
        If they are not equal.
    """
    if _taken_for_equal(checkpoint):
        _check_replicas(checkpoint)


def check_beginnings(checkpoint: CheckpointFiles) -> None:
    """As `check_taken_for_equal`, but 256 KiB of a file at most are read: enough to tell slices from copies.

    Of an output a few small slices are read, too, to see that its files are in their places.

    Raises
    ------
    CheckpointError
        If they are not equal, or not in their places.
    """
    check_places(checkpoint)
    if checkpoint.ranks < 2 or not _taken_for_equal(checkpoint):
        return
    for name, one, other in _unlike_beginnings(checkpoint):
        text = f"{name} differs between {one} and {other}"
        raise CheckpointError(TAKEN_FOR_EQUAL.format(text) + _stages(checkpoint), STATED)


def unnamed_slices(checkpoint: CheckpointFiles) -> Iterator[str]:
    """Tensors that the strategy does not name, and that differ from rank to rank: a phrase each.

    Nobody says that they are cut, so one rank's is taken for the whole.
    """
    if checkpoint.ranks < 2 or _taken_for_equal(checkpoint):
        return
    for name, one, other in _unlike_beginnings(checkpoint):
        yield (
            f"{name}: the strategy does not name it, so the first rank's is taken for the whole, but it differs "
            f"between {one} and {other}; if these are slices, give a strategy that names it"
        )


def _unlike_beginnings(checkpoint: CheckpointFiles) -> Iterator[tuple[str, str, str]]:
    """Tensors that nobody says are cut, and two files in which their first bytes differ."""
    plain = (name for name, record in checkpoint.tensors.items() if record.kind == "plain")
    for name in islice(plain, BEGINNINGS):
        seen: dict[bytes, str] = {}
        for file in checkpoint.files:
            if name in file.entries:
                begin = bytearray(min(file.entries[name].nbytes, BEGINNING_BYTES))
                file.fill(name, 0, memoryview(begin))
                seen.setdefault(bytes(begin), file.path)
        if len(seen) > 1:
            one, other, *_ = seen.values()
            yield name, one, other


def _taken_for_equal(checkpoint: CheckpointFiles) -> bool:
    return all(record.kind == "plain" for record in checkpoint.tensors.values())


def _check_replicas(checkpoint: CheckpointFiles) -> None:
    try:
        checkpoint.check_replicas()
    except CheckpointError as err:
        if not _taken_for_equal(checkpoint):
            raise
        raise CheckpointError(TAKEN_FOR_EQUAL.format(err) + _stages(checkpoint), STATED, of=err) from err


def _stages(checkpoint: CheckpointFiles) -> str:
    """How pipeline stages that each count their layers from 0 are joined; "" if the files do not look like stages."""
    files = [file for file in checkpoint.files if not file.is_lost]
    layers = [{number for name in file.entries if (number := layer_of(name)) is not None} for file in files]
    if len({frozenset(file.entries) for file in files}) < 2 or any(0 not in numbers for numbers in layers):
        return ""
    prefix = next(name for name in files[1].entries if layer_of(name) == 0).partition(".0.")[0]
    rename = f"{prefix}.0.*={prefix}.{max(layers[0]) + 1}.*"
    return (
        ". If they are pipeline stages that each count their layers from 0, number the layers of each on from the "
        f"stage before, as by distinfer reshard {files[1].path} stage_1 --rename '{rename}' with a --rename for each "
        "layer, and put the results into one folder as rank_0, rank_1, ..."
    )


def _differences(folder: Path, file: ManifestFile | ManifestBeside) -> list[str]:
    """What is not as the manifest says, of one file."""
    name = printable(file.path)
    try:
        with open_regular(folder / file.path) as opened:
            fd = opened.fileno()
            size = os.fstat(fd).st_size
            differences = [] if size == file.size else [f"{size} bytes, not {file.size}"]
            if not differences or isinstance(file, ManifestFile):
                differences += _differing_parts(fd, file)
    except OSError as err:
        differences = [err.strerror or str(err)]
    return [f"{name}: {text}" for text in differences]


def _differing_parts(fd: int, file: ManifestFile | ManifestBeside) -> list[str]:
    whole = ((0, file.size),)
    if isinstance(file, ManifestBeside):
        return _differing(fd, "its bytes", whole, file.digest)
    if file.cipher is not None:
        return _differing(fd, "its bytes", whole, file.cipher)
    texts = []
    for name, tensor in file.tensors.items():
        texts += _differing(fd, f"{printable(name)}: its bytes", tensor.pieces, tensor.digest)
    pieces = [piece for tensor in file.tensors.values() for piece in tensor.pieces]
    return texts + _differing(fd, "names, dtypes, shapes or texts", gaps(file.size, pieces), file.frame)


def _differing(fd: int, what: str, pieces: Iterable[tuple[int, int]], digest: str | None) -> list[str]:
    if digest is None:
        return [f"{what}: no digest was taken when it was written"]
    return [] if _digest(fd, pieces) == digest else [f"{what} differ from what was written"]


def _digest(fd: int, pieces: Iterable[tuple[int, int]]) -> str:
    digest = xxhash.xxh3_128()
    for offset, length in pieces:
        for at in range(0, length, BLOCK_BYTES):
            digest.update(os.pread(fd, min(BLOCK_BYTES, length - at), offset + at))
    return digest.hexdigest()
