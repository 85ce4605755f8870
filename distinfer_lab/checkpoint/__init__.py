"""Files: slices, strategies, and the checkpoint that they make together. Headers are read, data on demand."""

from .beside import strategy_files
from .checkpoint import Checkpoint, NoFile, TensorRecord, followed_parameter, is_state_of
from .contents import gaps, unnamed_paths
from .coverage import Coverage, Surviving, box_in_words, coverage
from .dtypes import dtype_name
from .encryption import with_secret_key
from .entry import ByteSource, Entry, Piece, TensorSpec
from .file_set import FileSet, PartFiles, open_files
from .holdable import check_specs
from .hub import (
    INDEX,
    companions,
    config_beside,
    config_with_dtype,
    hub_files,
    index_json,
    index_of,
    partition_like,
    read_companion,
    read_index,
)
from .json_kinds import kind_of_json
from .manifest import MANIFEST, Manifest, ManifestBeside, ManifestFile, ManifestTensor, read_manifest
from .model_config import NamedTensor, config_problems, has_tied_head, kind_of_dtype, layer_patterns
from .opening import open_checkpoint
from .quantised import Along, QuantisedTensor, QuantisedWeight, is_quantised_config, quantised_weights
from .rank_files import rank_files
from .slice_file import READ_COST_BYTES, SliceFile, open_slice
from .strategy_file import (
    OperatorStrategy,
    StrategyFile,
    as_strategy,
    merge_pipeline_strategys,
    read_operators,
    read_strategy,
    write_strategy,
)
from .writer import CHUNK_BYTES, SliceWriter, save_slice

__all__ = [
    "CHUNK_BYTES",
    "INDEX",
    "MANIFEST",
    "READ_COST_BYTES",
    "Along",
    "ByteSource",
    "Checkpoint",
    "Coverage",
    "Entry",
    "FileSet",
    "Manifest",
    "ManifestBeside",
    "ManifestFile",
    "ManifestTensor",
    "NamedTensor",
    "NoFile",
    "OperatorStrategy",
    "PartFiles",
    "Piece",
    "QuantisedTensor",
    "QuantisedWeight",
    "SliceFile",
    "SliceWriter",
    "StrategyFile",
    "Surviving",
    "TensorRecord",
    "TensorSpec",
    "as_strategy",
    "box_in_words",
    "check_specs",
    "companions",
    "config_beside",
    "config_problems",
    "config_with_dtype",
    "coverage",
    "dtype_name",
    "followed_parameter",
    "gaps",
    "has_tied_head",
    "hub_files",
    "index_json",
    "index_of",
    "is_quantised_config",
    "is_state_of",
    "kind_of_dtype",
    "kind_of_json",
    "layer_patterns",
    "merge_pipeline_strategys",
    "open_checkpoint",
    "open_files",
    "open_slice",
    "partition_like",
    "quantised_weights",
    "rank_files",
    "read_companion",
    "read_index",
    "read_manifest",
    "read_operators",
    "read_strategy",
    "save_slice",
    "strategy_files",
    "unnamed_paths",
    "with_secret_key",
    "write_strategy",
]
