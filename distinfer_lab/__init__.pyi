from . import (
    communication as communication,
    context as context,
    errors as errors,
    models as models,
    nn as nn,
    ops as ops,
    sample as sample,
)
from .cards import (
    CardGroup as CardGroup,
    CardMemory as CardMemory,
    GroupMemory as GroupMemory,
    Run as Run,
    current_group as current_group,
)
from .checkpoint import (
    Checkpoint as Checkpoint,
    Conversion as Conversion,
    ReshardResult as ReshardResult,
    Threads as Threads,
    open_checkpoint as open_checkpoint,
    verify_folder as verify_folder,
    write as write,
)
from .flow import (
    Callback as Callback,
    CheckpointConfig as CheckpointConfig,
    LoadResult as LoadResult,
    LossMonitor as LossMonitor,
    Model as Model,
    ModelCheckpoint as ModelCheckpoint,
    ParallelMode as ParallelMode,
    PredictLayout as PredictLayout,
    auto_parallel_context as auto_parallel_context,
    build_searched_strategy as build_searched_strategy,
    get_auto_parallel_context as get_auto_parallel_context,
    get_group_size as get_group_size,
    get_rank as get_rank,
    init as init,
    load_checkpoint as load_checkpoint,
    load_distributed_checkpoint as load_distributed_checkpoint,
    load_param_into_net as load_param_into_net,
    merge_pipeline_strategys as merge_pipeline_strategys,
    rank_list_for_transform as rank_list_for_transform,
    reset_auto_parallel_context as reset_auto_parallel_context,
    save_checkpoint as save_checkpoint,
    set_auto_parallel_context as set_auto_parallel_context,
    transform_checkpoints as transform_checkpoints,
)
from .formats import (
    SliceFile as SliceFile,
    StrategyFile as StrategyFile,
    open_slice as open_slice,
    read_strategy as read_strategy,
    save_slice as save_slice,
    write_strategy as write_strategy,
)
from .layout import (
    Box as Box,
    Layout as Layout,
    Mesh as Mesh,
    Strategy as Strategy,
)
from .net import (
    Cell as Cell,
    Parameter as Parameter,
    Tensor as Tensor,
    initializer as initializer,
    set_seed as set_seed,
)
from .net.dtypes import (
    bfloat16 as bfloat16,
    float16 as float16,
    float32 as float32,
    float64 as float64,
    int8 as int8,
    int16 as int16,
    int32 as int32,
    int64 as int64,
    uint8 as uint8,
)
from .parallel import (
    Program as Program,
    Sharding as Sharding,
    partition as partition,
    propagate as propagate,
)
from .reshard import (
    ReshardPlan as ReshardPlan,
    cheapest_placement as cheapest_placement,
    explain as explain,
    plan_reshard as plan_reshard,
)
from .rules import (
    Rules as Rules,
    read_rules as read_rules,
)
from .trace import (
    Span as Span,
    Trace as Trace,
)
from .version import __version__ as __version__
from .widgets import (
    CardGroupView as CardGroupView,
    LayoutEditor as LayoutEditor,
    LayoutView as LayoutView,
    PlanView as PlanView,
    PredictPanel as PredictPanel,
    RunPanel as RunPanel,
    Workbench as Workbench,
)
