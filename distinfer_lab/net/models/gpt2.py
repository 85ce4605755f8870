"""GPT-2: learned positions, query, key and value as one weight, LayerNorm before attention and before the MLP.

References
----------
Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; parameters are named and
laid out as https://github.com/huggingface/transformers saves `GPT2LMHeadModel` ([in, out]).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import operators
from ..cell import Cell, SequentialCell
from ..initializer import initializer
from ..tensor import Parameter, Value, apply
from .blocks import (
    ACTIVATIONS,
    Embedding,
    ForwardContext,
    KVCache,
    LayerNorm,
    Linear,
    add_bias,
    as_float32,
    attention,
    residual,
    split_heads,
)
from .causal import CausalLM
from .fields import MOST_LAYERS, Config, Fields
from .logical_axes import LogicalAxes

__all__ = ["GPT2"]


class FusedWeight(Cell):
    """The weight and the bias of query, key and value, one after another."""

    def __init__(self, hidden_size: int, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (hidden_size, 3 * hidden_size), dtype))
        self.bias = Parameter(initializer("zeros", (3 * hidden_size,), dtype))


class FusedAttention(Cell):
    """Attention whose query, key and value are one weight of [n, 3n], one after another."""

    def __init__(self, hidden_size: int, heads: int, scale: float, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.sizes = (hidden_size,) * 3
        self.c_attn = FusedWeight(hidden_size, dtype)
        self.c_proj = Linear(hidden_size, hidden_size, ("heads", "-"), dtype, bias=True, transposed=False)

    def _projected(self, x: Value, context: ForwardContext, which: int) -> Value:
        """Query (0), key (1) or value (2), as heads."""
        shard = context.shard
        weight = apply(operators.Part(1, self.sizes, which), self.c_attn.weight, strategy=shard("- heads"))
        bias = apply(operators.Part(0, self.sizes, which), self.c_attn.bias, strategy=shard("heads"))
        strategy = shard("batch -", "- heads")
        out = apply(operators.MatMul(), x, as_float32(weight, shard, "- heads"), strategy=strategy)
        return split_heads(add_bias(out, bias, shard, "heads"), context, self.heads, "heads")

    def construct(self, x: Value, context: ForwardContext, cache: KVCache | None) -> Value:
        query, key, value = (self._projected(x, context, which) for which in range(3))
        out = attention(query, key, value, self.scale, context, cache)
        projected: Value = self.c_proj(out, context.shard)
        return projected


class MLP(Cell):
    """Two linear layers with an activation between them."""

    def __init__(self, hidden_size: int, inner: int, activation: str, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.c_fc = Linear(hidden_size, inner, ("-", "mlp"), dtype, bias=True, transposed=False)
        self.c_proj = Linear(inner, hidden_size, ("mlp", "-"), dtype, bias=True, transposed=False)
        self.activation = ACTIVATIONS[activation]

    def construct(self, x: Value, shard: LogicalAxes) -> Value:
        x = apply(self.activation, self.c_fc(x, shard), strategy=shard("batch mlp"))
        out: Value = self.c_proj(x, shard)
        return out


class Block(Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, fields: Fields, hidden_size: int, heads: int, layer: int, dtype: np.dtype[Any]
    ) -> None:
        super().__init__()
        eps = fields.number("layer_norm_epsilon", 1e-5)
        inner = fields.integer("n_inner", 4 * hidden_size)
        scale = 1 / math.sqrt(hidden_size // heads) if fields.boolean("scale_attn_weights", True) else 1.0
        if fields.boolean("scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
        self.ln_1 = LayerNorm(hidden_size, eps, dtype)
        self.attn = FusedAttention(hidden_size, heads, scale, dtype)
        self.ln_2 = LayerNorm(hidden_size, eps, dtype)
        activation = fields.choice("activation_function", tuple(ACTIVATIONS), "gelu_new")
        self.mlp = MLP(hidden_size, inner, activation, dtype)

    def construct(self, x: Value, context: ForwardContext, cache: KVCache | None) -> Value:
        x = residual(x, self.attn(self.ln_1(x, context.shard), context, cache), context.shard)
        return residual(x, self.mlp(self.ln_2(x, context.shard), context.shard), context.shard)


class Transformer(Cell):
    """All but the head."""

    def __init__(self, of: "GPT2", hidden_size: int) -> None:
        super().__init__()
        self.wte = Embedding(of.vocab_size, hidden_size, of.dtype)
        self.wpe = Embedding(of.max_positions, hidden_size, of.dtype)
        self.h = SequentialCell(
            [Block(of.fields, hidden_size, of.heads, i, of.dtype) for i in range(of.num_layers)]
        )
        self.ln_f = LayerNorm(hidden_size, of.fields.number("layer_norm_epsilon", 1e-5), of.dtype)


class GPT2(CausalLM):
    """GPT-2 of Hugging Face's `config.json`: `GPT2(folder)`, or `GPT2({"n_embd": 64, ...})`.

    Examples
    --------
    >>> net = GPT2({"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 16, "vocab_size": 32})
    >>> sorted(net.parameters_dict())[:2]
    ['transformer.h.0.attn.c_attn.bias', 'transformer.h.0.attn.c_attn.weight']
    """

    rules = "gpt2"
    model_types = ("gpt2",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fields = self.fields
        hidden_size = fields.integer("n_embd")
        self.num_layers = fields.integer("n_layer", most=MOST_LAYERS)
        self.heads = self.kv_heads = fields.integer("n_head")
        self.vocab_size = fields.integer("vocab_size", most=1 << 26)
        self.max_positions = fields.integer("n_positions")
        if hidden_size % self.heads:
            raise fields.error("n_embd", hidden_size, f"must be a multiple of n_head={self.heads}")
        fields.refuse_unless("add_cross_attention", False, "is not supported; the model has no encoder")
        self.head_dim = hidden_size // self.heads
        self.transformer = Transformer(self, hidden_size)
        self.tied = fields.boolean("tie_word_embeddings", True)
        if not self.tied:
            self.lm_head = Embedding(self.vocab_size, hidden_size, self.dtype)

    @property
    def blocks(self) -> Sequence[Cell]:
        return self.transformer.h.steps

    @property
    def output_embedding(self) -> Embedding:
        return self.transformer.wte if self.tied else self.lm_head

    def hidden_states(self, ids: Value, context: ForwardContext, caches: Sequence[KVCache | None]) -> Value:
        body, shard = self.transformer, context.shard
        positions = apply(operators.Positions(context.tokens), context.position, strategy=shard(""))
        x = body.wte(ids, shard, "vocab", "batch -")
        strategy = shard("batch - -", "- -")
        x = apply(operators.Add(), x, body.wpe(positions, shard, "-", "-"), strategy=strategy)
        rows = (context.batch * context.tokens, x.shape[2])
        x = apply(operators.Reshape(rows), x, strategy=shard("batch - -"))
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, context, cache)
        out: Value = body.ln_f(x, shard)
        return out
