"""A program as it is sent to cards: small, picklable, made concrete for a card when it first runs there."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..display import counted
from ..trace import Span, Trace
from .batches import micro_name
from .card import Card, CardStep, CardView, run_card, view_of
from .communication import Communication
from .program import Program
from .shards import Shards
from .whole import shard_of, unshard

__all__ = ["CardCounts", "CardProgram"]

Array = NDArray[Any]


class CardCounts(NamedTuple):
    """What a card counted in one call of a program."""

    sent_bytes: NDArray[np.int64]
    """What it sent to other cards, shape (collectives of the program,)."""
    times: NDArray[np.float64]
    """When it did what, in seconds, shape (micro-batches, its steps, 3): see `CardRun`."""


class CardProgram:
    """A program that is sent to the cards, and called on each with its rank (see `cards.tasks.run`).

    Returns the outputs, the new shards of the updated parameters, and what the card counted.

    Parameters
    ----------
    micro_batches
        How often the program runs in one call, each time on another part of the batch. A card goes on to the
        next part as soon as it has done its steps, so that pipeline stages work at the same time.
    """

    def __init__(self, program: Program, micro_batches: int = 1) -> None:
        self.program, self.micro_batches = program, micro_batches
        # One view per rank: in-process cards may share this object.
        self._views: dict[int, CardView] = {}

    def __repr__(self) -> str:
        return f"CardProgram for {counted(self.program.ranks, 'card')}"

    def __call__(
        self, rank: int, values: Mapping[str, Array], inputs: Mapping[str, Array], card: Card
    ) -> tuple[Shards, Shards, CardCounts]:
        view = self._view(rank)
        outputs: Shards = {}
        updates: Shards = {}
        sent = np.zeros(len(self.program.collectives), np.int64)
        times = []
        for number in range(self.micro_batches):
            mine = {
                n: inputs[self._name(n, number)]
                for n in self.program.inputs
                if self._name(n, number) in inputs
            }
            done = run_card(self.program, view, values, mine, card.channels, card.check, card.count)
            outputs |= {self._name(name, number): shard for name, shard in done.outputs.items()}
            updates |= done.updates
            sent += np.array(done.sent_bytes, np.int64)
            times.append(done.times)
        return outputs, updates, CardCounts(sent, np.stack(times))

    def _view(self, rank: int) -> CardView:
        if rank not in self._views:
            self._views[rank] = view_of(self.program, rank)
        return self._views[rank]

    def peak_bytes(self, rank: int) -> int:
        """The most bytes of working values that a card has at one time."""
        return self._view(rank).peak_bytes

    def _name(self, name: str, number: int) -> str:
        return name if self.micro_batches == 1 else micro_name(name, number)

    @cached_property
    def fetched(self) -> tuple[tuple[str, ...], ...]:
        """For each card the outputs to fetch from it: together they are the whole outputs, once."""
        primary = {
            name: set(self.program.primary_ranks(name)) for name in dict.fromkeys(self.program.outputs)
        }
        numbers = range(self.micro_batches)
        return tuple(
            tuple(self._name(n, i) for n, ranks in primary.items() if rank in ranks for i in numbers)
            for rank in range(self.program.ranks)
        )

    def communication(self, counts: Sequence[CardCounts] | None = None) -> Communication:
        """What one call sends: predicted, or as each card counted it."""
        predicted = self.program.communication().times(self.micro_batches)
        return predicted if counts is None else predicted.with_counts([card.sent_bytes for card in counts])

    def trace(self, counts: Sequence[CardCounts]) -> Trace:
        """What each card did when, as it counted; waiting is put before what was waited for."""
        times = [card.times for card in counts]
        first = min((float(card[:, :, 0].min()) for card in times if card.size), default=0.0)
        spans = (
            span
            for rank, card in enumerate(times)
            for batch in card
            for step, row in zip(self._view(rank).steps, (batch - [first, first, 0.0]).tolist(), strict=True)
            for span in self._spans(rank, step, *row)
        )
        return Trace(spans, self.program.ranks)

    def _spans(self, rank: int, step: CardStep, begun: float, ended: float, waited: float) -> Iterator[Span]:
        name, kind = self.program.operators[step.output], "compute"
        if step.collective >= 0:
            sent = self.program.collectives[step.collective]
            name, kind = f"{sent.kind} of {name}", "send" if sent.sent_bytes[rank] else "receive"
        reached = min(begun + waited, ended)
        if waited > 0:
            yield Span(rank, "wait", name, begun, reached)
        yield Span(rank, kind, name, reached, ended)

    def shard_inputs(self, values: Mapping[str, Array]) -> list[Shards]:
        """Whole inputs as shards, one mapping per rank; what has dims is first split into micro-batches."""
        out: list[Shards] = [{} for _ in range(self.program.ranks)]
        for name, whole in values.items():
            for number in range(self.micro_batches):
                part = whole
                if self.micro_batches > 1 and whole.ndim:
                    rows = self.program.values[name].spec.shape[0]
                    part = whole[number * rows : (number + 1) * rows]
                for rank, mine in enumerate(out):
                    shard = shard_of(self.program, name, part, rank)
                    if shard is not None:
                        mine[self._name(name, number)] = shard
        return out

    def unshard(self, name: str, shards: Sequence[Mapping[str, Array]]) -> Array:
        """The whole of an output, from the shards of all cards."""
        parts = []
        for number in range(self.micro_batches):
            named = self._name(name, number)
            parts.append(
                unshard(self.program, name, [{name: c[named]} if named in c else {} for c in shards])
            )
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
