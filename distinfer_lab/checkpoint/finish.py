"""The end of a run: are equal shards equal, and what stands beside the files: manifest, index, configuration."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from ..dtypes import dtype_name
from ..errors import CheckpointError, Option
from ..formats import (
    ManifestBeside,
    ManifestFile,
    ManifestTensor,
)
from ..layout import Box, Regions
from ..reshard import ReshardPlan
from .file_writer import FileReport, WriteTask
from .output import Output
from .staging import Stage
from .tensor_reports import TensorReports

__all__ = ["check_equal_shards", "manifest_files", "write_companions"]


def check_equal_shards(
    plan: ReshardPlan, targets: Mapping[str, tuple[str, np.dtype[Any]]], reports: Sequence[FileReport]
) -> None:
    """Shards of one box were read from whatever replica was at hand: they must be equal.

    Parameters
    ----------
    targets
        Entry of the source -> its name and dtype in the destination.

    Raises
    ------
    CheckpointError
        If two differ; the text names the tensor and the ranks.
    """
    by_rank: dict[int, list[TensorReports]] = {}
    for report in reports:
        by_rank.setdefault(report.rank, []).append(report.tensors)
    for kind in plan.classes:
        twins = _twins(kind.dst) if kind.shape else []
        if not twins:
            continue
        places = np.repeat(kind.places[:, 1], kind.counts).tolist()
        for number, place in zip(kind.tensors.tolist(), places, strict=True):
            name = targets[plan.names[number]][0]
            for first, rank in twins:
                _check_equal(name, place + first, place + rank, by_rank)


def _twins(regions: Regions) -> list[tuple[int, int]]:
    """Ranks that hold the same boxes as one before, which is the first of each pair."""
    seen: dict[bytes, int] = {}
    held: dict[int, list[bytes]] = {}
    for rank, box in zip(regions.ranks.tolist(), regions.boxes, strict=True):
        held.setdefault(rank, []).append(box.tobytes())
    pairs = [(seen.setdefault(b"".join(boxes), rank), rank) for rank, boxes in held.items()]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _check_equal(name: str, first: int, rank: int, by_rank: Mapping[int, Sequence[TensorReports]]) -> None:
    found = [[file.digest_of(name) for file in by_rank[one] if name in file] for one in (first, rank)]
    if found[0] != found[1]:
        raise CheckpointError(
            f"{name}: destination ranks {first} and {rank} should get equal shards, but what was read for them "
            "differs: replicas in the source differ, one is damaged; compare them by verify_source=True",
            Option("verify_source", True),
            parameter=name,
        )


def manifest_files(stage: Stage, reports: Sequence[FileReport]) -> tuple[ManifestFile, ...]:
    """What the manifest says of each file that was written."""
    return tuple(
        ManifestFile(
            report.rank,
            report.path,
            (stage.folder / report.path).stat().st_size,
            _ManifestTensors(report.tensors),
            report.frame,
            report.cipher,
        )
        for report in reports
    )


class _ManifestTensors(Mapping[str, ManifestTensor]):
    """What the manifest says of the tensors of a file, each made on demand."""

    def __init__(self, reports: TensorReports) -> None:
        self._reports = reports

    def __getitem__(self, name: str) -> ManifestTensor:
        digest, entry = self._reports.digest_of(name), self._reports.entries[name]
        return ManifestTensor(dtype_name(entry.dtype), entry.shape, entry.pieces, digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)


def write_companions(stage: Stage, output: Output, tasks: Sequence[WriteTask]) -> tuple[ManifestBeside, ...]:
    """Write the small files of a folder that is one whole checkpoint; what the manifest says of them."""
    out = []
    for name, data in _companions(output, tasks):
        stage.write(name, [data])
        out.append(ManifestBeside(name, len(data), xxhash.xxh3_128(data).hexdigest()))
    return tuple(out)


def _companions(output: Output, tasks: Sequence[WriteTask]) -> Iterator[tuple[str, bytes]]:
    """The small files, one at a time."""
    whole = output.whole
    if whole is None:
        return
    # As in a plan: a scalar keeps its dtype.
    dtypes = {
        dtype_name(t.dtype) for task in tasks for t in task.share.tensors if Box.whole(t.shape).size > 1
    }
    for path in output.copied:
        yield path.name, whole.companion(path, dtypes)
    if len(tasks) > 1 or output.index_name:
        weights = {tensor.name: task.path for task in tasks for tensor in task.share.tensors}
        elements = sum(Box.whole(t.shape).size for task in tasks for t in task.share.tensors)
        yield (
            output.index_name or whole.index_name,
            whole.index(weights, sum(t.nbytes for t in tasks), elements),
        )
