"""What Jupyter shows of checkpoints, plans, card groups and what they report.

Checkpoints and plans are known by their classes; what lives above views is known by its public
name and by the few attributes that the functions here read.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ... import display
from ...checkpoint import Checkpoint
from ...display import bytes_in_words
from ...errors import listed
from ...layout import Mesh, Strategy
from ...reshard import ConversionPlan, Explanation, ReshardPlan, ReshardResult, Verification
from ..drawing import img_html, stored
from ..holdings import mesh_svg
from ..moves import bars_svg, traffic_svg
from .layouts import BESIDE_TABLE, ROWS, strategy_html, table_html

__all__ = ["checkpoint_html", "group_html", "load_html", "memory_html", "plan_html", "register_records"]


class Group(Protocol):
    """What is shown of a card group."""

    def __len__(self) -> int: ...


class Memory(Protocol):
    """What is shown of the memory of a group."""

    held_bytes: NDArray[np.int64]
    peak_bytes: NDArray[np.int64]


class Loaded(Protocol):
    """What is shown of a load."""

    strategy: Strategy
    held_bytes: Sequence[int]


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """A line of sums, and a table of the first tensors."""
    rows = [
        [r.name, str(list(r.shape)), str(r.dtype), r.layout.describe_cut() or "(no dims)", r.kind]
        for r in list(checkpoint.tensors.values())[:ROWS]
    ]
    line = (
        f"<p>Checkpoint of {checkpoint.ranks} ranks: {len(checkpoint.tensors)} tensors, "
        f"{bytes_in_words(checkpoint.full_nbytes)} ({bytes_in_words(checkpoint.nbytes)} in the slices)</p>"
    )
    held = [sum(e.nbytes for e in file.entries.values()) for file in checkpoint.files]
    bars = img_html(bars_svg(held, "Bytes per slice file"), "Bytes per slice file")
    for rank, file in list(checkpoint.lost.items())[:ROWS]:
        line += f"<p>rank {rank} is lost: {escape(file.reason)}</p>"
    gone = (
        [name for name, found in checkpoint.coverage().items() if len(found.holes)] if checkpoint.lost else []
    )
    if gone:
        line += f"<p>cannot be recovered: {escape(listed(gone))}</p>"
    columns = ["tensor", "shape", "dtype", "cut", "kind"]
    return line + bars + table_html(columns, rows, len(checkpoint.tensors))


def plan_html(plan: ReshardPlan) -> str:
    """Who sends how much to whom, and the sums."""
    svg = traffic_svg(plan.traffic, f"{plan.src_count} training cards to {plan.dst_count} inference cards")
    rows = [
        ["moved between cards", bytes_in_words(plan.moved_bytes)],
        ["lower bound", bytes_in_words(plan.bound_bytes)],
        ["most that a card ends with", bytes_in_words(int(plan.needed_bytes.max(initial=0)))],
        ["pieces", f"{plan.pieces:,}"],
    ]
    return img_html(svg, "Bytes from each card to each card") + table_html(["", ""], rows, len(rows))


def conversion_html(plan: ConversionPlan) -> str:
    """Which destination reads how much of which file."""
    svg = traffic_svg(plan.traffic, f"{plan.src_count} files to {plan.dst_count} ranks")
    needed = int(plan.needed_bytes.sum())
    rows = [
        ["destinations hold", bytes_in_words(needed)],
        ["most that a rank ends with", bytes_in_words(int(plan.needed_bytes.max(initial=0)))],
        ["runs of bytes that are read", f"{int(plan.runs.sum()):,}"],
        ["pieces", f"{plan.pieces:,}"],
    ]
    return img_html(svg, "Bytes of each file for each rank") + table_html(["", ""], rows, len(rows))


def explanation_html(told: Explanation) -> str:
    """The sums, and the cost of each card and file."""
    words = bytes_in_words
    lines = repr(told).split("\n")
    sums = "".join(f"<p>{escape(line.strip())}</p>" for line in lines[: 3 if told.files else 4])
    columns = ["card", "needs", "reads", "keeps", "receives", "sends", "peak"]
    rows = [[str(card.card), *map(words, card[1:])] for card in told.cards[:ROWS]]
    bars = img_html(bars_svg([card.needed for card in told.cards], "Bytes at the end"), "Bytes at the end")
    out = sums + bars + table_html(columns, rows, len(told.cards))
    if told.files:
        rows = [[f.path, words(f.read), f"{f.seeks:,}", str(f.readers)] for f in told.files[:ROWS]]
        out += table_html(["file", "read", "runs of bytes", "ranks that read it"], rows, len(told.files))
    return out


def verification_html(found: Verification) -> str:
    """Whether all is well, and what is not."""
    lines = repr(found).split("\n")
    rows = [[text] for text in found.differences[:ROWS]]
    table = table_html(["what differs"], rows, len(found.differences)) if rows else ""
    return f"<p>{escape(lines[0])}</p>{table}"


def result_html(result: ReshardResult) -> str:
    """The sums of a finished reshard, and its plan."""
    lines = "<br>".join(map(escape, repr(result).split("\n")))
    return f"<p>{lines}</p>{conversion_html(result.plan)}"


def group_html(group: Group) -> str:
    """The cards of a group."""
    svg = stored(
        lambda cards: mesh_svg(Mesh(("card",), (max(len(group), 1),)), max_cards=cards), BESIDE_TABLE
    )
    return img_html(svg, repr(group)) + f"<p>{escape(repr(group))}</p>"


def memory_html(memory: Memory) -> str:
    """What each card holds."""
    held: list[int] = [int(n) for n in memory.held_bytes]
    return img_html(bars_svg(held, "Bytes of shards on each card"), "Bytes of shards on each card")


def load_html(loaded: Loaded) -> str:
    """How the parameters lie, and the bytes on each card."""
    bars = bars_svg(list(loaded.held_bytes), "Bytes of parameters on each card")
    return strategy_html(loaded.strategy) + img_html(bars, "Bytes of parameters on each card")


def _layout_of(holder: Any) -> str:
    return strategy_html(holder.strategy)


def register_records() -> None:
    """Tell `display` how these are drawn."""
    display.register(Checkpoint, checkpoint_html)
    display.register(ReshardPlan, plan_html)
    display.register(ConversionPlan, conversion_html)
    display.register(Explanation, explanation_html)
    display.register(Verification, verification_html)
    display.register(ReshardResult, result_html)
    display.register("distinfer_lab.cards.CardGroup", group_html)
    display.register("distinfer_lab.cards.GroupMemory", memory_html)
    display.register("distinfer_lab.flow.LoadResult", load_html)
    display.register("distinfer_lab.flow.PredictLayout", _layout_of)
