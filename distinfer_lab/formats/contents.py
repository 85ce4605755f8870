"""What a folder holds besides what its manifest names, and what a file holds besides its tensors.

::

    out/distinfer.json            the manifest
    out/rank_0/checkpoint_0.ckpt  named
    out/notes.md                  unnamed

    header | tensor | header | text | header | tensor | checksum
    ------          -----------------------          ----------     the frame: every byte outside the tensors
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from .manifest import MANIFEST, Manifest

__all__ = ["gaps", "unnamed_paths"]


def unnamed_paths(folder: str | os.PathLike[str], manifest: Manifest) -> list[str]:
    """The paths in a folder that its manifest does not name, sorted; a folder without a named file ends in "/".

    Links are not followed: one that leads to a folder is itself a path that the manifest does not name.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    named = {MANIFEST} | {file.path for file in manifest.named}
    named = {str(PurePosixPath(path)) for path in named}
    folders = {str(parent) for path in named for parent in PurePosixPath(path).parents}
    unnamed: list[str] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        with os.scandir(Path(folder, inner)) as items:
            for item in items:
                path = str(PurePosixPath(inner, item.name))
                if not item.is_dir():
                    unnamed += [] if path in named else [path]
                elif path in folders and not item.is_symlink():
                    waiting.append(path)
                else:
                    unnamed.append(path + "/")
    return sorted(unnamed)


def gaps(size: int, pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Offset and length of the runs of a file of `size` bytes that lie outside all pieces, in order.

    Examples
    --------
    >>> list(gaps(10, [(6, 2), (1, 3), (4, 0)]))
    [(0, 1), (4, 2), (8, 2)]
    """
    at = 0
    for offset, length in sorted(pieces):
        if offset > at:
            yield at, offset - at
        at = max(at, offset + length)
    if at < size:
        yield at, size - at
