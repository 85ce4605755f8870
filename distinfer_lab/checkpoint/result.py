"""What a finished run has written, and what it took."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..display import Displayed, bytes_in_words, counted
from ..text import printable
from .conversion import ConversionPlan
from .file_writer import FileReport
from .verify import Verification, verify_folder

__all__ = ["ReshardResult"]


@dataclass(frozen=True, repr=False)
class ReshardResult(Displayed):
    """What was written, and what it took."""

    folder: str
    plan: ConversionPlan
    files: tuple[FileReport, ...]
    """What was written, file by file."""
    predicted_peak_bytes: int
    """The most memory for data that a worker was to use."""
    seconds: float
    resumed: bool
    """Whether an earlier run had begun."""
    served_bytes: int = 0
    """Bytes of content that cards read for other cards."""
    moved_bytes: int = 0
    """Bytes that went from card to card."""
    private_bytes: int | None = None
    """The most private memory that a worker process took beyond what it has when idle; None in this process."""
    discarded: str = ""
    """Why what an interrupted run had written was not used; "" if it was, or there was nothing."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files."""
        return tuple(os.path.join(self.folder, file.path) for file in self.files)

    @property
    def read_bytes(self) -> int:
        """Bytes of content read from source files."""
        return self.served_bytes + sum(file.read_bytes for file in self.files)

    @property
    def needed_bytes(self) -> int:
        """Bytes of the pieces of all destination shards, as the sources hold them."""
        return int(self.plan.needed_bytes.sum())

    @property
    def written_bytes(self) -> int:
        """Bytes of all destination shards."""
        return sum(file.nbytes for file in self.files)

    @property
    def reused_bytes(self) -> int:
        """Bytes that an earlier run had written, and that were right."""
        return sum(file.reused_bytes for file in self.files)

    @property
    def buffer_bytes(self) -> int:
        """The most memory for data that a worker used."""
        return max((file.buffer_bytes for file in self.files), default=0)

    @property
    def overflowed(self) -> Mapping[str, int]:
        """Tensor -> finite values that became infinite when they were converted."""
        out: dict[str, int] = {}
        for file in self.files:
            for name, tensor in file.tensors.items():
                if tensor.overflowed:
                    out[name] = out.get(name, 0) + tensor.overflowed
        return out

    @property
    def digests(self) -> tuple[dict[str, str | None], ...]:
        """For each file, for each tensor, the xxh3-128 digest of its shard's bytes."""
        return tuple({name: tensor.digest for name, tensor in file.tensors.items()} for file in self.files)

    def verify(self, threads: int = 1) -> Verification:
        """Read everything that was written once more (see `verify_folder`)."""
        return verify_folder(self.folder, threads=threads)

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON can say them."""
        names = ["read_bytes", "needed_bytes", "written_bytes", "reused_bytes", "moved_bytes"]
        names += ["buffer_bytes", "private_bytes"]
        return {
            "folder": self.folder,
            "files": list(self.paths),
            **{name: getattr(self, name) for name in names},
            "predicted_peak_bytes": self.predicted_peak_bytes,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "discarded": self.discarded,
            "started_over": [file.path for file in self.files if file.started_over],
            "overflowed": dict(self.overflowed),
            "notes": list(self.plan.notes),
        }

    def __repr__(self) -> str:
        ratio = self.read_bytes / max(self.needed_bytes, 1)
        lines = [
            f"ReshardResult: {counted(len(self.files), 'file')}, {bytes_in_words(self.written_bytes)} "
            f"in {self.seconds:.2f} s",
            f"  read {self.read_bytes} of {self.needed_bytes} bytes needed ({ratio:.2f}), "
            f"buffer {bytes_in_words(self.buffer_bytes)} of {bytes_in_words(self.predicted_peak_bytes)}",
        ]
        if self.private_bytes is not None:
            lines.append(
                f"  {bytes_in_words(self.moved_bytes)} from card to card; "
                f"a worker took at most {bytes_in_words(self.private_bytes)} of private memory"
            )
        if self.reused_bytes:
            lines.append(f"  {bytes_in_words(self.reused_bytes)} were there from an earlier run, and right")
        if self.discarded:
            lines.append(f"  what an interrupted run had written was discarded: {self.discarded}")
        lines += [
            f"  {printable(file.path)}: the journal of the earlier run was damaged; "
            "the file was written from the start"
            for file in self.files
            if file.started_over
        ]
        lines += [f"  {printable(note)}" for note in self.plan.notes]
        lines += [
            f"  {printable(name)}: {count} values overflowed" for name, count in self.overflowed.items()
        ]
        return "\n".join(lines)
