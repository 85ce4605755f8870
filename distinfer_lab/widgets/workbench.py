"""The four steps as one page: bring or train, lay out, reshard, predict."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import traitlets

from ..arguments import checked
from ..cards import CardGroup
from ..checkpoint import Checkpoint
from ..errors import ContextError
from ..flow.code_file import write_code
from ..flow.session import STEPS, Session
from ..flow.steps import Opened
from ..net import Tensor
from ..text import escape
from ..views import Drawing, checkpoint_html
from .layout_editor import LayoutEditor
from .layout_view import LayoutView
from .parts import FolderChooser, Later, Panel, Picture, StepTile, close_all, steps_drawing
from .plan_view import PlanView
from .predict_panel import PredictPanel
from .run_panel import RunPanel

__all__ = ["Workbench"]

TITLES = {
    "source": "Train or bring",
    "layout": "Lay out",
    "reshard": "Reshard",
    "predict": "Predict",
}
TRAIN, OPEN = "Train the sample", "Open a folder"
ON_CARDS, AS_FILES = "Predict on cards", "Write files"
MOST_LINES = 24
"""Of code that are shown without scrolling."""
NEW_TOKENS = 8


@checked
class Workbench(Panel):
    """A page that takes a checkpoint through the four steps, and gives the code that does the same.

    Parameters
    ----------
    session
        What was done so far: another page on the same session shows the same. None: a new one.
    cards
        A group for all steps of a new session; by default each step makes an embedded one.
    folder
        Where the choice of a folder begins.

    Attributes
    ----------
    session : Session
        What was done, and its results.
    step : str
        The step that is shown: "source", "layout", "reshard" or "predict". It may be set.

    Raises
    ------
    ArgumentTypeError, ContextError
        If the session is none, or comes with cards.

    Examples
    --------
    >>> Workbench()
    Workbench(Train or bring: next, Lay out: not ready, Reshard: not ready, Predict: not ready)
    """

    step = traitlets.Enum(STEPS, default_value="source")
    # A page that is refused is closed too.
    _is_own = False
    _unwatch: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        session: Session | None = None,
        *,
        cards: CardGroup | None = None,
        folder: str | os.PathLike[str] = ".",
    ) -> None:
        if session is not None and cards is not None:
            raise ContextError("cards are for a new session; the given session has its own")
        self.session = Session(cards) if session is None else session
        self._is_own = session is None
        self._code = ""
        self._shown: dict[str, int] = {}
        self.picture = Picture(self._steps(), {}, {}, hint="The four steps; choose one to see it.")
        super().__init__()
        self.titles = {step: ipywidgets.HTML() for step in STEPS}
        self.boxes = {step: ipywidgets.VBox() for step in STEPS}
        self._make_source(os.fspath(folder))
        self._make_code()
        parts = [part for step in STEPS for part in (self.titles[step], self.boxes[step])]
        self.children: tuple[Any, ...] = (self.picture, *parts, *self._code_parts, self.errors)
        self.picture.observe(self.errors.guard(self._choose), "selected")
        self.observe(self.errors.guard(lambda change: self.refresh()), "step")
        self._unwatch = self.session.watch(self.errors.guard(self.refresh, clears=False))
        self.refresh()

    # Step 1

    def _make_source(self, folder: str) -> None:
        guard = self.errors.guard
        self.kind = ipywidgets.ToggleButtons(options=[TRAIN, OPEN], description="Checkpoint")
        self.train_cards = self._cards_field(8)
        self.training = RunPanel(self._train, verb="Train on cards")
        self.chooser = FolderChooser(folder, self.errors)
        self.opening = RunPanel(self._open, verb="Open")
        self.found = ipywidgets.HTML()
        self.sources = {
            TRAIN: ipywidgets.VBox([self.train_cards, self.training]),
            OPEN: ipywidgets.VBox([self.chooser, self.opening]),
        }
        self.boxes["source"].children = (self.kind, *self.sources.values(), self.found)
        for panel in (self.training, self.opening):
            panel.observe(guard(lambda change: self._ended(change, "source", "layout")), "state")
        self.kind.observe(guard(lambda change: self.refresh()), "value")

    def _cards_field(self, count: int) -> Any:
        """How many cards a step makes; with a given group that is settled."""
        given = self.session.cards
        count = count if given is None else len(given)
        return ipywidgets.BoundedIntText(
            description="Cards", value=count, min=1, max=max(count, 128), disabled=given is not None
        )

    # The checkpoint that comes of it is shown below, whoever opened it.

    def _train(self, control: Any) -> None:
        self.session.train(int(self.train_cards.value), on_start=control.attach)

    def _open(self, control: Any) -> None:
        chosen = self.chooser
        self.session.open(
            chosen.path,
            chosen.strategy or None,
            control.cancelled,
            file=chosen.file,
            step=chosen.step,
        )

    def open_folder(
        self,
        folder: str | os.PathLike[str],
        strategy: str | os.PathLike[str] | None = None,
        *,
        file: str | Sequence[str] | None = None,
        step: str | int | None = None,
    ) -> None:
        """Open a checkpoint folder, and show the step of its layout.

        Parameters
        ----------
        file, step
            Which files, and which save, see `open_checkpoint`.

        Raises
        ------
        CheckpointError, CheckpointFileError
            See `open_checkpoint`.
        """
        self.session.open(folder, strategy, file=file, step=step)
        self.kind.value = OPEN
        self.step = "layout"
        self.refresh()

    # What each step shows: made again when what it depends on has changed

    def refresh(self) -> None:
        """Show what the session has come to."""
        tiles = self._tiles()
        self.picture.show(
            self._steps(), {f"step:{tile.key}": f"{tile.title}: {tile.word}." for tile in tiles}, {}
        )
        with self.picture.hold_trait_notifications():
            self.picture.selected = f"step:{self.step}"
        for number, tile in enumerate(tiles):
            here = tile.key == self.step
            reason = "" if tile.done else escape(tile.waiting)
            state = "✓ done" if tile.done else tile.word
            self.titles[tile.key].value = (
                f"<h3 style='margin: 0'>{number + 1}. {tile.title} <small>{state}</small></h3>"
                f"<div role='status'>{reason}</div>"
            )
            if not here:
                self.boxes[tile.key].layout.display = "none"
        self._show_code()
        # Filled before it is shown: a button of what was there before must not be pressed.
        try:
            self._fill(next(tile for tile in tiles if tile.key == self.step))
        finally:
            self.boxes[self.step].layout.display = None

    def _show_code(self) -> None:
        code = self.session.code()
        if code != self._code:  # what someone has written into the field stays until then
            self._code = self.code.value = code
            self.code.rows = min(code.count("\n") + 2, MOST_LINES)

    def _fill(self, tile: StepTile) -> None:
        if tile.waiting and not tile.done:
            self._put(tile.key, ())
            return
        make = {
            "source": self._source,
            "layout": self._layout,
            "reshard": self._reshard,
            "predict": self._predict,
        }
        make[tile.key]()

    def _source(self) -> None:
        _show_one(self.sources, self.kind.value)
        opened = self.session.opened
        if opened is None:
            self.found.value = ""
            return
        here = f"<p><b>The checkpoint in the folder {escape(opened.folder)}</b></p>"
        # What scrolls can be reached by the keyboard.
        wide = '<div class="wide" role="region" aria-label="The checkpoint" tabindex="0" '
        wide += 'data-lm-suppress-shortcuts="true">'
        self.found.value = f"{wide}{here}{checkpoint_html(opened.checkpoint)}</div>"

    def _is_new(self, part: str, basis: str) -> bool:
        """Whether a part of the page is still to be made for what a step has come to; from then on it is made."""
        version = self.session.version(basis)
        if self._shown.get(part) == version:
            return False
        self._shown[part] = version
        return True

    def _put(self, step: str, parts: tuple[Any, ...]) -> None:
        """Show other parts in a step; what was there stops its work and is gone."""
        before, self.boxes[step].children = self.boxes[step].children, parts
        close_all(before)

    def _layout(self) -> None:
        opened = self.session.opened
        assert opened is not None
        if self._is_new("ways", "source"):
            self._put("layout", self._ways_to_lay_out(opened))
        if opened.predictor is not None and self._is_new("layouts", "layout"):
            self._show_layouts(opened.checkpoint)

    def _ways_to_lay_out(self, opened: Opened) -> tuple[Any, ...]:
        """By the net for cards, by hand for files; where both can be, there is a choice."""
        if opened.trained:
            return self._layout_of_net()
        of_files = self._layout_of_files(opened.checkpoint)
        if opened.predictor is None:
            return of_files
        ways = {
            ON_CARDS: ipywidgets.VBox(self._layout_of_net()),
            AS_FILES: ipywidgets.VBox(of_files),
        }
        self.goal = ipywidgets.ToggleButtons(options=list(ways), description="In the end")
        _show_one(ways, ON_CARDS)
        self.goal.observe(self.errors.guard(lambda change: _show_one(ways, change["new"])), "value")
        return (self.goal, *ways.values())

    def _layout_of_net(self) -> tuple[Any, ...]:
        self.predict_cards = self._cards_field(4)
        self.inferring = RunPanel(
            lambda control: self.session.infer_layout(int(self.predict_cards.value), control.cancelled),
            verb="Lay out",
        )
        self.inferring.observe(
            self.errors.guard(lambda change: self._ended(change, "layout", "layout")), "state"
        )
        self.layouts = ipywidgets.VBox()
        self._shown.pop("layouts", None)
        return (self.predict_cards, self.inferring, self.layouts)

    def _show_layouts(self, checkpoint: Checkpoint) -> None:
        found, before = self.session.laid_out, self.layouts.children
        parts: list[Any] = []
        if found is not None and found.model is not None:
            parts = [self._next("reshard")]
            if set(checkpoint.strategy) & set(found.strategy):  # files may name their tensors in another way
                parts.append(LayoutView(checkpoint.strategy, found.strategy))
        self.layouts.children = parts
        close_all(before)

    def _layout_of_files(self, checkpoint: Checkpoint) -> tuple[Any, ...]:
        self.cutting = Later("The plan of a first layout is being made", lambda: self._edited(checkpoint))
        return (self.cutting,)

    def _edited(self, checkpoint: Checkpoint) -> tuple[Any, ...]:
        self.editor = LayoutEditor(checkpoint)
        self.use = ipywidgets.Button(description="Use this layout", icon="check")
        self.use.on_click(self.errors.guard(lambda button: self._use()))
        return (self.editor, self.use)

    def _use(self) -> None:
        self.session.set_layout(self.editor.strategy)
        self.step = "reshard"

    def _reshard(self) -> None:
        if not self._is_new("reshard", "layout"):
            return
        opened, laid_out = self.session.opened, self.session.laid_out
        assert opened is not None
        assert laid_out is not None
        if laid_out.model is not None:
            self.moving = RunPanel(lambda control: self.session.load(control.attach), verb="Load")
            parts: tuple[Any, ...] = (self.moving,)
        else:
            source = opened.folder.rstrip("/")
            self.out = ipywidgets.Text(
                description="Write to",
                value=f"{source}_cut_anew",
                layout=ipywidgets.Layout(width="min(100%, 620px)"),
            )
            self.overwrite = ipywidgets.Checkbox(description="Replace an earlier output", value=False)
            self.moving = RunPanel(self._write, verb="Write", resumes=True)
            self.planning = Later("The plan is being made", lambda: (PlanView(self.session.plan()),))
            parts = (self.planning, self.out, self.overwrite, self.moving)
        self.moving.observe(
            self.errors.guard(lambda change: self._ended(change, "reshard", "predict")), "state"
        )
        self._put("reshard", parts)

    def _write(self, control: Any) -> Any:
        if not self.out.value.strip():
            raise ContextError("choose a new folder to write to")
        watching = {"progress": control.progress, "cancelled": control.cancelled}
        return self.session.write(self.out.value, overwrite=bool(self.overwrite.value), **watching)

    def _predict(self) -> None:
        opened, laid_out = self.session.opened, self.session.laid_out
        model = None if laid_out is None else laid_out.model
        predictor = None if opened is None else opened.predictor
        if model is None or predictor is None or not self._is_new("predict", "reshard"):
            return
        self.predicting = PredictPanel(
            model,
            predictor.data.value,
            max_new_tokens=NEW_TOKENS if predictor.is_language_model else None,
            within=self.session.context,
        )
        self.predicting.observe(self.errors.guard(self._predicted), "state")
        self._put("predict", (self.predicting,))

    def _predicted(self, change: Any) -> None:
        panel: PredictPanel = change["owner"]
        if change["new"] == "done" and panel.prediction is not None:
            output = panel.prediction.output
            assert isinstance(output, Tensor)  # the nets that a session knows have one output
            self.session.record_prediction(output, panel.model, panel.prediction.code)

    def _next(self, step: str) -> Any:
        button = ipywidgets.Button(description=f"On to step {STEPS.index(step) + 1}", icon="arrow-right")
        button.on_click(self.errors.guard(lambda button: setattr(self, "step", step)))
        return button

    def _ended(self, change: Any, step: str, following: str) -> None:
        """Go on where a step has ended well, unless another one is looked at by now; stay where it did not."""
        if change["new"] == "done" and self.step == step and not self.session.blocked_reason(following):
            self.step = following
        if change["new"] in ("done", "failed", "cancelled"):
            self.refresh()

    def _choose(self, change: Any) -> None:
        self.step = change["new"].removeprefix("step:") or self.step
        if not change["new"]:  # one of the steps is always shown
            self.picture.selected = f"step:{self.step}"

    def close(self) -> None:
        """Stop what goes on, and be shown no more; a session that was made for this page ends."""
        self._unwatch()
        super().close()
        if self._is_own:
            self.session.close()

    # The code

    def _make_code(self) -> None:
        wide = ipywidgets.Layout(width="98%")
        self.code: Any = ipywidgets.Textarea(description="As code", rows=10, layout=wide)
        self.file = ipywidgets.Text(description="Save as", value="workbench.ipynb")
        self.keep = ipywidgets.Button(description="Save the code", icon="save")
        self.kept = ipywidgets.HTML()
        self.keep.on_click(self.errors.guard(lambda button: self.save_code(self.file.value)))
        row = ipywidgets.HBox(
            [self.file, self.keep, self.kept], layout=ipywidgets.Layout(flex_flow="row wrap")
        )
        head = ipywidgets.HTML("<h3 style='margin: 0'>The code that does what was done here</h3>")
        self._code_parts: tuple[Any, ...] = (head, self.code, row)

    def save_code(self, file: str | os.PathLike[str]) -> None:
        """Write the code that does the same, as it stands in the field, to a new notebook or script.

        Raises
        ------
        CheckpointFileError
            If the file exists, or cannot be written.
        """
        self.kept.value = ""
        written = write_code(self.code.value, file)
        self.kept.value = f'<div role="status">{escape(str(written))} is written.</div>'

    def _tiles(self) -> list[StepTile]:
        session = self.session
        return [
            StepTile(step, TITLES[step], session.done(step), session.blocked_reason(step)) for step in STEPS
        ]

    def _steps(self) -> Drawing:
        return steps_drawing(self._tiles())

    @property
    def static(self) -> Drawing:
        """The four steps and how they stand."""
        return self._steps()

    def __repr__(self) -> str:
        return f"Workbench({self._steps().alt})"


def _show_one(boxes: Mapping[str, Any], name: str) -> None:
    """Show one of some boxes, and hide the others."""
    for key, box in boxes.items():
        box.layout.display = None if key == name else "none"
