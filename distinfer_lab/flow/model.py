"""A model: a net, perhaps a loss and an optimizer, and the cards that it trains and predicts on.

::

    model = Model(net, loss_fn, optimizer)         inside `with CardGroup(8):`
    model.train(2, dataset, callbacks=[...])       step 1
    layout = model.infer_predict_layout(x)         step 2
    load_distributed_checkpoint(net, files, ...)   step 3
    y = model.predict(x)                           step 4
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import checked
from ..cards import CardGroup
from ..display import Displayed
from ..errors import ArgumentTypeError, ContextError, Option
from ..net import Cell, Tensor, spec_of, trace
from ..net.nn import Optimizer
from ..parallel import CardProgram, check_rows_apart, partition, propagate, run_serial, shard_inputs
from .callbacks import Callback
from .context import parallel_context
from .generating import Choice, Generation
from .micro_batches import micro_specs
from .placing import PlacedNet
from .predict_layout import PredictLayout
from .runner import NetRunner
from .saving import SaveOptions, save_net
from .step_report import StepReport
from .training import Training

__all__ = ["Model"]

Array = NDArray[Any]


class Model(Displayed):
    """A net that trains and predicts on cards.

    Parameters
    ----------
    network
        The net.
    loss_fn
        Called with the net's output and the label; gives one number. Needed to train.
    optimizer
        Needed to train.
    cards
        The group to work on; by default that of the `with CardGroup(...)` block around each
        call.
    """

    def __init__(
        self,
        network: Cell,
        loss_fn: Callable[..., object] | None = None,
        optimizer: Optimizer | None = None,
        cards: CardGroup | None = None,
    ) -> None:
        if not isinstance(network, Cell):
            raise ArgumentTypeError(f"network is a Cell, not {type(network).__name__}")
        if cards is not None and not isinstance(cards, CardGroup):
            raise ArgumentTypeError(
                f"Model: cards={cards!r:.60} is not a CardGroup; MindSpore's metrics are not supported"
            )
        self.network, self.loss_fn, self.optimizer = network, loss_fn, optimizer
        self._runner = NetRunner(network, cards)

    def __repr__(self) -> str:
        parts = [type(self.network).__name__]
        if self.loss_fn is not None:
            parts.append(f"loss={getattr(self.loss_fn, '__name__', type(self.loss_fn).__name__)}")
        if self.optimizer is not None:
            parts.append(f"optimizer={type(self.optimizer).__name__}")
        return f"Model({', '.join(parts)})"

    @property
    def cards(self) -> CardGroup:
        """The group that the model works on now."""
        return self._runner.cards

    @property
    def last(self) -> StepReport:
        """The latest training step, prediction, or token of a generation: what the cards did and sent.

        Raises
        ------
        ContextError
            If nothing has run yet.
        """
        if self._runner.last is None:
            raise ContextError(
                "nothing has run on the cards yet; call model.predict(x) or model.train(...) first"
            )
        return self._runner.last

    # Training

    def train(
        self,
        epoch: int,
        train_dataset: Iterable[Sequence[Tensor | ArrayLike]],
        callbacks: Callback | Sequence[Callback] | None = None,
        dataset_sink_mode: bool = False,
    ) -> None:
        """Train for some epochs.

        A step that a lost card interrupts is not applied on any card. Training goes back to
        the last state that can be restored, that of the last saved checkpoint or the
        beginning, and repeats the steps since then.

        Parameters
        ----------
        epoch
            How often to go through the dataset, 1 or more.
        train_dataset
            Yields (data, label) pairs, and can be iterated more than once. With full_batch=False in a
            parallel mode each has one more dim in front, the rank: card r gets item r.
        callbacks
            Called between steps.
        dataset_sink_mode
            Accepted for MindSpore's scripts.

        Raises
        ------
        ContextError
            If the loss, the optimizer or the card group is missing, or a setting does not fit.
        GraphError, ShardingError
            If the net cannot be traced or sharded.
        """
        if self.loss_fn is None or self.optimizer is None:
            raise ContextError("to train, make Model(network, loss_fn, optimizer)")
        if epoch < 1:
            given = Option("epoch", epoch)
            raise ContextError(f"{given} is below 1", given)
        hooks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        Training(self._runner, self.loss_fn, self.optimizer, epoch, train_dataset, hooks).run()

    @checked
    def save(
        self,
        directory: str | os.PathLike[str],
        name: str,
        *,
        integrated: bool,
        **file_options: Unpack[SaveOptions],
    ) -> list[Path]:
        """Write the values that the cards hold; gives the paths, in rank order.

        Parameters
        ----------
        integrated
            True: merged, as `<directory>/<name>`. False: each card writes its slices, as
            `<directory>/rank_<r>_ckpt/<name>`.

        Raises
        ------
        ContextError
            If the net is on no card yet.
        CheckpointFileError
            If a file cannot be written.
        """
        return save_net(
            self.network, self.cards, Path(directory), name, integrated=integrated, **file_options
        )

    # Prediction

    def infer_predict_layout(self, *predict_data: Tensor) -> PredictLayout:
        """Infer which card will hold which slice of each parameter, from the net and the data's shapes.

        Raises
        ------
        ArgumentTypeError
            If the data are not Tensors.
        ContextError
            If the mode is neither semi_auto_parallel nor auto_parallel, full_batch is not
            True, or, on more than one card, no training strategy file is set though not all
            operators have a strategy of their own.
        CheckpointFileError
            If the training strategy file is set and missing.
        GraphError, ShardingError
            If the net cannot be traced or sharded.
        """
        if not predict_data:
            raise ArgumentTypeError(
                "infer_predict_layout needs the predict data: pass the Tensors of one prediction"
            )
        for value in predict_data:
            if not isinstance(value, Tensor):
                raise ArgumentTypeError(
                    f"infer_predict_layout takes Tensors, not {type(value).__name__}; wrap the data in Tensor(...)"
                )
        context = parallel_context()
        if not context.is_sharded:
            mode = Option("parallel_mode", "semi_auto_parallel")
            raise ContextError(
                f"infer_predict_layout works in the modes semi_auto_parallel and auto_parallel, not "
                f"{context.parallel_mode}; call set_auto_parallel_context({mode})",
                mode,
            )
        if not context.full_batch:
            raise ContextError(
                "infer_predict_layout needs the whole batch on every card; call "
                "set_auto_parallel_context(full_batch=True)",
                Option("full_batch", True),
            )
        graph = trace(self.network, *predict_data)
        unsharded = [node.op.name for node in graph.nodes if node.inputs and node.strategy is None]
        if self._runner.devices(context) > 1 and unsharded and not context.strategy_ckpt_load_file:
            raise ContextError(
                "infer_predict_layout on several cards needs the training strategy; call "
                "set_auto_parallel_context(strategy_ckpt_load_file='train_strategy.ckpt'), or shard(...) on every "
                f"operator of the net: {', '.join(dict.fromkeys(unsharded))} have none",
                Option("strategy_ckpt_load_file", "train_strategy.ckpt"),
            )
        shapes = {name: param.shape for name, param in self.network.parameters_dict().items()}
        return PredictLayout(self._runner.sharding(graph, context), shapes)

    def predict(self, *predict_data: Tensor | Array) -> Tensor | tuple[Tensor, ...]:
        """Run the net on the cards; returns the whole result as a Tensor, or a tuple of them.

        Parameters that were loaded or trained on the group are used in place; a net
        that is on no card yet is placed with its initial values.

        Raises
        ------
        ArgumentTypeError
            If the data are not Tensors.
        CardError
            If a card is lost and does not come back.
        GraphError, ShardingError
            If the net cannot be traced or sharded.
        """
        tensors = [Tensor(v) if isinstance(v, np.ndarray) else v for v in predict_data]
        placed = self._runner.placed(tensors)
        program = self._predict_program(tensors, placed)
        names = program.program.inputs
        inputs = {name: t.asnumpy() for name, t in zip(names, tensors, strict=True)}
        outputs = self._runner.run(program, placed.placement, inputs).outputs
        return _one_or_all([Tensor(outputs[name]) for name in program.program.outputs])

    def generate(
        self,
        ids: Tensor | ArrayLike,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        eos: int | None = None,
    ) -> Tensor:
        """Extend sequences token by token; every card keeps the keys and values of its heads.

        Of each step only the logits of the last token come back. The next token is chosen in this process, and
        is the same on any number of cards as far as their logits are.

        Parameters
        ----------
        ids
            Token ids, shape (sequences, tokens); all sequences are of one length.
        max_new_tokens
            How many tokens to add, 1 or more.
        temperature
            0 takes the most probable token. Above it, a token is drawn from the softmax of the
            logits divided by it.
        seed
            Of the draws.
        eos
            The token that ends a sequence. One that has ended is padded with it until all have ended.

        Returns
        -------
        The sequences with the tokens that were added, int64, shape (sequences, tokens + at most max_new_tokens).

        Raises
        ------
        ArgumentTypeError, ContextError
            If the net is not a language model, sequences differ in length, or a number is out of range.
        CardError
            If a card is lost twice, or does not come back.
        """
        return Generation(self._runner, ids, max_new_tokens, Choice(temperature, seed, eos)).run()

    def predict_on_one_card(self, *predict_data: Tensor | Array) -> Tensor | tuple[Tensor, ...]:
        """The same prediction computed on whole arrays in this process: what the cards must equal.

        It gathers every parameter; use it for nets that one process can hold.
        """
        graph = trace(self.network, *predict_data)
        program = partition(graph, propagate(graph, 1, mode="stand_alone"))
        params = self.network.parameters_dict()
        values = {name: params[name].asnumpy() for name in program.params}
        arrays = [Tensor(v).asnumpy() for v in predict_data]
        inputs = dict(zip(graph.inputs, arrays, strict=True))
        outputs, _ = run_serial(program, shard_inputs(program, values), shard_inputs(program, inputs))
        return _one_or_all([Tensor(outputs[0][name]) for name in graph.outputs])

    def _predict_program(self, tensors: Sequence[Tensor], placed: PlacedNet) -> CardProgram:
        runner, context = self._runner, parallel_context()
        specs = tuple(spec_of(t) for t in tensors)

        def make() -> CardProgram:
            count = context.pipeline_micro_batches
            graph = trace(self.network, *micro_specs(specs, count))
            sharding = runner.sharding(graph, context, placed.strategy.ranks)
            if count > 1:
                check_rows_apart(trace(self.network, *specs), count)
            return CardProgram(partition(graph, sharding, placed.strategy), count)

        return runner.program(
            ("predict", specs, context, placed.placement.key, runner.devices(context)), make
        )


def _one_or_all(results: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return results[0] if len(results) == 1 else tuple(results)
