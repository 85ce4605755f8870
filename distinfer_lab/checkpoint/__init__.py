"""Checkpoints: open them, plan their conversion, write and verify the result.

Above `formats` (what bytes mean) and `reshard` (what must move); no cluster is known here.
"""

from .beside import strategy_files
from .checkpoint import Checkpoint
from .conversion import ConversionPlan, plan_checkpoint
from .coverage import Coverage, Surviving, box_in_words, coverage
from .file_writer import Control, FileReport, FileWork, Unwatched, WriteTask, Written
from .float_dtypes import float_dtype
from .opening import open_checkpoint
from .output import Output, RunOptions
from .places import check_places
from .progress import Progress
from .rank_files import rank_files
from .rank_reads import Share, Source, shares_of
from .records import MissingFile, TensorRecord, followed_parameter, is_state_of
from .result import ReshardResult
from .shard_reader import window_bytes
from .staging import probe_of
from .transform import rank_list_for_transform, transform_checkpoints
from .verify import Verification, check_beginnings, check_source, unnamed_slices, verify_folder
from .write import reshard_files

__all__ = [
    "Checkpoint",
    "Control",
    "ConversionPlan",
    "Coverage",
    "FileReport",
    "FileWork",
    "MissingFile",
    "Output",
    "Progress",
    "ReshardResult",
    "RunOptions",
    "Share",
    "Source",
    "Surviving",
    "TensorRecord",
    "Unwatched",
    "Verification",
    "WriteTask",
    "Written",
    "box_in_words",
    "check_beginnings",
    "check_places",
    "check_source",
    "coverage",
    "float_dtype",
    "followed_parameter",
    "is_state_of",
    "open_checkpoint",
    "plan_checkpoint",
    "probe_of",
    "rank_files",
    "rank_list_for_transform",
    "reshard_files",
    "shares_of",
    "strategy_files",
    "transform_checkpoints",
    "unnamed_slices",
    "verify_folder",
    "window_bytes",
]
