"""The four steps as one piece of work that remembers what was done: what comes next, and why it is not ready.

::

    session = Session()
    session.train(8)                  1  or session.bring("my_checkpoint", "strategy.ckpt")
    session.lay_out(4)                2  or session.lay_out_as(strategy)
    session.load()                    3  or session.plan().run("out")
    session.predict(data)             4
    session.code()                       the notebook that does the same

The sample, and a Hugging Face folder with its config.json, have a net, which is loaded and predicts. The
files of any checkpoint can be cut anew. Going back to a step forgets what came after it.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import CardGroup, Run
from ..checkpoint import Checkpoint, ConversionPlan, ReshardResult, check_beginnings, open_checkpoint
from ..errors import CheckpointError, ContextError, GraphError
from ..layout import Strategy
from ..net import Tensor
from ..net.models import FAMILIES
from . import session_code
from .code_file import write_code
from .context import auto_parallel_context
from .load import LoadResult, load_distributed_checkpoint
from .model import Model
from .placing import placed_net
from .predict_layout import PredictLayout
from .predictors import Predictor, of_folder, of_sample
from .sample import train_sample

__all__ = ["STEPS", "Session"]

STEPS = ("source", "layout", "reshard", "predict")
"""The four steps, in order."""


class Session:
    """What was done of the four steps, and the cards that it was done on.

    Parameters
    ----------
    cards
        A group for all steps. None: each step makes an embedded one of the size that it needs.

    Attributes
    ----------
    checkpoint : Checkpoint, or None
        What was trained or brought, opened.
    layout : PredictLayout, Strategy or None
        Who shall hold what.
    loaded : LoadResult, ReshardResult or None
        What came of the reshard.
    predictor : Predictor, or None
        The net that goes with the checkpoint, if it is known.
    model : Model, or None
        What predicts: the net on the cards for which it was laid out.
    prediction : Tensor, or None
        The latest one.
    folder : str
        Where the checkpoint lies, "" while there is none.
    cards : CardGroup, or None
        The group that was given.

    Notes
    -----
    Steps may be done in any threads. One that ends after another one has changed what it began with is an error,
    and changes nothing: what was done last counts. A step that fails changes nothing either.
    """

    def __init__(self, cards: CardGroup | None = None) -> None:
        self.cards = cards
        self._lock = threading.RLock()
        self._count = 0
        self._entered = dict.fromkeys(STEPS, 0)
        self._own: CardGroup | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lines: dict[str, list[str]] = {}
        self.checkpoint: Checkpoint | None = None
        self.layout: PredictLayout | Strategy | None = None
        self.loaded: LoadResult | ReshardResult | None = None
        self.model: Model | None = None
        self.prediction: Tensor | None = None
        self.predictor: Predictor | None = None
        self.trained = False
        self.folder = ""
        self._no_net = ""
        self._watching: list[Callable[[], None]] = []

    def watch(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have `tell()` called whenever a step is done, in the thread that did it, and at the end.

        Returns
        -------
        What ends that.
        """
        self._watching.append(tell)

        def end() -> None:
            if tell in self._watching:
                self._watching.remove(tell)

        return end

    def _tell(self) -> None:
        for tell in list(self._watching):
            tell()

    def entered(self, step: str) -> int:
        """A number of what a step has come to, another one each time; 0 while it is not done."""
        return self._entered[step]

    def _enter(self, step: str, begun: int, lines: list[str], **values: Any) -> None:
        """Let go of a step and of what came after it, and remember what it has come to.

        Raises
        ------
        ContextError
            If another step was done since `begun`.
        """
        with self._lock:
            if begun != self._count:
                raise ContextError(
                    "meanwhile another step was done here, which counts; this one is dropped: do it again if need be"
                )
            self._forget_from(step)
            for name, value in values.items():
                setattr(self, name, value)
            self._lines[step] = lines
            self._entered[step] = self._count
        self._tell()

    def close(self) -> None:
        """End the cards that were made here, and forget what was trained here."""
        with self._lock:
            self._forget_from("source")
        self._tell()

    def why_not(self, step: str) -> str:
        """Why a step cannot be done yet, as a sentence; "" if it can.

        Raises
        ------
        ContextError
            If there is no such step.
        """
        if step not in STEPS:
            raise ContextError(f"step={step!r} is not one of {', '.join(STEPS)}")
        if step == "layout" and self.checkpoint is None:
            return "There is no checkpoint yet: train the sample, or open a folder."
        if step == "reshard" and self.layout is None:
            return self.why_not("layout") or "The destination is not known yet: do step 2, the layout."
        if step == "predict" and self.checkpoint is not None and self.predictor is None:
            return self.why_not("reshard") or (
                f"This checkpoint came without its net ({self._no_net}), so there is nothing to predict with: "
                f"put the config.json of a known family ({', '.join(FAMILIES)}) beside its files; or build the "
                "net, and load what step 3 wrote with load_distributed_checkpoint."
            )
        if step == "predict" and self.layout is not None and self.model is None:
            return "What step 3 writes are files: to predict, lay the net out for cards in step 2."
        if step == "predict" and self.loaded is None:
            return self.why_not("reshard") or "The weights are not on the cards yet: run step 3."
        return ""

    def done(self, step: str) -> bool:
        """Whether a step has been done."""
        found: Mapping[str, Any] = {
            "source": self.checkpoint,
            "layout": self.layout,
            "reshard": self.loaded,
            "predict": self.prediction,
        }
        return found[step] is not None

    def _need(self, step: str) -> None:
        reason = self.why_not(step)
        if reason:
            raise ContextError(reason)

    def _forget_from(self, step: str) -> None:
        """Let go of a step and of all that came after it."""
        self._count += 1
        later = STEPS[STEPS.index(step) :]
        self._lines = {name: lines for name, lines in self._lines.items() if name not in later}
        self._entered |= dict.fromkeys(later, 0)
        if "source" in later:
            if self.checkpoint is not None:
                self.checkpoint.close()
            if self._folder is not None:
                self._folder.cleanup()
            self.checkpoint, self.predictor, self.trained = None, None, False
            self._folder, self.folder, self._no_net = None, "", ""
        if "layout" in later:
            self.layout = self.model = None
            if self._own is not None:
                self._own.close()
                self._own = None
        if "reshard" in later:
            self.loaded = None
        self.prediction = None

    # 1: train, or bring

    def train(
        self,
        cards: int = 8,
        folder: str | os.PathLike[str] | None = None,
        begun: Callable[[Run], None] = lambda run: None,
    ) -> Checkpoint:
        """Train the sample on so many cards; slices and strategy go to a folder (by default a temporary one).

        Parameters
        ----------
        begun
            Is given the cards' run, which can be cancelled.

        Raises
        ------
        ContextError
            If the cards cannot share the sample's data.
        CardError
            If the run was cancelled.
        """
        count = self._count
        own = tempfile.TemporaryDirectory(prefix="distinfer-") if folder is None else None
        place = os.fspath(folder) if own is None else own.name  # type: ignore[arg-type]  # one of them is there
        try:
            with nullcontext(self.cards) if self.cards is not None else CardGroup(cards) as group:
                cards = len(group)
                run = group.start(lambda run: train_sample(place, group))
                begun(run)
                model = run.result()
                placed = None if self.cards is None else placed_net(model.network, group)
                if placed is not None:  # what was trained is in the files
                    group.drop(placed.placement)
            predictor = of_sample(place, cards)
            found = open_checkpoint(predictor.files, predictor.strategy)
            source = {"checkpoint": found, "predictor": predictor, "folder": place}
            self._enter(
                "source", count, session_code.training(place, cards), trained=True, _folder=own, **source
            )
        except BaseException:
            if own is not None:
                own.cleanup()
            raise
        return found

    def bring(
        self,
        folder: str | os.PathLike[str],
        strategy: str | os.PathLike[str] | Strategy | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        file: str | Sequence[str] | None = None,
        step: str | int | None = None,
    ) -> Checkpoint:
        """Open a checkpoint that is there already; headers only. A config.json in it tells which net it is of.

        Where nothing says who holds what, every file is taken to hold everything, and a little is read to see that.

        Parameters
        ----------
        cancelled
            Asked before each file is opened; True ends it.
        file, step
            Which files, and which save, see `open_checkpoint`.

        Raises
        ------
        CheckpointError, CheckpointFileError
            See `open_checkpoint`; if the files are slices, and nothing says how they lie.
        """
        count = self._count
        chosen = {"file": file, "step": step}
        found = open_checkpoint(folder, strategy, cancelled=cancelled, file=file, step=step)
        try:
            check_beginnings(found)
        except CheckpointError:
            found.close()
            raise
        predictor, no_net = None, ""
        try:
            predictor = of_folder(folder, strategy, chosen)
        except GraphError as err:
            no_net = str(err)
        source = {"checkpoint": found, "predictor": predictor, "folder": os.fspath(folder)}
        self._enter(
            "source", count, session_code.bringing(folder, strategy, chosen), _no_net=no_net, **source
        )
        return found

    # 2: the layout

    def lay_out(self, cards: int = 4, cancelled: Callable[[], bool] = lambda: False) -> PredictLayout:
        """Infer the predict layout of the checkpoint's net for so many cards.

        Parameters
        ----------
        cancelled
            Asked between the parts of it; True ends it, and what was laid out before stays.

        Raises
        ------
        ContextError
            If there is no checkpoint, or its net is not known; if it was cancelled.
        GraphError, ShardingError
            If the net cannot be made, or not be cut for so many cards.
        """
        self._need("layout")
        if self.predictor is None:
            raise ContextError(
                "this checkpoint came without its net; say by lay_out_as how its tensors shall lie"
            )
        begun = self._count
        count = cards if self.cards is None else len(self.cards)
        net = self.predictor.make(count)  # before there are cards: it may not be cut for so many
        _go_on_unless(cancelled)
        own = CardGroup(count) if self.cards is None else None
        try:
            _go_on_unless(cancelled)
            model = Model(net, cards=own or self.cards)
            with self.context():
                layout = model.infer_predict_layout(Tensor(self.predictor.data))
            _go_on_unless(cancelled)
            lines = session_code.laying_out(self.predictor, count)
            self._enter("layout", begun, lines, layout=layout, model=model, _own=own)
        except BaseException:
            if own is not None:
                own.close()
            raise
        return layout

    def lay_out_as(self, strategy: Strategy) -> None:
        """Say how the tensors of the checkpoint shall lie.

        Raises
        ------
        ContextError
            If there is no checkpoint.
        """
        self._need("layout")
        lines = session_code.laying_out_as(strategy, self.trained)
        self._enter("layout", self._count, lines, layout=strategy)

    # 3: the reshard

    def load(self, begun: Callable[[Run], None] = lambda run: None) -> LoadResult:
        """Bring the weights to the cards, each card its share.

        Parameters
        ----------
        begun
            Is given the cards' run, which can be cancelled.

        Raises
        ------
        ContextError
            If the net was not laid out for cards.
        CardError
            If the run was cancelled.
        CheckpointFileError, CheckpointError
            See `load_distributed_checkpoint`.
        """
        self._need("reshard")
        if self.model is None or self.predictor is None:
            raise ContextError(
                "without a net nothing can be loaded; write files with session.plan().run(folder)"
            )
        count, source, model, layout = self._count, self.predictor, self.model, self.layout

        def work(run: Run) -> LoadResult:
            with self.context():
                return load_distributed_checkpoint(
                    model.network, source.files, layout, source.strategy, cards=model.cards, **source.chosen
                )

        run = model.cards.start(work)
        begun(run)
        result: LoadResult = run.result()
        self._enter("reshard", count, session_code.loading(source), loaded=result)
        return result

    def plan(self) -> ConversionPlan:
        """The way from the checkpoint's files to files that lie as the layout says.

        Raises
        ------
        ContextError
            If there is no checkpoint, or no layout.
        """
        self._need("reshard")
        assert self.checkpoint is not None
        layout = self.layout.strategy if isinstance(self.layout, PredictLayout) else self.layout
        plan: ConversionPlan = self.checkpoint.plan(layout)
        return plan

    def write(self, folder: str | os.PathLike[str], **options: Any) -> ReshardResult:
        """Write the checkpoint anew, as the layout says; `options` are those of `ConversionPlan.run`.

        Raises
        ------
        ContextError
            If there is no checkpoint, or no layout.
        CheckpointFileError, ReshardError
            See `run_plan`.
        """
        count = self._count
        result: ReshardResult = self.plan().run(folder, cards=self.cards, **options)
        overwrite = bool(options.get("overwrite", False))
        lines = session_code.writing(folder, on_cards=self.cards is not None, overwrite=overwrite)
        self._enter("reshard", count, lines, loaded=result)
        return result

    # 4: the prediction

    def predict(self, data: Any = None) -> Tensor:
        """Predict on the cards; by default what there is to begin with (`predictor.data`).

        Raises
        ------
        ContextError
            If the weights are not on the cards.
        """
        self._need("predict")
        assert self.model is not None
        assert self.predictor is not None
        model = self.model
        given = Tensor(self.predictor.data if data is None else np.asarray(data))
        with self.context():
            found = model.predict(given)
        assert isinstance(found, Tensor)  # the nets that a session knows have one output
        self.predicted(found, model)
        return found

    def predicted(
        self, found: Tensor, model: Model, code: Sequence[str] = ("prediction = model.predict(data)",)
    ) -> None:
        """Remember what the model of this session predicted, and by which code; what another one did is dropped."""
        with self._lock:
            count, here = self._count, model is self.model
        if here:
            self._enter("predict", count, list(code), prediction=found)

    def context(self) -> AbstractContextManager[Any]:
        """The settings under which the net predicts."""
        found = self.predictor
        trained = found.strategy if found is not None and found.has_training_strategy else ""
        assert isinstance(trained, str | os.PathLike)
        return auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            device_num=None,
            strategy_ckpt_load_file=trained,
        )

    # The same as code

    def code(self) -> str:
        """Python code that does what was done so far, for a notebook or a script of its own."""
        first = self._lines.get("source", ["# nothing has been done yet"])
        rest = [line for step in STEPS[1:] for line in self._lines.get(step, [])]
        if self.model is not None and self.predictor is not None:
            rest = session_code.predicting_on(len(self.model.cards), self.predictor, rest)
        elif rest and self.cards is not None:
            rest = session_code.with_cards(len(self.cards), rest)
        return "\n".join(["import distinfer_lab as dl", "", *first, *(["", *rest] if rest else []), ""])

    def save_code(self, file: str | os.PathLike[str]) -> Path:
        """Write the code to a new file: a notebook if its name ends in .ipynb, else a script.

        Raises
        ------
        CheckpointFileError
            If the file exists, or cannot be written.
        """
        return write_code(self.code(), file)

    def __repr__(self) -> str:
        words = [step if self.done(step) else f"not {step}" for step in STEPS]
        return f"Session({', '.join(words)})"


def _go_on_unless(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise ContextError("it was stopped; nothing was laid out anew")
