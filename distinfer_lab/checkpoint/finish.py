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
from ..layout import Box
from ..reshard import ReshardPlan, TensorPlan
from .file_writer import FileReport, WriteTask
from .output import Output
from .staging import Stage

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
    by_rank: dict[int, dict[str, str | None]] = {}
    for report in reports:
        by_rank.setdefault(report.rank, {}).update({n: t.digest for n, t in report.tensors.items()})
    for kind in plan.classes:
        boxes = kind.dst.boxes.reshape(len(kind.dst.boxes), 2 * len(kind.shape))
        if len(np.unique(boxes, axis=0)) == len(boxes) or not len(kind.shape):
            continue
        for number in kind.tensors.tolist():
            name = plan.names[number]
            _check_equal(plan[name], targets[name][0], by_rank)


def _check_equal(tensor: TensorPlan, name: str, by_rank: Mapping[int, Mapping[str, str | None]]) -> None:
    seen: dict[bytes, int] = {}
    held: dict[int, list[bytes]] = {}
    for rank, box in zip(tensor.dst.ranks.tolist(), tensor.dst.boxes, strict=True):
        held.setdefault(rank, []).append(box.tobytes())
    for rank, boxes in held.items():
        first = seen.setdefault(b"".join(boxes), rank)
        if by_rank[first].get(name) != by_rank[rank].get(name):
            raise CheckpointError(
                f"{name}: destination ranks {first} and {rank} should get equal shards, but what was read for them "
                "differs: replicas in the source differ, one is damaged; compare them by verify_source=True",
                Option("verify_source", True),
                parameter=name,
            )


def manifest_files(
    stage: Stage, tasks: Sequence[WriteTask], reports: Sequence[FileReport]
) -> tuple[ManifestFile, ...]:
    """What the manifest says of each file that was written."""
    return tuple(
        ManifestFile(
            report.rank,
            report.path,
            (stage.folder / report.path).stat().st_size,
            {
                t.name: ManifestTensor(
                    dtype_name(t.dtype), t.shape, report.tensors[t.name].pieces, report.tensors[t.name].digest
                )
                for t in task.share.tensors
            },
            report.frame,
            report.cipher,
        )
        for task, report in zip(tasks, reports, strict=True)
    )


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
