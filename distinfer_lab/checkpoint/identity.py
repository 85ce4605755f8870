"""What tells the source files of a run from any others."""

import os
import uuid
from typing import Any

from ..formats import SliceFile
from .files import CheckpointFiles

__all__ = ["source_identities", "source_records"]


def source_records(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """Path, size and time of change of every source file."""
    return [
        {"path": os.path.abspath(file.path), "size": file.identity.size, "mtime_ns": file.identity.mtime_ns}
        for file in _source_files(checkpoint)
    ]


def source_identities(checkpoint: CheckpointFiles) -> list[dict[str, Any]]:
    """What tells the source from any other; what is in no file may have changed, so it is never the same."""
    files = [
        {"path": os.path.abspath(file.path), **file.identity._asdict()} for file in _source_files(checkpoint)
    ]
    return files or [{"unique": uuid.uuid4().hex}]


def _source_files(checkpoint: CheckpointFiles) -> list[SliceFile]:
    return [file for slices in checkpoint.files for file in slices.files]
