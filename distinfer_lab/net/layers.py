"""Layers by MindSpore's names; each holds the primitives that `shard` can be called on."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentTypeError, GraphError
from . import ops
from .cell import Cell
from .initializer import Initializer, initializer
from .tensor import Parameter, Tensor, Value

__all__ = [
    "GELU",
    "Dense",
    "Embedding",
    "Flatten",
    "LayerNorm",
    "RMSNorm",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]


InitialValue = ArrayLike | Initializer


def _initial(init: InitialValue, shape: tuple[int, ...], what: str) -> Initializer | Tensor:
    if isinstance(init, str | int | float):
        return initializer(init, shape)
    value = init if isinstance(init, Initializer) else Tensor(init)
    if tuple(value.shape) != shape:
        raise GraphError(f"{what} has shape {list(value.shape)}; it must have {list(shape)}")
    return value


class _Activation(Cell):
    """A layer that is one primitive, reachable as `.primitive`."""

    primitive: ops.Primitive

    def shard(self, in_strategy: ops.InStrategy | None) -> Self:
        """Set how the primitive is sharded; returns the layer itself."""
        self.primitive.shard(in_strategy)
        return self

    def construct(self, x: Value) -> Value:
        return self.primitive(x)


class ReLU(_Activation):
    """max(x, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.ReLU()


class GELU(_Activation):
    """x * Phi(x), by the tanh form."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.GeLU()


class SiLU(_Activation):
    """x / (1 + exp(-x))."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.SiLU()


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.Sigmoid()


class Tanh(_Activation):
    """tanh(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.Tanh()


class Softmax(_Activation):
    """exp(x) over its sum along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.primitive = ops.Softmax(axis)


class Flatten(_Activation):
    """All dims but the first become one."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = ops.Flatten()


ACTIVATIONS: dict[str, Callable[[], _Activation]] = {
    "relu": ReLU,
    "gelu": GELU,
    "silu": SiLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softmax": Softmax,
}

Activation = str | Callable[[Value], Value]


class Dense(Cell):
    """x @ weight.T + bias, with weight of shape [out_channels, in_channels].

    `dense.matmul.shard(((a, b), (c, b)))` shards the product, `dense.bias_add.shard(((a, c), (c,)))`
    the sum.

    Parameters
    ----------
    in_channels, out_channels
        The sizes of the last dim before and after.
    weight_init, bias_init
        A name, a number, a Tensor or an array.
    has_bias
        Whether there is a bias.
    activation
        A name such as "relu", or anything callable.

    Raises
    ------
    GraphError
        If an initial value has the wrong shape, or the activation is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        weight_init: InitialValue = "he_uniform",
        bias_init: InitialValue = "zeros",
        has_bias: bool = True,
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.weight = Parameter(_initial(weight_init, (out_channels, in_channels), "weight_init"), "weight")
        self.matmul = ops.MatMul(transpose_b=True)
        self.has_bias = has_bias
        if has_bias:
            self.bias = Parameter(_initial(bias_init, (out_channels,), "bias_init"), "bias")
        self.bias_add = ops.BiasAdd()
        self.activation = _activation(activation)

    def construct(self, x: Value) -> Value:
        shape = x.shape
        if len(shape) != 2:
            x = ops.Reshape()(x, (-1, shape[-1]))
        x = self.matmul(x, self.weight)
        if self.has_bias:
            x = self.bias_add(x, self.bias)
        if self.activation is not None:
            x = self.activation(x)
        return x if len(shape) == 2 else ops.Reshape()(x, (*shape[:-1], self.weight.shape[0]))


def _activation(activation: Activation | None) -> Callable[[Value], Value] | None:
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise GraphError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[activation]()
    return activation


class Embedding(Cell):
    """Rows of a table of shape [vocab_size, embedding_size]; `embedding.gather.shard(...)` shards it.

    Parameters
    ----------
    vocab_size, embedding_size
        The shape of the table.
    use_one_hot
        Only False is supported.
    embedding_table
        A name, a number, a Tensor or an array.

    Raises
    ------
    GraphError
        If the table has the wrong shape, or `use_one_hot` is not False.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        use_one_hot: bool = False,
        embedding_table: InitialValue = "normal",
    ) -> None:
        super().__init__()
        if use_one_hot is not False:
            raise GraphError(
                f"Embedding: use_one_hot={use_one_hot!r:.60} is not supported; use False, and embedding_table= for "
                "initial values"
            )
        shape = (vocab_size, embedding_size)
        self.embedding_table = Parameter(
            _initial(embedding_table, shape, "embedding_table"), "embedding_table"
        )
        self.gather = ops.Gather()

    def construct(self, ids: Value) -> Value:
        return self.gather(self.embedding_table, ids, 0)


class LayerNorm(Cell):
    """gamma * normalised(x) + beta over the last dims, of shape `normalized_shape`.

    Parameters
    ----------
    normalized_shape
        The sizes of the dims that gamma and beta have.
    begin_norm_axis, begin_params_axis
        The first of the dims that are normalised together, and of those that gamma and beta have; by
        default the last dims, as many as `normalized_shape` has.
    gamma_init, beta_init
        A name, a number, a Tensor or an array.
    epsilon
        Added to the variance.

    Raises
    ------
    ArgumentTypeError
        If an axis is not an integer.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        begin_norm_axis: int | None = None,
        begin_params_axis: int | None = None,
        gamma_init: InitialValue = "ones",
        beta_init: InitialValue = "zeros",
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.gamma = Parameter(_initial(gamma_init, shape, "gamma_init"), "gamma")
        self.beta = Parameter(_initial(beta_init, shape, "beta_init"), "beta")
        norm_axis = self._axis("begin_norm_axis", begin_norm_axis, shape)
        params_axis = self._axis("begin_params_axis", begin_params_axis, shape)
        self.layer_norm = ops.LayerNorm(norm_axis, params_axis, epsilon)

    def _axis(self, name: str, axis: object, shape: tuple[int, ...]) -> int:
        if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
            raise ArgumentTypeError(f"LayerNorm: {name}={axis!r:.60} is not an integer", parameter=name)
        return -len(shape) if axis is None else axis

    def construct(self, x: Value) -> Value:
        return self.layer_norm(x, self.gamma, self.beta)


class RMSNorm(Cell):
    """gamma * x / sqrt(mean(x * x) + epsilon), along the last dim of size `size`."""

    def __init__(self, size: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.gamma = Parameter(initializer("ones", (size,), np.float32), "gamma")
        self.rms_norm = ops.RmsNorm(epsilon)

    def construct(self, x: Value) -> Value:
        return self.rms_norm(x, self.gamma)
