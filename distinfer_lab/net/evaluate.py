"""Running a graph on whole arrays: what every sharded run must equal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphError, listed
from .graph import Graph, Spec, call_forward, check_result

__all__ = ["check_value", "evaluate"]

Array = NDArray[Any]


def evaluate(graph: Graph, params: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every output, and the new value of every updated parameter under the parameter's name.

    Raises
    ------
    GraphError
        If a value is missing or has another shape or dtype than the graph says, or an operator is wrong.
    """
    values: dict[str, Array] = {}
    for kind, specs, given in (("input", graph.inputs, inputs), ("parameter", graph.params, params)):
        for name, spec in specs.items():
            values[name] = check_value(kind, name, spec, given)
    for node in graph.nodes:
        operands = [values[name] for name in node.inputs]
        value = call_forward(node.op, operands, node.output)
        check_result(node.op, operands, value, graph.specs[node.output], node.output)
        values[node.output] = value
    return {name: values[name] for name in graph.outputs} | {
        name: values[value] for name, value in graph.updates.items()
    }


def check_value(kind: str, name: str, spec: Spec, given: Mapping[str, Array]) -> Array:
    """The value of that name, if it is there and fits its spec.

    Raises
    ------
    GraphError
        Naming the value, its shape and dtype, and what was expected.
    """
    if name not in given:
        raise GraphError(f"{kind} {name!r} is missing; there are {listed(given)}", parameter=name)
    value = np.asarray(given[name])
    if Spec(value.shape, value.dtype) != spec:
        raise GraphError(
            f"{kind} {name!r} has shape {list(value.shape)} and dtype {value.dtype}; "
            f"the graph takes {list(spec.shape)} {spec.dtype}",
            parameter=name,
        )
    return value
