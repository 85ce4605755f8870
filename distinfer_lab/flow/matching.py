"""Which entry of a checkpoint's files each parameter of a net takes."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..dtypes import dtype_name
from ..errors import CheckpointError, Option, listed
from ..net import Parameter
from ..rules import quantised_weights

__all__ = ["Matching", "kind_of"]


class Matching:
    """Which entry of the files each parameter of the net takes."""

    def __init__(
        self,
        params: Mapping[str, Parameter],
        checkpoint: Checkpoint,
        strict: bool,
        name_map: Mapping[str, str],
        allow_missing: Sequence[str],
    ) -> None:
        self.checkpoint = checkpoint
        self.entries: dict[str, str] = {}
        self.converted: dict[str, str] = {}
        mapped = {name: entry for entry, name in name_map.items()}
        lost = []
        for name, param in params.items():
            entry = self._entry(mapped.get(name, name), strict)
            if entry is not None:
                self._check(name, param, entry, strict)
                self.entries[name] = entry
            elif any(fnmatch.fnmatchcase(name, pattern) for pattern in allow_missing):
                lost.append(name)
            elif mapped.get(name, name) in checkpoint.unreadable:
                allow, why = Option("allow_missing", [name]), checkpoint.unreadable[mapped.get(name, name)]
                raise CheckpointError(
                    f"{name}: the files' entry cannot be read: {why}. Pass {allow} to leave the parameter as it is",
                    allow,
                    of=why,
                    parameter=name,
                )
            else:
                allow = Option("allow_missing", [name])
                raise CheckpointError(
                    f"{name}: the files have no entry for this parameter of the net; they have "
                    f"{listed(checkpoint.tensors)}. Pass name_map={{entry: {name!r}}}, or "
                    f"{allow} to leave it as it is",
                    allow,
                    parameter=name,
                )
        for pattern in allow_missing:
            if not fnmatch.filter(params, pattern):
                given = Option("allow_missing", [pattern])
                raise CheckpointError(
                    f"{given}: no parameter of the net fits it; it has {listed(params)}", given
                )
        self.missing = tuple(lost)
        self.renamed = {name: entry for name, entry in self.entries.items() if name != entry}
        self._check_unique()
        self._check_no_codes()
        self.unused = tuple(n for n in checkpoint.tensors if n not in self.entries.values())

    def _entry(self, name: str, strict: bool) -> str | None:
        tensors = self.checkpoint.tensors
        if name in tensors or strict:
            return name if name in tensors else None
        near = [
            entry
            for entry, record in tensors.items()
            if record.kind != "state" and (_is_affixed(entry, name) or _is_affixed(name, entry))
        ]
        if len(near) > 1:
            raise CheckpointError(
                f"{name}: the files have no entry of this name, and several similar ones: "
                f"{', '.join(near)}; choose one with name_map",
                parameter=name,
            )
        return near[0] if near else None

    def _check(self, name: str, param: Parameter, entry: str, strict: bool) -> None:
        record = self.checkpoint.tensors[entry]
        if record.shape != param.shape:
            raise CheckpointError(
                f"{name}: the net has shape {list(param.shape)}, but the files' {entry} has {list(record.shape)}; "
                "the checkpoint is of another net, or the training strategy is missing",
                parameter=name,
            )
        if record.dtype == param.dtype:
            return
        kinds = [kind_of(record.dtype), kind_of(np.dtype(param.dtype))]
        if strict or kinds[0] != kinds[1]:
            raise CheckpointError(
                f"{name}: the net has dtype {param.dtype}, but the files' {entry} has {dtype_name(record.dtype)}"
                + (
                    "; strict_load=False converts it" if kinds[0] == kinds[1] else "; these are not converted"
                ),
                parameter=name,
            )
        self.converted[name] = dtype_name(record.dtype)

    def _check_no_codes(self) -> None:
        """Refuse codes of a quantised weight that a net would take, converted, for numbers."""
        tensors, taken = self.checkpoint.tensors, {entry: name for name, entry in self.entries.items()}
        weights = quantised_weights(
            {name: record.shape for name, record in tensors.items()},
            {name: record.dtype for name, record in tensors.items()},
        )
        for weight in weights:
            codes = weight.codes.name
            if codes in taken and taken[codes] in self.converted:
                scales = listed([tensor.name for tensor in weight.tensors[1:]], 3)
                raise CheckpointError(
                    f"{taken[codes]}: the files' {codes} ({dtype_name(tensors[codes].dtype)}) holds codes of a "
                    f"quantised weight, which mean nothing without {scales}; give a checkpoint that is not quantised",
                    parameter=taken[codes],
                )

    def _check_unique(self) -> None:
        taken: dict[str, str] = {}
        for name, entry in self.entries.items():
            if entry in taken:
                raise CheckpointError(
                    f"{name} and {taken[entry]} would both use the files' {entry}; choose one with name_map",
                    parameter=name,
                )
            taken[entry] = name


def _is_affixed(longer: str, shorter: str) -> bool:
    return longer.endswith(f".{shorter}") or longer.startswith(f"{shorter}.")


def kind_of(dtype: np.dtype[Any]) -> str:
    """The kind within which dtypes are converted: "integer", "float", or the dtype's own name."""
    if dtype.kind in "iu":
        return "integer"
    return "float" if dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")) else dtype.name
