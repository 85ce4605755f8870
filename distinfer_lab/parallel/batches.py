"""Micro-batches: whether a net works on each row of its batch by itself, so that a batch may be split.

What the rules of operators say about sharding a dim over cards holds for splitting it over time: if a factor
goes from the inputs' first dim to the outputs' first, rows do not mix.
"""

from collections.abc import Mapping

from ..errors import Option, ShardingError
from ..net import Graph, Node, rule_of
from .factors import describe

__all__ = ["check_rows_apart", "micro_name"]


def micro_name(name: str, number: int) -> str:
    """What an input or output of one micro-batch is called."""
    return f"{name} of micro-batch {number}"


def check_rows_apart(graph: Graph, count: int) -> None:
    """Refuse a net whose outputs are not, row by row, those of its inputs' rows.

    Parameters
    ----------
    count
        Of micro-batches, for the error.

    Raises
    ------
    ShardingError
        Naming the operator that mixes rows.
    """
    rows = {name: 0 for name, spec in graph.inputs.items() if spec.shape}
    for node in graph.nodes:
        dim = _rows_after(graph, node, rows, count)
        if dim is not None:
            rows[node.output] = dim
    for name in graph.outputs:
        if rows.get(name) != 0:
            given = Option("pipeline_micro_batches", count)
            raise ShardingError(
                f"{given}: the output {name} has no dim 0 that corresponds to the batch's, so "
                "its parts cannot be concatenated; use 1",
                given,
                parameter=name,
            )


def _rows_after(graph: Graph, node: Node, rows: Mapping[str, int], count: int) -> int | None:
    """The dim of a node's output that corresponds to the batch; None if there is none."""
    specs = [graph.specs[name] for name in node.inputs]
    rule = rule_of(node.op, *specs)
    operands = list(zip(node.inputs, rule.inputs, specs, strict=True))
    carried = [factors[rows[name]] for name, factors, _ in operands if name in rows]
    if not carried:
        return None
    factor = carried[0]
    apart = factor is not None and set(carried) == {factor} and list(rule.output).count(factor) == 1
    for name, factors, spec in operands:
        others = [
            d for d, f in enumerate(factors) if f == factor and d != rows.get(name) and spec.shape[d] > 1
        ]
        apart = apart and not others
    if not apart:
        given = Option("pipeline_micro_batches", count)
        raise ShardingError(
            f"{given}: {describe(node, list(graph.params))} does not work on each row of "
            "the batch by itself, so micro-batches would not compute the same as the whole batch; use 1",
            given,
        )
    return rule.output.index(factor)
