"""Step 1: one call of `Model.train`, step by step on the cards.

A step counts on all cards or on none. When a card is lost and others hold the same shards, the step
is repeated (see `cards.recovery`). Otherwise training goes back to the last state that can be restored
(a saved checkpoint, or the beginning) and repeats the steps since then, callbacks included.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from numpy.typing import ArrayLike, NDArray

from ..cards import CardRestartedError
from ..checkpoint import followed_parameter
from ..errors import CardError, ContextError
from ..formats import write_strategy
from ..net import Parameter, Tensor, training_graph
from ..net.nn import Optimizer
from ..parallel import CardProgram, partition, propagate
from ..secret import secret_key
from .callbacks import Callback, RunContext
from .context import ParallelMode, parallel_context
from .load import Saved, load_saved
from .placing import place_initial, placed_net, remember, with_new_values
from .runner import NetRunner
from .saving import SaveOptions, save_net
from .strategies import loaded_operators, strategy_file_of

__all__ = ["Training"]

MOST_LOSSES = 10
"""How many lost cards one call of train recovers from."""

Array = NDArray[Any]
Batch = Sequence[Tensor | ArrayLike]
"""Data and label."""


class Training:
    """One call of `Model.train`."""

    def __init__(
        self,
        runner: NetRunner,
        loss_fn: Callable[..., object],
        optimizer: Optimizer,
        epochs: int,
        dataset: Iterable[Batch],
        callbacks: Sequence[Callback],
    ) -> None:
        self.runner, self.loss_fn, self.optimizer = runner, loss_fn, optimizer
        self.epochs, self.dataset, self.callbacks = epochs, dataset, callbacks
        self.context = parallel_context()
        self.devices = runner.devices(self.context)
        self.stacked = not self.context.full_batch and self.context.parallel_mode != ParallelMode.STAND_ALONE
        self.program: CardProgram | None = None
        self.saved: Saved | None = None
        self.steps_before: dict[int, int] = {}
        self.failures = 0
        self.can_begin_again = False

    def run(self) -> None:
        save = functools.partial(save_net, self.runner.net, self.runner.cards)
        begin = RunContext(0, 0, 0, self._steps_per_epoch(), math.nan, save)
        for callback in self.callbacks:
            callback.on_train_begin(begin)
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
                    save = functools.partial(self._save, (epoch, count))
                    context = RunContext(epoch + 1, count, step, self._steps_per_epoch(), loss, save)
                    for callback in self.callbacks:
                        callback.on_train_step_end(context)
            if not count:
                raise ContextError(
                    "the dataset yields no batches; it must be possible to iterate over it more than once"
                )
            self.steps_before[epoch + 1] = self.steps_before.get(epoch, 0) + count
            if context is not None:
                for callback in self.callbacks:
                    callback.on_train_epoch_end(context)
        return context

    def _steps_per_epoch(self) -> int:
        return len(self.dataset) if isinstance(self.dataset, Sized) else 0

    def _save(
        self,
        position: tuple[int, int],
        directory: Path,
        name: str,
        *,
        integrated: bool,
        **file_options: Unpack[SaveOptions],
    ) -> list[Path]:
        """Save the values of a position (epochs done, steps done in the next), to go back to."""
        paths = save_net(
            self.runner.net, self.runner.cards, directory, name, integrated=integrated, **file_options
        )
        key, mode = secret_key(file_options.get("enc_key")), file_options.get("enc_mode", "AES-GCM")
        self.saved = Saved(*position, paths, integrated, key, mode)
        return paths

    def _step(self, batch: Batch) -> float:
        data, label = self._whole_batch(batch)
        program = self.program = self.program or self._prepared(data, label)
        placed = placed_net(self.runner.net, self.runner.cards)
        if placed is None:
            raise CardError("the net was dropped from the cards while it was trained")
        names = program.program
        inputs = {names.inputs[0]: data, "label": label}
        report = self.runner.run(program, placed.placement, inputs, training=True)
        return float(report.outputs[names.outputs[0]])

    def _whole_batch(self, batch: Batch) -> tuple[Array, Array]:
        try:
            data, label = batch
        except (TypeError, ValueError) as err:
            raise ContextError(f"a dataset yields (data, label) pairs, not {type(batch).__name__}") from err
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

    def _prepared(self, data: Array, label: Array) -> CardProgram:
        """Make the program, and place the parameters and states that are on no card yet."""
        net, context = self.runner.net, self.context
        graph = training_graph(net, self.loss_fn, self.optimizer, data, label)
        weights = net.parameters_dict()
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
        placed = placed_net(net, self.runner.cards)
        if placed is not None:
            placed = with_new_values(net, placed, states)
        missing = [n for n in graph.params if placed is None or n not in placed.strategy]
        for name in states.keys() & missing:
            states[name].source = states[name].initial  # values on another group stay there
        if missing:
            initial = self.sharding.strategy.subset(missing)
            placed = place_initial(self.runner.cards, self.params, initial, placed)
            placed = replace(placed, states=states)
            remember(net, placed)
        assert placed is not None
        self.can_begin_again = not placed.placement.trained
        program = CardProgram(partition(graph, self.sharding, placed.strategy))
        self._write_strategy()
        return program

    def _shared_among_holders(self, weights: Mapping[str, Parameter]) -> frozenset[str]:
        """What the parallel optimizer may shard: a state like the parameter that it follows."""
        if not self.context.enable_parallel_optimizer:
            return frozenset()
        followed = {name: followed_parameter(name, weights) or name for name in self.params}
        return frozenset(name for name, of in followed.items() if self.params[of].parallel_optimizer)

    def _write_strategy(self) -> None:
        if self.context.strategy_ckpt_save_file and self.context.parallel_mode != ParallelMode.STAND_ALONE:
            names = self.runner.net.parameters_dict()
            write_strategy(self.context.strategy_ckpt_save_file, strategy_file_of(self.sharding, names))

    def _go_back(self, err: CardRestartedError) -> tuple[int, int]:
        """Restore the last state that can be restored, on all cards; returns its position."""
        self.failures += 1
        if self.failures > MOST_LOSSES:
            raise err
        placed = placed_net(self.runner.net, self.runner.cards)
        if placed is None:
            raise err
        if self.saved is not None:
            load_saved(placed, self.saved)
            return self.saved.epoch, self.saved.step
        if not self.can_begin_again:
            raise err
        self.runner.cards.refill(placed.placement)
        return 0, 0
