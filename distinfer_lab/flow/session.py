"""The four steps as one piece of work that remembers what was done: what comes next, and why it is not ready.

::

    session = Session()
    session.train(8)                  1  or session.open("my_checkpoint", "strategy.ckpt")
    session.infer_layout(4)           2  or session.set_layout(strategy)
    session.load()                    3  or session.write("out")
    session.predict(data)             4
    session.code()                       the notebook that does the same

The sample, and a Hugging Face folder with its config.json, have a net, which is loaded and predicts. The
files of any checkpoint can be resharded. Going back to a step forgets what came after it.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TypeVar, Unpack

from numpy.typing import ArrayLike

from ..cards import CardGroup, Run
from ..checkpoint import (
    Checkpoint,
    Conversion,
    ReshardResult,
    WriteOptions,
    check_beginnings,
    open_checkpoint,
)
from ..errors import ContextError, GraphError, Option
from ..layout import Strategy
from ..net import Tensor
from ..net.models import FAMILIES
from . import session_code
from .code_file import write_code
from .context import ParallelContext, auto_parallel_context
from .load import LoadResult, load_distributed_checkpoint
from .model import Model
from .placing import placed_net
from .predict_layout import PredictLayout
from .predictors import Chosen, of_folder, of_sample
from .sample import train_sample
from .step_log import StepLog
from .steps import LaidOut, Loaded, Opened, Predicted, Step

__all__ = ["STEPS", "Session"]

STEPS = ("source", "layout", "reshard", "predict")
"""The four steps, in order."""

S = TypeVar("S", bound=Step)


class Session:
    """What was done of the four steps, and the cards that it was done on.

    Parameters
    ----------
    cards
        A group for all steps. None: each step makes an embedded one of the size that it needs.

    Attributes
    ----------
    cards : CardGroup, or None
        The group that was given.

    Notes
    -----
    Steps may be done in any threads. One that ends after another one has changed what it began with is an error,
    and changes nothing: what was done last counts. A step that fails changes nothing either.
    """

    def __init__(self, cards: CardGroup | None = None) -> None:
        self.cards = cards
        self._log = StepLog()

    @property
    def opened(self) -> Opened | None:
        """Step 1, if it is done."""
        return self._log.find(Opened)

    @property
    def laid_out(self) -> LaidOut | None:
        """Step 2, if it is done."""
        return self._log.find(LaidOut)

    @property
    def loaded(self) -> Loaded | None:
        """Step 3, if it is done."""
        return self._log.find(Loaded)

    @property
    def predicted(self) -> Predicted | None:
        """Step 4, if it is done: the latest prediction."""
        return self._log.find(Predicted)

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Have `notify()` called whenever a step is done, in the thread that did it, and at the end.

        Returns
        -------
        What ends that.
        """
        return self._log.watch(notify)

    def version(self, step: str) -> int:
        """A number of what a step has come to, another one each time; 0 while it is not done."""
        number, done = STEPS.index(step), self._log.done
        return done[number].version if number < len(done) else 0

    def done(self, step: str) -> bool:
        """Whether a step has been done."""
        return STEPS.index(step) < len(self._log.done)

    def close(self) -> None:
        """End the cards that were made here, and forget what was trained here."""
        self._log.clear()

    def blocked_reason(self, step: str) -> str:
        """Why a step cannot be done yet, as a sentence; "" if it can.

        Raises
        ------
        ContextError
            If there is no such step.
        """
        if step not in STEPS:
            given = Option("step", step)
            raise ContextError(f"{given} is not one of {', '.join(STEPS)}", given)
        opened, laid_out = self.opened, self.laid_out
        if step == "layout" and opened is None:
            return "There is no checkpoint yet: train the sample, or open a folder."
        if step == "reshard" and laid_out is None:
            return self.blocked_reason("layout") or "The destination is not known yet: do step 2, the layout."
        if step == "predict" and opened is not None and opened.predictor is None:
            return self.blocked_reason("reshard") or (
                f"This checkpoint has no net ({opened.no_net}), so there is nothing to predict with: "
                f"put the config.json of a known family ({', '.join(FAMILIES)}) beside its files; or build the "
                "net, and load what step 3 wrote with load_distributed_checkpoint."
            )
        if step == "predict" and laid_out is not None and laid_out.model is None:
            return "What step 3 writes are files: to predict, lay the net out for cards in step 2."
        if step == "predict" and self.loaded is None:
            return self.blocked_reason("reshard") or "The weights are not on the cards yet: run step 3."
        return ""

    def _needed(self, step: str, kind: type[S]) -> S:
        """What the step before has come to.

        Raises
        ------
        ContextError
            If it is not done, or did not come to what this step needs.
        """
        reason = self.blocked_reason(step)
        found = self._log.find(kind)
        if reason or found is None:
            raise ContextError(reason or "the earlier steps were reset in the meantime; run them again")
        return found

    # 1: train, or open

    def train(
        self,
        cards: int = 8,
        folder: str | os.PathLike[str] | None = None,
        on_start: Callable[[Run[object]], None] = lambda run: None,
    ) -> Checkpoint:
        """Train the sample on so many cards; slices and strategy go to a folder (by default a temporary one).

        Parameters
        ----------
        on_start
            Called with the cards' run, which can be cancelled.

        Raises
        ------
        ContextError
            If the cards cannot share the sample's data.
        CardError
            If the run was cancelled.
        """
        begun = self._log.version
        with ExitStack() as resources:
            if folder is None:
                folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="distinfer-"))
            place = os.fspath(folder)
            with nullcontext(self.cards) if self.cards is not None else CardGroup(cards) as group:
                cards = len(group)
                run = group.start(lambda run: train_sample(place, group))
                on_start(run)
                model = run.result()
                placed = None if self.cards is None else placed_net(model.network, group)
                if placed is not None:  # what was trained is in the files
                    group.drop(placed.placement)
            predictor = of_sample(place, cards)
            found = resources.enter_context(open_checkpoint(predictor.files.value, predictor.strategy.value))
            code = session_code.training(place, cards)
            step = Opened(found, place, predictor, trained=True, code=code, resources=resources.pop_all())
        self._log.enter(step, begun)
        return found

    def open(
        self,
        folder: str | os.PathLike[str],
        strategy: str | os.PathLike[str] | Strategy | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        file: str | Sequence[str] | None = None,
        step: str | int | None = None,
    ) -> Checkpoint:
        """Open a checkpoint that is there already; headers only. A config.json in it names its net.

        Where nothing says how its files are sharded, each is assumed to be a full copy, and a little is read to
        check that.

        Parameters
        ----------
        cancelled
            Asked before each file is opened; True ends it.
        file, step
            Which files, and which save, see `open_checkpoint`.

        Raises
        ------
        CheckpointError, CheckpointFileError
            See `open_checkpoint`; if the files are slices, and nothing says how they are laid out.
        """
        begun = self._log.version
        chosen = Chosen(file=file, step=step)
        with ExitStack() as resources:
            found = resources.enter_context(open_checkpoint(folder, strategy, cancelled=cancelled, **chosen))
            check_beginnings(found)
            predictor, no_net = None, ""
            try:
                predictor = of_folder(folder, strategy, chosen)
            except GraphError as err:
                no_net = str(err)
            code = session_code.opening(folder, strategy, chosen)
            record = Opened(
                found, os.fspath(folder), predictor, no_net, code=code, resources=resources.pop_all()
            )
        self._log.enter(record, begun)
        return found

    # 2: the layout

    def infer_layout(self, cards: int = 4, cancelled: Callable[[], bool] = lambda: False) -> PredictLayout:
        """Infer the predict layout of the checkpoint's net for so many cards.

        Parameters
        ----------
        cancelled
            Asked between the parts of it; True ends it, and the layout before stays.

        Raises
        ------
        ContextError
            If there is no checkpoint, or its net is not known; if it was cancelled.
        GraphError, ShardingError
            If the net cannot be made, or not be sharded for so many cards.
        """
        begun = self._log.version
        predictor = self._needed("layout", Opened).predictor
        if predictor is None:
            raise ContextError(
                "this checkpoint has no net; set the layout of its tensors by set_layout(strategy)"
            )
        count = cards if self.cards is None else len(self.cards)
        net = predictor.make(count)  # before there are cards: it may not be possible for so many
        _check_not(cancelled)
        with ExitStack() as resources:
            group = self.cards
            if group is None:
                group = CardGroup(count)
                resources.callback(group.close)
            _check_not(cancelled)
            model = Model(net.value, cards=group)
            with self.context():
                layout = model.infer_predict_layout(Tensor(predictor.data.value))
            _check_not(cancelled)
            code = session_code.inferring(net.code, predictor.data.code)
            step = LaidOut(layout, model, code=code, resources=resources.pop_all())
        self._log.enter(step, begun)
        return layout

    def set_layout(self, strategy: Strategy) -> None:
        """Set the layout of the checkpoint's tensors, for files.

        Raises
        ------
        ContextError
            If there is no checkpoint.
        """
        begun = self._log.version
        code = session_code.setting(strategy, self._needed("layout", Opened).trained)
        self._log.enter(LaidOut(strategy, code=code), begun)

    # 3: the reshard

    def load(self, on_start: Callable[[Run[object]], None] = lambda run: None) -> LoadResult:
        """Load the weights into the cards, each card its share.

        Parameters
        ----------
        on_start
            Called with the cards' run, which can be cancelled.

        Raises
        ------
        ContextError
            If there is no layout, or it was not inferred for cards.
        CardError
            If the run was cancelled.
        CheckpointFileError, CheckpointError
            See `load_distributed_checkpoint`.
        """
        begun = self._log.version
        laid_out, source = self._needed("reshard", LaidOut), self._needed("reshard", Opened).predictor
        model = laid_out.model
        if model is None or source is None:
            raise ContextError("without a net nothing can be loaded; write files with session.write(folder)")
        files, strategy, chosen = source.files.value, source.strategy.value, source.chosen

        def work(run: Run[object]) -> LoadResult:
            with self.context():
                return load_distributed_checkpoint(
                    model.network, files, laid_out.layout, strategy, cards=model.cards, **chosen
                )

        run = model.cards.start(work)
        on_start(run)
        result = run.result()
        self._log.enter(Loaded(result, code=session_code.loading(source)), begun)
        return result

    def plan(self) -> Conversion:
        """The way from the checkpoint's files to files that are laid out as step 2 says.

        Raises
        ------
        ContextError
            If there is no checkpoint, or no layout.
        """
        strategy = self._needed("reshard", LaidOut).strategy
        return self._needed("reshard", Opened).checkpoint.plan(strategy)

    def write(self, folder: str | os.PathLike[str], **options: Unpack[WriteOptions]) -> ReshardResult:
        """Write the checkpoint to other files, as the layout says; `options` are those of `Conversion.write`.

        Raises
        ------
        ContextError
            If there is no checkpoint, or no layout.
        CheckpointFileError, ReshardError
            See `Conversion.write`.
        """
        begun = self._log.version
        result = self.plan().write(folder, on=self.cards, **options)
        overwrite = bool(options.get("overwrite", False))
        code = session_code.writing(folder, on_cards=self.cards is not None, overwrite=overwrite)
        self._log.enter(Loaded(result, code=code), begun)
        return result

    # 4: the prediction

    def predict(self, data: Tensor | ArrayLike | None = None) -> Tensor:
        """Predict on the cards; by default what there is to begin with (`predictor.data`).

        Raises
        ------
        ContextError
            If the weights are not on the cards.
        """
        model, predictor = self._needed("predict", LaidOut).model, self._needed("predict", Opened).predictor
        assert model is not None
        assert predictor is not None
        with self.context():
            found = model.predict(Tensor(predictor.data.value if data is None else data))
        assert isinstance(found, Tensor)  # the nets that a session knows have one output
        self.record_prediction(found, model)
        return found

    def record_prediction(
        self, prediction: Tensor, model: Model, code: Sequence[str] = ("prediction = model.predict(data)",)
    ) -> None:
        """Remember what the model of this session predicted, and the code for it; another model's is dropped."""
        begun = self._log.version
        if self.loaded is None or self.laid_out is None or self.laid_out.model is not model:
            return
        self._log.enter(Predicted(prediction, code=code), begun)

    def context(self) -> AbstractContextManager[ParallelContext]:
        """The settings under which the net predicts."""
        predictor = None if self.opened is None else self.opened.predictor
        trained = (
            predictor.strategy.value if predictor is not None and predictor.has_training_strategy else ""
        )
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
        opened, laid_out, done = self.opened, self.laid_out, self._log.done
        first = ["# nothing has been done yet"] if opened is None else opened.code
        rest = [line for step in done[1:] for line in step.code]
        if opened is not None and opened.predictor is not None and laid_out is not None and laid_out.model:
            rest = session_code.predicting_on(len(laid_out.model.cards), opened.predictor, rest)
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
        states = [step if self.done(step) else f"not {step}" for step in STEPS]
        return f"Session({', '.join(states)})"


def _check_not(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise ContextError("it was stopped; the layout is unchanged")
