"""What tells the source files of a run from any others."""

import os
import uuid
from typing import Any

from ..formats import FileSet, SliceFile
from .files import CheckpointFiles
from .records import MissingFile

__all__ = ["source_identities", "source_records"]


def source_records(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """Path, size and time of change of every source file."""
    return [
        {"path": os.path.abspath(file.path), "size": file.identity.size, "mtime_ns": file.identity.mtime_ns}
        for file in _source_files(checkpoint)
    ]


def source_identities(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """What tells the source from any other; what cards hold changes as they train, so it is never the same."""
    if checkpoint.held:
        return [{"held": uuid.uuid4().hex}]
    return [
        {"path": os.path.abspath(file.path), **file.identity._asdict()} for file in _source_files(checkpoint)
    ]


def _source_files(checkpoint: CheckpointFiles) -> list[SliceFile]:
    files: list[SliceFile] = []
    for source in checkpoint.files:
        if not isinstance(source, MissingFile):
            files += source.files if isinstance(source, FileSet) else [source]
    return files
