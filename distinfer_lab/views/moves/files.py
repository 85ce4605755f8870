"""Which bytes of which file go where: a bar for each file, its tensors one after another.

::

    rank_0/w.ckpt  [ w: rank 0 | rank 1 ][ b: 0-1 ][//////]   3 MiB of 4 MiB are read

A tensor's rows run along the bar, its columns across: a cut of rows is a run of bytes, a cut of columns
is a part of every row. Areas are bytes. What nobody reads is striped. Where most parts would be too small
for the number of who reads them, the bytes of the file are put in order of who does.
"""

from collections.abc import Iterator, Sequence
from os.path import basename, dirname
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...display import counted, format_bytes
from ..drawing import Block, Pen, above, finish, heading, label, notes, path, shorten, text, text_width
from ..holdings import format_ranks

if TYPE_CHECKING:
    from ...checkpoint import Conversion

__all__ = ["FileBytes", "ReadPiece", "file_name", "files_of", "files_svg"]

REACH, THICK = 480.0, 34.0
MAX_FILES, MAX_TENSORS, MAX_PIECES = 16, 300, 320
MOST_NAMED, MOST_SETS = 16, 6
THIN = 20.0
"""Tensors narrower than so many pixels are drawn together."""
STRIPED = ("#e8e8e8", 1)
SHARED = "#bbbbbb"


class ReadPiece(NamedTuple):
    """A part of a tensor in a file that the same destinations read; fractions of the tensor, 0 to 1."""

    readers: tuple[int, ...]
    """Destination ranks, ascending."""
    start: float
    """Along its rows."""
    stop: float
    upper: float
    """Along its columns."""
    lower: float

    @property
    def share(self) -> float:
        """The fraction of the tensor's bytes."""
        return (self.stop - self.start) * (self.lower - self.upper)


class TensorBytes(NamedTuple):
    """A tensor of a file."""

    name: str
    nbytes: int
    pieces: tuple[ReadPiece, ...]


class FileBytes(NamedTuple):
    """A file: its tensors in the order of their bytes."""

    path: str
    tensors: tuple[TensorBytes, ...]
    by_reader: bool = False
    """Whether its bytes are put in order of who reads them, not as they lie in the file."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def read_bytes(self) -> int:
        """Bytes that some destination reads, each counted once."""
        return round(sum(t.nbytes * sum(piece.share for piece in t.pieces) for t in self.tensors))


def files_of(conversion: "Conversion", limit: int = MAX_FILES) -> list[FileBytes]:
    """What a conversion reads of its first files; of a conversion of very many tensors, by destination only."""
    files = conversion.checkpoint.files[:limit]
    if len(conversion.plan) > MAX_TENSORS:
        return [_by_destination(conversion, rank, file.path) for rank, file in enumerate(files)]
    found: list[dict[str, TensorBytes]] = [{} for _ in files]
    for name in conversion.plan:
        for rank, tensor in _tensor(conversion, name, len(files)):
            found[rank][name] = tensor
    out = []
    for file, tensors in zip(files, found, strict=True):
        entries = sorted((e for e in file.entries.values() if not e.is_text), key=lambda e: e.pieces[:1])
        every = [tensors.get(e.name, TensorBytes(e.name, e.nbytes, ())) for e in entries]
        out.append(FileBytes(file.path, tuple(every)))
    return out


def _tensor(conversion: "Conversion", name: str, count: int) -> Iterator[tuple[int, TensorBytes]]:
    """What is read of one tensor in each of the first files."""
    found = conversion.plan[name]
    extents = found.pieces.boxes[..., 1] - found.pieces.boxes[..., 0]
    for rank in np.unique(found.pieces.src_rank):
        if rank >= count:
            break
        entry = conversion.checkpoint.files[rank].entries.get(name)
        if entry is None:
            continue
        readers: dict[tuple[tuple[int, ...], tuple[int, ...]], set[int]] = {}
        for row in np.flatnonzero(found.pieces.src_rank == rank).tolist():
            key = tuple(found.pieces.src_at[row].tolist()), tuple(extents[row].tolist())
            readers.setdefault(key, set()).add(int(found.pieces.dst_rank[row]))
        pieces = [_piece(*key, entry.shape, sorted(who)) for key, who in sorted(readers.items())]
        yield int(rank), TensorBytes(name, entry.nbytes, tuple(pieces))


def _piece(
    at: tuple[int, ...], extent: tuple[int, ...], shape: tuple[int, ...], readers: Sequence[int]
) -> ReadPiece:
    """Rows by their place; of the dims after the first the place in memory, and their part of a row."""
    if not shape:
        return ReadPiece(tuple(readers), 0.0, 1.0, 0.0, 1.0)
    start, stop = at[0] / shape[0], (at[0] + extent[0]) / shape[0]
    place, height, inner = 0.0, 1.0, 1.0
    for first, size, whole in zip(at[1:], extent[1:], shape[1:], strict=True):
        place += inner * first / whole
        height *= size / whole
        inner *= size / whole
    return ReadPiece(tuple(readers), start, stop, place, place + height)


def _by_destination(conversion: "Conversion", rank: int, file: str) -> FileBytes:
    entries = conversion.checkpoint.files[rank].entries.values()
    size = max(sum(entry.nbytes for entry in entries if not entry.is_text), 1)
    sent = conversion.plan.traffic[rank] / size
    # Bytes that several destinations read are counted by each: the bar is scaled to hold them all.
    sent = sent / max(float(sent.sum()), 1.0)
    ends = np.cumsum(sent)
    pieces = [
        ReadPiece((j,), float(ends[j] - sent[j]), float(ends[j]), 0.0, 1.0)
        for j in np.flatnonzero(sent).tolist()
    ]
    return FileBytes(
        file, (TensorBytes(counted(len(conversion.plan), "tensor"), size, tuple(pieces)),), by_reader=True
    )


def files_svg(files: Sequence[FileBytes], title: str, *, total: int | None = None) -> str:
    """Which bytes of which file go to which destination rank; keys are "file:0".

    Parameters
    ----------
    files
        In rank order.
    total
        The number of files of the whole checkpoint, where not all are given.
    """
    pen = Pen(title)
    most = max((file.nbytes for file in files), default=0)
    names = [shorten(file_name(file.path), 36) for file in files]
    left = max(map(text_width, names), default=0) + 10
    scale = REACH / max(most, 1)
    drawn = [_drawn(file, scale) for file in files]
    rows = [
        _row(i, file, parts, names[i], (left, scale), pen)
        for i, (file, (_, parts)) in enumerate(zip(files, drawn, strict=True))
    ]
    wide = left + REACH + 8 + max((text_width(_describe_reads(file)) for file in files), default=0)
    lines = ["a bar is a file, areas are its bytes; the numbers are the ranks that read them"]
    lines += _describe_sharing(files)
    if any(file.read_bytes < file.nbytes for file in files):
        lines.append("striped: read by none")
    lines += dict.fromkeys(how for how, _ in drawn if how)
    if total is not None and total > len(files):
        lines.append(f"the first {len(files)} of {total:,} files")
    body = f'<g role="grid" aria-label="files">{"".join(rows)}</g>'
    block = Block(wide, (THICK + 10) * len(files), body) if files else notes(["no files"])
    block = above([_legend(files, pen), block], 10)
    return finish(heading(block, shorten(title, 80), lines), title, pen)


def _legend(files: Sequence[FileBytes], pen: Pen) -> Block:
    """The colours of the ranks, for parts that are too small for a number."""
    ranks = sorted(
        {
            rank
            for file in files
            for tensor in file.tensors
            for piece in tensor.pieces
            for rank in piece.readers
        }
    )
    if not 1 < len(ranks) <= MOST_NAMED:
        return Block(0, 0, "")
    out, step = [text(0, 12, "ranks")], 30.0
    for i, rank in enumerate(ranks):
        x = 44 + step * i
        out.append(path(x, 0, step - 4, 16, f'fill="{pen.fill(rank)}" stroke="#444"'))
        out.append(label(x + step / 2 - 2, 12, str(rank), pen.ink(rank), 'text-anchor="middle"'))
    return Block(44 + step * len(ranks), 18, "".join(out))


def file_name(file: str) -> str:
    """A file with its folder: slices of all ranks often have one name."""
    folder = basename(dirname(file))
    return f"{folder}/{basename(file)}" if folder else basename(file)


def _describe_sharing(files: Sequence[FileBytes]) -> list[str]:
    """How many bytes several ranks read, and which ranks do where that is short."""
    sets: dict[tuple[int, ...], float] = {}
    for file in files:
        for readers, share in _shares(file.tensors).items():
            if len(readers) > 1:
                sets[readers] = sets.get(readers, 0.0) + share * file.nbytes
    if not sets:
        return []
    once = format_bytes(round(sum(sets.values())))
    each = format_bytes(round(sum(nbytes * len(readers) for readers, nbytes in sets.items())))
    lines = [f"grey: {once} that several ranks read; all they read of it comes to {each}"]
    if len(sets) <= MOST_SETS:
        lines.append(f"a grey part is read by the ranks {' | '.join(map(format_ranks, sorted(sets)))}")
    return lines


def _describe_reads(file: FileBytes) -> str:
    return f"{format_bytes(file.read_bytes)} of {format_bytes(file.nbytes)} are read"


def _row(
    i: int,
    file: FileBytes,
    drawn: Sequence[TensorBytes],
    name: str,
    place: tuple[float, float],
    pen: Pen,
) -> str:
    left, scale = place
    y = (THICK + 10) * i
    bar = path(left, y, file.nbytes * scale, THICK, f'fill="{pen.hatched(*STRIPED)}" stroke="#444"')
    words = text(0, y + 21, name) + text(left + REACH + 8, y + 21, _describe_reads(file))
    at, parts = left, []
    for tensor in drawn:
        width = tensor.nbytes * scale
        parts += [_part(piece, at, y, width, pen) for piece in tensor.pieces]
        at += width
    return f'<g role="row"><g data-key="file:{i}">{bar}{"".join(parts)}{words}</g></g>'


def _drawn(file: FileBytes, scale: float) -> tuple[str, Sequence[TensorBytes]]:
    """What is drawn of a file, with what to say of it."""
    parts = tuple(_merged(file.tensors, THIN / max(scale, 1e-300)))
    named = sum(t.nbytes * p.share for t in parts for p in t.pieces if _has_room(p, t.nbytes * scale))
    if file.by_reader or 2 * named < file.read_bytes:
        return (
            "not as they lie in the file: tensors are too many to draw, so bytes are put in order of who reads them",
            _by_reader(file),
        )
    together = len(parts) < len(file.tensors)
    return "tensors too small to be seen are drawn together with their neighbours" if together else "", parts


def _by_reader(file: FileBytes) -> Sequence[TensorBytes]:
    pieces, at = [], 0.0
    for readers, share in sorted(_shares(file.tensors).items()):
        pieces.append(ReadPiece(readers, at, at + share, 0.0, 1.0))
        at += share
    return (TensorBytes(counted(len(file.tensors), "tensor"), file.nbytes, tuple(pieces)),)


def _merged(tensors: Sequence[TensorBytes], least: float) -> Iterator[TensorBytes]:
    """Neighbours that are too small to be seen, as one; larger ones by themselves."""
    small: list[TensorBytes] = []
    for tensor in tensors:
        if tensor.nbytes >= least and len(tensor.pieces) <= MAX_PIECES // MAX_FILES:
            yield from _joined(small)
            small = []
            yield tensor
            continue
        small.append(tensor)
        if sum(t.nbytes for t in small) >= least:
            yield from _joined(small)
            small = []
    yield from _joined(small)


def _joined(tensors: Sequence[TensorBytes]) -> Iterator[TensorBytes]:
    """Several tensors as one: what each set of readers takes of them, along the rows."""
    total = sum(tensor.nbytes for tensor in tensors)
    if not total:
        return
    pieces, at = [], 0.0
    for readers, share in sorted(_shares(tensors).items()):
        pieces.append(ReadPiece(readers, 0.0, 1.0, at, at + share))
        at += share
    yield TensorBytes(counted(len(tensors), "tensor"), total, tuple(pieces))


def _shares(tensors: Sequence[TensorBytes]) -> dict[tuple[int, ...], float]:
    """Readers -> the fraction of all bytes that they, and no others, read."""
    total = max(sum(tensor.nbytes for tensor in tensors), 1)
    out: dict[tuple[int, ...], float] = {}
    for tensor in tensors:
        for piece in tensor.pieces:
            out[piece.readers] = out.get(piece.readers, 0.0) + piece.share * tensor.nbytes / total
    return out


def _has_room(piece: ReadPiece, width: float) -> bool:
    """Whether a part of a tensor of such a width can have its number in it."""
    high, wide = (piece.lower - piece.upper) * THICK, (piece.stop - piece.start) * width
    return high >= 10 and text_width(format_ranks(piece.readers), 10) <= wide - 2


def _part(piece: ReadPiece, x: float, y: float, width: float, pen: Pen) -> str:
    left, top = x + piece.start * width, y + piece.upper * THICK
    wide, high = (piece.stop - piece.start) * width, (piece.lower - piece.upper) * THICK
    many = len(piece.readers) > 1
    fill, ink = (SHARED, "#000") if many else (pen.fill(piece.readers[0]), pen.ink(piece.readers[0]))
    part = path(left, top, wide, high, f'fill="{fill}" stroke="#222" stroke-width=".4"')
    if not _has_room(piece, width):
        return part
    words = format_ranks(piece.readers)
    inside = label(left + wide / 2, top + high / 2 + 3.5, words, ink, 'font-size="10" text-anchor="middle"')
    return part + inside
