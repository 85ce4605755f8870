"""Nets: cells, operators, tracing, differentiation, optimizers. No layout arithmetic."""

from . import nn, ops
from .build import GraphBuilder
from .cell import Cell, SequentialCell
from .differentiate import differentiate
from .evaluate import check_value, evaluate
from .graph import (
    AxisStrategy,
    Graph,
    Node,
    NodeStrategy,
    Operator,
    Origin,
    Region,
    Rule,
    Spec,
    call_forward,
    call_local,
    rule_of,
    wrong_result,
)
from .initial_shards import InitialBox, InitialShard, InitialShards
from .initializer import ArrayValues, Initializer, get_seed, initializer, set_seed
from .tensor import Parameter, Tensor, Value, ValueSource
from .trace import spec_of, trace, training_graph

__all__ = [
    "ArrayValues",
    "AxisStrategy",
    "Cell",
    "Graph",
    "GraphBuilder",
    "InitialBox",
    "InitialShard",
    "InitialShards",
    "Initializer",
    "Node",
    "NodeStrategy",
    "Operator",
    "Origin",
    "Parameter",
    "Region",
    "Rule",
    "SequentialCell",
    "Spec",
    "Tensor",
    "Value",
    "ValueSource",
    "call_forward",
    "call_local",
    "check_value",
    "differentiate",
    "evaluate",
    "get_seed",
    "initializer",
    "nn",
    "ops",
    "rule_of",
    "set_seed",
    "spec_of",
    "trace",
    "training_graph",
    "wrong_result",
]
