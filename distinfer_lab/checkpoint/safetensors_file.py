"""safetensors, one file per rank: a byte index of one that is there, and the header of one to be.

    8 bytes  little-endian length of the header
    header   {"name": {"dtype": "F32", "shape": [..], "data_offsets": [a, b]}, "__metadata__": {..}}
    data     the tensors, little-endian, row-major

References
----------
The format is described at https://github.com/huggingface/safetensors.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .entry import MAX_DIMS, SAFETENSORS_TYPES, Entry, Piece, TensorSpec, type_name_of

__all__ = ["header", "index_safetensors"]

LONGEST_HEADER = 100_000_000
"""As the safetensors library has it."""
TEXT_KEY = "text:"


def index_safetensors(
    path: str, read_at: Callable[[int, int], bytes], size: int
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Name -> entry, and name -> text for the texts that we keep in the metadata.

    Raises
    ------
    CheckpointError
        If the header is not as it must be.
    """
    length = int.from_bytes(read_at(0, 8), "little")
    if size < 10 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
        raise CheckpointError(
            f"{path}: a header of {length} bytes in a file of {size}; the file is cut or no safetensors file"
        )
    try:
        found = json.loads(read_at(8, length))
    except (ValueError, RecursionError) as err:
        raise CheckpointError(f"{path}: the header is not JSON ({err}); no safetensors file") from err
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: the header is no JSON object; no safetensors file")
    metadata = found.pop("__metadata__", {})
    entries = {name: _entry(path, name, item, 8 + length, size) for name, item in found.items()}
    _check_tiled(path, entries, 8 + length, size)
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return entries, {k[len(TEXT_KEY) :]: str(v) for k, v in texts if k.startswith(TEXT_KEY)}


def _entry(path: str, name: str, item: Any, data: int, size: int) -> Entry:
    def fail(what: str) -> CheckpointError:
        return CheckpointError(f"{path}: {name:.200}: {what}; the file is damaged")

    if not isinstance(item, dict) or not {"dtype", "shape", "data_offsets"} <= item.keys():
        raise fail("its header entry lacks dtype, shape or data_offsets")
    type_name, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(type_name, str) or type_name not in SAFETENSORS_TYPES:
        raise fail(f"dtype {type_name!r:.40} is not one of {', '.join(SAFETENSORS_TYPES)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMS or not _are_sizes(offsets) or len(offsets) != 2:
        raise fail(f"shape {shape!r:.60} or data_offsets {offsets!r:.60} are not lists of sizes")
    dtype = SAFETENSORS_TYPES[type_name]
    nbytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != nbytes or data + offsets[1] > size:
        raise fail(
            f"shape {shape} of {type_name} takes {nbytes} bytes; its data_offsets {offsets} do not fit that, "
            f"or the file of {size} bytes"
        )
    return Entry(name, type_name, dtype, tuple(shape), (Piece(data + offsets[0], nbytes),))


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_tiled(path: str, entries: Mapping[str, Entry], data: int, size: int) -> None:
    """Contents lie one after another and fill the file: no overlap, no bytes that nothing owns."""
    at = data
    for entry in sorted(entries.values(), key=lambda e: e.pieces[0]):
        if entry.pieces[0].offset != at:
            raise CheckpointError(
                f"{path}: {entry.name}: its data begins at byte {entry.pieces[0].offset}, not {at}; "
                "tensors overlap or leave a hole"
            )
        at += entry.nbytes
    if at != size:
        raise CheckpointError(f"{path}: {size - at} bytes follow the last tensor; the file is damaged")


def header(
    specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, list[TensorSpec]]:
    """The bytes before the data, and the tensors in the order of their data: big items first.

    `metadata` is what the file says of itself; by default that its format is MindSpore's.

    Raises
    ------
    CheckpointError
        If safetensors has no name for a dtype.
    """
    tensors = sorted((s for s in specs if s.text is None), key=lambda s: (-s.dtype.itemsize, s.name))
    texts = {TEXT_KEY + s.name: s.text for s in specs if s.text is not None}
    found: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "ms"}) | texts}
    at = 0
    for spec in tensors:
        type_name = type_name_of(np.dtype(spec.dtype), SAFETENSORS_TYPES)
        if type_name is None:
            raise CheckpointError(f"{spec.name}: a safetensors file cannot hold dtype {spec.dtype}")
        offsets = [at, at + spec.nbytes]
        found[spec.name] = {"dtype": type_name, "shape": list(spec.shape), "data_offsets": offsets}
        at += spec.nbytes
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, tensors
