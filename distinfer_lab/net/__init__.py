"""Nets: cells, operators, tracing, differentiation, optimizers. No layout arithmetic."""

from . import nn, ops
from .build import GraphBuilder
from .cell import Cell, SequentialCell
from .differentiate import differentiate
from .evaluate import check_value, evaluate
from .graph import AxisStrategy, Graph, Node, NodeStrategy, Operator, Origin, Region, Rule, Spec
from .initializer import Initializer, Values, get_seed, initializer, set_seed
from .shares import InitialBox, InitialPart, InitialShare
from .tensor import Parameter, Source, Tensor, Value
from .trace import spec_of, trace, training_graph

__all__ = [
    "AxisStrategy",
    "Cell",
    "Graph",
    "GraphBuilder",
    "InitialBox",
    "InitialPart",
    "InitialShare",
    "Initializer",
    "Node",
    "NodeStrategy",
    "Operator",
    "Origin",
    "Parameter",
    "Region",
    "Rule",
    "SequentialCell",
    "Source",
    "Spec",
    "Tensor",
    "Value",
    "Values",
    "check_value",
    "differentiate",
    "evaluate",
    "get_seed",
    "initializer",
    "nn",
    "ops",
    "set_seed",
    "spec_of",
    "trace",
    "training_graph",
]
