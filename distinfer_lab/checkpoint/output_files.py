"""The files of an output: which tensors go into which, and what their names must be."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointFileError, Option, ReshardError
from ..formats import CHUNK_BYTES, FolderFormat
from .file_writer import WriteTask
from .output import Output
from .rank_reads import RankReadPlan

__all__ = ["check_apart", "tasks_of"]


def tasks_of(shares: Sequence[RankReadPlan], texts: Mapping[str, str], output: Output) -> list[WriteTask]:
    """A task for each file of an output.

    Parameters
    ----------
    shares
        What each destination rank reads, in the order of the ranks.
    texts
        Text entries, for all files; for the first file of a whole checkpoint.

    Raises
    ------
    ReshardError
        If the output is one whole checkpoint and there are several ranks, or no file is named for a tensor.
    """
    options: dict[str, Any] = {"chunk_bytes": CHUNK_BYTES, **output.file_options}
    whole = output.whole
    options["format"] = output.format if whole is None else whole.file_format
    if whole is not None:
        if len(shares) != 1:
            given = Option("format", output.format)
            raise ReshardError(
                f"{given} is one whole checkpoint, but the plan has {len(shares)} destination "
                "ranks; leave the destination out",
                given,
            )
        options["metadata"] = dict(whole.metadata)
        share = shares[0]
        parts = _partition(output, whole, {t.name: t.nbytes for t in share.tensors})
        return [
            WriteTask(
                share.only(names),
                "",
                path,
                {} if number else texts,
                output.buffer_bytes,
                output.digests,
                options,
            )
            for number, (path, names) in enumerate(parts.items())
        ]
    return [
        WriteTask(
            share,
            "",
            f"rank_{share.rank}/{output.prefix}{share.rank}.{output.format}",
            texts,
            output.buffer_bytes,
            output.digests,
            options,
        )
        for share in shares
    ]


def _partition(output: Output, whole: FolderFormat, sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """File name -> tensors."""
    if output.partition is None:
        groups = _groups(sizes, output.shard_bytes)
        return dict(zip(whole.file_names(len(groups)), groups, strict=True))
    out: dict[str, list[str]] = {}
    for name in sizes:
        if name not in output.partition:
            given = Option("partition" if output.like is None else "like")
            raise ReshardError(
                f"{name}: {given} names no file for it; leave {given} out, and all go into one file",
                given,
                parameter=name,
            )
        path = output.partition[name]
        if Path(path).name != path or not path.endswith(f".{whole.file_format}"):
            words = f"{name}: {path!r} is no name of a .{whole.file_format} file"
            raise ReshardError(words, parameter=name, file=path)
        out.setdefault(path, []).append(name)
    return dict(sorted(out.items()))


def _groups(sizes: Mapping[str, int], most: int | None) -> list[list[str]]:
    """The tensors in their order, as many to a file as fit; one that fits in none has a file of its own.

    >>> _groups({"a": 3, "b": 2, "c": 9, "d": 1}, 5)
    [['a', 'b'], ['c'], ['d']]
    """
    out: list[list[str]] = [[]]
    held = 0
    for name, nbytes in sizes.items():
        if most is not None and out[-1] and held + nbytes > most:
            out.append([])
            held = 0
        out[-1].append(name)
        held += nbytes
    return out


def check_apart(sources: Iterable[str], output: Output) -> None:
    """An output that replaced its own source would throw it away, and what else lies there."""
    target = Path(output.folder).resolve()
    for source in sources:
        path = Path(source).resolve()
        if path == target or target in path.parents:
            raise CheckpointFileError(
                f"{source} is read from, and lies in {output.folder}; write to another folder", file=source
            )
