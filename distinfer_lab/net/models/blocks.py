"""What transformers are made of: linear layers, tables, normalisations, attention; all on rows of tokens.

A value is [batch * tokens, size] everywhere but within attention, so that each product is one of
matrices. Parameters may be float16 or bfloat16: they are kept so, and made float32 where they are used.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import operators
from ..cell import Cell
from ..initializer import initializer
from ..tensor import Parameter, apply
from .cuts import Cuts

__all__ = ["ACTIVATIONS", "Cache", "LayerNorm", "Linear", "RMSNorm", "Step", "Table", "attend", "float32"]

ACTIVATIONS: dict[str, operators.elementwise.Unary] = {
    "gelu": operators.ErfGeLU(),
    "gelu_new": operators.GeLU(),
    "gelu_pytorch_tanh": operators.GeLU(),
    "relu": operators.ReLU(),
    "silu": operators.SiLU(),
    "swish": operators.SiLU(),
}
"""By the names of configurations."""


class Cache(NamedTuple):
    """The keys and values of one layer, each [batch, key heads, places, size]."""

    keys: Parameter
    values: Parameter


class Step(NamedTuple):
    """What all layers of one call share."""

    batch: int
    tokens: int
    position: Any
    """Of the first token, one integer."""
    cut: Cuts
    angles: Any = None


def float32(param: Any, cut: Cuts, dims: str) -> Any:
    """A parameter, or a part of one, as it is computed with."""
    if param.dtype == np.float32:
        return param
    return apply(operators.Cast("float32"), param, strategy=cut(dims))


class Linear(Cell):
    """x @ weight + bias, or x @ weight.T + bias, of rows.

    Parameters
    ----------
    n_in, n_out
        The sizes of a row before and after.
    dims
        What cuts the rows before and after: ("-", "all") for columns, ("all", "-") for rows.
    transposed
        The weight is [n_out, n_in], as in torch's Linear; else [n_in, n_out].
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        dims: tuple[str, str],
        dtype: Any,
        *,
        bias: bool,
        transposed: bool = True,
    ) -> None:
        super().__init__()
        self.dims, self.transposed = dims, transposed
        shape = (n_out, n_in) if transposed else (n_in, n_out)
        self.weight = Parameter(initializer("normal", shape, dtype))
        if bias:
            self.bias = Parameter(initializer("zeros", (n_out,), dtype))
        self.has_bias = bias

    def construct(self, *inputs: Any) -> Any:
        x, cut = inputs
        before, after = self.dims
        weight = f"{after} {before}" if self.transposed else f"{before} {after}"
        product = operators.MatMul(transpose_b=self.transposed)
        strategy = cut(f"rows {before}", weight)
        out = apply(product, x, float32(self.weight, cut, weight), strategy=strategy)
        return add_bias(out, self.bias, cut, after) if self.has_bias else out


def add_bias(x: Any, bias: Any, cut: Cuts, columns: str) -> Any:
    """Add a bias to rows whose columns are cut so."""
    strategy = cut(f"rows {columns}", columns)
    return apply(operators.BiasAdd(), x, float32(bias, cut, columns), strategy=strategy)


class Table(Cell):
    """Rows by number: of words, each card a run of them, or of positions, which all cards hold."""

    def __init__(self, rows: int, size: int, dtype: Any) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (rows, size), dtype))

    def construct(self, *inputs: Any) -> Any:
        """For ids of some dims, given with the words for the cut of the table's rows and of the ids."""
        ids, cut, rows, of_ids = inputs
        gather = operators.Gather(rows=self.weight.shape[0])
        out = apply(gather, self.weight, ids, strategy=cut(f"{rows} -", of_ids))
        return float32(out, cut, f"{of_ids} -")

    def scores(self, x: Any, cut: Cuts) -> Any:
        """The product of each row of x with each row of the table: logits of words."""
        table = float32(self.weight, cut, "all -")
        return apply(operators.MatMul(transpose_b=True), x, table, strategy=cut("rows -", "all -"))


class LayerNorm(Cell):
    """Normalisation with weight and bias, along rows."""

    def __init__(self, size: int, epsilon: float, dtype: Any) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (size,), dtype))
        self.bias = Parameter(initializer("zeros", (size,), dtype))
        self.op = operators.LayerNorm(-1, epsilon)

    def construct(self, *inputs: Any) -> Any:
        x, cut = inputs
        weight, bias = (float32(param, cut, "-") for param in (self.weight, self.bias))
        return apply(self.op, x, weight, bias, strategy=cut("rows -", "-", "-"))


class RMSNorm(Cell):
    """Normalisation by the root of the mean square, along rows."""

    def __init__(self, size: int, epsilon: float, dtype: Any) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (size,), dtype))
        self.op = operators.RMSNorm(epsilon)

    def construct(self, *inputs: Any) -> Any:
        x, cut = inputs
        return apply(self.op, x, float32(self.weight, cut, "-"), strategy=cut("rows -", "-"))


def heads_of(x: Any, step: Step, count: int, word: str) -> Any:
    """Rows of [batch * tokens, count * size] as heads [batch, count, tokens, size]."""
    shape = (step.batch, step.tokens, count, x.shape[1] // count)
    x = apply(operators.Reshape(shape), x, strategy=step.cut(f"rows {word}"))
    return apply(operators.Transpose((0, 2, 1, 3)), x, strategy=step.cut(f"rows - {word} -"))


def rotated(x: Any, step: Step, word: str) -> Any:
    """Heads, rotated by the angles of their positions."""
    return apply(operators.Rotary(), x, step.angles, strategy=step.cut(f"rows {word} - -", "- - -"))


def attend(query: Any, key: Any, value: Any, scale: float, step: Step, cache: Cache | None) -> Any:
    """Attention of heads [batch, heads, tokens, size]; gives rows [batch * tokens, heads * size]."""
    query_dims, key_dims = "rows heads - -", "rows keys - -"
    if cache is None:
        both = step.cut(query_dims, key_dims)
        shares = apply(operators.AttentionWeights(scale=scale), query, key, strategy=both)
        out = apply(operators.GroupedMatMul(), shares, value, strategy=both)
    else:
        op = operators.CachedAttention(scale=scale)
        strategy = step.cut(query_dims, *[key_dims] * 4, "")
        out = apply(op, query, key, value, cache.keys, cache.values, step.position, strategy=strategy)
    out = apply(operators.Transpose((0, 2, 1, 3)), out, strategy=step.cut(query_dims))
    rows = (step.batch * step.tokens, out.shape[2] * out.shape[3])
    return apply(operators.Reshape(rows), out, strategy=step.cut("rows - heads -"))


def added(x: Any, y: Any, cut: Cuts) -> Any:
    """The sum of rows."""
    return apply(operators.Add(), x, y, strategy=cut("rows -", "rows -"))
