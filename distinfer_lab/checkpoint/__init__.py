"""Checkpoints: open them, plan their conversion, write and verify the result.

Above `formats` (what bytes mean) and `reshard` (what must move); no cluster is known here.
"""

from .checkpoint import Checkpoint
from .conversion import Conversion, ReshardResult, write
from .coverage import Coverage, Surviving, coverage, format_box
from .executors import Executor, Threads
from .file_writer import Control, FileReport, FileWork, Unwatched, WriteTask, Written
from .float_dtypes import float_dtype
from .opening import open_checkpoint
from .output import FORMATS, FileOptions, Output, OutputOptions, WriteOptions
from .output_files import tasks_of
from .places import check_places
from .planning import PlanOptions, plan_conversion, plan_targets
from .progress import Progress
from .rank_files import rank_files
from .rank_reads import RankReadPlan, rank_read_plan
from .records import TensorRecord, followed_parameter, is_state_of
from .shard_reader import window_bytes
from .sources import BoxReader, FileSource, MissingFile, OpenSource, UnreadableSlices
from .staging import probe_of
from .transform import rank_list_for_transform, transform_checkpoints
from .unopened import strategy_files
from .verify import Verification, check_beginnings, check_source, unnamed_slices, verify_folder

__all__ = [
    "FORMATS",
    "BoxReader",
    "Checkpoint",
    "Control",
    "Conversion",
    "Coverage",
    "Executor",
    "FileOptions",
    "FileReport",
    "FileSource",
    "FileWork",
    "MissingFile",
    "OpenSource",
    "Output",
    "OutputOptions",
    "PlanOptions",
    "Progress",
    "RankReadPlan",
    "ReshardResult",
    "Surviving",
    "TensorRecord",
    "Threads",
    "UnreadableSlices",
    "Unwatched",
    "Verification",
    "WriteOptions",
    "WriteTask",
    "Written",
    "check_beginnings",
    "check_places",
    "check_source",
    "coverage",
    "float_dtype",
    "followed_parameter",
    "format_box",
    "is_state_of",
    "open_checkpoint",
    "plan_conversion",
    "plan_targets",
    "probe_of",
    "rank_files",
    "rank_list_for_transform",
    "rank_read_plan",
    "strategy_files",
    "tasks_of",
    "transform_checkpoints",
    "unnamed_slices",
    "verify_folder",
    "window_bytes",
    "write",
]
