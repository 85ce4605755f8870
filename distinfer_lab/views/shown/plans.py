"""What Jupyter shows of plans, what they cost, and what became of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ... import display
from ...display import counted, format_bytes
from ..drawing import Drawing, img_html, shorten, stored
from ..holdings import format_ranks
from ..moves import (
    CARDS,
    FILES,
    CardBytes,
    Sides,
    bands_svg,
    file_name,
    files_of,
    files_svg,
    memory_svg,
    traffic_svg,
)
from .models import FEWEST, mesh_words, plan_map
from .tables import BESIDE_PICTURE, ROWS, bars_html, kept, lines_html, register_picture, table_html

if TYPE_CHECKING:
    from ...checkpoint import Conversion, ReshardResult
    from ...reshard import Explanation, ReshardPlan

__all__ = ["conversion_html", "plan_html", "register"]


def plan_html(plan: "ReshardPlan") -> str:
    """The model map, or of few tensors who sends how much to whom, as a matrix and as bands; and the sums."""
    apart = plan.placement is None or not set(plan.placement) & set(range(plan.src_count))
    stays = [] if apart else [["stays on its card", format_bytes(int(plan.kept_bytes.sum()))]]
    rows = [
        *stays,
        ["from one side to the other" if apart else "moved between cards", format_bytes(plan.moved_bytes)],
        [
            "least possible" if apart else "least possible with cards where they are",
            format_bytes(plan.bound_bytes),
        ],
        ["most that a card ends with", format_bytes(int(plan.needed_bytes.max(initial=0)))],
        _pieces(plan.pieces),
    ]
    table = _describe_idle(plan) + table_html(["", ""], rows, len(rows))
    whole = plan_map(plan)
    if whole is not None:
        return whole.html() + table
    same = "The same bytes as bands"
    bands = kept(
        lambda cards: bands_svg(plan.traffic, same, placement=plan.placement, max_cards=_side(cards, 12)),
        same,
        BESIDE_PICTURE,
    )
    return plan_drawing(plan).html() + bands + table


def _describe_idle(plan: "ReshardPlan") -> str:
    """Of source cards that give nothing, that others hold the same."""
    given, held = plan.traffic.sum(axis=1), plan.held_bytes
    silent = np.flatnonzero((given == 0) & (held > 0)).tolist()
    if not silent:
        return ""
    several = len(silent) > 1
    return (
        f"<p>card{'s' * several} {format_ranks(silent)} give{'s' * (not several)} nothing: "
        "others hold the same, and of equal copies one is enough</p>"
    )


def plan_drawing(plan: "ReshardPlan") -> Drawing:
    """The model map; of few tensors who sends how much to whom, as a matrix."""
    whole = plan_map(plan)
    if whole is not None:
        return whole
    return _matrix(plan, _title(plan), "Bytes from each card to each card")


def _title(plan: "ReshardPlan") -> str:
    return f"{counted(plan.src_count, 'training card')} to {counted(plan.dst_count, 'inference card')}"


def _matrix(
    plan: "ReshardPlan", title: str, alt: str, sides: Sides = CARDS, names: Sequence[str] | None = None
) -> Drawing:
    def draw(cards: int) -> str:
        most = _side(cards, 16)
        place = plan.placement
        return traffic_svg(plan.traffic, title, placement=place, max_cells=most, sides=sides, names=names)

    return Drawing(stored(draw, BESIDE_PICTURE), alt)


def _pieces(count: int) -> list[str]:
    return ["pieces: boxes of a tensor, each from one sender", f"{count:,}"]


def _side(cards: int, most: int) -> int:
    """How many cards a side, for a picture of so many."""
    return max(min(cards // 16, most), 2)


def conversion_drawing(conversion: "Conversion") -> Drawing:
    """The model map; of few tensors which bytes of which file go to which rank."""
    captions = mesh_words(conversion.checkpoint.strategy), mesh_words(conversion.strategy)
    whole = plan_map(conversion.plan, captions)
    return _files(conversion) if whole is None else whole


def _files(conversion: "Conversion") -> Drawing:
    plan, total = conversion.plan, conversion.checkpoint.ranks
    title = f"{counted(plan.src_count, 'file')} to {counted(plan.dst_count, 'rank')}"

    def draw(cards: int) -> str:
        return files_svg(files_of(conversion, max(cards // 16, 1)), title, total=total)

    return Drawing(stored(draw, BESIDE_PICTURE), "Which bytes of each file go to which rank")


def conversion_html(conversion: "Conversion") -> str:
    """Which bytes of which file which destination reads, and the sums."""
    needed = int(conversion.plan.needed_bytes.sum())
    rows = [
        ["all ranks together end with", format_bytes(needed)],
        ["most that a rank ends with", format_bytes(int(conversion.plan.needed_bytes.max(initial=0)))],
        ["separate runs of bytes in the files", f"{int(conversion.plan.runs.sum()):,}"],
        _pieces(conversion.plan.pieces),
    ]
    lines = table_html(["", ""], rows, len(rows)) + lines_html("\n".join(conversion.notes))
    if len(conversion.plan) >= FEWEST:
        return conversion_drawing(conversion).html() + lines
    alt = "Bytes that each rank reads of each file"
    return (
        conversion_drawing(conversion).html()
        + _matrix(
            conversion.plan,
            alt,
            alt,
            FILES,
            [shorten(file_name(f.path), 24) for f in conversion.checkpoint.files],
        ).html()
        + lines
    )


def explanation_html(told: "Explanation") -> str:
    """The sums, and the cost of each card and file."""
    words = format_bytes
    if not told.files:
        columns = ["card", "holds before", "needs", "keeps", "receives", "sends", "holds at most"]
        rows = [
            [str(c.card), *map(words, (c.held, c.needed, c.kept, c.received, c.sent, c.peak))]
            for c in told.cards[:ROWS]
        ]
        cards = [CardBytes(c.card, c.held, c.peak, c.needed) for c in told.cards]
        note = f"at most: before and after together, and the buffer, {words(told.buffer_bytes)}"
        memory = img_html(memory_svg(cards, "Memory of each card", note=note), "Memory of each card")
        return (
            lines_html(repr(told), 4 + len(told.notes)) + memory + table_html(columns, rows, len(told.cards))
        )
    rows = [[f.path, words(f.read), f"{f.seeks:,}", str(f.readers)] for f in told.files[:ROWS]]
    return (
        lines_html(repr(told), 3 + len(told.notes))
        + bars_html(((f"rank {c.card}", c.needed) for c in told.cards), "Bytes of each rank's file")
        + bars_html(((f.path, f.read) for f in told.files), "Bytes that are needed of each file")
        + table_html(
            ["file", "needed", "separate runs of bytes", "ranks that need it"], rows, len(told.files)
        )
    )


def result_html(result: "ReshardResult") -> str:
    """The sums of a finished reshard, and its plan."""
    return lines_html(repr(result)) + conversion_html(result.conversion)


def _write_plan(plan: "ReshardPlan", path: Path) -> None:
    from ...reshard import explain

    _write_explanation(explain(plan), path)


def _write_conversion(conversion: "Conversion", path: Path) -> None:
    _write_explanation(conversion.explain(), path)


def _write_explanation(told: "Explanation", path: Path) -> None:
    path.write_text(json.dumps(told.to_json(), indent=1) + "\n", encoding="utf-8")


def register() -> None:
    """Tell `display` how these are drawn."""
    display.register("distinfer_lab.reshard.ReshardPlan", plan_html)
    display.register("distinfer_lab.checkpoint.Conversion", conversion_html)
    display.register("distinfer_lab.reshard.Explanation", explanation_html)
    display.register("distinfer_lab.checkpoint.ReshardResult", result_html)
    register_picture("distinfer_lab.reshard.ReshardPlan", plan_drawing)
    register_picture("distinfer_lab.checkpoint.Conversion", conversion_drawing)
    display.register_file("distinfer_lab.reshard.ReshardPlan", (".json",), _write_plan)
    display.register_file("distinfer_lab.checkpoint.Conversion", (".json",), _write_conversion)
    display.register_file("distinfer_lab.reshard.Explanation", (".json",), _write_explanation)
