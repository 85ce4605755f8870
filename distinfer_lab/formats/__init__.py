"""What bytes on a disk mean: slice files, safetensors, Hugging Face folders, strategy files, manifests.

Nothing here knows a plan or a cluster. Headers are read, data on demand; every number in a file is checked
before it sizes anything.
"""

from .box_reads import READ_COST_BYTES
from .contents import gaps, unnamed_paths
from .encryption import encrypted_by, with_secret_key
from .entry import ByteSource, ByteWindows, Entry, Kind, TensorSpec, byte_runs
from .entry_table import EntryTable, kinds_of
from .file_format import FolderFormat
from .file_formats import (
    FILE_FORMATS,
    FOLDER_FORMATS,
    FOREIGN,
    folder_format_named,
    folder_format_of,
    format_named,
    format_of,
    members_of,
)
from .file_set import FileSet, PartFiles, open_files, paths_of
from .handles import FileIdentity
from .hub import (
    INDEX,
    companions,
    config_with_dtype,
    hub_files,
    partition_like,
    read_companion,
    read_index,
    sibling_config,
)
from .limits import check_specs
from .manifest import MANIFEST, Manifest, ManifestBeside, ManifestFile, ManifestTensor, read_manifest
from .model_config import NamedTensor, config_names, config_problems, has_tied_head, kind_of_dtype
from .recognisers import is_strategy, recognise_folder
from .slice_file import SliceFile
from .slice_opening import open_slice
from .slice_writer import CHUNK_BYTES, SliceWriter, save_slice
from .strategy_file import (
    as_strategy,
    merge_pipeline_strategys,
    read_operators,
    read_strategy,
    write_strategy,
)
from .strategy_record import OperatorStrategy, StrategyFile

__all__ = [
    "CHUNK_BYTES",
    "FILE_FORMATS",
    "FOLDER_FORMATS",
    "FOREIGN",
    "INDEX",
    "MANIFEST",
    "READ_COST_BYTES",
    "ByteSource",
    "ByteWindows",
    "Entry",
    "EntryTable",
    "FileIdentity",
    "FileSet",
    "FolderFormat",
    "Kind",
    "Manifest",
    "ManifestBeside",
    "ManifestFile",
    "ManifestTensor",
    "NamedTensor",
    "OperatorStrategy",
    "PartFiles",
    "SliceFile",
    "SliceWriter",
    "StrategyFile",
    "TensorSpec",
    "as_strategy",
    "byte_runs",
    "check_specs",
    "companions",
    "config_names",
    "config_problems",
    "config_with_dtype",
    "encrypted_by",
    "folder_format_named",
    "folder_format_of",
    "format_named",
    "format_of",
    "gaps",
    "has_tied_head",
    "hub_files",
    "is_strategy",
    "kind_of_dtype",
    "kinds_of",
    "members_of",
    "merge_pipeline_strategys",
    "open_files",
    "open_slice",
    "partition_like",
    "paths_of",
    "read_companion",
    "read_index",
    "read_manifest",
    "read_operators",
    "read_strategy",
    "recognise_folder",
    "save_slice",
    "sibling_config",
    "unnamed_paths",
    "with_secret_key",
    "write_strategy",
]
