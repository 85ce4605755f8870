"""Reshard: a plan, its bounds, the executor that defines it, and execution over files. No cluster."""

from .destination import STATES, plan_checkpoint
from .files import BUFFER_BYTES, ReshardResult, reshard_files
from .placement import cheapest_placement
from .plan import ReshardPlan, TensorPlan, plan_reshard
from .serial import execute
from .shares import Share, share_of, shares_of
from .topology import Topology
from .transform import rank_list_for_transform, transform_checkpoints

__all__ = [
    "BUFFER_BYTES",
    "STATES",
    "ReshardPlan",
    "ReshardResult",
    "Share",
    "TensorPlan",
    "Topology",
    "cheapest_placement",
    "execute",
    "plan_checkpoint",
    "plan_reshard",
    "rank_list_for_transform",
    "reshard_files",
    "share_of",
    "shares_of",
    "transform_checkpoints",
]
