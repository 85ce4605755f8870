"""What is said of an answer, and its picture."""

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
    """What a checker says of an answer.

    Parameters
    ----------
    exercise
        The exercise's name.
    state
        "open" (no answer yet), "wrong" or "right".
    said
        The task, what is wrong, or what is right about it.
    hint
        Where to look; empty when the answer is right.
    asked, given
        The layout that is asked for and the one that was given, where there are such.
    shape
        The shape of the tensor that they cut.
    """

    exercise: str
    state: str
    said: str
    hint: str = ""
    asked: Layout | None = None
    given: Layout | None = None
    shape: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.state == "right"

    def __repr__(self) -> str:
        hint = f"\nHint: {self.hint}" if self.hint else ""
        return f"{self.exercise}: {WORDS[self.state]} {self.said}{hint}"


def _html(verdict: Verdict) -> str:
    """The words, and one or two pictures: what was given, and what is asked."""
    hint = f"<p><i>Hint:</i> {escape(verdict.hint)}</p>" if verdict.hint else ""
    words = f"<p><b>{escape(verdict.exercise)}: {WORDS[verdict.state]}</b> {escape(verdict.said)}</p>{hint}"
    return words + _given(verdict) + _asked(verdict)


def _given(verdict: Verdict) -> str:
    if verdict.given is None:
        return ""
    title = f"Your layout: tensor {list(verdict.shape)}"
    svg = layout_svg(verdict.given, verdict.shape, title=title)
    return img_html(svg, f"{title}, {verdict.given!r}")


def _asked(verdict: Verdict) -> str:
    """What each card is to hold; which layout does that is the exercise."""
    if verdict.asked is None:
        return ""
    title = f"Asked: what each card holds of a tensor {list(verdict.shape)}"
    return img_html(shards_svg(verdict.asked, verdict.shape, title=title), title)


display.register(Verdict, _html)
