"""Causal language models: token ids in, the logits of the token after each out.

::

    construct(ids)                     [batch, tokens] -> [batch, tokens, vocab_size]     predict, train
    Decoder(net, ...)(ids, position)   the new tokens only -> [batch, vocab_size]         generate
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import GraphError, Option, ShardingError
from .. import operators
from ..cell import Cell
from ..dtypes import dtypes
from ..initializer import initializer
from ..tensor import Parameter, Value, apply, constant
from .blocks import Embedding, ForwardContext, KVCache
from .fields import Config, Fields, read_config
from .logical_axes import UNSPECIFIED, LogicalAxes, logical_axes

__all__ = ["CausalLM", "Decoder", "NextTokenLoss"]

FLOATS = ("float32", "float16", "bfloat16")
QUANTISED = ("quantization_config", "compression_config", "quantization")
"""Fields that say how weights are quantised: of transformers, of compressed-tensors once, of MLX."""


class CausalLM(Cell, ABC):
    """The base of the families.

    Parameters
    ----------
    config
        The fields of a `config.json`, that file, or its folder.

    Attributes
    ----------
    num_layers, heads, kv_heads, head_dim
        Of attention.
    vocab_size
        How many tokens there are.
    max_positions
        How many tokens a sequence may have.

    Raises
    ------
    GraphError
        If a field is missing, out of bounds, or asks for what is not supported.
    """

    rules = ""
    """The rules of files (`read_rules`) by which its parameters are sharded, once `shard_by` is called."""
    model_types: tuple[str, ...] = ()
    """Each `model_type` of the family."""

    num_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = read_config(config)
        fields = Fields(self.config, type(self).__name__)
        self.fields = Fields(self.config, fields.choice("model_type", self.model_types, self.model_types[0]))
        self._refuse_quantised()
        given = "dtype" if self.fields.has("dtype") else "torch_dtype"
        self.dtype = dtypes[self.fields.choice(given, FLOATS, FLOATS[0])]
        self.logical_axes: LogicalAxes = UNSPECIFIED

    def _refuse_quantised(self) -> None:
        """The codes of quantised weights are not numbers that an operator could take for weights."""
        for name in QUANTISED:
            if self.fields.has(name):
                raise self.fields.error(
                    name,
                    None,
                    "says that the weights are quantised, which cannot be predicted; take a checkpoint that is not "
                    "quantised, or let the library that quantised it write the weights as bfloat16",
                )

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Cell]:
        """The decoder layers, in order."""

    @abstractmethod
    def hidden_states(self, ids: Value, context: ForwardContext, caches: Sequence[KVCache | None]) -> Value:
        """The last hidden state of each token, [batch * tokens, hidden_size]."""

    @property
    @abstractmethod
    def output_embedding(self) -> Embedding:
        """What makes logits of hidden states: a weight of its own, or that of the input embedding."""

    def shard_by(self, *, tp: int = 1, dp: int = 1, pp: int = 1) -> "CausalLM":
        """Shard every operator over dp * tp cards, as Megatron does; returns the net itself.

        The vocabulary, the heads and the hidden units are shared by the tp cards of a group (where there
        are more cards than heads, several hold the same ones), the batch by the dp groups. Its
        parameters are then laid out as the rules of its family say for the mesh dp, tp.

        Parameters
        ----------
        pp
            Over how many pipeline stages of dp * tp cards each the layers are spread, in runs of about
            equal length; set `pipeline_stages` of the context to the same.

        Raises
        ------
        ShardingError
            If tp cards cannot share the heads, or there are more stages than layers.
        """
        self.logical_axes = logical_axes(dp, tp, self.heads, self.kv_heads)
        if not 1 <= pp <= self.num_layers:
            given = Option("pp", pp)
            raise ShardingError(
                f"{given}: {self.num_layers} layers make 1 to {self.num_layers} pipeline stages", given
            )
        for i, block in enumerate(self.blocks):
            block.pipeline_stage = i * pp // self.num_layers if pp > 1 else None
        return self

    def context(self, ids: Value, position: Value) -> ForwardContext:
        """What the layers share for these tokens.

        Raises
        ------
        GraphError
            If the ids are not integers [batch, tokens], or too many tokens.
        """
        if len(ids.shape) != 2 or ids.dtype.kind not in "iu":
            raise GraphError(
                f"{type(self).__name__} takes token ids of shape [batch, tokens], not {list(ids.shape)} of "
                f"{ids.dtype}"
            )
        batch, tokens = ids.shape
        if not 1 <= tokens <= self.max_positions or batch < 1:
            raise GraphError(
                f"{type(self).__name__}: {batch} sequences of {tokens} tokens; it takes 1 or more, of 1 to "
                f"{self.max_positions} tokens"
            )
        return ForwardContext(batch, tokens, position, self.logical_axes.for_batch(batch))

    def construct(self, ids: Value) -> Value:
        """Logits [batch, tokens, vocab_size] of token ids [batch, tokens]."""
        context = self.context(ids, constant(0, "int64"))
        hidden = self.hidden_states(ids, context, [None] * self.num_layers)
        logits = self.output_embedding.logits(hidden, context.shard)
        shape = (context.batch, context.tokens, self.vocab_size)
        return apply(operators.Reshape(shape), logits, strategy=context.shard("batch vocab"))


class Decoder(Cell):
    """A net that generates: it keeps the keys and values of earlier tokens as parameters of its own.

    Parameters
    ----------
    net
        The net, whose parameters it reads.
    batch, cache_length
        How many sequences, and of how many tokens at most.
    """

    def __init__(self, net: CausalLM, batch: int, cache_length: int) -> None:
        super().__init__()
        net.parameters_dict()
        self.of = (net,)  # not a cell of its own: the net's parameters keep their names
        shape = (batch, net.kv_heads, cache_length, net.head_dim)
        self.caches = tuple(
            KVCache(*(self._cache(f"cache.{layer}.{what}", shape) for what in KVCache._fields))
            for layer in range(net.num_layers)
        )

    def _cache(self, name: str, shape: tuple[int, ...]) -> Parameter:
        param = Parameter(initializer("zeros", shape, np.float32), name, requires_grad=False)
        setattr(self, name, param)
        return param

    def construct(self, ids: Value, position: Value) -> Value:
        """Logits [batch, vocab_size] after the last of the new tokens [batch, tokens], the first at `position`."""
        (net,) = self.of
        context = net.context(ids, position)
        hidden = _last_token(net.hidden_states(ids, context, self.caches), context)
        return net.output_embedding.logits(hidden, context.shard)


def _last_token(hidden: Value, context: ForwardContext) -> Value:
    """[batch * tokens, hidden_size] -> [batch, hidden_size]."""
    if context.tokens == 1:
        return hidden
    size, shard = hidden.shape[1], context.shard
    by_token = operators.Reshape((context.batch, context.tokens, size))
    x = apply(by_token, hidden, strategy=shard("batch -"))
    x = apply(operators.Part(1, (context.tokens - 1, 1), 1), x, strategy=shard("batch - -"))
    return apply(operators.Reshape((context.batch, size)), x, strategy=shard("batch - -"))


class NextTokenLoss(Cell):
    """The mean cross entropy of logits [batch, tokens, vocab_size] with labels [batch, tokens].

    A label is the id of the token that comes next. The logits stay sharded as the net returns them.
    """

    def __init__(self, net: CausalLM) -> None:
        super().__init__()
        self.of = (net,)

    def construct(self, logits: Value, labels: Value) -> Value:
        """One number."""
        if labels.shape != logits.shape[:2]:
            raise GraphError(
                f"labels of shape {list(labels.shape)} for logits of {list(logits.shape)}; give one id for each "
                "token, that of the token after it"
            )
        batch, tokens, vocab_size = logits.shape
        shard = self.of[0].logical_axes.for_batch(batch)
        shape = (batch * tokens, vocab_size)
        logits = apply(operators.Reshape(shape), logits, strategy=shard("batch - vocab"))
        labels = apply(operators.Reshape((batch * tokens,)), labels, strategy=shard("batch -"))
        op = operators.PartialLogSumExp(shard.shards("vocab"))
        partial = apply(op, logits, labels, strategy=shard("batch vocab", "batch"))
        losses = apply(operators.SparseCrossEntropy(), partial, strategy=shard("batch -"))
        return apply(operators.ReduceMean(), losses, strategy=shard("batch"))
