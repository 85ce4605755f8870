"""The cards of a group: who is there, at work, with how many bytes; kill one on purpose and see it come back."""

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets
import traitlets

from ..arguments import checked
from ..cards import CardGroup, GroupState, kill_card, recover, state_of
from ..display import counted, format_bytes
from ..errors import LayoutError, Option
from ..text import escape
from ..views import CardBytes, Drawing, memory_svg, table_html
from .parts import TURN, Control, Panel, Picture, Snapshot, Work, error_html, still_of

__all__ = ["CardGroupView"]

WATCH_SECONDS = 1.0
MOST_ROWS = 32


@checked
class CardGroupView(Panel):
    """Shows a card group as it is, and loses a card on purpose.

    Parameters
    ----------
    group
        The cards.

    Attributes
    ----------
    selected : str
        "card:2" for the card that is chosen, "" for none. It may be set.
    cards : GroupState, or None
        What was last seen; None where the group could not be asked.

    Raises
    ------
    ArgumentTypeError
        If it is no card group.

    Examples
    --------
    >>> with CardGroup(2) as group:
    ...     CardGroupView(group)
    CardGroupView(2 cards in this process: 2 there, 0 at work, 0 B held)
    """

    selected = traitlets.Unicode()
    _watching = threading.Event()

    def __init__(self, group: CardGroup) -> None:
        self.group = group
        self.cards: GroupState | None = None
        self._before: dict[int, int] = {}
        self._asked = self._doing = ""
        hint = "Hover or focus a card; Enter or a click chooses it, Escape lets go."
        self.picture = Picture(Drawing("", ""), {}, {}, hint=hint)
        super().__init__()
        self._work = Work(self.errors.guard(self._show_work, clears=False))
        self._make_parts()
        traitlets.link((self.picture, "selected"), (self, "selected"))
        self.observe(self.errors.guard(lambda change: self._say_choice()), "selected")
        self.refresh()

    def _make_parts(self) -> None:
        guard = self.errors.guard
        row = ipywidgets.Layout(flex_flow="row wrap")
        self.look = ipywidgets.Button(description="Look again", icon="refresh")
        self.watch = ipywidgets.ToggleButton(description="Watch", icon="eye", tooltip="Look every second")
        self.kill = ipywidgets.Button(description="Kill a card", icon="bolt", disabled=True)
        self.back = ipywidgets.Button(
            description="Recover", icon="medkit", tooltip="Bring back what lost cards held"
        )
        self.stop = ipywidgets.Button(description="Cancel", icon="stop", disabled=True)
        self.question = ipywidgets.HTML()
        self.yes = ipywidgets.Button(description="Yes, kill it", button_style="danger")
        self.no = ipywidgets.Button(description="No, leave it")
        self.confirm = ipywidgets.HBox(
            [self.question, self.yes, self.no], layout=ipywidgets.Layout(display="none")
        )
        self.line, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        self.look.on_click(guard(lambda button: self._begin("Looking at the cards", lambda control: None)))
        self.watch.observe(guard(lambda change: self._watch(change["new"])), "value")
        self.kill.on_click(guard(lambda button: self._ask()))
        self.yes.on_click(guard(lambda button: self._confirmed()))
        self.no.on_click(guard(lambda button: self._let_be()))
        self.stop.on_click(guard(lambda button: self._work.cancel()))
        self.back.on_click(guard(lambda button: self.recover()))
        self.children: tuple[Any, ...] = (
            ipywidgets.HBox([self.look, self.watch, self.kill, self.back, self.stop], layout=row),
            self.confirm,
            self.line,
            self.picture,
            self.table,
            self.errors,
        )

    def refresh(self) -> None:
        """Look at the cards once; a group that cannot be asked says why."""
        try:
            found, said = state_of(self.group), ""
        except Exception as err:  # in a thread nobody else would tell it
            found, said = None, error_html(err)
        with TURN:
            self.cards = found
            self.line.value = said if found is None else _line(found)
            self._draw()

    def _draw(self) -> None:
        found = self.cards
        if found is None:
            self.table.value = ""
            self.picture.show(Drawing("", repr(self)), {}, {})
            return
        rows = []
        for card in found.cards:
            if card.memory is None:
                rows.append(CardBytes(card.rank, self._before.get(card.rank, 0), None, None))
                continue
            before = self._before.setdefault(card.rank, card.memory.held_bytes)
            rows.append(CardBytes(card.rank, before, card.memory.peak_bytes, card.memory.held_bytes))
        title = f"Memory of {counted(len(rows), 'card')}"
        svg = memory_svg(rows, title, limit=found.limit_bytes, columns=("at first", "at most", "now"))
        sentences = {f"card:{card.rank}": f"{card}." for card in found.cards}
        self.picture.show(Drawing(svg, repr(self)), sentences, {})
        lines = [_cells(card) for card in found.cards[:MOST_ROWS]]
        self.table.value = table_html(
            ["card", "worker", "doing", "holds", "held at most"], lines, len(found.cards)
        )
        self._say_choice()

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> str:
        key: str = proposal["value"]
        if key and key not in self.picture.sentences:
            given = Option("selected", key)
            raise LayoutError(
                f'{given}: choose "card:0" to "card:{len(self.group) - 1}", or "" for none', given
            )
        return key

    @property
    def chosen(self) -> int | None:
        """The rank of the card that is chosen."""
        return int(self.selected.removeprefix("card:")) if self.selected else None

    def _say_choice(self) -> None:
        if self._asked and self._asked != self.selected:  # a question about another card
            self._let_be()
        gone = () if self.cards is None else self.cards.gone
        self.kill.disabled = self.chosen is None or self.chosen in gone
        self.kill.description = "Kill a card" if self.chosen is None else f"Kill card {self.chosen}"

    # A card lost on purpose

    def _ask(self) -> None:
        if self.chosen is None:
            return
        self._asked = self.selected
        self.question.value = (
            f'<div role="alert">Kill card {self.chosen}? Its worker ends as by a failure, with all that it holds; '
            "the next work, or Recover, brings it back.</div>"
        )
        self.confirm.layout.display = None

    def _let_be(self) -> None:
        self._asked = ""
        self.confirm.layout.display = "none"

    def _confirmed(self) -> None:
        asked = self._asked
        self._let_be()
        if asked:
            rank = int(asked.removeprefix("card:"))
            self._begin(f"Killing card {rank}", lambda control: kill_card(self.group, rank))

    def kill_card(self, rank: int) -> None:
        """Lose a card, without asking, and look at what is left.

        Raises
        ------
        CardError
            If it cannot be killed.
        """
        kill_card(self.group, rank)
        self.refresh()

    def recover(self) -> bool:
        """Begin to bring back what lost cards held; False if that goes on already."""
        return self._begin("Bringing back what was lost", lambda control: recover(self.group, control.attach))

    def _begin(self, words: str, job: Callable[[Control], None]) -> bool:
        """Do something with the cards, and look at them, in a thread: a card that hangs lets others wait for it."""

        def work(control: Control) -> None:
            try:
                job(control)
            finally:
                self.refresh()

        self._doing = words if not self._work.snapshot.at_work else self._doing
        return self._work.start(work)

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Wait until a recovery, a kill or a look has ended, at most `timeout` seconds; gives how it stands."""
        return self._work.wait(timeout)

    def _show_work(self, snapshot: Snapshot) -> None:
        self.back.disabled = self.yes.disabled = snapshot.at_work
        self.stop.disabled = snapshot.state != "running"
        if snapshot.at_work:
            self.line.value = f'<div role="status">{self._doing}: {snapshot.seconds:.1f} s.</div>'
        if snapshot.error is not None and snapshot.state != "cancelled":
            raise snapshot.error  # to the line for errors, where no look at the cards wipes it out

    # Looking now and then

    def _watch(self, wanted: bool) -> None:
        self._watching.set()
        if wanted:
            self._watching = threading.Event()
            threading.Thread(target=self._keep_looking, args=(self._watching,), daemon=True).start()

    def _keep_looking(self, stop: threading.Event) -> None:
        """Until it is stopped, or the group is closed."""
        while not stop.wait(WATCH_SECONDS):
            if not self._work.snapshot.at_work:
                self.refresh()
            if self.cards is None:
                self.watch.value = False

    def close(self) -> None:
        """Stop watching, and be shown no more."""
        self._watching.set()
        super().close()

    @property
    def static(self) -> Drawing:
        """The cards as they were last seen."""
        return still_of(self.picture.still.svg, repr(self))

    def __repr__(self) -> str:
        name = repr(self.group).removeprefix("CardGroup(").removesuffix(")")
        if self.cards is None:
            return f"CardGroupView({name})"
        there = [card for card in self.cards.cards if card.there]
        held = sum(card.memory.held_bytes for card in there if card.memory)
        busy = sum(card.busy for card in there)
        return f"CardGroupView({name}: {len(there)} there, {busy} at work, {format_bytes(held)} held)"


def _line(found: GroupState) -> str:
    """What is to be known at a glance."""
    silent = [card.rank for card in found.cards if card.there and card.memory is None]
    if found.gone:
        names = ", ".join(map(str, found.gone))
        one = len(found.gone) == 1
        who = f"Card {names} is gone." if one else f"Cards {names} are gone."
        words = "puts another worker in its place and brings back what it held."
        if not one:
            words = "puts other workers in their places and brings back what they held."
        return f'<div role="alert">{escape(f"{who} Recover, or the next work, {words}")}</div>'
    busy = sum(card.busy for card in found.cards)
    count = counted(len(found.cards), "card")
    words = f"{count}, all there; {busy} at work." if busy else f"{count}, all there and idle."
    if silent:
        words += (
            f" Card {', '.join(map(str, silent))} did not answer in time: what is held there is not known."
        )
    elif not any(card.memory and card.memory.held_bytes for card in found.cards):
        words += " They hold nothing yet: load a checkpoint, or train."
    return f'<div role="status">{escape(words)}</div>'


def _cells(card: Any) -> list[str]:
    memory = card.memory
    held, peak = (format_bytes(memory.held_bytes), format_bytes(memory.peak_bytes)) if memory else ("?", "?")
    worker = "there" if card.there else "gone"
    doing = ("at work" if card.busy else "idle") if card.there else ""
    return [str(card.rank), worker, doing, held, peak]
