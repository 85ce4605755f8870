"""The four steps as one piece of work that remembers what was done: what comes next, and why it is not ready.

    session = Session()
    session.train(8)                  1  or session.bring("my_checkpoint", "strategy.ckpt")
    session.lay_out(4)                2  or session.lay_out_as(strategy)
    session.load()                    3  or session.plan().run("out")
    session.predict(data)             4
    session.code()                       the notebook that does the same

A session of the sample has a net, so it loads and predicts; of a checkpoint that someone brought it has
files, which are cut anew. Going back to a step forgets what came after it.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import CardGroup
from ..checkpoint import Checkpoint, open_checkpoint
from ..errors import CheckpointFileError, ContextError
from ..layout import Strategy
from ..layout.dialects.plain import strategy_to_json
from ..net import Tensor
from ..reshard import ConversionPlan, ReshardResult
from .context import auto_parallel_context
from .load import LoadResult, load_distributed_checkpoint
from .model import Model
from .predict_layout import PredictLayout
from .sample import SampleNet, create_ckpt_file_list, create_predict_data, strategy_for, train_sample

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
    model : Model, or None
        What predicts: that of the sample.
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
        self.trained = False
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
        if step == "predict" and not self.trained:
            return self.why_not("reshard") or (
                "This checkpoint came without its net, so there is nothing to predict with; build the net, and load "
                "what step 3 wrote with load_distributed_checkpoint."
            )
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
            self.checkpoint, self.trained = None, False
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
        files = create_ckpt_file_list(folder, cards)
        self.checkpoint, self.trained = open_checkpoint(files, Path(folder) / "train_strategy.ckpt"), True
        self._source = (os.fspath(folder), files)
        self._lines["source"] = [
            f"folder, train_cards = {os.fspath(folder)!r}, {cards}",
            *self._with_cards(f"dl.CardGroup({cards})", ["dl.sample.train_sample(folder, cards)"]),
        ]
        self._tell()
        return self.checkpoint

    def bring(
        self, folder: str | os.PathLike[str], strategy: str | os.PathLike[str] | Strategy | None = None
    ) -> Checkpoint:
        """Open a checkpoint that is there already; headers only.

        Raises
        ------
        CheckpointError, CheckpointFileError
            See `open_checkpoint`.
        """
        found = open_checkpoint(folder, strategy)
        self._forget_from("source")
        self.checkpoint = found
        given = (
            ""
            if strategy is None
            else f", {os.fspath(strategy)!r}"
            if not isinstance(strategy, Strategy)
            else ", strategy"
        )
        self._lines["source"] = [f"checkpoint = dl.open_checkpoint({os.fspath(folder)!r}{given})"]
        self._tell()
        return found

    # 2: the layout

    def lay_out(self, cards: int = 4) -> PredictLayout:
        """Infer the sample's predict layout for so many cards.

        Raises
        ------
        ContextError
            If the sample was not trained.
        """
        self._need("layout")
        if not self.trained:
            raise ContextError(
                "this checkpoint came without its net; say by lay_out_as how its tensors shall lie"
            )
        self._forget_from("layout")
        group = self._group(cards)
        self.model = Model(SampleNet(strategy_for(len(group))), cards=group)
        data = Tensor(create_predict_data())
        with self.context():
            layout = self.model.infer_predict_layout(data)
        self.layout = layout
        self._lines["layout"] = [
            f"net = dl.sample.SampleNet(dl.sample.strategy_for({len(group)}))",
            "model = dl.Model(net)",
            "data = dl.Tensor(dl.sample.create_predict_data())",
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
            If the sample was not trained, or there is no layout.
        """
        self._need("reshard")
        if self.model is None:
            raise ContextError(
                "without a net nothing can be loaded; write files with session.plan().run(folder)"
            )
        self._forget_from("reshard")
        folder, files = self._source
        result = load_distributed_checkpoint(
            self.model.network,
            files,
            self.layout,
            Path(folder) / "train_strategy.ckpt",
            cards=self.model.cards,
        )
        self.loaded = result
        self._lines["reshard"] = [
            "files = dl.sample.create_ckpt_file_list(folder, train_cards)",
            'result = dl.load_distributed_checkpoint(net, files, layout, f"{folder}/train_strategy.ckpt")',
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
        """Predict on the cards; by default on the sample's data.

        Raises
        ------
        ContextError
            If the weights are not on the cards.
        """
        self._need("predict")
        assert self.model is not None
        given = Tensor(create_predict_data() if data is None else np.asarray(data))
        with self.context():
            found: Tensor = self.model.predict(given)
        self.predicted(found)
        return found

    def predicted(self, found: Tensor) -> None:
        """Remember what the model of this session predicted."""
        self.prediction = found
        self._lines["predict"] = ["prediction = model.predict(data)"]
        self._tell()

    def _group(self, cards: int) -> CardGroup:
        if self._given is not None:
            return self._given
        self._own = CardGroup(cards)
        return self._own

    def context(self) -> AbstractContextManager[Any]:
        """The settings under which the sample's net predicts."""
        return auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            device_num=None,
            strategy_ckpt_load_file=Path(self._source[0]) / "train_strategy.ckpt",
        )

    # The same as code

    def code(self) -> str:
        """Python code that does what was done so far, for a notebook or a script of its own."""
        lines = [
            "import distinfer_lab as dl",
            "",
            *self._lines.get("source", ["# nothing has been done yet"]),
        ]
        if self.trained and "layout" in self._lines:
            assert self.model is not None
            context = [
                "dl.set_auto_parallel_context(",
                '    parallel_mode="semi_auto_parallel", full_batch=True, device_num=None,',
                '    strategy_ckpt_load_file=f"{folder}/train_strategy.ckpt",',
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
        path = Path(file)
        text = self.code()
        if path.suffix == ".ipynb":
            cell: dict[str, Any] = {
                "cell_type": "code",
                "id": "all",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
            }
            cells = [{**cell, "source": text.rstrip()}]
            text = (
                json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
                + "\n"
            )
        try:
            with path.open("x", encoding="utf-8") as out:
                out.write(text)
        except OSError as err:
            raise CheckpointFileError(f"{path}: {err.strerror}; choose the name of a new file") from err
        return path

    def _with_cards(self, made: str, lines: list[str]) -> list[str]:
        return [f"with {made} as cards:", *(f"    {line}" for line in lines)]

    def __repr__(self) -> str:
        words = [step if self.done(step) else f"not {step}" for step in STEPS]
        return f"Session({', '.join(words)})"
