"""A model: a net, perhaps a loss and an optimizer, and the cards that it trains and predicts on.

model = Model(net, loss_fn, optimizer)         inside `with CardGroup(8):`
model.train(2, dataset, callbacks=[...])       step 1
layout = model.infer_predict_layout(x)         step 2
load_distributed_checkpoint(net, files, ...)   step 3
y = model.predict(x)                           step 4
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import CardGroup, CardRestartedError, current_group
from ..checkpoint import OperatorStrategy, StrategyFile, followed_parameter, read_strategy, write_strategy
from ..errors import ArgumentTypeError, CardError, ContextError
from ..layout import Strategy
from ..net import Cell, Graph, NodeStrategy, Parameter, Tensor, spec_of, trace, training_graph
from ..net.nn import Optimizer
from ..parallel import CardProgram, Program, Sharding, assemble, partition, propagate, run_serial
from ..parallel.serial import cut
from .callbacks import Callback, RunContext
from .context import ParallelContext, ParallelMode, parallel_context
from .placing import PlacedNet, place_initial, placed_net, remember
from .predict_layout import PredictLayout
from .saving import save_merged, save_slices

__all__ = ["Model"]


class Model:
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
        self.network, self.loss_fn, self.optimizer = network, loss_fn, optimizer
        self._cards = cards
        self._programs: dict[Any, tuple[Graph, Sharding, Program, CardProgram]] = {}
        self._saved: tuple[int, int, list[Path]] | None = None
        self.last_program: Program | None = None
        """The program of the latest train or predict call: what each card held, what each collective carried."""
        self.last_sent_bytes: tuple[int, ...] = ()
        """Bytes that each card sent to others in the latest step or prediction, as the cards counted them."""

    @property
    def cards(self) -> CardGroup:
        """The group that the model works on now."""
        return current_group() if self._cards is None else self._cards

    def _devices(self, context: ParallelContext) -> int:
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
        _Training(self, self.optimizer, epoch, train_dataset, hooks).run()

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
        if integrated:
            return [save_merged(placed, Path(directory) / name, file_options)]
        paths = save_slices(placed, Path(directory), name, file_options)
        self._saved = (*at, paths)
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
            True, or, on more than one card, no training strategy file is set.
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
        if self._devices(context) > 1 and not context.strategy_ckpt_load_file:
            raise ContextError(
                "infer_predict_layout on several cards needs the training strategy; call "
                "set_auto_parallel_context(strategy_ckpt_load_file='train_strategy.ckpt')"
            )
        _, sharding = self._cut(self._trace(predict_data), context)
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
        inputs = self._named_inputs(tensors)
        placed = self._placed_for_predict(tensors)
        graph, program, card_program = self._predict_program(tensors, placed)
        shards = cut(program, inputs)
        primary = {name: set(program.primary_ranks(name)) for name in dict.fromkeys(program.outputs)}
        wanted = [[n for n, ranks in primary.items() if r in ranks] for r in range(program.ranks)]
        found, sent = self.cards.run(card_program, placed.placement, shards, wanted)
        self.last_program, self.last_sent_bytes = program, tuple(sent)
        results = [Tensor(assemble(program, name, found)) for name in graph.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def predict_on_one_card(self, *predict_data: Any) -> Any:
        """The same prediction computed on whole arrays in this process: what the cards must equal.

        It gathers every parameter; use it for nets that one process can hold.
        """
        graph = self._trace(predict_data)
        program = partition(graph, propagate(graph, 1, mode="stand_alone"))
        params = self.network.parameters_dict()
        values = {name: params[name].asnumpy() for name in program.params}
        inputs = self._named_inputs([Tensor(v) for v in predict_data])
        outputs, _ = run_serial(program, cut(program, values), cut(program, inputs))
        results = [Tensor(outputs[0][name]) for name in graph.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _named_inputs(self, tensors: Sequence[Any]) -> dict[str, Any]:
        graph = self._trace(tensors)
        return {name: t.asnumpy() for name, t in zip(graph.inputs, tensors, strict=True)}

    def _trace(self, tensors: Sequence[Any]) -> Graph:
        return trace(self.network, *tensors)

    def _placed_for_predict(self, tensors: Sequence[Any]) -> PlacedNet:
        placed = placed_net(self.network, self.cards)
        if placed is None:
            graph, sharding = self._cut(self._trace(tensors), parallel_context())
            params = self.network.parameters_dict()
            placed = place_initial(self.cards, params, _only(sharding.strategy, graph.params))
            remember(self.network, placed)
        return placed

    def _predict_program(
        self, tensors: Sequence[Any], placed: PlacedNet
    ) -> tuple[Graph, Program, CardProgram]:
        context = parallel_context()
        key = (
            "predict",
            tuple(spec_of(t) for t in tensors),
            context,
            placed.placement.key,
            self._devices(context),
        )
        if key not in self._programs:
            graph, sharding = self._cut(self._trace(tensors), context, placed.strategy.ranks)
            program = partition(graph, sharding, placed.strategy)
            self._programs[key] = (graph, sharding, program, CardProgram(program))
        graph, _, program, card_program = self._programs[key]
        return graph, program, card_program

    def _cut(self, graph: Graph, context: ParallelContext, at_least: int = 1) -> tuple[Graph, Sharding]:
        """Propagate as the context says; a net that lies on several cards needs all of them."""
        devices = max(self._devices(context), at_least)
        return graph, propagate(graph, devices, mode=context.parallel_mode, loaded=loaded_operators(context))


def loaded_operators(context: ParallelContext) -> Mapping[str, NodeStrategy]:
    """The operators' strategies of the training strategy file, if one is set.

    Raises
    ------
    CheckpointFileError
        If there is no such file.
    """
    if not context.strategy_ckpt_load_file or not context.is_cut:
        return {}
    found = read_strategy(context.strategy_ckpt_load_file)
    return {name: item.inputs for name, item in found.operators.items() if item.inputs}


def _only(strategy: Strategy, names: Iterable[str]) -> Strategy:
    return Strategy({n: strategy[n] for n in names}, strategy.shapes, strategy.ranks)


class _Training:
    """One call of `Model.train`."""

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        epochs: int,
        dataset: Iterable[Any],
        callbacks: Sequence[Callback],
    ) -> None:
        self.model, self.optimizer, self.epochs, self.dataset = model, optimizer, epochs, dataset
        self.callbacks = callbacks
        self.context = parallel_context()
        self.devices = model._devices(self.context)
        self.stacked = not self.context.full_batch and self.context.parallel_mode != ParallelMode.STAND_ALONE
        self.program: Program | None = None
        self.steps_before: dict[int, int] = {}
        self.failures = 0

    def run(self) -> None:
        for callback in self.callbacks:
            callback.on_train_begin(self.model)
        self.model._saved = None
        position = (0, 0)
        context: RunContext | None = None
        while True:
            try:
                context = self._steps_from(position) or context
                break
            except CardRestartedError as err:
                position = self._go_back(err)
        if context is not None:
            for callback in self.callbacks:
                callback.on_train_end(context)

    def _steps_from(self, position: tuple[int, int]) -> RunContext | None:
        """Train from a position (epochs done, steps done in the next) to the end."""
        context = None
        for epoch in range(position[0], self.epochs):
            skipped = position[1] if epoch == position[0] else 0
            count = 0
            for count, batch in enumerate(self.dataset, 1):
                if count > skipped:
                    loss = self._step(batch)
                    step = self.steps_before.setdefault(epoch, 0) + count
                    context = RunContext(self.model, epoch + 1, count, step, self._steps_per_epoch(), loss)
                    for callback in self.callbacks:
                        callback.on_train_step_end(context)
            if not count:
                raise ContextError("the dataset gives no batches; it must be possible to iterate it again")
            self.steps_before[epoch + 1] = self.steps_before.get(epoch, 0) + count
            if context is not None:
                for callback in self.callbacks:
                    callback.on_train_epoch_end(context)
        return context

    def _steps_per_epoch(self) -> int:
        return len(self.dataset) if isinstance(self.dataset, Sized) else 0

    def _step(self, batch: Any) -> float:
        data, label = self._whole_batch(batch)
        if self.program is None:
            self._prepare(data, label)
        program = self.program
        assert program is not None
        placed = placed_net(self.model.network, self.model.cards)
        if placed is None:
            raise CardError("the net was dropped from the cards while it was trained")
        inputs = cut(program, {program.inputs[0]: data, "label": label})
        wanted = [list(program.outputs), *([] for _ in range(program.ranks - 1))]
        found, sent = self.model.cards.run(self.card_program, placed.placement, inputs, wanted, training=True)
        self.model.last_program, self.model.last_sent_bytes = program, tuple(sent)
        return float(found[0][program.outputs[0]])

    def _whole_batch(self, batch: Any) -> tuple[Any, Any]:
        try:
            data, label = batch
        except (TypeError, ValueError) as err:
            raise ContextError(f"a dataset gives (data, label) pairs, not {type(batch).__name__}") from err
        arrays = [Tensor(value).asnumpy() for value in (data, label)]
        if self.stacked:
            for array in arrays:
                if array.ndim < 2 or array.shape[0] != self.devices:
                    raise ContextError(
                        f"with full_batch=False a batch is stacked per rank, shape ({self.devices}, rows, ...), but "
                        f"this one has shape {array.shape}; stack it, or set full_batch=True"
                    )
            arrays = [a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]) for a in arrays]
        return arrays[0], arrays[1]

    def _prepare(self, data: Any, label: Any) -> None:
        """Make the program, and place the net if it does not lie as the program wants it."""
        model, context = self.model, self.context
        assert model.loss_fn is not None
        graph = training_graph(model.network, model.loss_fn, self.optimizer, data, label)
        self.sharding = propagate(
            graph,
            self.devices,
            mode=context.parallel_mode,
            loaded=loaded_operators(context),
            parallel_optimizer=context.enable_parallel_optimizer,
        )
        self.params: dict[str, Parameter] = {**model.network.parameters_dict(), **self.optimizer.states}
        placed = placed_net(model.network, model.cards)
        missing = [n for n in graph.params if placed is None or n not in placed.strategy]
        if missing:
            initial = _only(self.sharding.strategy, missing)
            placed = place_initial(model.cards, self.params, initial, placed)
            remember(model.network, placed)
        assert placed is not None
        self.can_begin_again = not placed.placement.trained
        self.program = partition(graph, self.sharding, placed.strategy)
        self.card_program = CardProgram(self.program)
        self._write_strategy()

    def _write_strategy(self) -> None:
        if self.context.strategy_ckpt_save_file and self.context.is_cut:
            names = self.model.network.parameters_dict()
            write_strategy(self.context.strategy_ckpt_save_file, strategy_file_of(self.sharding, names))

    def _go_back(self, err: CardRestartedError) -> tuple[int, int]:
        """Put the last state that can be had again on all cards; gives its position."""
        from .load import load_slices

        self.failures += 1
        if self.failures > 10:
            raise err
        model = self.model
        placed = placed_net(model.network, model.cards)
        if placed is None:
            raise err
        if model._saved is not None:
            epoch, step, paths = model._saved
            load_slices(placed, paths)
            return epoch, step
        if not self.can_begin_again:
            raise err
        model.cards.refill(placed.placement)
        return 0, 0


def strategy_file_of(sharding: Sharding, params: Mapping[str, Parameter]) -> StrategyFile:
    """What a strategy file says of a sharding: operators, a net's parameters and their states."""
    operators = {name: OperatorStrategy(0, inputs) for name, inputs in sharding.operators.items()}
    named = [n for n in sharding.strategy if n in params or followed_parameter(n, params)]
    return StrategyFile.from_strategy(_only(sharding.strategy, named), operators)
