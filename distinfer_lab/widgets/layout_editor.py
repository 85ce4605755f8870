"""Make a layout: choose the mesh and how each dim is cut, and see at once what it costs or why it cannot be."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import ipywidgets
import traitlets

from ..arguments import checked
from ..checkpoint import Checkpoint
from ..display import counted, format_bytes
from ..errors import LayoutError, Option, in_lines
from ..layout import Mesh, Strategy
from ..layout.dialects import jax, mindspore, plain, torch
from ..layout.dialects.mindspore import strategy_from_tuples
from ..layout.notation import Sharding, format_dims, format_sharding
from ..reshard import Assessment, Cut, Draft
from ..sizes import BUFFER_BYTES, size_of
from ..text import escape, printable
from ..views import Drawing
from .parts import LayoutPair, Panel, Picture, SearchList, still_of

__all__ = ["LayoutEditor"]

DIALECTS: dict[str, Callable[[Strategy], str]] = {
    "MindSpore": mindspore.strategy_text,
    "JAX": jax.strategy_text,
    "torch": torch.strategy_text,
    "distinfer_lab": plain.strategy_text,
}
WHOLE = "whole"
MOST_REASONS = 8
MOST_CARDS = 1 << 14


@checked
class LayoutEditor(Panel):
    """Edits the destination of a strategy or a checkpoint, and gives a `Strategy`.

    Parameters
    ----------
    source
        Who holds what now: a strategy with full shapes, a mapping of MindSpore's layout tuples, or a
        checkpoint.
    draft
        Where to begin; by default as the source lies.
    buffer
        The buffer memory of each card, in addition to its shards, in bytes or as "64 MiB".
    card_memory
        The memory of a card; what needs more is a reason why not. None: no limit.

    Attributes
    ----------
    draft : Draft
        The mesh and the cuts. It may be set, which can be undone.
    parameter : str
        The tensor that is shown. It may be set.
    assessment : Assessment
        What the draft costs, and every reason why not.

    Raises
    ------
    LayoutError
        If a shape is not known, or the source has no tensors.

    Examples
    --------
    >>> from distinfer_lab.layout import Layout
    >>> tp = Mesh(tp=4)
    >>> editor = LayoutEditor(Strategy({"w": Layout(tp, "- tp")}, {"w": (96, 16)}))
    >>> editor.on("tp=2").cut("w", "tp -")
    LayoutEditor(1 tensor on Mesh(tp=2), moved 4.5 KiB, peak 32 MiB a card)
    >>> editor.strategy
    Strategy of 1 parameter on 2 ranks
      w  [96, 16]  tp -  Mesh(tp=2)
    """

    draft = traitlets.Instance(Draft)
    parameter = traitlets.Unicode()

    def __init__(
        self,
        source: Strategy | Checkpoint | Mapping[str, Sequence[Any]],
        *,
        draft: Draft | None = None,
        buffer: int | str = BUFFER_BYTES,
        card_memory: int | str | None = None,
    ) -> None:
        self.source, self._options = _source(source)
        if not len(self.source):
            raise LayoutError("the source has no tensors, so there is nothing to cut")
        self._options["buffer_bytes"] = size_of(buffer, "buffer")
        if card_memory is not None:
            self._options["limit_bytes"] = size_of(card_memory, "card_memory")
        self._past: list[Draft] = []
        self._future: list[Draft] = []
        self._showing = False
        self._pair: LayoutPair | None = None
        first = Draft.like(self.source) if draft is None else draft
        self.assessment = first.assess(self.source, **self._options)
        self.picture = Picture(Drawing("", ""), {}, {})
        super().__init__()
        self._make_parts()
        with self.hold_trait_notifications():
            self.draft = first
            self.parameter = next(iter(self.source))
        self.observe(self.errors.guard(self._assess), "draft")
        self.observe(self.errors.guard(lambda change: self._show_parameter()), "parameter")
        self._show()
        traitlets.link((self, "parameter"), (self.choice, "value"))
        self._show_parameter()

    def _make_parts(self) -> None:
        wide = ipywidgets.Layout(width="min(100%, 520px)")
        row = ipywidgets.Layout(flex_flow="row wrap")
        self.mesh = ipywidgets.Text(
            description="Mesh", continuous_update=False, placeholder="dp=2,tp=4", layout=wide
        )
        self.back = ipywidgets.Button(description="Undo", icon="undo")
        self.again = ipywidgets.Button(description="Redo", icon="repeat")
        self.choice = SearchList([], self.errors, description="Tensor")
        self.match = ipywidgets.Text(description="Cut of", continuous_update=False, layout=wide)
        self.match.tooltip = "a tensor's name, or a pattern such as *.weight"
        self.dims = ipywidgets.HBox(layout=row)
        self.sharding = ipywidgets.Text(description="Sharding", continuous_update=False, layout=wide)
        self.sharding.tooltip = (
            'the same as text: "dp+tp -", uneven "tp(5,3) -", fused "tp[8|4|4] -", optimizer shards "tp/2 -"'
        )
        self.meant = ipywidgets.HTML()
        self.forget = ipywidgets.Button(description="Forget", icon="eraser", tooltip="Take this cut back")
        self.summary, self.reasons = ipywidgets.HTML(), ipywidgets.HTML()
        self.dialect = ipywidgets.ToggleButtons(options=list(DIALECTS), description="As code")
        self.code = ipywidgets.Textarea(description="To copy", rows=8, layout=ipywidgets.Layout(width="98%"))
        self._observe_parts()
        self.children: tuple[Any, ...] = (
            ipywidgets.HBox([self.mesh, self.back, self.again], layout=row),
            self.choice,
            ipywidgets.HBox([self.match, self.forget], layout=row),
            self.dims,
            self.sharding,
            self.meant,
            self.summary,
            self.reasons,
            self.picture,
            self.dialect,
            self.code,
            self.errors,
        )

    def _observe_parts(self) -> None:
        guard = self.errors.guard
        self.mesh.observe(guard(self._set_mesh), "value")
        self.back.on_click(guard(lambda button: self.undo()))
        self.again.on_click(guard(lambda button: self.redo()))
        self.match.observe(guard(lambda change: self._show_dims()), "value")
        self.sharding.observe(guard(lambda change: self._set_sharding()), "value")
        self.forget.on_click(guard(lambda button: self._change(self.draft.without(self.match.value))))
        self.dialect.observe(guard(lambda change: self._show_code()), "value")

    # What can be done

    def on(self, mesh: str | Mesh) -> "LayoutEditor":
        """The same cuts on another mesh, given as one or as "dp=2,tp=4".

        Raises
        ------
        LayoutError
            If it is none, or has more than 16,384 cards: so many cannot be drawn and planned at each change.
        """
        wanted = Mesh.parse(mesh) if isinstance(mesh, str) else mesh
        if wanted.size > MOST_CARDS:
            raise LayoutError(
                f"{wanted!r} has {wanted.size:,} cards; the editor takes up to {MOST_CARDS:,}; use plan_reshard"
            )
        self._change(self.draft.on(wanted))
        return self

    def cut(self, match: str, dims: str) -> "LayoutEditor":
        """Shard the tensors of a name or a pattern so: ``"- tp"``, ``"tp[8|4|4] -"`` (see `layout/notation.py`)."""
        self._change(self.draft.cut(match, dims))
        return self

    def undo(self) -> None:
        """Take the last change back; no effect where there is none."""
        if self._past:
            self._future.append(self.draft)
            self._put(self._past.pop())

    def redo(self) -> None:
        """Make the change again that was taken back."""
        if self._future:
            self._past.append(self.draft)
            self._put(self._future.pop())

    @property
    def strategy(self) -> Strategy:
        """The destination.

        Raises
        ------
        LayoutError
            If it cannot be: every reason is listed.
        """
        if self.assessment.problems:
            raise LayoutError(
                in_lines(f"{name}: {why}" for name, why in self.assessment.problems.items()),
                parameter=next(iter(self.assessment.problems)),
            )
        assert self.assessment.strategy is not None
        return self.assessment.strategy

    def text(self, dialect: str) -> str:
        """The destination as code to copy, for "MindSpore", "JAX", "torch" or "distinfer_lab", which can say all.

        Raises
        ------
        LayoutError
            If the destination cannot be, or the notation cannot say it.
        """
        if dialect not in DIALECTS:
            given = Option("dialect", dialect)
            raise LayoutError(f"{given} is not one of {', '.join(DIALECTS)}", given)
        return DIALECTS[dialect](self.strategy)

    # How it goes on

    def _change(self, draft: Draft) -> None:
        if draft != self.draft:
            self._past.append(self.draft)
            self._future.clear()
            self._put(draft)

    def _put(self, draft: Draft) -> None:
        self._showing = True
        try:
            self.draft = draft
        finally:
            self._showing = False

    def _assess(self, change: Any) -> None:
        if not self._showing:
            self._past.append(change["old"])
            self._future.clear()
        self.assessment = self.draft.assess(self.source, **self._options)
        self._show()

    def _set_mesh(self, change: Any) -> None:
        if change["new"] != self.draft.mesh.text:
            self.on(change["new"])

    def _set_dims(self) -> None:
        if not self._showing_dims:
            chosen = tuple(box.value for box in self.dims.children)
            self._change(self.draft.cut(self.match.value, format_sharding(self._shown._replace(dims=chosen))))

    def _set_sharding(self) -> None:
        if not self._showing_dims:
            self._change(self.draft.cut(self.match.value, self.sharding.value))

    # How it is shown

    def _show(self) -> None:
        self.mesh.value = self.draft.mesh.text
        self.back.disabled, self.again.disabled = not self._past, not self._future
        self.choice.show(list(self.source), {name: self._label(name) for name in self.source})
        self.summary.value = _summary(self.assessment)
        self.reasons.value = _reasons(self.assessment.problems)
        if not any(Cut(self.match.value, "").fits(name) for name in self.source):
            self.match.value = self.parameter  # what nothing is called is not kept through a change
        self._show_dims()
        self._show_picture()
        self._show_code()

    def _label(self, name: str) -> str:
        found = self.assessment.problems.get(name)
        cut = self.draft.cut_of(name, len(self.source.shapes[name]))
        words = cut.dims if cut else WHOLE
        return f"{'✗ ' if found else ''}{name}  {list(self.source.shapes[name])}  {words}"

    def _show_parameter(self) -> None:
        if not self.parameter:
            return
        self.match.value = self.parameter
        self._show_dims()
        self._show_picture()

    _showing_dims = False
    _shown = Sharding(())

    def _show_dims(self) -> None:
        """A box for each dim of what is cut, with all that may cut it."""
        rule = Cut(self.match.value, "")
        fits = [name for name in self.source if rule.fits(name)]
        name = self.parameter if self.parameter in fits else next(iter(fits), "")
        self.forget.disabled, self.meant.value, self.sharding.disabled = True, "", not name
        if not name:
            self.dims.children = (ipywidgets.HTML(f"no tensor is called {escape(self.match.value)!r}"),)
            return
        shape = self.source.shapes[name]
        counts = self.draft.cut_of(name, len(shape))
        of_rule = next((cut for cut in self.draft.cuts if cut.match == rule.match), None)
        cut = (of_rule or counts) if rule.is_pattern else counts
        self.forget.disabled = cut is None or cut.match != rule.match
        if rule.is_pattern:
            alike = sum(len(self.source.shapes[other]) == len(shape) for other in fits)
            self.meant.value = (
                f"<div>{counted(alike, 'tensor')} with {counted(len(shape), 'dim')}; of the cuts that fit a tensor "
                "the last one counts.</div>"
            )
        elif cut is not None and cut.match != rule.match:
            self.meant.value = (
                f"<div>It follows the pattern {escape(cut.match)}; what is chosen here makes a cut of its own, which "
                "then counts.</div>"
            )
        self._show_sharding(cut.sharding if cut else Sharding(((),) * len(shape)), shape)

    def _show_sharding(self, sharding: Sharding, shape: tuple[int, ...]) -> None:
        """A box for each dim, and the same as text."""
        self._shown, chosen = sharding, sharding.dims
        self._showing_dims = True
        try:
            boxes = [box for box in self.dims.children if isinstance(box, ipywidgets.Dropdown)]
            if len(boxes) != len(chosen):
                boxes = [self._box() for _ in chosen]
            for dim, (box, axes) in enumerate(zip(boxes, chosen, strict=True)):
                box.description = f"dim {dim} ({shape[dim]})" if dim < len(shape) else f"dim {dim}"
                self._fill(box, axes)
            self.dims.children = tuple(boxes) or (ipywidgets.HTML("a single number: it has no dims to cut"),)
            self.sharding.value = format_sharding(sharding)
        finally:
            self._showing_dims = False

    def _box(self) -> Any:
        box = ipywidgets.Dropdown(options=[(WHOLE, ())])
        box.observe(self.errors.guard(lambda change: self._set_dims()), "value")
        return box

    def _fill(self, box: Any, axes: tuple[str, ...]) -> None:
        """All that may cut a dim, and what does. The boxes stay the same, so the focus does too."""
        names = self.draft.mesh.axis_names
        some = [
            tuple(found) for count in range(min(len(names), 3) + 1) for found in permutations(names, count)
        ]
        options = [(printable(format_dims((found,))) if found else WHOLE, found) for found in some]
        if axes not in some:
            options.append((f"{printable(format_dims((axes,)))} (not in this mesh)", axes))
        if tuple(options) != box.options:
            box.options = options
        box.value = axes

    def _show_picture(self) -> None:
        strategy, name = self.assessment.strategy, self.parameter
        self._pair = pair = None
        if strategy is not None and name and not (self.source[name].fused or strategy[name].fused):
            ranks = self.source.ranks, strategy.ranks
            pair = self._pair = LayoutPair(
                name, self.source[name], strategy[name], self.source.shapes[name], ranks
            )
        self.picture.layout.display = None if pair else "none"
        if pair is not None:
            links = pair.links()
            self.picture.show(pair.live(), links.sentences(), links.partners())

    def _show_code(self) -> None:
        try:
            self.code.value = self.text(self.dialect.value)
        except LayoutError as err:
            why = "It cannot be" if self.assessment.problems else f"{self.dialect.value} cannot say it"
            self.code.value = f"# {why}:\n# " + str(err).replace("\n", "\n# ")

    @property
    def static(self) -> Drawing:
        """The shown tensor before and after, as it stands where there is no kernel."""
        return still_of(self._pair.still().svg if self._pair else "", repr(self))

    def __repr__(self) -> str:
        found = self.assessment
        count = f"{counted(len(self.source), 'tensor')} on {self.draft.mesh!r}"
        if found.plan is None or found.problems:
            return f"LayoutEditor({count}, cannot be: {counted(len(found.problems), 'reason')})"
        peak = format_bytes(max(found.peak_bytes, default=0))
        return f"LayoutEditor({count}, moved {format_bytes(found.plan.moved_bytes)}, peak {peak} a card)"


def _source(given: Any) -> tuple[Strategy, dict[str, Any]]:
    """The strategy of a source, and what else a draft must know."""
    if isinstance(given, Checkpoint):
        return given.strategy, {
            "dtypes": {name: record.dtype for name, record in given.tensors.items()},
            "same_cards": not given.paths,
        }
    return (given if isinstance(given, Strategy) else strategy_from_tuples(given)), {}


def _summary(found: Assessment) -> str:
    """What it costs, in a line."""
    if found.plan is None:
        return ""
    plan = found.plan
    where = "where rank r stays on card r" if plan.placement else "to other cards, so that every byte travels"
    words = [
        f"{counted(len(plan), 'tensor')}, {plan.src_count:,} -> {counted(plan.dst_count, 'card')}",
        f"{where}: moved {format_bytes(plan.moved_bytes)}, least possible {format_bytes(plan.bound_bytes)}",
        f"of all tensors a card ends with at most {format_bytes(int(plan.needed_bytes.max(initial=0)))}",
        f"meanwhile it holds at most {format_bytes(max(found.peak_bytes, default=0))}, of which the buffer "
        f"for what comes and goes is {format_bytes(found.buffer_bytes)}",
    ]
    return f'<div role="status">{escape("; ".join(words))}</div>'


def _reasons(problems: Mapping[str, str]) -> str:
    """Why not, each with the tensor or card."""
    if not problems:
        return ""
    shown = list(problems.items())[:MOST_REASONS]
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in shown)
    rest = len(problems) - len(shown)
    more = f"<li>and {rest:,} more; tensors are marked ✗ in the list</li>" if rest else ""
    return f'<div role="alert"><b>This cannot be:</b><ul>{items}{more}</ul></div>'
