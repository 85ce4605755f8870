"""Tracing: calling a net with values that have shapes and no elements, and keeping the graph."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentTypeError, GraphError
from .build import GraphBuilder
from .cell import Cell
from .differentiate import differentiate
from .graph import Graph, Spec
from .optimizers import Optimizer
from .tensor import Parameter, Tensor, Traced, tracing

__all__ = ["Sample", "spec_of", "trace", "training_graph"]

Sample = Tensor | NDArray[Any] | Spec
"""What a net is traced for: of its inputs only shape and dtype are looked at."""


def spec_of(value: Sample) -> Spec:
    """The shape and dtype of a Tensor or an array; a Spec stays as it is.

    Raises
    ------
    ArgumentTypeError
        If it is something else.
    """
    if isinstance(value, Spec):
        return value
    if not isinstance(value, Tensor | np.ndarray):
        raise ArgumentTypeError(f"a net takes Tensors, not {type(value).__name__}: {value!r:.60}")
    return Spec(tuple(value.shape), np.dtype(value.dtype))


def trace(net: Cell, *inputs: Sample) -> Graph:
    """The graph of a net for inputs of these shapes; its inputs have the names of `construct`'s arguments.

    Parameters
    ----------
    inputs
        Tensors, arrays or Specs.

    Raises
    ------
    GraphError
        If the net cannot be traced, or returns something that is not a tensor.
    """
    build = GraphBuilder()
    outputs = _call(build, net, [spec_of(value) for value in inputs])
    return build.graph(outputs)


def training_graph(
    net: Cell, loss_fn: Callable[..., Any], optimizer: Optimizer, data: Sample, label: Sample
) -> Graph:
    """One training step as a graph: its output is the loss, its updates the new parameters and states.

    Parameters
    ----------
    loss_fn
        Called with the net's output and the label; returns one number.
    data, label
        Tensors, arrays or Specs of a whole batch.

    Raises
    ------
    GraphError
        As `trace`; or if the optimizer's parameters are not the net's.
    """
    build = GraphBuilder()
    (prediction,) = _call(build, net, [spec_of(data)])
    label_name = build.input("label", spec_of(label))
    with tracing(build):
        loss = loss_fn(Traced(build, prediction), Traced(build, label_name))
    if not isinstance(loss, Traced):
        raise GraphError(f"the loss function returned {loss!r:.60}; it must compute with the net's output")
    known = net.parameters_dict()
    for param in optimizer.params:
        if known.get(param.name) is not param:
            raise GraphError(
                f"the optimizer trains {param.name!r}, which is not a parameter of {type(net).__name__}; "
                "make it with net.trainable_params()",
                parameter=param.name,
            )
    grads = differentiate(build, loss.name, [param.name for param in optimizer.params])
    return build.graph([loss.name], optimizer.update(build, grads))


def _call(build: GraphBuilder, net: Cell, specs: Sequence[Spec]) -> list[str]:
    net.parameters_dict()
    names = _input_names(net, len(specs))
    inputs = [Traced(build, build.input(name, spec)) for name, spec in zip(names, specs, strict=True)]
    with tracing(build):
        result = net(*inputs)
    outputs = result if isinstance(result, tuple | list) else [result]
    for output in outputs:
        if not isinstance(output, Traced | Parameter):
            raise GraphError(f"{type(net).__name__} returned {output!r:.60}; `construct` must return tensors")
    return [o.name if isinstance(o, Traced) else build.param(o.name, o.spec) for o in outputs]


def _input_names(net: Cell, count: int) -> list[str]:
    """The names of `construct`'s arguments, as far as it names them."""
    arguments = inspect.signature(net.construct).parameters.values()
    named = [a.name for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    needed = [a for a in arguments if a.default is a.empty and a.name in named]
    star = any(a.kind is a.VAR_POSITIONAL for a in arguments)
    if count < len(needed) or (count > len(named) and not star):
        raise GraphError(
            f"{type(net).__name__}.construct takes {len(named)} inputs ({', '.join(named)}), but {count} were given"
        )
    taken = set(net.parameters_dict())
    names = [*named[:count], *(f"input{i}" for i in range(len(named), count))]
    return [name if name not in taken else f"{name}_input" for name in names]
