"""Llama and its kin: rotary positions, key heads shared by groups of heads, RMSNorm, a gated feed-forward.

References
----------
Touvron et al., "LLaMA", 2023; Jiang et al., "Mistral 7B", 2023; Yang et al., "Qwen2", 2024. Parameters
are named and laid out as https://github.com/huggingface/transformers saves them ([out, in]).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import operators
from ..cell import Cell, SequentialCell
from ..tensor import apply
from .blocks import ACTIVATIONS, Cache, Linear, RMSNorm, Step, Table, added, attend, heads_of, rotated
from .causal import CausalLM
from .cuts import Cuts
from .fields import Config, Fields
from .rope import frequencies

__all__ = ["Llama"]


class Sizes(NamedTuple):
    """What the layers of a net are made with."""

    size: int
    heads: int
    key_heads: int
    head_size: int
    inner: int
    epsilon: float
    activation: str
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    dtype: Any


class Attention(Cell):
    """Attention with rotary positions, and fewer key heads than query heads."""

    def __init__(self, of: Sizes) -> None:
        super().__init__()
        self.sizes = of
        query, key = of.heads * of.head_size, of.key_heads * of.head_size
        self.q_proj = Linear(of.size, query, ("-", "heads"), of.dtype, bias=of.attention_bias)
        self.k_proj = Linear(of.size, key, ("-", "keys"), of.dtype, bias=of.attention_bias)
        self.v_proj = Linear(of.size, key, ("-", "keys"), of.dtype, bias=of.attention_bias)
        self.o_proj = Linear(query, of.size, ("heads", "-"), of.dtype, bias=of.output_bias)

    def construct(self, *inputs: Any) -> Any:
        x, step, cache = inputs
        of = self.sizes
        query = rotated(heads_of(self.q_proj(x, step.cut), step, of.heads, "heads"), step, "heads")
        key = rotated(heads_of(self.k_proj(x, step.cut), step, of.key_heads, "keys"), step, "keys")
        value = heads_of(self.v_proj(x, step.cut), step, of.key_heads, "keys")
        out = attend(query, key, value, 1 / math.sqrt(of.head_size), step, cache)
        return self.o_proj(out, step.cut)


class GatedFeedForward(Cell):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, of: Sizes) -> None:
        super().__init__()
        self.gate_proj = Linear(of.size, of.inner, ("-", "all"), of.dtype, bias=of.mlp_bias)
        self.up_proj = Linear(of.size, of.inner, ("-", "all"), of.dtype, bias=of.mlp_bias)
        self.down_proj = Linear(of.inner, of.size, ("all", "-"), of.dtype, bias=of.mlp_bias)
        self.activation = ACTIVATIONS[of.activation]

    def construct(self, *inputs: Any) -> Any:
        x, cut = inputs
        gate = apply(self.activation, self.gate_proj(x, cut), strategy=cut("rows all"))
        gated = apply(operators.Mul(), gate, self.up_proj(x, cut), strategy=cut("rows all", "rows all"))
        return self.down_proj(gated, cut)


class Block(Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, of: Sizes) -> None:
        super().__init__()
        self.self_attn = Attention(of)
        self.mlp = GatedFeedForward(of)
        self.input_layernorm = RMSNorm(of.size, of.epsilon, of.dtype)
        self.post_attention_layernorm = RMSNorm(of.size, of.epsilon, of.dtype)

    def construct(self, *inputs: Any) -> Any:
        x, step, cache = inputs
        x = added(x, self.self_attn(self.input_layernorm(x, step.cut), step, cache), step.cut)
        return added(x, self.mlp(self.post_attention_layernorm(x, step.cut), step.cut), step.cut)


class Body(Cell):
    """All but the head."""

    def __init__(self, of: Sizes, words: int, layers: int) -> None:
        super().__init__()
        self.embed_tokens = Table(words, of.size, of.dtype)
        self.layers = SequentialCell([Block(of) for _ in range(layers)])
        self.norm = RMSNorm(of.size, of.epsilon, of.dtype)


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
    kinds = ("llama", "mistral", "qwen2")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fields = self.fields
        of = self._sizes(fields)
        self.layers = fields.whole("num_hidden_layers", most=4096)
        self.heads, self.key_heads, self.head_size = of.heads, of.key_heads, of.head_size
        self.words = fields.whole("vocab_size", most=1 << 26)
        self.most_tokens = fields.whole("max_position_embeddings", most=1 << 40)
        self.frequencies = frequencies(fields, of.head_size)
        self._refuse_windows(fields)
        self.model = Body(of, self.words, self.layers)
        self.tied = fields.flag("tie_word_embeddings", False)
        if not self.tied:
            self.lm_head = Table(self.words, of.size, of.dtype)

    def _sizes(self, fields: Fields) -> Sizes:
        qwen = self.config.get("model_type") == "qwen2"
        size, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
        key_heads = fields.whole("num_key_value_heads", heads)
        if heads % key_heads:
            raise fields.error(
                "num_attention_heads", heads, f"must be a multiple of num_key_value_heads={key_heads}"
            )
        if not fields.has("head_dim") and size % heads:
            raise fields.error("hidden_size", size, f"must be a multiple of num_attention_heads={heads}")
        head_size = fields.whole("head_dim", size // heads)
        if head_size % 2:
            raise fields.error("head_dim", head_size, "must be even, for its halves are rotated")
        bias = qwen or fields.flag("attention_bias", False)
        return Sizes(
            size,
            heads,
            key_heads,
            head_size,
            fields.whole("intermediate_size"),
            fields.number("rms_norm_eps", 1e-6),
            fields.word("hidden_act", tuple(ACTIVATIONS), "silu"),
            bias,
            bias and not qwen,
            fields.flag("mlp_bias", False),
            self.dtype,
        )

    def _refuse_windows(self, fields: Fields) -> None:
        """Attention looks at all tokens before; a window that is shorter than the text would be another net."""
        if self.config.get("model_type") == "qwen2" and not fields.flag("use_sliding_window", False):
            return
        window = fields.whole("sliding_window", self.most_tokens, most=1 << 40)
        if window < self.most_tokens:
            raise fields.error(
                "sliding_window",
                window,
                f"is not supported; use null, or at least max_position_embeddings={self.most_tokens}",
            )

    def step(self, ids: Any, position: Any) -> Step:
        """See `CausalLM.step`."""
        step = super().step(ids, position)
        op = operators.Angles(step.tokens, self.frequencies)
        return step._replace(angles=apply(op, position, strategy=step.cut("")))

    def blocks(self) -> Sequence[Cell]:
        """See `CausalLM.blocks`."""
        return self.model.layers.steps

    def hidden(self, ids: Any, step: Step, caches: Sequence[Cache | None]) -> Any:
        """See `CausalLM.hidden`."""
        body, cut = self.model, step.cut
        x = body.embed_tokens(ids, cut, "all", "rows -")
        rows = (step.batch * step.tokens, x.shape[2])
        x = apply(operators.Reshape(rows), x, strategy=cut("rows - -"))
        for block, cache in zip(self.blocks(), caches, strict=True):
            x = block(x, step, cache)
        return body.norm(x, cut)

    def scores(self, x: Any, cut: Cuts) -> Any:
        """See `CausalLM.scores`."""
        return (self.model.embed_tokens if self.tied else self.lm_head).scores(x, cut)
