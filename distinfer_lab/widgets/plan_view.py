"""A plan: what goes from which card to which, tensor by tensor, and step by step."""

from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
import traitlets
from numpy.typing import NDArray

from ..arguments import checked
from ..checkpoint import Conversion
from ..display import counted, format_bytes
from ..errors import LayoutError, Option
from ..reshard import MOST_SCHEDULED, ReshardPlan, Step, plan_steps, warnings_of
from ..text import escape
from ..views import CARDS, FILES, Drawing, Window, bands_svg, link_moves, stored, traffic_svg
from .layout_view import LayoutView
from .parts import Panel, Picture, SearchList

__all__ = ["PlanView"]

ORDERS: dict[str, Callable[[ReshardPlan], Callable[[str], Any]]] = {
    "as planned": lambda plan: lambda name: 0,
    "by name": lambda plan: lambda name: name,
    "largest first": lambda plan: lambda name: -_nbytes(plan, name),
}
PICTURES = ("Matrix", "Bands")
MOST_SHOWN = 16
"""Cards a side of the pictures; above, runs of cards share a row or a column."""


@checked
class PlanView(Panel):
    """The moves of a plan as a matrix or as bands; all tensors together, one, or one step.

    Parameters
    ----------
    plan
        From cards to cards, or from files.
    parameter
        The tensor to show first; "" shows all together.

    Attributes
    ----------
    selected, hover : str
        "train:1", "infer:0" or "move:1>0", as in the picture; "" for none. They may be set.
    parameter : str
        The tensor that is shown; "" is all. It may be set.
    step : int
        How many steps of the schedule are shown as done; 0 shows all. It may be set.
    opened : str
        The key of a group whose cards are shown: "train:0-63", "move:0-63>0-3"; "" shows all. It may be set.

    Raises
    ------
    ArgumentTypeError
        If it is no plan.
    LayoutError
        If the plan has no such tensor.

    Examples
    --------
    >>> from distinfer_lab.layout import Layout, Mesh, Strategy
    >>> from distinfer_lab.reshard import plan_reshard
    >>> rows = Layout(Mesh(tp=2), "tp -")
    >>> view = PlanView(plan_reshard(Strategy({"w": rows}, {"w": (8, 6)}), None))
    >>> view
    PlanView(1 tensor, 2 -> 1 card, moved 96 B, least possible 96 B)
    >>> view.selected = "infer:0"
    >>> view.linked
    ('move:0>0', 'train:0', 'move:1>0', 'train:1')
    """

    selected = traitlets.Unicode()
    hover = traitlets.Unicode()
    parameter = traitlets.Unicode()
    step = traitlets.Int()
    opened = traitlets.Unicode()

    def __init__(self, plan: ReshardPlan | Conversion, *, parameter: str = "") -> None:
        self.plan = plan.plan if isinstance(plan, Conversion) else plan
        self._sides = FILES if isinstance(plan, Conversion) else CARDS
        self._steps: tuple[Step, ...] = ()
        self._opened_from = ""
        self.kind = ipywidgets.ToggleButtons(options=PICTURES, description="Moves as")
        self._link(self.plan.traffic)
        hint = "Hover or focus a card or a cell; Enter or a click selects it, Escape lets go."
        self.picture = Picture(self._live(), self._sentences, self._partners, still=self._still(), hint=hint)
        super().__init__()
        self._add_parts()
        self.parameter = parameter
        for name in ("selected", "hover"):
            traitlets.link((self.picture, name), (self, name))

    def _link(self, traffic: NDArray[np.int64]) -> None:
        place = self.plan.placement
        links = link_moves(
            traffic, placement=place, max_cells=MOST_SHOWN, window=self._window, sides=self._sides
        )
        self._sentences, self._partners = links.sentences(), links.partners()

    def _add_parts(self) -> None:
        redraw = self.errors.guard(lambda change: self._redraw())
        self.order = ipywidgets.Dropdown(options=list(ORDERS), description="Order")
        self.choice = SearchList([], self.errors, description="Tensor")
        self._list()
        self.scrubber = ipywidgets.IntSlider(description="Step", min=0, max=1, readout=True)
        self.at = ipywidgets.HTML()
        self.summary = ipywidgets.HTML(_summary(self.plan, self._sides))
        self.every = ipywidgets.Button(description="All tensors", icon="list")
        self.open = ipywidgets.Button(description="Open the group", icon="search-plus", disabled=True)
        self.back = ipywidgets.Button(description="All cards", icon="search-minus", disabled=True)
        groups = [ipywidgets.HBox([self.open, self.back])] if self._has_groups else []
        self.children: tuple[Any, ...] = (
            self.summary,
            ipywidgets.HBox([self.order, self.every], layout=ipywidgets.Layout(flex_flow="row wrap")),
            self.choice,
            self.kind,
            self.picture,
            *groups,
            ipywidgets.HBox([self.scrubber, self.at], layout=ipywidgets.Layout(flex_flow="row wrap")),
            self.errors,
        )
        if 0 < len(self.plan) <= MOST_SCHEDULED:
            self._steps = plan_steps(self.plan)
        self.scrubber.max = max(len(self._steps), 1)
        self.scrubber.disabled = not self._steps
        self.observe(self.errors.guard(self._one_of_both), ["parameter", "step"])
        self.observe(self.errors.guard(self._forget_group), "opened")
        self.observe(redraw, ["parameter", "step", "opened"])
        self.observe(self.errors.guard(lambda change: self._say_groups()), ["selected", "opened"])
        self.open.on_click(self.errors.guard(lambda button: self._open()))
        self.back.on_click(self.errors.guard(lambda button: self._go_back()))
        self.kind.observe(redraw, "value")
        self.order.observe(self.errors.guard(lambda change: self._list()), "value")
        self.every.on_click(self.errors.guard(lambda button: self._show_all()))
        traitlets.link((self.choice, "value"), (self, "parameter"))
        traitlets.link((self.scrubber, "value"), (self, "step"))
        self._say_step()

    def _one_of_both(self, change: Any) -> None:
        """A tensor is shown, or a step with all its tensors."""
        if change["new"]:
            other, nothing = ("step", 0) if change["name"] == "parameter" else ("parameter", "")
            setattr(self, other, nothing)

    def _show_all(self) -> None:
        self.parameter, self.step = "", 0

    def _list(self) -> None:
        names = sorted(self.plan, key=ORDERS[self.order.value](self.plan))
        labels = {
            n: f"{n}  {list(self.plan.class_named(n).shape)}  {format_bytes(_nbytes(self.plan, n))}"
            for n in names
        }
        self.choice.show(names, labels)

    @traitlets.validate("parameter")
    def _check_parameter(self, proposal: Any) -> str:
        name: str = proposal["value"]
        if name and name not in self.plan:
            given = Option("parameter", name)
            raise LayoutError(
                f'{given} is not a tensor of the plan; "" shows all together', given, parameter=name
            )
        return name

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        step: int = proposal["value"]
        if not 0 <= step <= len(self._steps):
            given = Option("step", step)
            raise LayoutError(f"{given}: the schedule has steps 0..{len(self._steps)}; 0 shows all", given)
        return step

    @traitlets.validate("opened")
    def _check_opened(self, proposal: Any) -> str:
        key: str = proposal["value"]
        if key:
            _window_of(key, self.plan.src_count, self.plan.dst_count)
        return key

    @property
    def _has_groups(self) -> bool:
        return max(self.plan.src_count, self.plan.dst_count) > MOST_SHOWN

    @property
    def _window(self) -> Window | None:
        return _window_of(self.opened, self.plan.src_count, self.plan.dst_count) if self.opened else None

    def _open(self) -> None:
        """Open the selected group; of the other side stays what is shown."""
        counts = self.plan.src_count, self.plan.dst_count
        sources, destinations = _window_of(self.selected, *counts)
        opened_from = self._opened_from if self.opened else self.selected
        if self._window is not None and self.selected.startswith("train"):
            destinations = self._window[1]
        if self._window is not None and self.selected.startswith("infer"):
            sources = self._window[0]
        first, second = (f"{cards.start}-{cards.stop - 1}" for cards in (sources, destinations))
        self.opened = f"move:{first}>{second}"
        self._opened_from = opened_from
        # A button that was pressed and is disabled would leave the keyboard nowhere.
        self.back.focus()

    def _forget_group(self, change: Any) -> None:
        """A group that was opened by code was not selected before."""
        if not change["old"]:
            self._opened_from = ""

    def _go_back(self) -> None:
        """Show all cards, and select the group that was opened first."""
        self.opened, self.selected = "", self._opened_from
        (self.order if self.open.disabled else self.open).focus()

    def _say_groups(self) -> None:
        self.open.disabled = "-" not in self.selected
        self.back.disabled = not self.opened

    @property
    def traffic(self) -> NDArray[np.int64]:
        """The bytes that are shown, int64, shape (source cards, destination cards)."""
        if self.step:
            return self._steps[self.step - 1].traffic
        if not self.parameter:
            return self.plan.traffic
        tensor = self.plan[self.parameter]
        out = np.zeros((self.plan.src_count, self.plan.dst_count), np.int64)
        np.add.at(out, (tensor.pieces.src_rank, tensor.pieces.dst_rank), tensor.nbytes)
        return out

    def _redraw(self) -> None:
        traffic = self.traffic
        self._link(traffic)
        self.picture.show(self._live(), self._sentences, self._partners, still=self._still())
        self._say_step()

    def _title(self) -> str:
        if self.step:
            names = self._steps[self.step - 1].names
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"step {self.step} of {len(self._steps)}: {names[0]}{more}"
        sender, receiver = ("file", "rank") if self._sides is FILES else ("training card", "inference card")
        sides = f"{counted(self.plan.src_count, sender)} to {counted(self.plan.dst_count, receiver)}"
        return f"{self.parameter or 'all tensors'}: {sides}"

    def _svg(self, limit: int) -> str:
        given, place, window = (self.traffic, self._title()), self.plan.placement, self._window
        if self.kind.value == "Bands":
            return bands_svg(*given, placement=place, max_cards=limit, window=window, sides=self._sides)
        return traffic_svg(*given, placement=place, max_cells=limit, window=window, sides=self._sides)

    def _live(self) -> Drawing:
        return Drawing(self._svg(MOST_SHOWN), self._title())

    def _still(self) -> Drawing:
        return Drawing(stored(lambda cards: self._svg(min(cards, MOST_SHOWN))), self._title())

    def _say_step(self) -> None:
        if not self._steps:
            why = "too many tensors to go through one by one" if len(self.plan) else "no steps"
            self.at.value = f"<small>{why}</small>"
            return
        done = sum(step.nbytes for step in self._steps[: self.step])
        total = sum(step.nbytes for step in self._steps)
        words = "all steps together"
        if self.step:
            here = format_bytes(self._steps[self.step - 1].nbytes)
            words = f"{here} in this step; with it {format_bytes(done)} of {format_bytes(total)} are done"
        self.at.value = f'<span role="status">{escape(words)}</span>'

    def link(self, view: LayoutView) -> None:
        """Keep a `LayoutView` of the same strategies in step: the tensor, and the chosen card.

        A chosen move chooses, over there, the card that gives.
        """
        self.observe(self.errors.guard(lambda change: self._tell(view, change)), ["parameter", "selected"])
        view.observe(self.errors.guard(self._hear), ["parameter", "selected"])

    def _tell(self, view: LayoutView, change: Any) -> None:
        name, value = change["name"], change["new"]
        if name == "parameter" and value in view.parameters:
            view.parameter = value
        if name == "selected":
            move = value.removeprefix("move:").split(">")[0]
            key = f"train:{move}" if value.startswith("move:") else value
            if not key or key in view.picture.sentences:
                view.selected = key

    def _hear(self, change: Any) -> None:
        name, value = change["name"], change["new"]
        if name == "parameter" and value in self.plan:
            self.parameter = value
        # A move stays chosen here when its sender is chosen there.
        stays = self.selected.startswith("move:") and value in self.linked
        if name == "selected" and not stays and (not value or value in self._sentences):
            self.selected = value

    @property
    def linked(self) -> tuple[str, ...]:
        """The keys that light up with the selected one."""
        return self._partners.get(self.selected, ())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What someone should know before the plan is run."""
        return warnings_of(self.plan)

    @property
    def static(self) -> Drawing:
        """The picture as it stands where there is no kernel."""
        return self.picture.still

    def __repr__(self) -> str:
        plan = self.plan
        words = f"moved {format_bytes(plan.moved_bytes)}, least possible {format_bytes(plan.bound_bytes)}"
        cards = f"{plan.src_count:,} -> {counted(plan.dst_count, 'card')}"
        return f"PlanView({counted(len(plan), 'tensor')}, {cards}, {words})"


def _window_of(key: str, src_count: int, dst_count: int) -> Window:
    """The cards of a group by its key; one side alone comes with all cards of the other.

    Raises
    ------
    LayoutError
        If there are no such cards.
    """
    side, _, cards = key.partition(":")
    sides = {"train": (cards, ""), "infer": ("", cards), "move": tuple(cards.split(">"))}.get(side, ())
    try:
        sources, destinations = (
            _run_of(cards, count) for cards, count in zip(sides, (src_count, dst_count), strict=True)
        )
    except ValueError as err:
        given = Option("opened", key)
        raise LayoutError(
            f"{given} is no group of {src_count} training and {dst_count} inference cards; "
            'write "train:0-7", "infer:0-7" or "move:0-7>0-7"',
            given,
        ) from err
    return sources, destinations


def _run_of(cards: str, count: int) -> range:
    """The cards of "0-7" or "3"; all for ""."""
    first, _, last = cards.partition("-")
    found = range(int(first), int(last or first) + 1) if cards else range(count)
    if not found or found.start < 0 or found.stop > count:
        raise ValueError(cards)
    return found


def _nbytes(plan: ReshardPlan, name: str) -> int:
    return int(plan.class_named(name).sizes.sum())


def _summary(plan: ReshardPlan, sides_are: object) -> str:
    """The sums and the warnings."""
    moved, bound = plan.moved_bytes, plan.bound_bytes
    ratio = f" ({moved / bound:.2f})" if bound else ""
    most = format_bytes(int(plan.needed_bytes.max(initial=0)))
    if sides_are is FILES:
        sides = f"{counted(plan.src_count, 'file')} -> {counted(plan.dst_count, 'rank')}"
        sums = f"{format_bytes(int(plan.needed_bytes.sum()))} in all; a rank ends with at most {most}"
    else:
        sides = f"{plan.src_count:,} -> {counted(plan.dst_count, 'card')}"
        sums = (
            f"moved {format_bytes(moved)}, least possible {format_bytes(bound)}{ratio}; a card ends with at "
            f"most {most}"
        )
    lines = [f"{counted(len(plan), 'tensor')}, {sides}, {counted(plan.pieces, 'piece')}", sums]
    if not len(plan):
        lines = ["This plan has no tensors: there is nothing to move. Was everything left out by select=?"]
    warned = "".join(f"<li>{escape(text)}</li>" for text in warnings_of(plan))
    warned = f"<p><b>Before you run it</b></p><ul>{warned}</ul>" if warned else ""
    return "".join(f"<div>{escape(line)}</div>" for line in lines) + warned
