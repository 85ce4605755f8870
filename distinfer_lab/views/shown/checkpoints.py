"""What Jupyter shows of checkpoints and their files; no file is read for it."""

from typing import TYPE_CHECKING

from ... import display
from ...display import counted, format_bytes
from ...dtypes import dtype_name
from ...errors import DistinferError, listed
from ...text import escape
from ..drawing import Drawing, stored
from ..holdings import describe_sharding, strategy_svg
from .layouts import strategy_html
from .models import checkpoint_map
from .tables import BESIDE_PICTURE, ROWS, bars_html, first, table_html

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint, Verification
    from ...formats import FileSet, SliceFile, StrategyFile

__all__ = ["checkpoint_html", "register", "slice_html"]

BESIDE_BARS = 22_000
"""The bound of an SVG that shares its 50 kB with bars and a table, in bytes."""

KINDS = {"parameter": "parameter", "state": "state of a parameter", "plain": "other"}


def checkpoint_html(checkpoint: "Checkpoint") -> str:
    """A line of sums, the bytes of each file, and a table of the first tensors."""
    columns = ["tensor", "shape", "dtype", "cut"]
    rows = [
        [r.name, str(list(r.shape)), dtype_name(r.dtype), describe_sharding(r.layout)]
        for r in first(checkpoint.tensors.values())
    ]
    if any(record.kind != "plain" for record in checkpoint.tensors.values()):  # there is a strategy
        columns.append("what it is")
        rows = [[*row, KINDS[checkpoint.tensors[row[0]].kind]] for row in rows]
    line = (
        f"<p>Checkpoint of {counted(checkpoint.ranks, 'rank')}: {counted(len(checkpoint.tensors), 'tensor')}, "
        f"{format_bytes(checkpoint.full_nbytes)} "
        f"({format_bytes(checkpoint.nbytes)} in the slices, copies included)</p>"
    )
    for rank, file in first(checkpoint.lost.items()):
        line += f"<p>rank {rank} is lost: {escape(file.reason)}</p>"
    line += "".join(f"<p>Note: {escape(note)}</p>" for note in first(checkpoint.notes))
    gone = (
        [name for name, found in checkpoint.coverage().items() if len(found.holes)] if checkpoint.lost else []
    )
    if gone:
        line += f"<p>cannot be recovered: {escape(listed(gone))}</p>"
    held = [
        (f"rank {r}{' (lost)' * (r in checkpoint.lost)}", sum(e.nbytes for e in file.entries.values()))
        for r, file in enumerate(checkpoint.files)
    ]
    picture = checkpoint_drawing(checkpoint).html()
    bars = bars_html(held, "Bytes of each rank's slices")
    return line + picture + bars + table_html(columns, rows, len(checkpoint.tensors))


def checkpoint_drawing(checkpoint: "Checkpoint") -> Drawing:
    """The model map of a checkpoint; of few tensors the distinct layouts."""
    whole = checkpoint_map(checkpoint, BESIDE_BARS)
    if whole is not None:
        return whole
    svg = stored(
        lambda cards: strategy_svg(checkpoint.strategy, max_cards=cards, lost=checkpoint.lost), BESIDE_PICTURE
    )
    return Drawing(svg, "Who holds what")


def slice_html(file: "SliceFile | FileSet") -> str:
    """What a file holds, from its header."""
    entries = list(file.entries.values())
    rows = [
        [e.name, "text" if e.is_text else str(list(e.shape)), e.type_name, format_bytes(e.nbytes)]
        for e in entries[:ROWS]
    ]
    bars = bars_html(((e.name, e.nbytes) for e in entries if not e.is_text), "Bytes of each tensor")
    head = f"<p>{escape(file.path)}: {counted(len(entries), 'entry')}, {format_bytes(file.size)}</p>"
    return head + bars + table_html(["entry", "shape", "type", "bytes"], rows, len(entries))


def strategy_file_html(file: "StrategyFile") -> str:
    """The layouts that a file says, as a strategy; its own numbers where they make none."""
    params, operators = counted(len(file.layouts), "parameter"), counted(len(file.operators), "operator")
    head = f"<p>Strategy file: {params}, {operators}</p>"
    try:
        return head + strategy_html(file.strategy())
    except DistinferError as err:
        rows = [[name, str(i.dev_matrix), str(i.tensor_map)] for name, i in first(file.layouts.items())]
        table = table_html(["parameter", "dev_matrix", "tensor_map"], rows, len(file.layouts))
        return f"{head}<p>{escape(str(err))}</p>{table}"


def verification_html(found: "Verification") -> str:
    """Whether all is well, and what is not."""
    lines = repr(found).split("\n")
    rows = [[text] for text in found.differences[:ROWS]]
    table = table_html(["what differs"], rows, len(found.differences)) if rows else ""
    return f"<p>{escape(lines[0])}</p>{table}"


def register() -> None:
    """Tell `display` how these are drawn."""
    display.register("distinfer_lab.checkpoint.Checkpoint", checkpoint_html)
    display.register("distinfer_lab.formats.SliceFile", slice_html)
    display.register("distinfer_lab.formats.FileSet", slice_html)
    display.register("distinfer_lab.formats.StrategyFile", strategy_file_html)
    display.register("distinfer_lab.checkpoint.Verification", verification_html)
