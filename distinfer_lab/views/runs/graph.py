"""A net as it runs: its operators in order, what each reads, how its values are cut, what cards exchange.

::

    | x                input     rows cut by dp
    |   v
    +-> MatMul  h      <- w  columns cut by tp
    |   v
    |   AllReduce h    at most 1.5 MiB from a card
    |   v
    +-> Add  y
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...display import counted, format_bytes
from ..drawing import OKABE_ITO, Block, finish, fitted, heading, number, path, shorten, text, text_width

__all__ = ["Step", "graph_svg"]

MAX_STEPS = 40
HIGH, STEP = 34.0, 46.0
LANE = 9.0
MOST_LANES = 8
NARROW, WIDE = 150.0, 260.0


class Step(NamedTuple):
    """One operator or one collective, in the order of computation."""

    output: str
    operator: str
    """What it is called: MatMul, AllReduce, or "input"."""
    inputs: tuple[str, ...]
    cut: str = ""
    """The layout of its output, as text."""
    sent_bytes: int | None = None
    """For a collective, the most that one card sends; None for a computation."""


class Arrow(NamedTuple):
    """Who reads whose output, by their rows."""

    start: int
    stop: int


def graph_svg(
    steps: Sequence[Step], title: str, *, params: Mapping[str, str] | None = None, max_steps: int = MAX_STEPS
) -> str:
    """The steps from top to bottom, with arrows from each value to its readers; keys are "step:<output>".

    Parameters
    ----------
    steps
        The net's inputs first.
    title
        What the net is called.
    params
        Parameter -> its layout, as text; they are named where they are read.
    max_steps
        Above so many, the first ones are drawn, and it says how many follow.
    """
    shown = steps[:max_steps]
    sent = sum(step.sent_bytes or 0 for step in steps)
    collectives = sum(step.sent_bytes is not None for step in steps)
    lines = [f"{counted(len(steps), 'step')}, {counted(len(params or {}), 'parameter')}"]
    if collectives:
        lines.append(
            f"{counted(collectives, 'collective')} (orange); in all a card sends at most {format_bytes(sent)}"
        )
    if len(shown) < len(steps):
        lines.append(f"the first {len(shown):,} are drawn, {len(steps) - len(shown):,} more follow")
    return finish(heading(_steps(shown, params or {}), shorten(title, 80), lines), title)


def _steps(steps: Sequence[Step], params: Mapping[str, str]) -> Block:
    rows = {step.output: i for i, step in enumerate(steps)}
    arrows = [Arrow(rows[name], i) for i, step in enumerate(steps) for name in step.inputs if name in rows]
    far = [arrow for arrow in dict.fromkeys(arrows) if arrow.stop > arrow.start + 1]
    lanes = _lanes(far)
    left = LANE * min(max(lanes.values(), default=-1) + 2, MOST_LANES + 1) if far else 4.0
    titles = [text_width(_title(step), bold=True) for step in steps]
    width = min(max([NARROW, *titles, *(text_width(step.cut, 10) for step in steps)]) + 16, WIDE)
    body = [
        _arrow_down(left + 24, STEP * a.start + HIGH) for a in dict.fromkeys(arrows) if a.stop == a.start + 1
    ]
    body += [_around(arrow, lanes[arrow], left) for arrow in far if lanes[arrow] < MOST_LANES]
    widest = 0.0
    for i, step in enumerate(steps):
        annotation = _annotation(
            step, params, {a.start for a in far if a.stop == i and lanes[a] >= MOST_LANES}, steps
        )
        widest = max(widest, text_width(annotation))
        body.append(_box(step, left, STEP * i, width, annotation))
    return Block(left + width + 10 + widest, STEP * max(len(steps), 1) - STEP + HIGH, "".join(body))


def _title(step: Step) -> str:
    if step.sent_bytes is not None:
        return f"{step.operator} of {shorten(step.inputs[0], 28)}" if step.inputs else step.operator
    # A value that nobody named is called by its operator and a number.
    named = not step.output.startswith(f"{step.operator}.")
    return f"{step.operator}  {shorten(step.output, 28)}" if named else step.output


def _lanes(arrows: Sequence[Arrow]) -> dict[Arrow, int]:
    """A lane at the left for each arrow, so that no two in one lane overlap; short ones lie inside."""
    out: dict[Arrow, int] = {}
    for arrow in sorted(arrows, key=lambda a: (a.stop - a.start, a.start)):
        taken = {lane for other, lane in out.items() if other.start < arrow.stop and arrow.start < other.stop}
        out[arrow] = next(lane for lane in range(len(arrows)) if lane not in taken)
    return out


def _annotation(step: Step, params: Mapping[str, str], far: set[int], steps: Sequence[Step]) -> str:
    """The text to the right of a box: its parameters, or the bytes that are sent."""
    if step.sent_bytes is not None:
        return f"a card sends at most {format_bytes(step.sent_bytes)}"
    named = [f"{shorten(name, 40)} {params[name]}".strip() for name in step.inputs if name in params]
    named += [f"reads {shorten(steps[i].output, 28)}" for i in sorted(far)]
    return shorten("  ".join(named), 90)


def _box(step: Step, x: float, y: float, width: float, annotation: str) -> str:
    sends = step.sent_bytes is not None
    edge = f'stroke="{OKABE_ITO[5]}" stroke-width="2" stroke-dasharray="6 3"' if sends else 'stroke="#666"'
    name = "tile sends" if sends else "tile"
    box = path(x, y, width, HIGH, f'class="{name}" fill="#fff" {edge}')
    words = text(x + 8, y + 14, fitted(_title(step), width - 12, bold=True), 'font-weight="600"')
    words += text(x + 8, y + 28, fitted(step.cut, width - 12, 10), 'font-size="10"') if step.cut else ""
    words += text(x + width + 10, y + 20, annotation) if annotation else ""
    return f'<g data-key="step:{_key(step.output)}">{box}{words}</g>'


def _key(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _arrow_down(x: float, y: float) -> str:
    n = number
    shaft = f'<path class="rule" d="M{n(x)} {n(y)}v{n(STEP - HIGH - 4)}" fill="none" stroke="#666"/>'
    head = f'<path d="M{n(x - 3.5)} {n(y + STEP - HIGH - 5)}h7l-3.5 5z" fill="#666"/>'
    return shaft + head


def _around(arrow: Arrow, lane: int, left: float) -> str:
    """Out of a box, down at its left, into another box."""
    n = number
    start, stop = STEP * arrow.start + HIGH * 0.65, STEP * arrow.stop + HIGH * 0.35
    out = LANE * (lane + 1)
    way = f"M{n(left)} {n(start)}h-{n(out)}v{n(stop - start)}h{n(out - 4)}"
    head = f'<path d="M{n(left - 5)} {n(stop - 3.5)}l5 3.5l-5 3.5z" fill="#666"/>'
    return f'<path class="rule" d="{way}" fill="none" stroke="#666"/>{head}'
