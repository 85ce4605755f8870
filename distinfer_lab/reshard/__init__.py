"""Reshard: a plan, its bounds, the executor that defines it, and execution over files. No cluster."""

from .conversion import STATES, ConversionPlan, plan_checkpoint
from .draft import Assessment, Cut, Draft
from .explain import CardCost, Explanation, FileCost, TensorCost
from .files import Workers, reshard_files, run_plan
from .filling import window_bytes
from .float_dtypes import DTYPES, float_dtype
from .output import Output
from .placement import cheapest_placement
from .plan import ReshardPlan, TensorPlan, plan_reshard
from .progress import Progress
from .result import ReshardResult
from .rules import MODEL_TYPES, RULES, Rule, Rules, mesh_of, read_rules, rules_json
from .schedule import Step, plan_steps, warnings_of
from .serial import execute
from .shares import Share, Source, share_of, shares_of
from .sizes import BUFFER_BYTES, size_of
from .stage import probe_of, staged
from .topology import Topology
from .transform import rank_list_for_transform, transform_checkpoints
from .verify import Verification, check_beginnings, check_source, unnamed_slices, verify_folder
from .write import Control, FileReport, FileWork, Unwatched, WriteTask, Written, write_file

__all__ = [
    "BUFFER_BYTES",
    "DTYPES",
    "MODEL_TYPES",
    "RULES",
    "STATES",
    "Assessment",
    "CardCost",
    "Control",
    "ConversionPlan",
    "Cut",
    "Draft",
    "Explanation",
    "FileCost",
    "FileReport",
    "FileWork",
    "Output",
    "Progress",
    "ReshardPlan",
    "ReshardResult",
    "Rule",
    "Rules",
    "Share",
    "Source",
    "Step",
    "TensorCost",
    "TensorPlan",
    "Topology",
    "Unwatched",
    "Verification",
    "Workers",
    "WriteTask",
    "Written",
    "cheapest_placement",
    "check_beginnings",
    "check_source",
    "execute",
    "float_dtype",
    "mesh_of",
    "plan_checkpoint",
    "plan_reshard",
    "plan_steps",
    "probe_of",
    "rank_list_for_transform",
    "read_rules",
    "reshard_files",
    "rules_json",
    "run_plan",
    "share_of",
    "shares_of",
    "size_of",
    "staged",
    "transform_checkpoints",
    "unnamed_slices",
    "verify_folder",
    "warnings_of",
    "window_bytes",
    "write_file",
]
