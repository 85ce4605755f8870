"""A model: a net, perhaps a loss and an optimizer, and the cards that it trains and predicts on.

::

    model = Model(net, loss_fn, optimizer)         inside `with CardGroup(8):`
    model.train(2, dataset, callbacks=[...])       step 1
    layout = model.infer_predict_layout(x)         step 2
    load_distributed_checkpoint(net, files, ...)   step 3
    y = model.predict(x)                           step 4
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..cards import CardGroup, Placement, current_group
from ..display import Displayed
from ..errors import ArgumentTypeError, ContextError
from ..formats import with_secret_key
from ..net import Cell, Graph, Tensor, spec_of, trace
from ..net.nn import Optimizer
from ..parallel import (
    SENT,
    TIMES,
    CardProgram,
    Communication,
    Program,
    Sharding,
    check_rows_apart,
    partition,
    propagate,
    run_serial,
    shard_inputs,
)
from ..trace import Trace
from .callbacks import Callback
from .context import ParallelContext, ParallelMode, parallel_context
from .generating import Choice, Generation
from .load import Saved
from .micro_batches import micro_specs
from .placing import PlacedNet, place_initial, placed_net, remember, with_new_values
from .predict_layout import PredictLayout
from .saving import save_merged, save_slices
from .strategies import loaded_operators
from .training import Training

__all__ = ["Model"]

T = TypeVar("T")


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
        loss_fn: Callable[..., Any] | None = None,
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
        self._cards = cards
        self._programs: dict[Any, Any] = {}
        self.last_saved: Saved | None = None
        """The latest checkpoint of this training."""
        self.last_program: Program | None = None
        """The program of the latest train or predict call: what each card held, what each collective carried."""
        self.last_sent_bytes: tuple[int, ...] = ()
        """Bytes that each card sent to others in the latest step or prediction, as the cards counted them."""
        self._last_run: CardProgram | None = None
        self._last_counts: list[Any] = []
        self._last_times: list[Any] = []

    def __repr__(self) -> str:
        words = [type(self.network).__name__]
        if self.loss_fn is not None:
            words.append(f"loss={getattr(self.loss_fn, '__name__', type(self.loss_fn).__name__)}")
        if self.optimizer is not None:
            words.append(f"optimizer={type(self.optimizer).__name__}")
        return f"Model({', '.join(words)})"

    @property
    def cards(self) -> CardGroup:
        """The group that the model works on now."""
        return current_group() if self._cards is None else self._cards

    @property
    def last_communication(self) -> Communication | None:
        """What each collective of the latest step or prediction sent, as the cards counted it; None before one.

        What was to be expected is `model.last_program.communication()`, times the micro-batches.
        """
        if self._last_run is None:
            return None
        return self._last_run.communication().with_counts(self._last_counts)

    @property
    def last_trace(self) -> Trace | None:
        """What each card did when in the latest step or prediction, by the clocks of their hosts; None before one."""
        return None if self._last_run is None else self._last_run.trace(self._last_times)

    def devices(self, context: ParallelContext) -> int:
        """How many cards a program of this model runs on.

        Raises
        ------
        ContextError
            If `device_num` is set to something else.
        """
        if context.parallel_mode == ParallelMode.STAND_ALONE:
            return 1
        cards = len(self.cards)
        if context.device_num is not None and context.device_num != cards:
            raise ContextError(
                f"device_num={context.device_num}, but the card group has {cards} cards; "
                f"set device_num={cards}, or leave it out"
            )
        return cards

    # Training

    def train(
        self,
        epoch: int,
        train_dataset: Iterable[Any],
        callbacks: Callback | Sequence[Callback] | None = None,
        dataset_sink_mode: bool = False,
    ) -> None:
        """Train for some epochs.

        A step that a lost card interrupts is not applied on any card. Training goes back to
        the last state that can be had again, that of the last saved checkpoint or the
        beginning, and does the steps since then once more.

        Parameters
        ----------
        epoch
            How often to go through the dataset, 1 or more.
        train_dataset
            Gives (data, label) pairs and can be iterated again. With full_batch=False in a
            parallel mode each has one more dim in front, the rank: card r gets item r.
        callbacks
            What to call between steps.
        dataset_sink_mode
            Accepted for MindSpore's scripts.

        Raises
        ------
        ContextError
            If there is no loss, optimizer or card group, or a setting does not fit.
        GraphError, ShardingError
            If the net cannot be traced or cut.
        """
        if self.loss_fn is None or self.optimizer is None:
            raise ContextError("to train, make Model(network, loss_fn, optimizer)")
        if epoch < 1:
            raise ContextError(f"epoch={epoch} is below 1")
        hooks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        Training(self, self.optimizer, epoch, train_dataset, hooks).run()

    def save(
        self,
        directory: Path,
        name: str,
        *,
        integrated: bool,
        at: tuple[int, int] = (0, 0),
        **file_options: Any,
    ) -> list[Path]:
        """Write the values that the cards hold; gives the paths, in rank order.

        Parameters
        ----------
        integrated
            True: merged, as `<directory>/<name>`. False: each card writes its slices, as
            `<directory>/rank_<r>_ckpt/<name>`.
        at
            The training position (epochs and steps done) that the values belong to.
        """
        placed = placed_net(self.network, self.cards)
        if placed is None:
            raise ContextError("the net is on no card yet; train it or load a checkpoint first")
        file_options = with_secret_key(file_options)
        if integrated:
            paths = [save_merged(placed, Path(directory) / name, file_options)]
        else:
            paths = save_slices(placed, Path(directory), name, file_options)
        key, mode = file_options.get("enc_key"), file_options.get("enc_mode", "AES-GCM")
        self.last_saved = Saved(*at, paths, integrated, key, mode)
        return paths

    # Prediction

    def infer_predict_layout(self, *predict_data: Any) -> PredictLayout:
        """Find which card will hold which slice of each parameter, from the net and the data's shapes.

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
            If the net cannot be traced or cut.
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
        if not context.is_cut:
            raise ContextError(
                f"infer_predict_layout works in the modes semi_auto_parallel and auto_parallel, not "
                f"{context.parallel_mode}; call set_auto_parallel_context(parallel_mode='semi_auto_parallel')"
            )
        if not context.full_batch:
            raise ContextError(
                "infer_predict_layout needs the whole batch on every card; call "
                "set_auto_parallel_context(full_batch=True)"
            )
        graph = self._trace(predict_data)
        told = all(node.strategy is not None for node in graph.nodes if node.inputs)
        if self.devices(context) > 1 and not (context.strategy_ckpt_load_file or told):
            raise ContextError(
                "infer_predict_layout on several cards needs the training strategy; call "
                "set_auto_parallel_context(strategy_ckpt_load_file='train_strategy.ckpt')"
            )
        _, sharding = self._cut(graph, context)
        shapes = {name: param.shape for name, param in self.network.parameters_dict().items()}
        return PredictLayout(sharding, shapes)

    def predict(self, *predict_data: Any) -> Any:
        """Run the net on the cards; gives the whole result as a Tensor, or a tuple of them.

        Parameters that were loaded or trained on the group are used where they lie; a net
        that is on no card yet is placed with its initial values.

        Raises
        ------
        ArgumentTypeError
            If the data are not Tensors.
        CardError
            If a card is lost and does not come back.
        GraphError, ShardingError
            If the net cannot be traced or cut.
        """
        tensors = [Tensor(v) if isinstance(v, np.ndarray) else v for v in predict_data]
        placed = self.placed(tensors)
        program = self._predict_program(tensors, placed)
        names = program.program.inputs
        inputs = {name: t.asnumpy() for name, t in zip(names, tensors, strict=True)}
        found = self.run(program, placed.placement, program.shard_inputs(inputs))
        results = [Tensor(program.unshard(name, found)) for name in program.program.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        card_program: CardProgram,
        placement: Placement,
        inputs: Sequence[Mapping[str, Any]],
        *,
        training: bool = False,
        beside: Sequence[Placement] = (),
    ) -> list[dict[str, Any]]:
        """Run a program once on the cards, and keep what they counted.

        Parameters
        ----------
        placement
            Holds the values that the program reads.
        inputs
            For each card its shards of the inputs.
        training
            The program's updates come in force, on all cards or on none.
        beside
            Further placements whose values it reads, and may change in place.

        Returns
        -------
        For each card its shards of those outputs of which it is the first holder.
        """
        found, sent = self.cards.run(
            card_program, placement, inputs, card_program.wanted, training=training, beside=beside
        )
        self.last_program, self.last_sent_bytes = card_program.program, tuple(sent)
        self._last_run = card_program
        self._last_counts = [card.pop(SENT) for card in found]
        self._last_times = [card.pop(TIMES) for card in found]
        return found

    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        eos: int | None = None,
    ) -> Tensor:
        """Go on with texts, token by token; every card keeps the keys and values of its heads.

        Of each step only the logits of the last token come back. The choice is made here, and is
        the same on any number of cards as far as their logits are.

        Parameters
        ----------
        ids
            Token numbers, shape (texts, tokens); all texts are of one length.
        max_new_tokens
            How many tokens to add, 1 or more.
        temperature
            0 takes the most probable token. Above it, a token is drawn from the softmax of the
            logits divided by it.
        seed
            Of the draws.
        eos
            The token that ends a text. A text that has ended goes on with it until all have ended.

        Returns
        -------
        The texts with what was added, int64, shape (texts, tokens + at most max_new_tokens).

        Raises
        ------
        ArgumentTypeError, ContextError
            If the net is no model of language, texts differ in length, or a number is out of range.
        CardError
            If a card is lost twice, or does not come back.
        """
        return Generation(self, ids, max_new_tokens, Choice(temperature, seed, eos)).run()

    def predict_on_one_card(self, *predict_data: Any) -> Any:
        """The same prediction computed on whole arrays in this process: what the cards must equal.

        It gathers every parameter; use it for nets that one process can hold.
        """
        graph = self._trace(predict_data)
        program = partition(graph, propagate(graph, 1, mode="stand_alone"))
        params = self.network.parameters_dict()
        values = {name: params[name].asnumpy() for name in program.params}
        inputs = self._named_inputs([Tensor(v) for v in predict_data])
        outputs, _ = run_serial(program, shard_inputs(program, values), shard_inputs(program, inputs))
        results = [Tensor(outputs[0][name]) for name in graph.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _named_inputs(self, tensors: Sequence[Any]) -> dict[str, Any]:
        graph = self._trace(tensors)
        return {name: t.asnumpy() for name, t in zip(graph.inputs, tensors, strict=True)}

    def _trace(self, tensors: Sequence[Any]) -> Graph:
        return trace(self.network, *tensors)

    def placed(self, tensors: Sequence[Any]) -> PlacedNet:
        """Where the net lies on the cards; placed with its initial values for such inputs, if it is on none."""
        placed = placed_net(self.network, self.cards)
        if placed is not None:
            return with_new_values(self.network, placed)
        graph, sharding = self._cut(self._trace(tensors), parallel_context())
        params = self.network.parameters_dict()
        placed = place_initial(self.cards, params, sharding.strategy.subset(graph.params))
        remember(self.network, placed)
        return placed

    def _predict_program(self, tensors: Sequence[Any], placed: PlacedNet) -> CardProgram:
        context = parallel_context()
        key = (
            "predict",
            tuple(spec_of(t) for t in tensors),
            context,
            placed.placement.key,
            self.devices(context),
        )

        def make() -> CardProgram:
            count = context.pipeline_micro_batches
            graph, sharding = self._cut(
                self._trace(micro_specs(tensors, count)), context, placed.strategy.ranks
            )
            if count > 1:
                check_rows_apart(self._trace(tensors), count)
            return CardProgram(partition(graph, sharding, placed.strategy), count)

        return self.program(key, make)

    def program(self, key: Any, make: Callable[[], T]) -> T:
        """What was made for this key, or is made now."""
        if key not in self._programs:
            self._programs[key] = make()
        found: T = self._programs[key]
        return found

    def _cut(self, graph: Graph, context: ParallelContext, at_least: int = 1) -> tuple[Graph, Sharding]:
        """Propagate as the context says; a net that lies on several cards needs all of them."""
        devices = max(self.devices(context), at_least)
        return graph, propagate(
            graph,
            devices,
            mode=context.parallel_mode,
            loaded=loaded_operators(context),
            stages=context.stages,
        )
