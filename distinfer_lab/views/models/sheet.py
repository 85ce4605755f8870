"""The table of a model as areas: width is bytes, and lines are cuts.

::

      embed   ------------------------            horizontal lines: rows are cut
              q    k v  o    gate     up          vertical lines: columns are cut
         0    ---- - -  |||| -------- --------    where training and inference cut in different ways, the upper
         1    ---- - -  |||| -------- --------    half is training's
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..drawing import Block, fitted, muted, number, outline, path, text, text_width
from .table import Cell, Cut, Row, Table, short_name

__all__ = ["HUES", "Sheet", "cut_path", "sheet_block", "sheet_of"]

HUES = {
    "rows": "#56b4e9",
    "columns": "#e69f00",
    "blocks": "#009e73",
    "whole": "#c9c9c9",
}
WIDTH, HEIGHT = 300.0, 440.0
TALLEST, LOWEST = 40.0, 1.5
LEAST = 2.5
"""Columns narrower than this are not drawn, in pixels."""
LABELS, NAMES = 30.0, 90.0
"""Room for the numbers of layers, and for the names of tensors of no layer."""
HEAD = 18.0


class Line(NamedTuple):
    """A row of the table, and where it is drawn."""

    row: Row
    y: float
    height: float
    width: float
    """Of a tensor of no layer; of a layer its columns say it."""


class Sheet(NamedTuple):
    """Where everything of a table is drawn."""

    table: Table
    columns: dict[str, tuple[float, float]]
    """Left edge and width of each column that is drawn."""
    lines: tuple[Line, ...]
    height: float

    def span(self, rows: Sequence[bool]) -> tuple[float, float]:
        """From the top of the first of some rows to the bottom of the last."""
        some = [line for line, held in zip(self.lines, rows, strict=True) if held]
        if not some:
            return 0.0, self.height
        return some[0].y, some[-1].y + some[-1].height

    @property
    def hidden(self) -> tuple[int, int]:
        """Number and bytes of the tensors that are not drawn."""
        count, nbytes = self.table.apart
        for row in self.table.layers:
            times = row.last - row.first + 1
            for column, cell in row.cells.items():
                if column not in self.columns:
                    count, nbytes = count + times * len(cell.names), nbytes + times * cell.nbytes
        return count, nbytes


def sheet_of(table: Table) -> Sheet:
    """Columns as wide as their largest cell has bytes, rows that fill the height."""
    widths = {c: max(r.cells[c].nbytes for r in table.layers if c in r.cells) for c in table.columns}
    alone = max((_bytes(row) for row in (*table.above, *table.below)), default=0)
    total = sum(widths.values()) or alone * WIDTH / (WIDTH - NAMES) or 1
    columns, x = {}, 0.0
    for column, nbytes in widths.items():
        wide = WIDTH * nbytes / total
        if wide >= LEAST:
            columns[column] = (x, wide)
            x += wide
    tall = min(max(HEIGHT / max(len(table.rows), 1), LOWEST), TALLEST)
    lines: list[Line] = []
    y = 0.0
    for row in table.rows:
        if row.stack and not (lines and lines[-1].row.stack):
            y += HEAD + 4 * bool(lines)
        elif lines and lines[-1].row.stack != row.stack:
            y += 8
        wide = WIDTH * _bytes(row) / total
        folds = max(math.ceil(wide / (WIDTH - NAMES)), 1) if not row.stack else 1
        height = tall * folds
        if not row.stack:
            height = max(height, 9.0)
        lines.append(Line(row, y, height, WIDTH if row.stack else max(wide * tall / height, 2.0)))
        y += height
    return Sheet(table, columns, tuple(lines), y)


def _bytes(row: Row) -> int:
    return sum(cell.nbytes for cell in row.cells.values())


def sheet_block(sheet: Sheet, room: float, *, lines: bool = True) -> Block:
    """The model, with the names of its columns and rows, and the lines along which it is cut.

    Names may go to `room`, in pixels.
    """
    body = "".join(_column_names(sheet)) + "".join(_row_names(sheet, room))
    for column, (x, wide) in sheet.columns.items():
        areas = "".join(_cells(sheet, column, x, wide, lines))
        body += f'<g data-key="class:{column}">{areas}</g>'
    for line in sheet.lines:
        if not line.row.stack:
            ((name, cell),) = line.row.cells.items()
            body += (
                f'<g data-key="class:{name}">{_area(cell, 0, line.y, line.width, line.height, 1, lines)}</g>'
            )
    return Block(WIDTH, sheet.height, body + _boundaries(sheet))


def _boundaries(sheet: Sheet) -> str:
    """Between layers that touch."""
    ends = [
        one.y + one.height - 0.5
        for one, other in itertools.pairwise(sheet.lines)
        if one.row.stack and one.height > 4 and one.row.stack == other.row.stack
    ]
    data = "".join(f"M0 {number(y)}h{number(WIDTH)}" for y in ends)
    return f'<path class="gap" d="{data}" stroke="#fff" stroke-width="1.4" fill="none"/>' if data else ""


def _cells(sheet: Sheet, column: str, x: float, wide: float, cuts: bool) -> Iterator[str]:
    """The cells of a column: neighbors that are cut alike are one area."""
    lines = [line for line in sheet.lines if line.row.stack and column in line.row.cells]

    def look(line: Line) -> tuple[object, ...]:
        cell = line.row.cells[column]
        return line.row.stack, cell.nbytes, cell.train, cell.infer

    most = max((line.row.cells[column].nbytes for line in lines), default=0)
    for _, some in itertools.groupby(lines, look):
        for run in _runs(list(some)):
            cell = run[0].row.cells[column]
            yield _area(cell, x, run[0].y, wide * cell.nbytes / max(most, 1), run[0].height, len(run), cuts)


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    run: list[Line] = []
    for line in lines:
        if run and abs(run[-1].y + run[-1].height - line.y) > 0.01:
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def _area(cell: Cell, x: float, y: float, wide: float, tall: float, rows: int, cuts: bool) -> str:
    """One cell, or several that look alike below each other."""
    gap = 1.0 if tall > 4 else 0.0
    wide = max(wide - 1, 1)
    one, other = cell.train or cell.infer, cell.infer or cell.train
    if one is None or other is None:
        return ""
    area = f'<path d="{outline(x, y, wide, tall * rows - gap)}" fill="{HUES[one.kind]}"/>'
    if (one.kind, one.parts) == (other.kind, other.parts) or tall < 5:
        return area + _lines(cut_path(one, x, y, wide, tall, rows, gap) if cuts else "")
    half = (tall - gap) / 2
    tops = [y + i * tall for i in range(rows)]
    lower = "".join(outline(x, top + half, wide, half) for top in tops)
    lines = "".join(
        cut_path(one, x, top, wide, half, 1, 0) + cut_path(other, x, top + half, wide, half, 1, 0)
        for top in tops
    )
    return area + f'<path d="{lower}" fill="{HUES[other.kind]}"/>' + _lines(lines if cuts else "")


def _lines(data: str) -> str:
    return f'<path class="gap" d="{data}" stroke="#fff" stroke-width=".8" fill="none"/>' if data else ""


def cut_path(cut: Cut, x: float, y: float, wide: float, tall: float, rows: int, gap: float) -> str:
    """The lines along which cells are cut; as many as can be distinguished."""
    across = cut.parts[-1] if cut.kind in ("columns", "blocks") else 1
    down = cut.parts[0] if cut.kind in ("rows", "blocks") else 1
    across, down = min(across, max(int(wide / 3), 1)), min(down, max(int(tall / 2.5), 1))
    out = "".join(
        f"M{number(x + wide * i / across)} {number(y)}v{number(tall * rows - gap)}" for i in range(1, across)
    )
    for row in range(rows):
        out += "".join(
            f"M{number(x)} {number(y + row * tall + (tall - gap) * i / down)}h{number(wide)}"
            for i in range(1, down)
        )
    return out


def _column_names(sheet: Sheet) -> Iterator[str]:
    """Above the layers, where there is room for a name."""
    first = next((line for line in sheet.lines if line.row.stack), None)
    if first is None:
        return
    right = -10.0
    for column, (x, wide) in sheet.columns.items():
        words = fitted(short_name(column), max(wide + 4, 22), 10, bold=True)
        half = text_width(words, 10, bold=True) / 2
        at = x + wide / 2
        if words and at - half > right + 3 and not words.endswith("…"):
            right = at + half
            yield text(at, first.y - 5, words, 'text-anchor="middle" font-size="10" font-weight="600"')


def _row_names(sheet: Sheet, room: float) -> Iterator[str]:
    """Left of the layers; right of tensors of no layer, which say their bytes, too."""
    low = -20.0
    for line in sheet.lines:
        row = line.row
        middle = line.y + line.height / 2 + 3.5
        if not row.stack:
            yield muted(line.width + 6, middle, fitted(row.label, room - line.width - 6, 10), size=10)
            low = middle
        elif middle - low > 12:
            yield muted(-6, middle, row.label, 'text-anchor="end"', 10)
            low = middle


def legend_entries(sheet: Sheet) -> list[tuple[str, str]]:
    """For each kind of cut its hue and what it means."""
    seen: dict[str, set[int]] = {}
    for row in sheet.table.rows:
        for column, cell in row.cells.items():
            for cut in (cell.train, cell.infer):
                if cut is not None and (not row.stack or column in sheet.columns):
                    seen.setdefault(cut.kind, set()).add(max(cut.parts, default=1))
    words = {
        "rows": "rows cut",
        "columns": "columns cut",
        "blocks": "rows and columns cut",
        "whole": "whole on its cards",
    }
    out = []
    for kind in HUES:
        if kind in seen:
            counts = sorted(seen[kind])
            known = kind in ("rows", "columns") and len(counts) <= 2
            out.append((kind, words[kind] + (f" in {' or '.join(map(str, counts))}" if known else "")))
    return out


def groups_words(sheet: Sheet) -> str:
    """Which tensors of a layer are on different cards, as experts are; "" if none."""
    seen: dict[tuple[int, int, int], list[str]] = {}
    for row in sheet.table.layers:
        for column, cell in row.cells.items():
            train, infer = (cut.groups if cut else 0 for cut in (cell.train, cell.infer))
            if max(train, infer) > 1:
                names = seen.setdefault((len(cell.names), train, infer), [])
                if short_name(column) not in names:
                    names.append(short_name(column))
    words = []
    for (count, train, infer), names in seen.items():
        groups = f"{train} then {infer}" if train and infer and train != infer else f"{train or infer}"
        words.append(f"{', '.join(names)}: {count} a layer, on {groups} groups of cards")
    return "; ".join(words)


def swatch(kind: str) -> str:
    """The sample in front of an entry of the legend."""
    cut = Cut(kind, {"rows": (4,), "columns": (1, 5), "blocks": (3, 4)}.get(kind, ()))
    area = path(0, 0, 28, 11, f'fill="{HUES[kind]}"')
    return area + _lines(cut_path(cut, 0, 0, 28, 11, 1, 0.0))
