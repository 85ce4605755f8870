"""What one run of a program on the cards gave, and what the cards counted meanwhile.

::

    model.predict(x)
    model.last.trace                  what each card did when
    model.last.communication          what each collective sent; predicted: program.communication()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from ..display import Displayed, counted, format_bytes
from ..parallel import CardCounts, CardProgram, Communication, Program
from ..trace import Trace

__all__ = ["StepReport"]


@dataclass(frozen=True, repr=False, eq=False)
class StepReport(Displayed):
    """One training step, one prediction, or one token of a generation."""

    card_program: CardProgram
    """What ran."""
    outputs: Mapping[str, NDArray[Any]]
    """The outputs by their names in the program, whole."""
    counts: Sequence[CardCounts]
    """For each card what it counted."""

    @property
    def program(self) -> Program:
        """What ran: which shards each card held, and which collectives there are."""
        return self.card_program.program

    @cached_property
    def communication(self) -> Communication:
        """What each collective sent, as the cards counted it.

        Predicted is `program.communication()`, times the micro-batches.
        """
        return self.card_program.communication(self.counts)

    @cached_property
    def trace(self) -> Trace:
        """What each card did when, by the clocks of their hosts."""
        return self.card_program.trace(self.counts)

    def __repr__(self) -> str:
        sent = self.communication
        seconds = max((span.stop_seconds for span in self.trace.spans), default=0.0)
        lines = [
            f"StepReport of {counted(self.program.ranks, 'card')}, {seconds:.3f} s",
            f"  {counted(len(sent.rows), 'collective')} sent {format_bytes(int(sent.sent_bytes.sum()))} in all",
        ]
        lines += [f"  gave {list(whole.shape)} {whole.dtype}" for whole in self.outputs.values()]
        return "\n".join(lines)
