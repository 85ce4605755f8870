"""What transformers are made of: linear layers, embeddings, normalisations, attention.

A value is [batch * tokens, size] everywhere but within attention, so that each product is one of
matrices. Parameters may be float16 or bfloat16: they are kept so, and cast to float32 where they are used.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import operators
from ..cell import Cell
from ..initializer import initializer
from ..tensor import Parameter, Value, apply
from .logical_axes import LogicalAxes

__all__ = [
    "ACTIVATIONS",
    "Embedding",
    "ForwardContext",
    "KVCache",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "add_bias",
    "apply_rotary",
    "as_float32",
    "attention",
    "residual",
    "split_heads",
]

ACTIVATIONS: dict[str, operators.elementwise.Unary] = {
    "gelu": operators.ErfGeLU(),
    "gelu_new": operators.GeLU(),
    "gelu_pytorch_tanh": operators.GeLU(),
    "relu": operators.ReLU(),
    "silu": operators.SiLU(),
    "swish": operators.SiLU(),
}
"""By their names in a `config.json`."""


class KVCache(NamedTuple):
    """The keys and values of one layer so far, each [batch, kv_heads, cache_length, head_dim]."""

    keys: Parameter
    values: Parameter


class ForwardContext(NamedTuple):
    """What all layers share in one forward pass."""

    batch: int
    tokens: int
    position: Value
    """Of the first token: one integer."""
    shard: LogicalAxes
    angles: Value | None = None
    """The rotary angles of the tokens, of nets that have them."""


def as_float32(param: Value, shard: LogicalAxes, dims: str) -> Value:
    """A parameter, or a part of one, cast to float32 unless it is."""
    if param.dtype == np.float32:
        return param
    return apply(operators.Cast("float32"), param, strategy=shard(dims))


class Linear(Cell):
    """x @ weight.T + bias, or x @ weight + bias, of x [batch * tokens, in_features].

    Parameters
    ----------
    in_features, out_features
        The sizes of the last dim before and after.
    axes
        The logical axes of the last dim before and after: ("-", "mlp") shards columns, ("mlp", "-") rows.
    transposed
        The weight is [out_features, in_features], as in torch's Linear; else [in_features, out_features].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        axes: tuple[str, str],
        dtype: np.dtype[Any],
        *,
        bias: bool,
        transposed: bool = True,
    ) -> None:
        super().__init__()
        self.axes, self.transposed = axes, transposed
        shape = (out_features, in_features) if transposed else (in_features, out_features)
        self.weight = Parameter(initializer("normal", shape, dtype))
        if bias:
            self.bias = Parameter(initializer("zeros", (out_features,), dtype))
        self.has_bias = bias

    def construct(self, x: Value, shard: LogicalAxes) -> Value:
        before, after = self.axes
        dims = f"{after} {before}" if self.transposed else f"{before} {after}"
        product = operators.MatMul(transpose_b=self.transposed)
        weight = as_float32(self.weight, shard, dims)
        out = apply(product, x, weight, strategy=shard(f"batch {before}", dims))
        return add_bias(out, self.bias, shard, after) if self.has_bias else out


def add_bias(x: Value, bias: Value, shard: LogicalAxes, axis: str) -> Value:
    """Add a bias to x, whose last dim is of this logical axis."""
    strategy = shard(f"batch {axis}", axis)
    return apply(operators.BiasAdd(), x, as_float32(bias, shard, axis), strategy=strategy)


class Embedding(Cell):
    """One vector for each token of a vocabulary, of which each card holds a run, or for each position."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (num_embeddings, embedding_dim), dtype))

    def construct(self, ids: Value, shard: LogicalAxes, rows: str, of_ids: str) -> Value:
        """The vectors of ids; `rows` is the logical axis of the weight's rows, `of_ids` are those of the ids."""
        gather = operators.Gather(rows=self.weight.shape[0])
        out = apply(gather, self.weight, ids, strategy=shard(f"{rows} -", of_ids))
        return as_float32(out, shard, f"{of_ids} -")

    def logits(self, x: Value, shard: LogicalAxes) -> Value:
        """X @ weight.T: how well each vector of the vocabulary fits each row of x."""
        weight = as_float32(self.weight, shard, "vocab -")
        return apply(operators.MatMul(transpose_b=True), x, weight, strategy=shard("batch -", "vocab -"))


class LayerNorm(Cell):
    """Layer normalisation of the last dim, with weight and bias."""

    def __init__(self, hidden_size: int, eps: float, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (hidden_size,), dtype))
        self.bias = Parameter(initializer("zeros", (hidden_size,), dtype))
        self.op = operators.LayerNorm(-1, eps)

    def construct(self, x: Value, shard: LogicalAxes) -> Value:
        weight, bias = (as_float32(param, shard, "-") for param in (self.weight, self.bias))
        return apply(self.op, x, weight, bias, strategy=shard("batch -", "-", "-"))


class RMSNorm(Cell):
    """Normalisation of the last dim by its root mean square, with weight."""

    def __init__(self, hidden_size: int, eps: float, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (hidden_size,), dtype))
        self.op = operators.RMSNorm(eps)

    def construct(self, x: Value, shard: LogicalAxes) -> Value:
        return apply(self.op, x, as_float32(self.weight, shard, "-"), strategy=shard("batch -", "-"))


def split_heads(x: Value, context: ForwardContext, count: int, axis: str) -> Value:
    """[batch * tokens, count * head_dim] -> [batch, count, tokens, head_dim]; `axis` is heads or kv_heads."""
    shape = (context.batch, context.tokens, count, x.shape[1] // count)
    x = apply(operators.Reshape(shape), x, strategy=context.shard(f"batch {axis}"))
    return apply(operators.Transpose((0, 2, 1, 3)), x, strategy=context.shard(f"batch - {axis} -"))


def apply_rotary(x: Value, context: ForwardContext, axis: str) -> Value:
    """Rotate heads [batch, heads, tokens, head_dim] by the angles of their positions."""
    assert context.angles is not None
    strategy = context.shard(f"batch {axis} - -", "- - -")
    return apply(operators.Rotary(), x, context.angles, strategy=strategy)


def attention(
    query: Value, key: Value, value: Value, scale: float, context: ForwardContext, cache: KVCache | None
) -> Value:
    """Causal attention of heads [batch, heads, tokens, head_dim] -> [batch * tokens, heads * head_dim]."""
    shard = context.shard
    query_dims, key_dims = "batch heads - -", "batch kv_heads - -"
    if cache is None:
        strategy = shard(query_dims, key_dims)
        weights = apply(operators.AttentionWeights(scale=scale), query, key, strategy=strategy)
        out = apply(operators.GroupedMatMul(), weights, value, strategy=strategy)
    else:
        op = operators.CachedAttention(scale=scale)
        strategy = shard(query_dims, *[key_dims] * 4, "")
        out = apply(op, query, key, value, cache.keys, cache.values, context.position, strategy=strategy)
    out = apply(operators.Transpose((0, 2, 1, 3)), out, strategy=shard(query_dims))
    rows = (context.batch * context.tokens, out.shape[2] * out.shape[3])
    return apply(operators.Reshape(rows), out, strategy=shard("batch - heads -"))


def residual(x: Value, y: Value, shard: LogicalAxes) -> Value:
    """X + y, both [batch * tokens, hidden_size]."""
    return apply(operators.Add(), x, y, strategy=shard("batch -", "batch -"))
