"""Files: slices, strategies, and the checkpoint that they make together. Headers are read, data on demand."""

from .checkpoint import Checkpoint, TensorRecord, followed_parameter, open_checkpoint, rank_files
from .entry import Entry, Piece, TensorSpec
from .slice_file import SliceFile, open_slice
from .strategy_file import (
    OperatorStrategy,
    StrategyFile,
    as_strategy,
    merge_pipeline_strategys,
    read_strategy,
    write_strategy,
)
from .writer import CHUNK_BYTES, SliceWriter, save_slice

__all__ = [
    "CHUNK_BYTES",
    "Checkpoint",
    "Entry",
    "OperatorStrategy",
    "Piece",
    "SliceFile",
    "SliceWriter",
    "StrategyFile",
    "TensorRecord",
    "TensorSpec",
    "as_strategy",
    "followed_parameter",
    "merge_pipeline_strategys",
    "open_checkpoint",
    "open_slice",
    "rank_files",
    "read_strategy",
    "save_slice",
    "write_strategy",
]
