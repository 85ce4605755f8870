"""Generation: one run over the prompt, then one run per token.

::

    prompt   a b c d     run 1  tokens 0..3 at position 0      -> logits after d -> e
                         run 2  e at position 4                -> logits after e -> f
    cache    keys and values of all tokens so far, on the cards, sharded as the KV heads are

Each run is one task per card. Weights and caches stay where they are. A lost card takes its part of the
caches with it: then all tokens so far are run again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..cards import CardRestartedError
from ..errors import ArgumentTypeError, ContextError, Option, ShardingError
from ..net import Spec, Tensor, trace
from ..net.models import CausalLM, Decoder
from ..parallel import CardProgram, Program, Redistribute, partition, propagate
from .context import parallel_context
from .placing import PlacedNet, place_initial
from .runner import NetRunner

__all__ = ["Choice", "Generation"]

Array = NDArray[Any]
Ids = NDArray[np.int64]

MOST_LOSSES = 5
"""How many times one call recovers from lost caches."""


class Choice(NamedTuple):
    """How the next token is chosen."""

    temperature: float
    seed: int
    eos: int | None

    def check(self) -> None:
        """Refuse numbers that are out of range.

        Raises
        ------
        ContextError
            Naming the number.
        """
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            given = Option("temperature", self.temperature)
            raise ContextError(f"{given}; use 0 for the most probable token, or above", given)
        if self.seed < 0:
            given = Option("seed", self.seed)
            raise ContextError(f"{given} is below 0", given)

    def of(self, logits: Array, step: int) -> Ids:
        """The next token of each sequence, from logits [sequences, vocab_size]; `step` is the number added before."""
        if not self.temperature:
            return np.asarray(logits.argmax(axis=1), np.int64)
        shares = logits.astype(np.float64) / self.temperature
        shares = np.exp(shares - shares.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = np.random.default_rng([self.seed, step]).random(len(logits)) * shares[:, -1]
        return np.asarray((shares <= drawn[:, None]).sum(axis=1), np.int64)


class Generation:
    """One call of `Model.generate`."""

    def __init__(self, runner: NetRunner, ids: Tensor | ArrayLike, count: int, choice: Choice) -> None:
        if not isinstance(runner.net, CausalLM):
            raise ContextError(
                f"{type(runner.net).__name__} is not a language model; generate is for the nets of dl.models"
            )
        self.runner, self.net, self.choice = runner, runner.net, choice
        self.ids = _token_ids(ids)
        choice.check()
        if type(count) is not int or count < 1:
            given = Option("max_new_tokens", count)
            raise ContextError(f"{given}; add 1 token or more", given)
        self.total = self.ids.shape[1] + count
        if self.total > self.net.max_positions:
            given = Option("max_new_tokens", count)
            raise ContextError(
                f"{self.ids.shape[1]} tokens and {given} make {self.total}, but the net has "
                f"{self.net.max_positions} positions; {_room(self.net.max_positions - self.ids.shape[1])}",
                given,
            )
        self.caches: PlacedNet | None = None
        self.losses = 0

    def run(self) -> Tensor:
        """The sequences with the tokens that were added."""
        placed = self.runner.placed([Tensor(self.ids)])
        prompt = self.ids.shape[1]
        ended = np.zeros(len(self.ids), bool)
        try:
            while self.ids.shape[1] < self.total and not ended.all():
                added = self.choice.of(self._logits(placed), self.ids.shape[1] - prompt)
                if self.choice.eos is not None:
                    added = np.where(ended, self.choice.eos, added)
                    ended |= added == self.choice.eos
                self.ids = np.concatenate([self.ids, added[:, None]], axis=1)
        finally:
            self._drop()
        return Tensor(self.ids)

    def _drop(self) -> None:
        if self.caches is not None:
            self.caches.group.drop(self.caches.placement)
            self.caches = None

    def _logits(self, placed: PlacedNet) -> Array:
        """Those after the last token; all tokens are run again whenever the caches are lost with a card."""
        while True:
            try:
                return self._run(placed)
            except CardRestartedError:
                self.losses += 1
                if self.losses > MOST_LOSSES:
                    raise
                self._drop()

    def _run(self, placed: PlacedNet) -> Array:
        tokens = self.ids.shape[1]
        fresh = self.caches is None
        program = self._program(tokens if fresh else 1, placed)
        if self.caches is None:
            self.caches = self._place(program.program)
        position = 0 if fresh else tokens - 1
        inputs = {"ids": self.ids[:, position:], "position": np.array(position, np.int64)}
        extra = [self.caches.placement]
        report = self.runner.run(program, placed.placement, inputs, extra=extra)
        # What a run wrote is not what the caches were filled with: a card that is lost cannot fill its part again.
        self.caches.placement.commit(0)
        return report.outputs[program.program.outputs[0]]

    def _place(self, program: Program) -> PlacedNet:
        caches = self._decoder().parameters_dict()
        return place_initial(self.runner.cards, caches, program.strategy.subset(caches))

    def _decoder(self) -> Decoder:
        # The last token is never run.
        return Decoder(self.net, len(self.ids), self.total - 1)

    def _program(self, tokens: int, placed: PlacedNet) -> CardProgram:
        """The program for so many new tokens, made once for each size of sequences and caches."""
        context = parallel_context()
        devices = max(self.runner.devices(context), placed.strategy.ranks)
        size = (len(self.ids), tokens, self.total)

        def make() -> CardProgram:
            decoder = self._decoder()
            specs = Spec(size[:2], np.dtype(np.int64)), Spec((), np.dtype(np.int64))
            graph = trace(decoder, *specs)
            sharding = propagate(graph, devices, mode=context.parallel_mode, stages=context.stages)
            program = partition(graph, sharding, placed.strategy)
            _check_in_place(program, decoder.parameters_dict())
            return CardProgram(program)

        key = ("generate", size, context, placed.placement.key, devices)
        return self.runner.program(key, make)


def _check_in_place(program: Program, caches: Mapping[str, Any]) -> None:
    """Refuse a program that would write to a copy of a cache: the cache itself would stay as it was."""
    for instruction in program.instructions:
        for name in instruction.inputs:
            if name in caches and isinstance(instruction, Redistribute):
                raise ShardingError(
                    f"{name}: its readers want it in different layouts; shard them alike", parameter=name
                )


def _token_ids(ids: Tensor | ArrayLike) -> Ids:
    """Token ids of sequences of one length, int64, shape (sequences, tokens).

    Raises
    ------
    ArgumentTypeError
        If they are something else.
    """
    rows = [row for row in ids if isinstance(row, Sequence | np.ndarray)] if isinstance(ids, Sequence) else []
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ArgumentTypeError(
            f"sequences of {lengths[0]} to {lengths[-1]} tokens; generate takes sequences of one length: call it "
            "once for each length"
        )
    array = Tensor(ids).asnumpy()
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size:
        raise ArgumentTypeError(
            f"generate takes token ids of shape (sequences, tokens), not {list(array.shape)} of {array.dtype}"
        )
    return array.astype(np.int64)


def _room(tokens: int) -> str:
    return f"add at most {tokens}" if tokens > 0 else "give shorter sequences"
