"""What Jupyter shows of card groups and what is on them.

These live above views: they are known by their public names and by the few attributes that the
functions here read.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ... import display
from ...layout import Mesh, Strategy
from ...text import escape
from ...trace import Trace
from ..drawing import img_html
from ..holdings import mesh_svg
from ..moves import CardBytes, bars_svg, memory_svg
from ..runs import timeline_svg
from .layouts import strategy_html
from .nets import cell_html, communication_html
from .tables import ROWS, kept, lines_html, table_html

if TYPE_CHECKING:
    from ...net import Cell
    from ...parallel import Communication

__all__ = ["group_html", "load_html", "memory_html", "register", "times_html"]


class Group(Protocol):
    """What is shown of a card group."""

    def __len__(self) -> int: ...


class Memory(Protocol):
    """What is shown of the memory of a group."""

    held_bytes: NDArray[np.int64]
    peak_bytes: NDArray[np.int64]


class Loaded(Protocol):
    """What is shown of a load."""

    strategy: Strategy
    held_bytes: Sequence[int]


class Trained(Protocol):
    """What is shown of a model."""

    network: "Cell"


class Report(Protocol):
    """What is shown of a step on the cards."""

    @property
    def communication(self) -> "Communication": ...

    @property
    def trace(self) -> Trace: ...


def group_html(group: Group) -> str:
    """The cards of a group."""
    mesh = Mesh(card=max(len(group), 1))
    return kept(lambda cards: mesh_svg(mesh, max_cards=cards), repr(group)) + lines_html(repr(group))


def memory_html(memory: Memory) -> str:
    """What each card holds and held at most."""
    pairs = zip(memory.held_bytes.tolist(), memory.peak_bytes.tolist(), strict=True)
    cards = [CardBytes(rank, None, peak, held) for rank, (held, peak) in enumerate(pairs)]
    title = "Bytes of shards on each card"
    return img_html(memory_svg(cards, title, columns=("before", "at most", "now")), title)


def load_html(loaded: Loaded) -> str:
    """How the parameters lie, and the bytes on each card."""
    bars = bars_svg(list(loaded.held_bytes), "Bytes of parameters on each card")
    return strategy_html(loaded.strategy) + img_html(bars, "Bytes of parameters on each card")


def trace_html(trace: Trace) -> str:
    """When each card did what, and what took longest."""
    picture = kept(
        lambda cards: timeline_svg(trace, max_cards=max(cards // 8, 1)), repr(trace).split("\n")[0]
    )
    return picture + times_html(trace)


def report_html(report: Report) -> str:
    """When each card did what, and what the collectives sent."""
    return lines_html(repr(report)) + trace_html(report.trace) + communication_html(report.communication)


def times_html(trace: Trace) -> str:
    """The operators and collectives that took longest, each on the card where it did."""
    named = trace.by_name()
    rows = [
        [name, f"{busy * 1000:.2f}", f"{wait * 1000:.2f}"]
        for name, (busy, wait) in list(named.items())[:ROWS]
    ]
    return table_html(["operator or collective", "ms on its slowest card", "ms waiting"], rows, len(named))


def model_html(model: Trained) -> str:
    """The model in a line, and its net."""
    return f"<p>{escape(repr(model))}</p>{cell_html(model.network)}"


def _layout_of(holder: Any) -> str:
    return strategy_html(holder.strategy)


def register() -> None:
    """Tell `display` how these are drawn."""
    display.register("distinfer_lab.cards.CardGroup", group_html)
    display.register("distinfer_lab.cards.GroupMemory", memory_html)
    display.register("distinfer_lab.flow.LoadResult", load_html)
    display.register("distinfer_lab.flow.PredictLayout", _layout_of)
    display.register("distinfer_lab.flow.Model", model_html)
    display.register("distinfer_lab.flow.StepReport", report_html)
    display.register(Trace, trace_html)
