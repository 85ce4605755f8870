"""Strategies read from, and written to, training strategy files."""

from collections.abc import Mapping

from ..checkpoint import followed_parameter
from ..errors import LayoutError
from ..formats import OperatorStrategy, StrategyFile, read_operators
from ..layout import Strategy
from ..net import NodeStrategy
from ..parallel import Sharding
from .context import ParallelContext

__all__ = ["loaded_operators", "strategy_file_of"]


def loaded_operators(context: ParallelContext) -> Mapping[str, NodeStrategy]:
    """The operators' strategies of the training strategy file, if one is set.

    Raises
    ------
    CheckpointFileError
        If there is no such file.
    """
    if not context.strategy_ckpt_load_file or not context.is_sharded:
        return {}
    found = read_operators(context.strategy_ckpt_load_file)
    return {name: item.inputs for name, item in found.items() if item.inputs}


def strategy_file_of(sharding: Sharding, params: Mapping[str, object]) -> StrategyFile | Strategy:
    """The strategy file of a sharding: operators, a net's parameters and their states.

    Only the layouts, where MindSpore's format cannot express one of them.
    """
    operators = {
        name: OperatorStrategy(sharding.stages.get(name, 0), inputs)
        for name, inputs in sharding.operators.items()
    }
    named = [n for n in sharding.strategy if n in params or followed_parameter(n, params)]
    strategy = sharding.strategy.subset(named)
    try:
        return StrategyFile.from_strategy(strategy, operators)
    except LayoutError:
        return strategy
