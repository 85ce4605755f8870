"""What every card did when, in one run: a record that cards fill and views draw.

::

    card 0   read    w             0.00 .. 0.12
    card 0   compute h = MatMul    0.12 .. 0.31
    card 1   wait    all-reduce    0.10 .. 0.31
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .display import Displayed, counted, show
from .errors import ContextError

__all__ = ["KINDS", "Span", "Trace"]

KINDS = ("read", "send", "receive", "compute", "wait")
"""What a card can be doing."""

MOST_ROWS = 16
"""Cards that are printed."""


class Span(NamedTuple):
    """One thing that one card did."""

    card: int
    kind: str
    """One of `KINDS`."""
    name: str
    """What was read, sent or computed: a parameter, a value, an operator."""
    start_seconds: float
    """Since the run began."""
    stop_seconds: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.stop_seconds - self.start_seconds

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return show(self)


@dataclass(frozen=True, repr=False)
class Trace(Displayed):
    """The spans of all cards, in the order of their cards and starts.

    Parameters
    ----------
    spans
        In any order; those of one card may overlap (it may send while it computes).
    cards
        The number of cards; by default one more than the highest that did something.

    Raises
    ------
    ContextError
        If a kind is unknown, a span ends before it starts, or names a card beyond `cards`.

    Examples
    --------
    >>> Trace([Span(0, "read", "w", 0.0, 0.5), Span(1, "compute", "h", 0.0, 0.25)])
    Trace of 2 cards, 2 spans, 0.500 s
      card 0  read 0.500 s
      card 1  compute 0.250 s
    """

    spans: tuple[Span, ...]
    cards: int

    def __init__(self, spans: Iterable[Span], cards: int | None = None) -> None:
        ordered = tuple(sorted(spans, key=lambda span: (span.card, span.start_seconds)))
        highest = max((span.card for span in ordered), default=-1)
        object.__setattr__(self, "spans", ordered)
        object.__setattr__(self, "cards", highest + 1 if cards is None else cards)
        for span in ordered:
            self._check(span)

    def _check(self, span: Span) -> None:
        if span.kind not in KINDS:
            raise ContextError(
                f"card {span.card}: kind {span.kind!r} is not one of {', '.join(KINDS)}", rank=span.card
            )
        if not 0 <= span.start_seconds <= span.stop_seconds:
            raise ContextError(
                f"card {span.card}: {span.name!r} goes from {span.start_seconds} to {span.stop_seconds} s; "
                "a span starts at 0 or later and ends no earlier",
                rank=span.card,
            )
        if not 0 <= span.card < self.cards:
            raise ContextError(
                f"a span of card {span.card} in a trace of {self.cards} cards; give a larger cards=",
                rank=span.card,
            )

    @property
    def seconds(self) -> float:
        """When the last card was done."""
        return max((span.stop_seconds for span in self.spans), default=0.0)

    def of_card(self, card: int) -> tuple[Span, ...]:
        """What one card did."""
        return tuple(span for span in self.spans if span.card == card)

    def totals(self) -> tuple[dict[str, float], ...]:
        """For each card the seconds of every kind that it did, in the order of `KINDS`."""
        out: list[dict[str, float]] = [dict.fromkeys(KINDS, 0.0) for _ in range(self.cards)]
        for span in self.spans:
            out[span.card][span.kind] += span.seconds
        return tuple({kind: total for kind, total in card.items() if total} for card in out)

    def by_name(self) -> dict[str, tuple[float, float]]:
        """For each name its seconds on the card that it took longest: doing it, and waiting; longest first.

        Examples
        --------
        >>> Trace([Span(0, "compute", "h", 0.0, 0.5), Span(1, "wait", "sum", 0.0, 0.25)]).by_name()
        {'h': (0.5, 0.0), 'sum': (0.0, 0.25)}
        """
        done: dict[str, list[list[float]]] = {}
        for span in self.spans:
            of_cards = done.setdefault(span.name, [[0.0] * self.cards, [0.0] * self.cards])
            of_cards[span.kind == "wait"][span.card] += span.seconds
        most = {name: (max(busy), max(wait)) for name, (busy, wait) in done.items()}
        return dict(sorted(most.items(), key=lambda item: -sum(item[1])))

    def __repr__(self) -> str:
        lines = [
            f"Trace of {counted(self.cards, 'card')}, {counted(len(self.spans), 'span')}, {self.seconds:.3f} s"
        ]
        for card, totals in enumerate(self.totals()[:MOST_ROWS]):
            words = ", ".join(f"{kind} {seconds:.3f} s" for kind, seconds in totals.items())
            lines.append(f"  card {card}  {words or 'nothing'}")
        if self.cards > MOST_ROWS:
            lines.append(f"  ... and {self.cards - MOST_ROWS} more")
        return "\n".join(lines)
