"""Predict on the cards: the input, the output, how far from one card's, and what the cards sent for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

from ..arguments import checked
from ..errors import ArgumentTypeError, ContextError
from ..flow import Comparison, Model, StepReport, compare, compare_generated
from ..net import Tensor
from ..parallel import Communication
from ..text import escape
from ..views import Drawing, table_html, timeline_svg, times_html
from .parts import Control, Panel, Picture, Snapshot, Work, error_html, still_of

__all__ = ["PredictPanel", "Prediction"]

Array = NDArray[Any]

MOST_TOKENS = 4096
MOST_ROWS = 40
MOST_WORDS = 1000
"""Token numbers that are shown."""
LARGEST_SEED = LARGEST_TOKEN = (1 << 31) - 1
LIKE = "as in 12 7 30; texts are parted by semicolons"


class Prediction(NamedTuple):
    """One prediction, and what the cards did for it."""

    inputs: tuple[Array, ...]
    output: Tensor | tuple[Tensor, ...]
    """What `Model.predict` or `Model.generate` returned."""
    comparison: Comparison | None
    """With one card's output; None if it was not compared."""
    report: StepReport
    """What the cards did and sent; of a generation, for the last token."""
    is_generated: bool = False
    """Whether it is a generation."""
    seed: int | None = None
    """The seed of random inputs; None if they were given."""

    @property
    def added(self) -> int:
        """How many tokens a generation added."""
        assert isinstance(self.output, Tensor)
        return int(self.output.shape[1]) - int(self.inputs[0].shape[1])

    @property
    def code(self) -> list[str]:
        """Code that does the same with `model`, and with `data` where that was given."""
        if self.is_generated:
            ids = f'dl.Tensor({self.inputs[0].tolist()}, "int64")'
            return [f"prediction = model.generate({ids}, {self.added})"]
        if self.seed is None:
            return ["prediction = model.predict(data)"]
        return [
            "import numpy as np",
            f"random = np.random.default_rng({self.seed})",
            *(f"data_{i} = {_random_code(x)}" for i, x in enumerate(self.inputs)),
            f"prediction = model.predict({', '.join(f'data_{i}' for i in range(len(self.inputs)))})",
        ]


@checked
class PredictPanel(Panel):
    """Runs a model on its cards, and compares with one card.

    Parameters
    ----------
    model
        What predicts. Its net is on the cards already, or is placed with its initial values.
    inputs
        Arrays or Tensors of one prediction. For a language model, token ids, shape (sequences, tokens).
    max_new_tokens
        For a language model: how many tokens to add. None predicts.
    compared
        Compute the same on one card too, which gathers all parameters in this process.
    within
        Gives what the model works in, such as `auto_parallel_context(...)`, for each prediction.

    Attributes
    ----------
    prediction : Prediction, or None
        The latest one.
    state : str
        "ready", "running", "cancelling", "cancelled", "done" or "failed".

    Raises
    ------
    ArgumentTypeError
        If the model is none, or there are no inputs.
    """

    state = traitlets.Unicode("ready")
    _work = Work(lambda snapshot: None)  # a panel that is refused is closed too

    def __init__(
        self,
        model: Model,
        *inputs: Tensor | ArrayLike,
        max_new_tokens: int | None = None,
        compared: bool = True,
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        if not inputs:
            raise ArgumentTypeError("PredictPanel needs the inputs of one prediction: PredictPanel(model, x)")
        self.model = model
        self.prediction: Prediction | None = None
        self._given = tuple(np.asarray(x.asnumpy() if isinstance(x, Tensor) else x) for x in inputs)
        self._within = within
        self._tokens = max_new_tokens is not None
        self.picture = Picture(Drawing("", ""), {}, {}, hint="")
        super().__init__()
        self._work = Work(self.errors.guard(self._show, clears=False))
        self._make_parts(max_new_tokens or 1, compared)

    def _make_parts(self, count: int, compared: bool) -> None:
        row, wide = ipywidgets.Layout(flex_flow="row wrap"), ipywidgets.Layout(width="min(100%, 520px)")
        shapes = " and ".join(f"{list(x.shape)} {x.dtype}" for x in self._given)
        self.kind = ipywidgets.ToggleButtons(
            options=["As given", "Random"], description="Input", tooltip=shapes
        )
        self.seed = ipywidgets.BoundedIntText(
            description="Seed", value=0, min=0, max=LARGEST_SEED, disabled=True
        )
        self.kind.observe(
            self.errors.guard(lambda change: setattr(self.seed, "disabled", change["new"] != "Random")),
            "value",
        )
        self.tokens = ipywidgets.Text(description="Tokens", layout=wide)
        self.count = ipywidgets.BoundedIntText(description="New tokens", value=count, min=1, max=MOST_TOKENS)
        self.compared = ipywidgets.Checkbox(description="Compare with one card", value=compared)
        self.button = ipywidgets.Button(description="Predict", icon="play")
        self.stop = ipywidgets.Button(description="Cancel", icon="stop", disabled=True)
        self.line = ipywidgets.HTML('<div role="status">Nothing is predicted yet.</div>')
        self.outcome, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        if self._tokens:
            self.tokens.value = "; ".join(
                " ".join(map(str, text)) for text in np.atleast_2d(self._given[0]).tolist()
            )
            asked: list[Any] = [self.tokens, self.count]
        else:
            asked = [self.kind, self.seed]
        self.button.on_click(self.errors.guard(lambda button: self.predict()))
        self.stop.on_click(self.errors.guard(lambda button: self.cancel()))
        self.children: tuple[Any, ...] = (
            ipywidgets.HTML(f"<div>{escape(f'{self.model!r}, input {shapes}')}</div>"),
            ipywidgets.HBox(asked, layout=row),
            ipywidgets.HBox([self.button, self.stop, self.compared], layout=row),
            self.line,
            self.errors,
            self.outcome,
            self.picture,
            self.table,
        )

    @property
    def inputs(self) -> tuple[Array, ...]:
        """What the next prediction is made of.

        Raises
        ------
        ContextError
            If the tokens are no numbers.
        """
        if self._tokens:
            return (_tokens_of(self.tokens.value),)
        if self.kind.value == "As given":
            return self._given
        random = np.random.default_rng(self.seed.value)
        return tuple(_random_like(x, random) for x in self._given)

    def predict(self) -> bool:
        """Begin a prediction; False if one goes on already. What the one before gave is gone from the page."""
        if self._work.snapshot.at_work:
            return False
        self._clear()
        inputs, count, compared = self.inputs, int(self.count.value), bool(self.compared.value)
        seed = int(self.seed.value) if not self._tokens and self.kind.value == "Random" else None

        def work(control: Control) -> Prediction:
            return self._predict(control, inputs, count, compared)._replace(seed=seed)

        return self._work.start(work)

    def cancel(self) -> None:
        """Ask the cards to stop; they are usable at once."""
        self._work.cancel()

    def close(self) -> None:
        """Stop the cards, and be shown no more."""
        self.cancel()
        super().close()

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Wait until it has ended, at most `timeout` seconds; gives how it stands."""
        return self._work.wait(timeout)

    def _predict(self, control: Control, inputs: tuple[Array, ...], count: int, compared: bool) -> Prediction:
        # All runs of a generation in one piece of work of the group: what cancels that also cancels the runs to come.
        run = self.model.cards.start(lambda run: self._predict_on_cards(inputs, count))
        control.attach(run)
        done = run.result()
        if not compared:
            return done
        with self._within():
            return done._replace(comparison=self._compared(done))

    def _predict_on_cards(self, inputs: tuple[Array, ...], count: int) -> Prediction:
        model = self.model
        with self._within():
            output: Tensor | tuple[Tensor, ...]
            output = model.generate(inputs[0], count) if self._tokens else model.predict(*map(Tensor, inputs))
        return Prediction(inputs, output, None, model.last, is_generated=self._tokens)

    def _compared(self, done: Prediction) -> Comparison:
        """The output compared with that of one card, which is computed here."""
        if done.is_generated:
            assert isinstance(done.output, Tensor)
            return compare_generated(self.model, done.output, done.added)
        return compare(done.output, self.model.predict_on_one_card(*map(Tensor, done.inputs)))

    def _show(self, snapshot: Snapshot) -> None:
        self.button.disabled, self.stop.disabled = snapshot.at_work, snapshot.state != "running"
        if snapshot.at_work:
            words = "The cards stop" if snapshot.state == "cancelling" else "The cards compute"
            self.line.value = f'<div role="status">{words}: {snapshot.seconds:.1f} s.</div>'
        elif snapshot.state == "cancelled":
            self.line.value = '<div role="status">Stopped. The cards are ready for another prediction.</div>'
        elif snapshot.error is not None:
            self.line.value = error_html(snapshot.error)
        elif snapshot.state == "done":
            self.prediction = snapshot.result
            self._show_prediction(snapshot.result, snapshot.seconds)
        self.state = snapshot.state

    def _clear(self) -> None:
        """Show no result: the input is another one by now, or will be."""
        self.line.value = self.outcome.value = self.table.value = ""
        self.picture.show(Drawing("", repr(self)), {}, {})

    def _show_prediction(self, found: Prediction, seconds: float) -> None:
        equal = (
            "" if found.comparison is None else "; ".join(map(str.strip, repr(found.comparison).split("\n")))
        )
        wrong = found.comparison is not None and not found.comparison.ok
        role = "alert" if wrong else "status"
        words = f"Done in {seconds:.2f} s{', one card included: ' if equal else '.'}{equal}"
        self.line.value = f'<div role="{role}">{escape(words)}</div>'
        self.outcome.value = (
            f"<pre>{escape(_output_words(found.output, MOST_WORDS if self._tokens else 24))}</pre>"
        )
        words = "What each card did for the last token" if self._tokens else "What each card did"
        trace = found.report.trace
        self.picture.show(Drawing(timeline_svg(trace, words), repr(self)), {}, {})
        self.table.value = times_html(trace) + _communication_html(found.report.communication)

    @property
    def static(self) -> Drawing:
        """What the cards did in the latest prediction."""
        return still_of(self.picture.still.svg, repr(self))

    def __repr__(self) -> str:
        shapes = ", ".join(str(list(x.shape)) for x in self._given)
        if self.prediction is None:
            return f"PredictPanel({self.model!r}, input {shapes}: nothing is predicted yet)"
        found = self.prediction.comparison
        return f"PredictPanel({self.model!r}, input {shapes}: {repr(found).splitlines()[0] if found else 'done'})"


def _random_code(drawn: Array) -> str:
    """Code that draws the same as `_random_like` from `random`; integers are few enough to be written out."""
    if drawn.dtype.kind in "iu":
        return f"dl.Tensor({drawn.tolist()}, {drawn.dtype.name!r})"
    return f"dl.Tensor(random.normal(size={drawn.shape}).astype({drawn.dtype.name!r}))"


def _random_like(given: Array, random: np.random.Generator) -> Array:
    """Another input of the same kind: integers stay within those that were given."""
    if given.dtype.kind in "iu":
        return random.integers(int(given.min(initial=0)), int(given.max(initial=0)) + 1, given.shape).astype(
            given.dtype
        )
    return random.normal(size=given.shape).astype(given.dtype)


def _tokens_of(words: str) -> Array:
    """Token ids of sequences, which are separated by semicolons, int64, shape (sequences, tokens)."""
    try:
        texts = [[int(word) for word in text.replace(",", " ").split()] for text in words.split(";")]
    except ValueError as err:
        raise ContextError(f"tokens {words!r:.80}: write token numbers, {LIKE}") from err
    if not all(texts):
        raise ContextError(f"there are no tokens; write token numbers, {LIKE}")
    wrong = [token for text in texts for token in text if not 0 <= token <= LARGEST_TOKEN]
    if wrong:
        raise ContextError(f"tokens {words!r:.80}: {wrong[0]} is not a token number; write them {LIKE}")
    if len({len(text) for text in texts}) > 1:
        raise ContextError(f"tokens {words!r:.80}: all texts must have equally many tokens")
    return np.array(texts, np.int64)


def _output_words(output: Tensor | tuple[Tensor, ...], most: int) -> str:
    """What came out, in full up to so many values."""
    parts = output if isinstance(output, tuple) else (output,)
    lines = []
    for part in parts:
        values = part.asnumpy()
        lines.append(f"{list(values.shape)} {values.dtype}")
        lines.append(np.array2string(values, threshold=most, edgeitems=3, precision=5, max_line_width=90))
    return "\n".join(lines)


def _communication_html(found: Communication) -> str:
    """What each collective sent, in order."""
    if not found.rows:
        return "<p>The cards sent nothing to each other: each had all that its share needs.</p>"
    rows = [
        [row.kind, row.operator, str(row.calls), f"{max(row.sent_bytes):,}", f"{sum(row.sent_bytes):,}"]
        for row in found.rows[:MOST_ROWS]
    ]
    columns = ["collective", "of", "calls", "bytes, at most of a card", "bytes, in all"]
    return table_html(columns, rows, len(found.rows))
