"""The flow: the four steps, by MindSpore's names."""

from ..checkpoint import rank_list_for_transform, transform_checkpoints
from ..formats import merge_pipeline_strategys
from .callbacks import Callback, CheckpointConfig, LossMonitor, ModelCheckpoint, RunContext
from .communication import get_group_size, get_rank, init
from .comparison import Comparison, compare, compare_generated
from .context import (
    ParallelContext,
    ParallelMode,
    auto_parallel_context,
    get_auto_parallel_context,
    reset_auto_parallel_context,
    set_auto_parallel_context,
)
from .load import LoadResult, load_distributed_checkpoint
from .model import Model
from .predict_layout import PredictLayout
from .single_file import build_searched_strategy, load_checkpoint, load_param_into_net, save_checkpoint
from .step_report import StepReport

__all__ = [
    "Callback",
    "CheckpointConfig",
    "Comparison",
    "LoadResult",
    "LossMonitor",
    "Model",
    "ModelCheckpoint",
    "ParallelContext",
    "ParallelMode",
    "PredictLayout",
    "RunContext",
    "StepReport",
    "auto_parallel_context",
    "build_searched_strategy",
    "compare",
    "compare_generated",
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
]
