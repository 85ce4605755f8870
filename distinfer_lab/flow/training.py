"""Step 1: one call of `Model.train`, step by step on the cards.

A step counts on all cards or on none. When a card is lost and others hold the same shards, the step
is done again (see `cards.recovery`). Otherwise training goes back to the last state that can be had
again (a saved checkpoint, or the beginning) and does the steps since once more, callbacks included.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cards import CardRestartedError
from ..checkpoint import followed_parameter
from ..errors import CardError, ContextError
from ..formats import write_strategy
from ..net import Parameter, Tensor, training_graph
from ..net.nn import Optimizer
from ..parallel import CardProgram, Program, partition, propagate, shard_inputs, unshard
from .callbacks import Callback, RunContext
from .context import ParallelMode, parallel_context
from .load import load_saved
from .placing import place_initial, placed_net, remember, with_new_values
from .strategies import loaded_operators, strategy_file_of

if TYPE_CHECKING:
    from .model import Model

__all__ = ["Training"]

MOST_LOSSES = 10
"""How many lost cards one call of train gets over."""


class Training:
    """One call of `Model.train`."""

    def __init__(
        self,
        model: "Model",
        optimizer: Optimizer,
        epochs: int,
        dataset: Iterable[Any],
        callbacks: Sequence[Callback],
    ) -> None:
        self.model, self.optimizer, self.epochs, self.dataset = model, optimizer, epochs, dataset
        self.callbacks = callbacks
        self.context = parallel_context()
        self.devices = model.devices(self.context)
        self.stacked = not self.context.full_batch and self.context.parallel_mode != ParallelMode.STAND_ALONE
        self.program: Program | None = None
        self.steps_before: dict[int, int] = {}
        self.failures = 0
        self.can_begin_again = False

    def run(self) -> None:
        for callback in self.callbacks:
            callback.on_train_begin(self.model)
        self.model.last_saved = None
        position = (0, 0)
        context: RunContext | None = None
        while True:
            try:
                context = self._steps_from(position) or context
                if context is not None:
                    for callback in self.callbacks:
                        callback.on_train_end(context)
            except CardRestartedError as err:
                position = self._go_back(err)
            else:
                return

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
        inputs = shard_inputs(program, {program.inputs[0]: data, "label": label})
        found = self.model.run(self.card_program, placed.placement, inputs, training=True)
        return float(unshard(program, program.outputs[0], found))

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
        weights = model.network.parameters_dict()
        self.params: dict[str, Parameter] = {**weights, **self.optimizer.states}
        self.sharding = propagate(
            graph,
            self.devices,
            mode=context.parallel_mode,
            loaded=loaded_operators(context),
            parallel_optimizer=self._shared_among_holders(weights),
            stages=context.stages,
        )
        states = self.optimizer.states
        placed = placed_net(model.network, model.cards)
        if placed is not None:
            placed = with_new_values(model.network, placed, states)
        missing = [n for n in graph.params if placed is None or n not in placed.strategy]
        for name in states.keys() & missing:
            states[name].source = states[name].initial  # what other cards hold of it stays there
        if missing:
            initial = self.sharding.strategy.subset(missing)
            placed = place_initial(model.cards, self.params, initial, placed)
            placed = replace(placed, states=states)
            remember(model.network, placed)
        assert placed is not None
        self.can_begin_again = not placed.placement.trained
        self.program = partition(graph, self.sharding, placed.strategy)
        self.card_program = CardProgram(self.program)
        self._write_strategy()

    def _shared_among_holders(self, weights: Mapping[str, Parameter]) -> frozenset[str]:
        """What the parallel optimizer may cut: a state may be cut as the parameter that it follows."""
        if not self.context.enable_parallel_optimizer:
            return frozenset()
        followed = {name: followed_parameter(name, weights) or name for name in self.params}
        return frozenset(name for name, of in followed.items() if self.params[of].parallel_optimizer)

    def _write_strategy(self) -> None:
        if self.context.strategy_ckpt_save_file and self.context.parallel_mode != ParallelMode.STAND_ALONE:
            names = self.model.network.parameters_dict()
            write_strategy(self.context.strategy_ckpt_save_file, strategy_file_of(self.sharding, names))

    def _go_back(self, err: CardRestartedError) -> tuple[int, int]:
        """Put the last state that can be had again on all cards; gives its position."""
        self.failures += 1
        if self.failures > MOST_LOSSES:
            raise err
        model = self.model
        placed = placed_net(model.network, model.cards)
        if placed is None:
            raise err
        if model.last_saved is not None:
            load_saved(placed, model.last_saved)
            return model.last_saved.epoch, model.last_saved.step
        if not self.can_begin_again:
            raise err
        model.cards.refill(placed.placement)
        return 0, 0
