"""distinfer_lab: distributed inference, from sliced checkpoints to predictions on a card group.

::

    import distinfer_lab as dl

    with dl.CardGroup(4):
        layout = model.infer_predict_layout(dl.Tensor(data))
        dl.load_distributed_checkpoint(net, files, layout, "train_strategy.ckpt")
        result = model.predict(dl.Tensor(data))

Names are loaded when they are first used, so that importing this package starts nothing and
brings in neither Dask nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .display import load_later
from .version import __version__

load_later(lambda: import_module(".views", __name__).register())

_HOMES = {
    ".cards": ("CardGroup", "CardMemory", "GroupMemory", "Run", "current_group"),
    ".checkpoint": (
        "Checkpoint",
        "Conversion",
        "ReshardResult",
        "Threads",
        "open_checkpoint",
        "verify_folder",
    ),
    ".flow": (
        "Callback",
        "CheckpointConfig",
        "LoadResult",
        "LossMonitor",
        "Model",
        "ModelCheckpoint",
        "ParallelMode",
        "PredictLayout",
        "auto_parallel_context",
        "build_searched_strategy",
        "get_auto_parallel_context",
        "get_group_size",
        "get_rank",
        "init",
        "load_checkpoint",
        "load_distributed_checkpoint",
        "load_param_into_net",
        "merge_pipeline_strategys",
        "rank_list_for_transform",
        "reset_auto_parallel_context",
        "save_checkpoint",
        "set_auto_parallel_context",
        "transform_checkpoints",
    ),
    ".formats": ("SliceFile", "StrategyFile", "open_slice", "read_strategy", "save_slice", "write_strategy"),
    ".layout": ("Box", "Layout", "Mesh", "Strategy"),
    ".net": ("Cell", "Parameter", "Tensor", "initializer", "set_seed"),
    ".parallel": ("Program", "Sharding", "partition", "propagate"),
    ".reshard": ("ReshardPlan", "cheapest_placement", "explain", "plan_reshard"),
    ".rules": ("Rules", "read_rules"),
    ".told": ("in_words",),
    ".trace": ("Span", "Trace"),
    ".widgets": (
        "CardGroupView",
        "LayoutEditor",
        "LayoutView",
        "PlanView",
        "PredictPanel",
        "RunPanel",
        "Workbench",
    ),
}
_MODULES = ("communication", "context", "errors", "exercises", "models", "nn", "ops", "sample")
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted([*_NAMES, *_MODULES])]  # noqa: PLE0604  all are texts

if TYPE_CHECKING:
    from . import communication, context, errors, exercises, models, nn, ops, sample
    from .cards import CardGroup, CardMemory, GroupMemory, Run, current_group
    from .checkpoint import (
        Checkpoint,
        ReshardResult,
        open_checkpoint,
        rank_list_for_transform,
        transform_checkpoints,
        verify_folder,
    )
    from .flow import (
        Callback,
        CheckpointConfig,
        LoadResult,
        LossMonitor,
        Model,
        ModelCheckpoint,
        ParallelMode,
        PredictLayout,
        auto_parallel_context,
        build_searched_strategy,
        get_auto_parallel_context,
        get_group_size,
        get_rank,
        init,
        load_checkpoint,
        load_distributed_checkpoint,
        load_param_into_net,
        reset_auto_parallel_context,
        save_checkpoint,
        set_auto_parallel_context,
    )
    from .formats import (
        SliceFile,
        StrategyFile,
        merge_pipeline_strategys,
        open_slice,
        read_strategy,
        save_slice,
        write_strategy,
    )
    from .layout import Box, Layout, Mesh, Strategy
    from .net import Cell, Parameter, Tensor, initializer, set_seed
    from .parallel import Program, Sharding, partition, propagate
    from .reshard import ReshardPlan, cheapest_placement, explain, plan_reshard
    from .rules import Rules, read_rules
    from .told import in_words
    from .trace import Span, Trace
    from .widgets import (
        CardGroupView,
        LayoutEditor,
        LayoutView,
        PlanView,
        PredictPanel,
        RunPanel,
        Workbench,
    )

_DTYPES = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8")


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name], __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    elif name in _DTYPES:
        value = import_module(".net.dtypes", __name__).dtypes[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_DTYPES})
