"""Reshard: a plan, its bounds, the executor that defines it, and execution over files. No cluster."""

from .conversion import STATES, ConversionPlan, plan_checkpoint
from .files import BUFFER_BYTES, Output, Progress, ReshardResult, reshard_files, run_plan
from .placement import cheapest_placement
from .plan import ReshardPlan, TensorPlan, plan_reshard
from .serial import execute
from .shares import Share, share_of, shares_of
from .topology import Topology
from .transform import rank_list_for_transform, transform_checkpoints
from .verify import Verification, verify_folder
from .write import FileReport, WriteTask, write_file

__all__ = [
    "BUFFER_BYTES",
    "STATES",
    "ConversionPlan",
    "FileReport",
    "Output",
    "Progress",
    "ReshardPlan",
    "ReshardResult",
    "Share",
    "TensorPlan",
    "Topology",
    "Verification",
    "WriteTask",
    "cheapest_placement",
    "execute",
    "plan_checkpoint",
    "plan_reshard",
    "rank_list_for_transform",
    "reshard_files",
    "run_plan",
    "share_of",
    "shares_of",
    "transform_checkpoints",
    "verify_folder",
    "write_file",
]
