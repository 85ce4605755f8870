"""The four steps as a row of tiles: done, next, or waiting for something."""

from collections.abc import Sequence
from typing import NamedTuple

from ...views import Drawing
from ...views.drawing import Block, finish, path, text

__all__ = ["StepTile", "steps_drawing"]

WIDE, HIGH, GAP = 168.0, 58.0, 22.0


class StepTile(NamedTuple):
    """One step."""

    key: str
    title: str
    done: bool
    waiting: str
    """Why it is not ready; "" if it is."""

    @property
    def word(self) -> str:
        """How it stands, in a word or two."""
        return "done" if self.done else "not ready" if self.waiting else "next"


def steps_drawing(steps: Sequence[StepTile]) -> Drawing:
    """The tiles, with an arrow between each two; the keys are "step:<key>"."""
    parts = []
    for number, step in enumerate(steps):
        x = number * (WIDE + GAP)
        dash = "" if step.done else ' stroke-dasharray="3 3"' if step.waiting else ' stroke-width="2"'
        tile = path(x, 0, WIDE, HIGH, f'class="tile" fill="#fff" stroke="#666"{dash}')
        words = text(x + 10, 22, f"{number + 1}  {step.title}", 'font-weight="600"')
        state = text(x + 10, 42, f"{'✓ ' if step.done else ''}{step.word}")
        parts.append(f'<g data-key="step:{step.key}">{tile}{words}{state}</g>')
    arrows = "".join(text(i * (WIDE + GAP) - GAP + 5, HIGH / 2 + 5, "→") for i in range(1, len(steps)))
    grid = f'<g role="grid" aria-label="the four steps"><g role="row">{"".join(parts)}</g></g>{arrows}'
    label = ", ".join(f"{step.title}: {step.word}" for step in steps)
    return Drawing(finish(Block(len(steps) * (WIDE + GAP) - GAP, HIGH, grid), label), label)
