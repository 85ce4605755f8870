"""What Jupyter shows of plans, what they cost, and what became of them."""

from typing import TYPE_CHECKING

from ... import display
from ...display import bytes_in_words, counted
from ..drawing import img_html
from ..moves import CARDS, FILES, CardBytes, Sides, bands_svg, files_of, files_svg, memory_svg, traffic_svg
from .tables import BESIDE_PICTURE, ROWS, bars_html, kept, lines_html, table_html

if TYPE_CHECKING:
    from ...reshard import ConversionPlan, Explanation, ReshardPlan, ReshardResult

__all__ = ["conversion_html", "plan_html", "register"]


def plan_html(plan: "ReshardPlan") -> str:
    """Who sends how much to whom, as a matrix and as bands, and the sums."""
    title = f"{counted(plan.src_count, 'training card')} to {counted(plan.dst_count, 'inference card')}"
    apart = plan.placement is None or not set(plan.placement) & set(range(plan.src_count))
    rows = [
        ["from one side to the other" if apart else "moved between cards", bytes_in_words(plan.moved_bytes)],
        ["least possible" if apart else "least possible with these places", bytes_in_words(plan.bound_bytes)],
        ["most that a card ends with", bytes_in_words(int(plan.needed_bytes.max(initial=0)))],
        ["pieces", f"{plan.pieces:,}"],
    ]
    matrix = _matrix(plan, title, "Bytes from each card to each card")
    bands = kept(
        lambda cards: bands_svg(plan.traffic, title, placement=plan.placement, max_cards=_side(cards, 12)),
        "The same bytes as bands",
        BESIDE_PICTURE,
    )
    return matrix + bands + table_html(["", ""], rows, len(rows))


def _matrix(plan: "ReshardPlan", title: str, alt: str, sides: Sides = CARDS) -> str:
    return kept(
        lambda cards: traffic_svg(
            plan.traffic, title, placement=plan.placement, max_cells=_side(cards, 16), sides=sides
        ),
        alt,
        BESIDE_PICTURE,
    )


def _side(cards: int, most: int) -> int:
    """How many cards a side, for a picture of so many."""
    return max(min(cards // 16, most), 2)


def conversion_html(plan: "ConversionPlan") -> str:
    """Which bytes of which file which destination reads, and the sums."""
    needed = int(plan.needed_bytes.sum())
    rows = [
        ["destinations hold", bytes_in_words(needed)],
        ["most that a rank ends with", bytes_in_words(int(plan.needed_bytes.max(initial=0)))],
        ["runs of bytes that are read", f"{int(plan.runs.sum()):,}"],
        ["pieces", f"{plan.pieces:,}"],
    ]
    total = plan.checkpoint.ranks
    title = f"{counted(plan.src_count, 'file')} to {counted(plan.dst_count, 'rank')}"
    files = kept(
        lambda cards: files_svg(files_of(plan, max(cards // 16, 1)), title, total=total),
        "Which bytes of each file go to which rank",
        BESIDE_PICTURE,
    )
    return (
        files
        + _matrix(plan, title, "Bytes of each file for each rank", FILES)
        + table_html(["", ""], rows, len(rows))
    )


def explanation_html(told: "Explanation") -> str:
    """The sums, and the cost of each card and file."""
    words = bytes_in_words
    sums = lines_html(repr(told), 3 if told.files else 4)
    columns = ["card", "needs", "reads", "keeps", "receives", "sends", "peak"]
    rows = [[str(card.card), *map(words, card[1:])] for card in told.cards[:ROWS]]
    cards = [CardBytes(c.card, None, c.peak, c.needed) for c in told.cards]
    title = "Memory of each card: at most, the buffer included, and at the end"
    if told.files:  # a rank's shards go to its file, piece by piece
        title = "Memory of who writes each rank's file, at most, and the file's shards"
    memory = memory_svg(cards, title)
    out = sums + img_html(memory, "Memory of each card") + table_html(columns, rows, len(told.cards))
    if told.files:
        rows = [[f.path, words(f.read), f"{f.seeks:,}", str(f.readers)] for f in told.files[:ROWS]]
        out += bars_html(((f.path, f.read) for f in told.files), "Bytes read of each file")
        out += table_html(["file", "read", "runs of bytes", "ranks that read it"], rows, len(told.files))
    return out


def result_html(result: "ReshardResult") -> str:
    """The sums of a finished reshard, and its plan."""
    return lines_html(repr(result)) + conversion_html(result.plan)


def register() -> None:
    """Tell `display` how these are drawn."""
    display.register("distinfer_lab.reshard.ReshardPlan", plan_html)
    display.register("distinfer_lab.reshard.ConversionPlan", conversion_html)
    display.register("distinfer_lab.reshard.Explanation", explanation_html)
    display.register("distinfer_lab.reshard.ReshardResult", result_html)
