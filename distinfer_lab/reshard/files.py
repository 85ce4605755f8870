"""A plan carried out from files to files: byte ranges, a bounded buffer, one rename at the end.

Each destination file is laid out first, then filled window by window: a window is a run of rows
of a shard, small enough for the buffer; the pieces that fall into it are read into it; it is
written in one run. No tensor is ever whole in memory.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..checkpoint import CHUNK_BYTES, Checkpoint, SliceWriter, TensorSpec
from ..display import Displayed
from ..errors import CheckpointFileError, ReshardError
from ..layout import Box, Strategy
from .destination import plan_checkpoint
from .plan import ReshardPlan
from .shares import Share, ShareTensor, read_part, share_of

__all__ = ["BUFFER_BYTES", "ReshardResult", "reshard_files", "windows"]

BUFFER_BYTES = 32 << 20


@dataclass(frozen=True, repr=False)
class ReshardResult(Displayed):
    """What was written, and what it took."""

    paths: tuple[str, ...]
    """One file per destination rank."""
    plan: ReshardPlan
    read_bytes: int
    """Bytes of content read from source files."""
    needed_bytes: int
    """Bytes of all destination shards."""
    buffer_bytes: int
    """The largest buffer that was used."""
    digests: tuple[dict[str, str], ...]
    """For each destination rank, for each tensor, the xxh3 digest of its shard's bytes."""

    def __repr__(self) -> str:
        return (
            f"ReshardResult: {len(self.paths)} files, {self.needed_bytes} bytes written, "
            f"{self.read_bytes} read ({self.read_bytes / max(self.needed_bytes, 1):.2f} of what was needed), "
            f"buffer {self.buffer_bytes} bytes"
        )


def reshard_files(
    checkpoint: Checkpoint,
    dst: Strategy | None,
    out_dir: str | os.PathLike[str],
    *,
    prefix: str = "checkpoint_",
    format: str = "ckpt",
    states: str = "follow",
    buffer_bytes: int = BUFFER_BYTES,
    overwrite: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    **file_options: Any,
) -> ReshardResult:
    """Write `rank_N/<prefix>N.<format>` for every destination rank.

    Parameters
    ----------
    dst
        Who shall hold what; None: one whole file, in `rank_0`.
    out_dir
        The folder to make. It appears when everything in it is complete.
    states
        See `plan_checkpoint`.
    buffer_bytes
        The most memory for data, at least one row of the widest shard.
    overwrite
        Replace `out_dir` if it exists.
    file_options
        `crc_check`, `enc_key`, `enc_mode`, `sync` of `SliceWriter`.

    Raises
    ------
    CheckpointFileError
        If `out_dir` exists, or cannot be written.
    ReshardError
        If the plan cannot be made, or the buffer is too small.
    """
    if buffer_bytes < 1:
        raise ReshardError(f"buffer_bytes={buffer_bytes}: at least 1 byte is needed")
    if Path(prefix).name != prefix and prefix:
        raise ReshardError(f"prefix={prefix!r} is the start of a file name; it may not name a folder")
    target = Path(out_dir)
    if target.exists() and not overwrite:
        raise CheckpointFileError(f"{target} exists; choose another folder, or pass overwrite=True")
    plan = plan_checkpoint(checkpoint, dst, states=states)
    before = sum(file.nbytes_read for file in checkpoint.files)
    options = {"format": format, "chunk_bytes": chunk_bytes, **file_options}
    writing = _Writing(checkpoint, buffer_bytes, options)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        staging.chmod(0o755)
    except OSError as err:
        raise CheckpointFileError(f"{target}: {err.strerror}; choose a folder that can be written") from err
    try:
        names = [f"rank_{rank}/{prefix}{rank}.{format}" for rank in range(plan.dst_count)]
        digests = [
            writing.write(share_of(plan, checkpoint, rank), staging / name) for rank, name in enumerate(names)
        ]
        _commit(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ReshardResult(
        tuple(os.fspath(target / name) for name in names),
        plan,
        sum(file.nbytes_read for file in checkpoint.files) - before,
        int(plan.needed_bytes.sum()),
        writing.largest,
        tuple(digests),
    )


def _commit(staging: Path, target: Path) -> None:
    """Put the finished folder in its place; what was there goes aside first, and back on failure."""
    aside = staging.with_name(staging.name + "-before")
    try:
        if target.exists():
            target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            if aside.exists():
                aside.rename(target)
            raise
    except OSError as err:
        raise CheckpointFileError(f"{target}: {err.strerror}; it is as it was before") from err
    shutil.rmtree(aside, ignore_errors=True)


class _Writing:
    """Writes one destination file after another through one buffer."""

    def __init__(self, checkpoint: Checkpoint, buffer_bytes: int, options: dict[str, Any]) -> None:
        self.checkpoint, self.buffer_bytes, self.options = checkpoint, buffer_bytes, options
        self.largest = 0

    def write(self, share: Share, path: Path) -> dict[str, str]:
        specs = [TensorSpec(t.name, t.dtype, t.shape) for t in share.tensors]
        specs += [TensorSpec(n, np.dtype("<U1"), (), text) for n, text in self.checkpoint.texts.items()]
        digests = {}
        with SliceWriter(path, specs, **self.options) as writer:
            for tensor in share.tensors:
                digests[tensor.name] = self._write_tensor(tensor, writer)
        return digests

    def _write_tensor(self, tensor: ShareTensor, writer: SliceWriter) -> str:
        digest = xxhash.xxh3_64()
        for window in windows(tensor.shape, tensor.dtype.itemsize, self.buffer_bytes):
            data = np.empty(window.shape, tensor.dtype)
            self.largest = max(self.largest, data.nbytes)
            for part in tensor.parts:
                common = _common(part.dst, window)
                if common is not None:
                    there = _shifted(common, part.dst, part.src)
                    file = self.checkpoint.files[part.src_rank]
                    read_part(file, tensor.source, there, common.within(window).of(data))
            digest.update(data.reshape(-1).view(np.uint8).data)
            writer.write(tensor.name, window, data)
        return digest.hexdigest()


def windows(shape: tuple[int, ...], itemsize: int, limit: int) -> Iterator[Box]:
    """Boxes that tile a tensor in row-major order, each contiguous and within `limit` bytes."""
    whole = Box.whole(shape)
    if not shape or whole.size * itemsize <= limit:
        yield whole
        return
    # The first dim whose rows fit is cut into runs of rows; those before it go index by index.
    dim = 0
    row = whole.size * itemsize
    for dim, n in enumerate(shape):  # noqa: B007  the last dim, if no row fits
        row //= n
        if row <= limit:
            break
    step = max(limit // max(row, 1), 1)
    for index in np.ndindex(*shape[:dim]):
        for first in range(0, shape[dim], step):
            stop = min(first + step, shape[dim])
            start = (*index, first, *(0 for _ in shape[dim + 1 :]))
            yield Box(start, (*(i + 1 for i in index), stop, *shape[dim + 1 :]))


def _common(a: Box, b: Box) -> Box | None:
    start = tuple(max(x, y) for x, y in zip(a.start, b.start, strict=True))
    stop = tuple(min(x, y) for x, y in zip(a.stop, b.stop, strict=True))
    return Box(start, stop) if all(x < y for x, y in zip(start, stop, strict=True)) else None


def _shifted(box: Box, origin: Box, target: Box) -> Box:
    """A box inside `origin`, moved as `origin` is to `target`."""
    inside = box.within(origin)
    return Box(
        tuple(a + t for a, t in zip(inside.start, target.start, strict=True)),
        tuple(b + t for b, t in zip(inside.stop, target.start, strict=True)),
    )
