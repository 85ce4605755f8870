"""GPT-2: positions by a table, query, key and value as one weight, LayerNorm before each half of a block.

References
----------
Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; parameters are named and
laid out as https://github.com/huggingface/transformers saves `GPT2LMHeadModel` ([in, out]).
"""

import math
from collections.abc import Sequence
from typing import Any

from .. import operators
from ..cell import Cell, SequentialCell
from ..initializer import initializer
from ..tensor import Parameter, apply
from .blocks import (
    ACTIVATIONS,
    Cache,
    LayerNorm,
    Linear,
    Step,
    Table,
    add_bias,
    added,
    attend,
    float32,
    heads_of,
)
from .causal import CausalLM
from .cuts import Cuts
from .fields import Config, Fields

__all__ = ["GPT2"]


class Fused(Cell):
    """The weight and the bias of query, key and value, one after another."""

    def __init__(self, size: int, dtype: Any) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (size, 3 * size), dtype))
        self.bias = Parameter(initializer("zeros", (3 * size,), dtype))


class FusedAttention(Cell):
    """Attention whose query, key and value lie one after another in one weight of [n, 3n]."""

    def __init__(self, size: int, heads: int, scale: float, dtype: Any) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.parts = (size,) * 3
        self.c_attn = Fused(size, dtype)
        self.c_proj = Linear(size, size, ("heads", "-"), dtype, bias=True, transposed=False)

    def _projected(self, x: Any, step: Step, which: int) -> Any:
        """Query (0), key (1) or value (2), as heads."""
        cut = step.cut
        weight = apply(operators.Part(1, self.parts, which), self.c_attn.weight, strategy=cut("- heads"))
        bias = apply(operators.Part(0, self.parts, which), self.c_attn.bias, strategy=cut("heads"))
        strategy = cut("rows -", "- heads")
        out = apply(operators.MatMul(), x, float32(weight, cut, "- heads"), strategy=strategy)
        return heads_of(add_bias(out, bias, cut, "heads"), step, self.heads, "heads")

    def construct(self, *inputs: Any) -> Any:
        x, step, cache = inputs
        query, key, value = (self._projected(x, step, which) for which in range(3))
        return self.c_proj(attend(query, key, value, self.scale, step, cache), step.cut)


class FeedForward(Cell):
    """Two linear layers with an activation between them."""

    def __init__(self, size: int, inner: int, activation: str, dtype: Any) -> None:
        super().__init__()
        self.c_fc = Linear(size, inner, ("-", "all"), dtype, bias=True, transposed=False)
        self.c_proj = Linear(inner, size, ("all", "-"), dtype, bias=True, transposed=False)
        self.activation = ACTIVATIONS[activation]

    def construct(self, *inputs: Any) -> Any:
        x, cut = inputs
        x = apply(self.activation, self.c_fc(x, cut), strategy=cut("rows all"))
        return self.c_proj(x, cut)


class Block(Cell):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, fields: Fields, size: int, heads: int, layer: int, dtype: Any) -> None:
        super().__init__()
        epsilon = fields.number("layer_norm_epsilon", 1e-5)
        inner = fields.whole("n_inner", 4 * size)
        scale = 1 / math.sqrt(size // heads) if fields.flag("scale_attn_weights", True) else 1.0
        if fields.flag("scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
        self.ln_1 = LayerNorm(size, epsilon, dtype)
        self.attn = FusedAttention(size, heads, scale, dtype)
        self.ln_2 = LayerNorm(size, epsilon, dtype)
        activation = fields.word("activation_function", tuple(ACTIVATIONS), "gelu_new")
        self.mlp = FeedForward(size, inner, activation, dtype)

    def construct(self, *inputs: Any) -> Any:
        x, step, cache = inputs
        x = added(x, self.attn(self.ln_1(x, step.cut), step, cache), step.cut)
        return added(x, self.mlp(self.ln_2(x, step.cut), step.cut), step.cut)


class Body(Cell):
    """All but the head."""

    def __init__(self, of: "GPT2", size: int) -> None:
        super().__init__()
        self.wte = Table(of.words, size, of.dtype)
        self.wpe = Table(of.most_tokens, size, of.dtype)
        self.h = SequentialCell([Block(of.fields, size, of.heads, i, of.dtype) for i in range(of.layers)])
        self.ln_f = LayerNorm(size, of.fields.number("layer_norm_epsilon", 1e-5), of.dtype)


class GPT2(CausalLM):
    """GPT-2 of Hugging Face's `config.json`: `GPT2(folder)`, or `GPT2({"n_embd": 64, ...})`.

    Examples
    --------
    >>> net = GPT2({"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 16, "vocab_size": 32})
    >>> sorted(net.parameters_dict())[:2]
    ['transformer.h.0.attn.c_attn.bias', 'transformer.h.0.attn.c_attn.weight']
    """

    rules = "gpt2"
    kinds = ("gpt2",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fields = self.fields
        size = fields.whole("n_embd")
        self.layers = fields.whole("n_layer", most=4096)
        self.heads = self.key_heads = fields.whole("n_head")
        self.words, self.most_tokens = fields.whole("vocab_size", most=1 << 26), fields.whole("n_positions")
        if size % self.heads:
            raise fields.error("n_embd", size, f"must be a multiple of n_head={self.heads}")
        fields.refuse_unless("add_cross_attention", False, "is not supported; the model has no encoder")
        self.head_size = size // self.heads
        self.transformer = Body(self, size)
        self.tied = fields.flag("tie_word_embeddings", True)
        if not self.tied:
            self.lm_head = Table(self.words, size, self.dtype)

    def blocks(self) -> Sequence[Cell]:
        """See `CausalLM.blocks`."""
        return self.transformer.h.steps

    def hidden(self, ids: Any, step: Step, caches: Sequence[Cache | None]) -> Any:
        """See `CausalLM.hidden`."""
        body, cut = self.transformer, step.cut
        places = apply(operators.Positions(step.tokens), step.position, strategy=cut(""))
        x = body.wte(ids, cut, "all", "rows -")
        x = apply(operators.Add(), x, body.wpe(places, cut, "-", "-"), strategy=cut("rows - -", "- -"))
        rows = (step.batch * step.tokens, x.shape[2])
        x = apply(operators.Reshape(rows), x, strategy=cut("rows - -"))
        for block, cache in zip(self.blocks(), caches, strict=True):
            x = block(x, step, cache)
        return body.ln_f(x, cut)

    def scores(self, x: Any, cut: Cuts) -> Any:
        """See `CausalLM.scores`."""
        return (self.transformer.wte if self.tied else self.lm_head).scores(x, cut)
