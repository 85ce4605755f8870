"""Llama and its kin: rotary positions, KV heads shared by groups of query heads, RMSNorm, a gated MLP.

References
----------
Touvron et al., "LLaMA", 2023; Jiang et al., "Mistral 7B", 2023; Yang et al., "Qwen2", 2024. Parameters
are named and laid out as https://github.com/huggingface/transformers saves them ([out, in]).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import operators
from ..cell import Cell, SequentialCell
from ..tensor import Value, apply
from .blocks import (
    ACTIVATIONS,
    Embedding,
    ForwardContext,
    KVCache,
    Linear,
    RMSNorm,
    apply_rotary,
    attention,
    residual,
    split_heads,
)
from .causal import CausalLM
from .fields import MOST_LAYERS, Config, Fields
from .logical_axes import LogicalAxes
from .rope import inverse_frequencies

__all__ = ["Llama"]


class LayerConfig(NamedTuple):
    """What the layers of a net are made with, by the names of `config.json` where it has one."""

    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    hidden_act: str
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    dtype: np.dtype[Any]


class Attention(Cell):
    """Attention with rotary positions, and fewer KV heads than query heads."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, dtype, bias = config.hidden_size, config.dtype, config.attention_bias
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = Linear(hidden, query, ("-", "heads"), dtype, bias=bias)
        self.k_proj = Linear(hidden, key, ("-", "kv_heads"), dtype, bias=bias)
        self.v_proj = Linear(hidden, key, ("-", "kv_heads"), dtype, bias=bias)
        self.o_proj = Linear(query, hidden, ("heads", "-"), dtype, bias=config.output_bias)

    def construct(self, x: Value, context: ForwardContext, cache: KVCache | None) -> Value:
        config, shard = self.config, context.shard
        query = split_heads(self.q_proj(x, shard), context, config.heads, "heads")
        key = split_heads(self.k_proj(x, shard), context, config.kv_heads, "kv_heads")
        value = split_heads(self.v_proj(x, shard), context, config.kv_heads, "kv_heads")
        query, key = apply_rotary(query, context, "heads"), apply_rotary(key, context, "kv_heads")
        out = attention(query, key, value, 1 / math.sqrt(config.head_dim), context, cache)
        projected: Value = self.o_proj(out, shard)
        return projected


class MLP(Cell):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        hidden, inner, dtype, bias = (
            config.hidden_size,
            config.intermediate_size,
            config.dtype,
            config.mlp_bias,
        )
        self.gate_proj = Linear(hidden, inner, ("-", "mlp"), dtype, bias=bias)
        self.up_proj = Linear(hidden, inner, ("-", "mlp"), dtype, bias=bias)
        self.down_proj = Linear(inner, hidden, ("mlp", "-"), dtype, bias=bias)
        self.activation = ACTIVATIONS[config.hidden_act]

    def construct(self, x: Value, shard: LogicalAxes) -> Value:
        gate = apply(self.activation, self.gate_proj(x, shard), strategy=shard("batch mlp"))
        strategy = shard("batch mlp", "batch mlp")
        gated = apply(operators.Mul(), gate, self.up_proj(x, shard), strategy=strategy)
        out: Value = self.down_proj(gated, shard)
        return out


class DecoderLayer(Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        size, eps, dtype = config.hidden_size, config.rms_norm_eps, config.dtype
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(size, eps, dtype)
        self.post_attention_layernorm = RMSNorm(size, eps, dtype)

    def construct(self, x: Value, context: ForwardContext, cache: KVCache | None) -> Value:
        shard = context.shard
        x = residual(x, self.self_attn(self.input_layernorm(x, shard), context, cache), shard)
        return residual(x, self.mlp(self.post_attention_layernorm(x, shard), shard), shard)


class Transformer(Cell):
    """All but the head."""

    def __init__(self, config: LayerConfig, vocab_size: int, num_layers: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(vocab_size, config.hidden_size, config.dtype)
        self.layers = SequentialCell([DecoderLayer(config) for _ in range(num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, config.dtype)


class Llama(CausalLM):
    """Llama, Mistral or Qwen2 of Hugging Face's `config.json`: `Llama(folder)`, or `Llama({"hidden_size": ...})`.

    Examples
    --------
    >>> sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> net = Llama({**sizes, "num_key_value_heads": 1, "max_position_embeddings": 16, "vocab_size": 32})
    >>> net.model.layers[0].self_attn.k_proj.weight
    Parameter(name=weight, shape=[4, 8], dtype=float32)
    """

    rules = "llama"
    model_types = ("llama", "mistral", "qwen2")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fields = self.fields
        layer = self._layer_config(fields)
        self.num_layers = fields.integer("num_hidden_layers", most=MOST_LAYERS)
        self.heads, self.kv_heads, self.head_dim = layer.heads, layer.kv_heads, layer.head_dim
        self.vocab_size = fields.integer("vocab_size", most=1 << 26)
        self.max_positions = fields.integer("max_position_embeddings", most=1 << 40)
        self.inverse_frequencies = inverse_frequencies(fields, layer.head_dim)
        self._refuse_windows(fields)
        self.model = Transformer(layer, self.vocab_size, self.num_layers)
        self.tied = fields.boolean("tie_word_embeddings", False)
        if not self.tied:
            self.lm_head = Embedding(self.vocab_size, layer.hidden_size, self.dtype)

    def _layer_config(self, fields: Fields) -> LayerConfig:
        qwen = self.config.get("model_type") == "qwen2"
        bias = qwen or fields.boolean("attention_bias", False)
        hidden_size, heads, kv_heads, head_dim = _attention_sizes(fields)
        return LayerConfig(
            hidden_size,
            heads,
            kv_heads,
            head_dim,
            fields.integer("intermediate_size"),
            fields.number("rms_norm_eps", 1e-6),
            fields.choice("hidden_act", tuple(ACTIVATIONS), "silu"),
            bias,
            bias and not qwen,
            fields.boolean("mlp_bias", False),
            self.dtype,
        )

    def _refuse_windows(self, fields: Fields) -> None:
        """Attention sees all tokens before; a window shorter than the sequence would be another net."""
        if self.config.get("model_type") == "qwen2" and not fields.boolean("use_sliding_window", False):
            return
        window = fields.integer("sliding_window", self.max_positions, most=1 << 40)
        if window < self.max_positions:
            raise fields.error(
                "sliding_window",
                window,
                f"is not supported; use null, or at least max_position_embeddings={self.max_positions}",
            )

    def context(self, ids: Value, position: Value) -> ForwardContext:
        context = super().context(ids, position)
        op = operators.Angles(context.tokens, self.inverse_frequencies)
        return context._replace(angles=apply(op, position, strategy=context.shard("")))

    @property
    def blocks(self) -> Sequence[Cell]:
        return self.model.layers.steps

    @property
    def output_embedding(self) -> Embedding:
        return self.model.embed_tokens if self.tied else self.lm_head

    def hidden_states(self, ids: Value, context: ForwardContext, caches: Sequence[KVCache | None]) -> Value:
        body, shard = self.model, context.shard
        x = body.embed_tokens(ids, shard, "vocab", "batch -")
        rows = (context.batch * context.tokens, x.shape[2])
        x = apply(operators.Reshape(rows), x, strategy=shard("batch - -"))
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, context, cache)
        out: Value = body.norm(x, shard)
        return out


def _attention_sizes(fields: Fields) -> tuple[int, int, int, int]:
    """Hidden size, query heads, KV heads and head_dim, which must fit each other."""
    hidden_size, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        rule = f"must be a multiple of num_key_value_heads={kv_heads}"
        raise fields.error("num_attention_heads", heads, rule)
    if not fields.has("head_dim") and hidden_size % heads:
        raise fields.error("hidden_size", hidden_size, f"must be a multiple of num_attention_heads={heads}")
    head_dim = fields.integer("head_dim", hidden_size // heads)
    if head_dim % 2:
        raise fields.error("head_dim", head_dim, "must be even, for its halves are rotated")
    return hidden_size, heads, kv_heads, head_dim
