"""The model map: a whole model in the middle, training cards left, inference cards right.

::

    Trained on 8 cards             q  kv  o                 Predicts on 2 cards
    embed, layers 0-1            0 -- -- |||
    [] [] [] []  ---[            1 -- -- |||    ]---  every layer
    layers 2-3, head             2 -- -- |||          [] []
    [] [] [] []  ---[            3 -- -- |||
"""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...display import counted, format_bytes
from ..drawing import STORED_CARDS, Block, document, fitted, moved, muted, path, text, text_width
from .groups import (
    CROSS,
    FILL,
    MOST_GROUPS,
    ROOM,
    Group,
    Place,
    bracket,
    group_block,
    groups_of,
    placed,
    rows_held,
)
from .inventory import Held, memory
from .sheet import LABELS, WIDTH, Sheet, groups_words, legend_entries, sheet_block, sheet_of, swatch
from .table import Table, table_of

if TYPE_CHECKING:
    from ...reshard import ReshardPlan

__all__ = ["modelmap_svg"]

PAGE, PAD = 760.0, 20.0
HEAD = 92.0
SIDES = ("train", "infer")
GAP = 18.0
FEW_TILES = 64


class Side(NamedTuple):
    """The cards of one side."""

    key: str
    ranks: int
    groups: list[Group]
    memory: NDArray[np.int64]
    caption: str
    lost: frozenset[int] = frozenset()


def modelmap_svg(
    held: Sequence[Held],
    names: Sequence[str],
    ranks: tuple[int, int],
    *,
    plan: "ReshardPlan | None" = None,
    captions: tuple[str, str] = ("", ""),
    in_bytes: bool = True,
    lost: Collection[int] = (),
    max_tiles: int = STORED_CARDS,
) -> str:
    """A model, and which cards hold which of its layers, in training, for inference, or both.

    Parameters
    ----------
    held, names
        The tensors, and their names in the order of the model.
    ranks
        The number of training and of inference cards; 0 for a side that is not drawn.
    plan
        What moves, for the facts.
    captions
        A line below the captions of the sides, such as their meshes.
    in_bytes
        Whether the bytes of an element are known; else amounts are elements.
    lost
        Training ranks whose files are gone.
    max_tiles
        Above so many cards a side, a tile is several cards; with less than 64 tiles no cuts are drawn.
    """
    table = table_of(held, names, ranks)
    sheet = sheet_of(table)
    gone = frozenset(lost), frozenset[int]()
    sides = [
        Side(key, count, groups_of(table, i, count), memory(held, key, count), captions[i], gone[i])
        for i, (key, count) in enumerate(zip(SIDES, ranks, strict=True))
    ]
    title = _title(table, sides, len(names))
    amount = format_bytes if in_bytes else _elements
    total = sum(one.nbytes * len(one.names) for one in held)
    line = _facts(len(names), amount(total), plan)
    most = max((int(side.memory.max(initial=0)) for side in sides), default=0)
    left = ROOM + GAP + LABELS if sides[0].ranks else LABELS
    found = [_places(side, sheet, table, most, amount, max_tiles) for side in sides]
    room = WIDTH + (14 if ranks[1] else ROOM)
    body = moved(sheet_block(sheet, room, lines=max_tiles >= FEW_TILES), left, 0)
    right = left + WIDTH + GAP
    for side, places, x in zip(sides, found, (0.0, right), strict=True):
        body += _side(side, places, sheet, x, left, right)
    tall = max([sheet.height, *(p.y + p.block.height for places in found for p in places)])
    foot = _legend(sheet, amount, PAGE - 2 * PAD, bool(lost))
    head = text(
        0, 14, fitted(title, PAGE - 2 * PAD, 17, bold=True), 'font-size="17" font-weight="700"'
    ) + muted(0, 33, fitted(line, PAGE - 2 * PAD, 11.5), size=11.5)
    at = {"train": 0.0, "infer": right}
    for side in sides:
        if side.ranks:
            head += _caption(side, at[side.key], alone=not all(ranks))
    head += muted(left, 62, "THE MODEL", 'font-weight="700" letter-spacing=".6"', 10)
    what = ("a row is a layer, " if table.layers else "") + f"areas are {'bytes' if in_bytes else 'elements'}"
    head += muted(left, 77, what, size=10.5)
    page = head + moved(Block(0, 0, body), 0, HEAD) + moved(foot, 0, HEAD + tall + 16)
    height = HEAD + tall + 16 + foot.height + 2 * PAD
    return document(PAGE, height, f"{title}. {line}", [moved(Block(0, 0, page), PAD, PAD)])


def _elements(count: float) -> str:
    for size, unit in ((10**9, " billion"), (10**6, " million"), (1000, "k")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f"{unit} elements"
    return counted(int(count), "element")


def _title(table: Table, sides: Sequence[Side], tensors: int) -> str:
    """The finding."""
    train, infer = sides
    if not infer.ranks or not train.ranks:
        side = train if train.ranks else infer
        what = counted(max(row.last for row in table.layers) + 1, "layer") if table.layers else ""
        return f"{_cards(side, table)} hold{'s' * (side.ranks == 1)} {what or counted(tensors, 'tensor')}"
    stages = _stages(table, infer)
    every = " that hold every layer" if _stages(table, train) > 1 and stages == 1 and table.layers else ""
    if infer.ranks == 1:
        every = every.replace("hold", "holds")
    verb = "becomes" if train.ranks == 1 else "become"
    return f"{_cards(train, table)} {verb} {_cards(infer, table)}{every}"


def _stages(table: Table, side: Side) -> int:
    return len(side.groups) if table.layers else 1


def _cards(side: Side, table: Table) -> str:
    stages = _stages(table, side)
    return counted(side.ranks, "card") + (f" in {stages} stages" if stages > 1 else "")


def _facts(tensors: int, total: str, plan: "ReshardPlan | None") -> str:
    words = [counted(tensors, "tensor"), total]
    if plan is not None:
        moves, kept = plan.moved_bytes, int(plan.kept_bytes.sum())
        least = ", the least possible" if moves == plan.bound_bytes else ""
        words.append(f"{format_bytes(moves)} must move{least}" if moves else "nothing moves")
        if kept and plan.placement is not None:
            words.append(f"{format_bytes(kept)} stay")
        words.append(f"a card ends with at most {format_bytes(int(plan.needed_bytes.max(initial=0)))}")
    return " · ".join(words)


def _places(
    side: Side, sheet: Sheet, table: Table, most: int, amount: Callable[[int], str], max_tiles: int
) -> list[Place]:
    """Where the groups of a side stand."""
    if not side.ranks:
        return []
    groups = side.groups
    if len(groups) > MOST_GROUPS:
        merged = np.concatenate([group.ranks for group in groups])
        groups = [Group(np.sort(merged), np.ones(len(table.rows), bool))]
    spans = [sheet.span(group.rows.tolist()) for group in groups]
    each = max(max_tiles // max(len(groups), 1), 1)
    blocks = []
    for group, span in zip(groups, spans, strict=True):
        words = rows_held(table, group)
        if len(side.groups) > len(groups):
            words = f"{len(side.groups)} groups, each with rows of its own"
        height = span[1] - span[0] - 40
        block = group_block(group, words, side.key, side.memory, most, amount, height, each, side.lost)
        blocks.append((group, block))
    return placed(blocks, spans)


def _side(side: Side, places: Sequence[Place], sheet: Sheet, x: float, left: float, right: float) -> str:
    """The groups of a side and the brackets to their rows."""
    out = ""
    shift = GAP if side.key == "infer" else 0.0
    for place in places:
        span = sheet.span(place.group.rows.tolist())
        out += moved(Block(0, 0, place.block.body), x + shift, place.y)
        at = left - LABELS + 2 - 8 if side.key == "train" else right + 2
        out += bracket(place, span, at, left=side.key == "train")
    return out


def _caption(side: Side, x: float, *, alone: bool) -> str:
    verb = "" if alone else "Trained on " if side.key == "train" else "Predicts on "
    shift = GAP if side.key == "infer" else 0.0
    words = f"{verb}{counted(side.ranks, 'card')}".upper()
    out = muted(
        x + shift, 62, fitted(words, ROOM, 9.5, bold=True), 'font-weight="700" letter-spacing=".4"', 9.5
    )
    return out + muted(x + shift, 77, fitted(side.caption, ROOM, 10.5), size=10.5)


def _legend(sheet: Sheet, amount: Callable[[int], str], room: float, lost: bool) -> Block:
    entries = [(swatch(kind), words) for kind, words in legend_entries(sheet)]
    card = path(0.5, 0.5, 20, 11, 'class="tile" fill="#fff" stroke="#777"') + path(1, 6, 19, 5, FILL)
    entries.append((card, "a card, filled by the memory that it needs"))
    if any(
        cell.train and cell.infer and cell.train != cell.infer
        for row in sheet.table.rows
        for cell in row.cells.values()
    ):
        entries.append(("", "upper half: training, lower half: inference"))
    if lost:
        entries.append((CROSS, "lost"))
    if spread := groups_words(sheet):
        entries.append(("", spread))
    count, nbytes = sheet.hidden
    if count:
        entries.append(("", f"{counted(count, 'tensor')} ({amount(nbytes)}) too small to be drawn"))
    out, x, y = "", 0.0, 0.0
    for sample, whole in entries:
        words = fitted(whole, room - 34, 10.5)
        wide = (34 if sample else 0) + text_width(words, 10.5) + 16
        if x and x + wide > room:
            x, y = 0.0, y + 18
        out += moved(Block(wide, 12, sample + muted(34 if sample else 0, 9.5, words)), x, y)
        x += wide
    return Block(room, y + 12, out)
