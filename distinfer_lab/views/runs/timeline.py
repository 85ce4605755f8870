"""A run, card by card along the time: what each one read, sent, received, computed and waited for.

::

    card 0  [read w][compute h     ][send]      done after 0.52 s
    card 1  [read w     ]|wait|[receive   ]     done after 0.60 s
            0        0.2        0.4     s
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...display import counted
from ...trace import KINDS, Span, Trace
from ..drawing import (
    OKABE_ITO,
    Block,
    Pen,
    above,
    finish,
    fitted,
    heading,
    label,
    line,
    path,
    text,
    text_width,
)

__all__ = ["timeline_svg"]

REACH = 520.0
LANE, THICK = 8.0, 14.0
MAX_CARDS, MAX_SPANS = 32, 400
SHORT_SECONDS = 0.1
FILLS = {
    "read": (OKABE_ITO[0], 0),
    "send": (OKABE_ITO[1], 0),
    "receive": (OKABE_ITO[1], 1),
    "compute": (OKABE_ITO[2], 0),
    "wait": ("none", 0),
}


class Lane(NamedTuple):
    """What is drawn of one card."""

    card: int
    levels: tuple[tuple[Span, ...], ...]
    """Spans that do not overlap, and below them those that overlap them."""
    stop_seconds: float


def timeline_svg(trace: Trace, title: str = "", *, max_cards: int = MAX_CARDS) -> str:
    """When each card did what; keys are "card:3".

    Parameters
    ----------
    trace
        Of very many spans, the kind that a card was mostly at is drawn for each moment.
    title
        What the run was.
    max_cards
        Above so many, of each run of neighbours the one that was done last is drawn, and it says so.
    """
    shown = _last_ones(trace, max_cards)
    coarse = sum(len(trace.of_card(card)) for card in shown) > MAX_SPANS
    pieces = max(MAX_SPANS // max(len(shown), 1), 1) if coarse else 0
    lanes = [_lane(trace, card, pieces) for card in shown]
    lines = [f"{counted(trace.cards, 'card')}, {_time(trace.seconds, trace.seconds)}"]
    if len(shown) < trace.cards:
        lines.append(f"of each {-(-trace.cards // max_cards)} neighbours the one that was done last")
    if coarse:
        lines.append("very many spans: for each moment what the card was mostly at")
    pen = Pen(f"{title}{trace.seconds}{len(trace.spans)}")
    block = above([_legend(trace, pen), _lanes(lanes, trace.seconds, pen)], 10)
    return finish(
        heading(block, title or "Run", lines), title or f"Run of {counted(trace.cards, 'card')}", pen
    )


def _last_ones(trace: Trace, limit: int) -> list[int]:
    stops = [0.0] * trace.cards
    for span in trace.spans:
        stops[span.card] = max(stops[span.card], span.stop_seconds)
    size = max(-(-trace.cards // limit), 1)
    runs = [range(a, min(a + size, trace.cards)) for a in range(0, trace.cards, size)]
    return [max(run, key=lambda card: (stops[card], -card)) for run in runs]


def _lane(trace: Trace, card: int, pieces: int) -> Lane:
    """The spans of a card; or of so many pieces of the time what it was mostly at."""
    spans = trace.of_card(card)
    stop = max((span.stop_seconds for span in spans), default=0.0)
    if pieces:
        return Lane(card, (_mostly(spans, trace.seconds, pieces),), stop)
    levels: list[list[Span]] = []
    for span in spans:
        free = next((lv for lv in levels if lv[-1].stop_seconds <= span.start_seconds), None)
        if free is None:
            levels.append(free := [])
        free.append(span)
    return Lane(card, tuple(map(tuple, levels)) or ((),), stop)


def _mostly(spans: Sequence[Span], seconds: float, bins: int) -> tuple[Span, ...]:
    """For each piece of the lane the kind that fills most of it, equal neighbours joined."""
    width = max(seconds, 1e-12) / bins
    edges = np.arange(bins) * width
    time = np.zeros((len(KINDS) + 1, bins))
    for span in spans:
        time[KINDS.index(span.kind)] += np.clip(
            np.minimum(span.stop_seconds, edges + width) - np.maximum(span.start_seconds, edges), 0, None
        )
    time[-1] = width - time.sum(axis=0)
    most = time.argmax(axis=0)
    firsts = np.flatnonzero(np.diff(most, prepend=-1))
    lasts = np.append(firsts[1:], bins)
    return tuple(
        Span(spans[0].card, KINDS[most[a]], "", a * width, b * width)
        for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)
        if most[a] < len(KINDS)
    )


def _legend(trace: Trace, pen: Pen) -> Block:
    used = {span.kind for span in trace.spans}
    x, out = 0.0, []
    for kind in KINDS:
        if kind in used:
            out.append(
                path(x, 1, 22, 12, f'fill="{pen.hatched(*FILLS[kind])}" stroke="#444"')
                + text(x + 27, 11, kind)
            )
            x += 27 + text_width(kind) + 18
    return Block(x, 14 * bool(out), "".join(out))


def _lanes(lanes: Sequence[Lane], seconds: float, pen: Pen) -> Block:
    scale = REACH / max(seconds, 1e-12)
    left = max((text_width(f"card {lane.card}") for lane in lanes), default=0) + 8
    done = [f"done after {_time(lane.stop_seconds, seconds)}" for lane in lanes]
    y, tops = 0.0, []
    for lane in lanes:
        tops.append(y)
        y += THICK * len(lane.levels) + LANE
    ticks, rows = _ticks(seconds), []
    rules = "".join(line(left + at * scale, 0, 0, y) for at in ticks)
    for lane, top, words in zip(lanes, tops, done, strict=True):
        bars = "".join(
            _bar(span, left + span.start_seconds * scale, top + THICK * i, span.seconds * scale, pen)
            for i, level in enumerate(lane.levels)
            for span in level
        )
        outline = path(
            left,
            top,
            REACH,
            THICK * len(lane.levels),
            'class="tile" fill="#fff" fill-opacity="0" stroke="#ccc"',
        )
        name = text(0, top + 11, f"card {lane.card}") + text(left + REACH + 8, top + 11, words)
        rows.append(f'<g role="row"><g data-key="card:{lane.card}">{outline}{bars}{name}</g></g>')
    marks = "".join(
        text(left + at * scale, y + 10, _tick(at, seconds), 'text-anchor="middle"') for at in ticks
    )
    body = f'{rules}<g role="grid" aria-label="cards along the time">{"".join(rows)}</g>{marks}'
    width = left + REACH + 8 + max(map(text_width, done), default=0)
    return Block(width, y + 14, body)


def _bar(span: Span, x: float, y: float, width: float, pen: Pen) -> str:
    bar = path(
        x,
        y,
        max(width, 0.5),
        THICK,
        f'fill="{pen.hatched(*FILLS[span.kind])}" stroke="#444" stroke-width=".5"',
    )
    if width < 16 or FILLS[span.kind][1] or span.kind == "wait":
        return bar
    return bar + label(x + 3, y + 10.5, fitted(span.name, width - 5, 10), "#000", 'font-size="10"')


def _time(seconds: float, of: float) -> str:
    """A time, in ms where all takes less than a tenth of a second."""
    return f"{seconds * 1000:.1f} ms" if of < SHORT_SECONDS else f"{seconds:.3f} s"


def _tick(seconds: float, of: float) -> str:
    return f"{seconds * 1000:g} ms" if of < SHORT_SECONDS else f"{seconds:g} s"


def _ticks(seconds: float) -> list[float]:
    """Four to ten round times from 0 on."""
    if seconds <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(seconds / 4))
    step = next(m * power for m in (1, 2, 5, 10) if seconds / (m * power) <= 8)
    return [round(i * step, 12) for i in range(int(seconds / step) + 1)]
