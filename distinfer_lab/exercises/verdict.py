"""Whether an answer is right, why not, and its picture."""

from dataclasses import dataclass

from .. import display
from ..display import Displayed
from ..layout import Layout
from ..text import escape
from ..views import img_html, layout_svg, shards_svg

__all__ = ["Verdict"]

WORDS = {"open": "Open.", "wrong": "Not yet.", "right": "Right."}


@dataclass(frozen=True, repr=False)
class Verdict(Displayed):
    """The judgement of an answer.

    Parameters
    ----------
    exercise
        The exercise's name.
    state
        "open" (no answer yet), "wrong" or "right".
    message
        The task, what is wrong, or what is right about it.
    hint
        Where to look; empty when the answer is right.
    expected, given
        The layout that is expected and the one that was given, where there are such.
    shape
        The shape of the tensor that they shard.
    """

    exercise: str
    state: str
    message: str
    hint: str = ""
    expected: Layout | None = None
    given: Layout | None = None
    shape: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.state == "right"

    def __repr__(self) -> str:
        hint = f"\nHint: {self.hint}" if self.hint else ""
        return f"{self.exercise}: {WORDS[self.state]} {self.message}{hint}"


def _html(verdict: Verdict) -> str:
    """The text, and one or two pictures: what was given, and what is expected."""
    hint = f"<p><i>Hint:</i> {escape(verdict.hint)}</p>" if verdict.hint else ""
    words = (
        f"<p><b>{escape(verdict.exercise)}: {WORDS[verdict.state]}</b> {escape(verdict.message)}</p>{hint}"
    )
    return words + _given(verdict) + _expected(verdict)


def _given(verdict: Verdict) -> str:
    if verdict.given is None:
        return ""
    title = f"Your layout: tensor {list(verdict.shape)}"
    svg = layout_svg(verdict.given, verdict.shape, title=title)
    return img_html(svg, f"{title}, {verdict.given!r}")


def _expected(verdict: Verdict) -> str:
    """What each card is to hold; which layout does that is the exercise."""
    if verdict.expected is None:
        return ""
    title = f"Expected: what each card holds of a tensor {list(verdict.shape)}"
    return img_html(shards_svg(verdict.expected, verdict.shape, title=title), title)


display.register(Verdict, _html)
