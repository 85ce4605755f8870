"""Whether the files of an output are in their places: a few small slices of each against the digests of its manifest.

::

    rank_0/a.ckpt   bias 3f...   \
    rank_1/a.ckpt   bias 81...   /  exchanged: shapes are equal, and headers say nothing of ranks

Which slices: the smallest whose digests distinguish the files, as far as any does. What else was
changed is found by reading everything (`verify_source`, `distinfer verify`).
"""

from collections.abc import Mapping

from ..errors import CheckpointError, Option
from ..formats import MANIFEST, Manifest, ManifestFile
from .files import CheckpointFiles

__all__ = ["Marks", "check_places", "marks_of"]

Marks = Mapping[str, Mapping[int, str]]
"""Tensor -> rank -> digest of its slice there."""

MOST_BYTES = 8 << 20
"""Of a slice that is read for this."""
MOST_TRIED = 256
"""So many tensors are looked at, the smallest first."""


def marks_of(manifest: Manifest) -> Marks:
    """Few small tensors whose digests distinguish the ranks of an output."""
    if len({file.rank for file in manifest.files}) < 2:
        return {}
    digests = _digests(manifest.files)
    groups: dict[int, tuple[str | None, ...]] = {file.rank: () for file in manifest.files}
    marks: dict[str, Mapping[int, str]] = {}
    for name, held in list(digests.items())[:MOST_TRIED]:
        finer = {rank: (*group, held.get(rank)) for rank, group in groups.items()}
        if len(set(finer.values())) > len(set(groups.values())):
            groups, marks[name] = finer, held
            if len(set(groups.values())) == len(groups):
                break
    return marks


def _digests(files: tuple[ManifestFile, ...]) -> dict[str, dict[int, str]]:
    """Tensor -> rank -> digest, the smallest first, of what has digests that are not all equal."""
    sizes: dict[str, int] = {}
    digests: dict[str, dict[int, str]] = {}
    for file in files:
        for name, tensor in file.tensors.items():
            if tensor.digest is not None and 0 < tensor.nbytes <= MOST_BYTES:
                sizes[name] = max(tensor.nbytes, sizes.get(name, 0))
                digests.setdefault(name, {})[file.rank] = tensor.digest
    return {
        name: digests[name]
        for name in sorted(sizes, key=sizes.__getitem__)
        if len(set(digests[name].values())) > 1
    }


def check_places(checkpoint: CheckpointFiles) -> None:
    """Compare a few small slices of the files of an output with its manifest.

    Raises
    ------
    CheckpointError
        If one differs: the text says whose slice it is, where it is that of another rank.
    """
    for name, digests in checkpoint.marks.items():
        for rank, digest in digests.items():
            if rank in checkpoint.lost or name in checkpoint.unreadable:
                continue
            found = checkpoint.digest(rank, name)
            if found == digest:
                continue
            here = checkpoint.files[rank].path
            owners = [str(other) for other, known in digests.items() if known == found]
            if not owners:
                without = Option("without", [rank])
                raise CheckpointError(
                    f"{here}: {name} differs from what was written, as its digest in {MANIFEST} says; copy the file "
                    f"once more, or leave it out by {without}, if other ranks hold the same",
                    without,
                    file=here,
                    parameter=name,
                )
            raise CheckpointError(
                f"{here}: its {name} is that of rank {' or '.join(owners)}, as the digests in {MANIFEST} say, so the "
                "file was exchanged with another, or replaced by one; put each in its place",
                file=here,
                parameter=name,
            )
