"""The four steps as one piece of work that remembers what was done: what comes next, and why it is not ready.

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
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import CardGroup
from ..checkpoint import Checkpoint, open_checkpoint
from ..errors import ContextError, GraphError
from ..layout import Strategy
from ..layout.dialects.plain import strategy_to_json
from ..net import Tensor
from ..net.models import FAMILIES
from ..reshard import ConversionPlan, ReshardResult
from .code_file import write_code
from .context import auto_parallel_context
from .load import LoadResult, load_distributed_checkpoint
from .model import Model
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
    """

    def __init__(self, cards: CardGroup | None = None) -> None:
        self._given = cards
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
        self._no_net = ""
        self._watching: list[Callable[[], None]] = []

    def watch(self, tell: Callable[[], None]) -> None:
        """Have `tell()` called whenever a step is done, in the thread that did it, and at the end."""
        self._watching.append(tell)

    def _tell(self) -> None:
        for tell in self._watching:
            tell()

    def close(self) -> None:
        """End the cards that were made here, and forget what was trained here."""
        self._forget_from("source")
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
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
            return (
                self.why_not("layout") or "The destination is not known yet: choose how each tensor is cut."
            )
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
        later = STEPS[STEPS.index(step) :]
        self._lines = {name: lines for name, lines in self._lines.items() if name not in later}
        if "source" in later:
            if self.checkpoint is not None:
                self.checkpoint.close()
            self.checkpoint, self.predictor, self.trained = None, None, False
        if "layout" in later:
            self.layout = self.model = None
            if self._own is not None:
                self._own.close()
                self._own = None
        if "reshard" in later:
            self.loaded = None
        self.prediction = None

    # 1: train, or bring

    def train(self, cards: int = 8, folder: str | os.PathLike[str] | None = None) -> Checkpoint:
        """Train the sample on so many cards; slices and strategy go to a folder (by default a temporary one).

        Raises
        ------
        ContextError
            If the cards cannot share the sample's data.
        """
        self._forget_from("source")
        if folder is None:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="distinfer-")
            folder = self._folder.name
        if self._given is not None:
            cards = len(self._given)
            train_sample(folder, self._given)
        else:
            with CardGroup(cards) as group:
                train_sample(folder, group)
        self.predictor, self.trained = of_sample(folder, cards), True
        self.checkpoint = open_checkpoint(self.predictor.files, self.predictor.strategy)
        self._lines["source"] = [
            f"folder, train_cards = {os.fspath(folder)!r}, {cards}",
            *self._with_cards(f"dl.CardGroup({cards})", ["dl.sample.train_sample(folder, cards)"]),
        ]
        self._tell()
        return self.checkpoint

    def bring(
        self, folder: str | os.PathLike[str], strategy: str | os.PathLike[str] | Strategy | None = None
    ) -> Checkpoint:
        """Open a checkpoint that is there already; headers only. A config.json in it tells which net it is of.

        Raises
        ------
        CheckpointError, CheckpointFileError
            See `open_checkpoint`.
        """
        found = open_checkpoint(folder, strategy)
        self._forget_from("source")
        self.checkpoint = found
        try:
            self.predictor = of_folder(folder, strategy)
        except GraphError as err:
            self._no_net = str(err)
        given = "" if strategy is None else ", strategy"
        self._lines["source"] = [
            f"folder = {os.fspath(folder)!r}",
            *([f"strategy = {os.fspath(strategy)!r}"] if isinstance(strategy, str | os.PathLike) else []),
            f"checkpoint = dl.open_checkpoint(folder{given})",
        ]
        self._tell()
        return found

    # 2: the layout

    def lay_out(self, cards: int = 4) -> PredictLayout:
        """Infer the predict layout of the checkpoint's net for so many cards.

        Raises
        ------
        ContextError
            If there is no checkpoint, or its net is not known.
        GraphError, ShardingError
            If the net cannot be made, or not be cut for so many cards.
        """
        self._need("layout")
        if self.predictor is None:
            raise ContextError(
                "this checkpoint came without its net; say by lay_out_as how its tensors shall lie"
            )
        self._forget_from("layout")
        count = cards if self._given is None else len(self._given)
        net = self.predictor.make(count)  # before there are cards: it may not be cut for so many
        self.model = Model(net, cards=self._group(count))
        with self.context():
            layout = self.model.infer_predict_layout(Tensor(self.predictor.data))
        self.layout = layout
        self._lines["layout"] = [
            f"net = {self.predictor.make_code(count)}",
            "model = dl.Model(net)",
            f"data = {self.predictor.data_code}",
            "layout = model.infer_predict_layout(data)",
        ]
        self._tell()
        return layout

    def lay_out_as(self, strategy: Strategy) -> None:
        """Say how the tensors of the checkpoint shall lie.

        Raises
        ------
        ContextError
            If there is no checkpoint.
        """
        self._need("layout")
        self._forget_from("layout")
        self.layout = strategy
        self._lines["layout"] = [
            "from distinfer_lab.layout.dialects.plain import strategy_from_json",
            f"layout = strategy_from_json({strategy_to_json(strategy)!r})",
        ]
        self._tell()

    # 3: the reshard

    def load(self) -> LoadResult:
        """Bring the weights to the cards, each card its share.

        Raises
        ------
        ContextError
            If the net was not laid out for cards.
        CheckpointFileError, CheckpointError
            See `load_distributed_checkpoint`.
        """
        self._need("reshard")
        if self.model is None or self.predictor is None:
            raise ContextError(
                "without a net nothing can be loaded; write files with session.plan().run(folder)"
            )
        self._forget_from("reshard")
        source = self.predictor
        with self.context():
            result = load_distributed_checkpoint(
                self.model.network, source.files, self.layout, source.strategy, cards=self.model.cards
            )
        self.loaded = result
        cut = "" if source.strategy is None else f", {source.strategy_code}"
        self._lines["reshard"] = [
            f"files = {source.files_code}",
            f"result = dl.load_distributed_checkpoint(net, files, layout{cut})",
        ]
        self._tell()
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
        plan = self.plan()
        self._forget_from("reshard")
        result: ReshardResult = plan.run(folder, cards=self._given, **options)
        self.loaded = result
        cards = "" if self._given is None else ", cards=cards"
        self._lines["reshard"] = [f"result = checkpoint.plan(layout).run({os.fspath(folder)!r}{cards})"]
        self._tell()
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
        given = Tensor(self.predictor.data if data is None else np.asarray(data))
        with self.context():
            found: Tensor = self.model.predict(given)
        self.predicted(found)
        return found

    def predicted(self, found: Tensor, code: str = "model.predict(data)") -> None:
        """Remember what the model of this session predicted, and by which code."""
        self.prediction = found
        self._lines["predict"] = [f"prediction = {code}"]
        self._tell()

    def _group(self, cards: int) -> CardGroup:
        if self._given is not None:
            return self._given
        self._own = CardGroup(cards)
        return self._own

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
        lines = [
            "import distinfer_lab as dl",
            "",
            *self._lines.get("source", ["# nothing has been done yet"]),
        ]
        if self.model is not None and self.predictor is not None:
            trained = self.predictor.has_training_strategy
            context = [
                "dl.reset_auto_parallel_context()",
                "dl.set_auto_parallel_context(",
                '    parallel_mode="semi_auto_parallel", full_batch=True, device_num=None,',
                *([f"    strategy_ckpt_load_file={self.predictor.strategy_code},"] if trained else []),
                ")",
            ]
            rest = [line for step in STEPS[1:] for line in self._lines.get(step, [])]
            lines += ["", *context, *self._with_cards(f"dl.CardGroup({len(self.model.cards)})", rest)]
        else:
            own = [line for step in STEPS[1:] for line in self._lines.get(step, [])]
            lines += ["", *own] if own else []
        return "\n".join([*lines, ""])

    def save_code(self, file: str | os.PathLike[str]) -> Path:
        """Write the code to a new file: a notebook if its name ends in .ipynb, else a script.

        Raises
        ------
        CheckpointFileError
            If the file exists, or cannot be written.
        """
        return write_code(self.code(), file)

    def _with_cards(self, made: str, lines: list[str]) -> list[str]:
        return [f"with {made} as cards:", *(f"    {line}" for line in lines)]

    def __repr__(self) -> str:
        words = [step if self.done(step) else f"not {step}" for step in STEPS]
        return f"Session({', '.join(words)})"
