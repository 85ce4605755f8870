"""Callbacks of training: watching the loss and saving checkpoints."""

import os
import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Protocol, Unpack

from ..arguments import checked
from ..display import Displayed
from ..errors import ArgumentTypeError, ContextError, Option
from ..formats import format_named
from ..secret import secret_key
from .saving import SaveOptions

__all__ = ["Callback", "CheckpointConfig", "LossMonitor", "ModelCheckpoint", "RunContext", "Save"]


class Save(Protocol):
    """Writes what the cards hold, as `Model.save` does; a training that loses a card goes back to it."""

    def __call__(
        self, directory: Path, name: str, *, integrated: bool, **file_options: Unpack[SaveOptions]
    ) -> list[Path]:
        """Give the paths, in rank order."""


@dataclass(frozen=True)
class RunContext:
    """The position of a training run, for callbacks."""

    epoch: int
    """The current epoch, from 1; 0 before the first."""
    step_in_epoch: int
    """The step within the epoch, from 1; 0 before the first."""
    step: int
    """Steps done in all."""
    steps_per_epoch: int
    """0 where the dataset has no length."""
    loss: float
    """Of the latest step; nan before the first."""
    save: Save = field(repr=False)


class Callback(Displayed):
    """Base of what may be passed to `Model.train(callbacks=...)`; every hook does nothing."""

    def on_train_begin(self, run: RunContext) -> None:
        """Called once, before the first step."""

    def on_train_step_end(self, run: RunContext) -> None:
        """Called after each step."""

    def on_train_epoch_end(self, run: RunContext) -> None:
        """Called after the last step of each epoch."""

    def on_train_end(self, run: RunContext) -> None:
        """Called once, after the last step."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@checked
class LossMonitor(Callback):
    """Print the loss every `per_print_times` steps.

    Raises
    ------
    ContextError
        If `per_print_times` is below 1.
    """

    def __init__(self, per_print_times: int = 1) -> None:
        if per_print_times < 1:
            given = Option("per_print_times", per_print_times)
            raise ContextError(f"{given} is below 1", given)
        self.per_print_times = per_print_times
        self.losses: list[float] = []

    def on_train_step_end(self, run: RunContext) -> None:
        self.losses.append(run.loss)
        if run.step % self.per_print_times == 0:
            sys.stdout.write(f"epoch: {run.epoch} step: {run.step_in_epoch}, loss is {run.loss:.6f}\n")


@checked
@dataclass(frozen=True)
class CheckpointConfig(Displayed):
    """When and how `ModelCheckpoint` saves.

    Parameters
    ----------
    save_checkpoint_steps
        Save after every so many steps, and after the last one.
    keep_checkpoint_max
        How many checkpoints to keep; older ones are deleted. 0 keeps all.
    integrated_save
        True: merge every parameter and write one file. False: each card writes its slices.
    format
        "ckpt" or "safetensors".
    enc_key, enc_mode
        Encrypt with this key of 16, 24 or 32 bytes by "AES-GCM", "AES-CBC" or "SM4-CBC".
    crc_check
        Append a checksum (ckpt, not encrypted).

    Raises
    ------
    ContextError
        If a value is not allowed or two exclude each other.
    """

    save_checkpoint_steps: int = 1
    _: KW_ONLY  # MindSpore has other arguments in between
    keep_checkpoint_max: int = 5
    integrated_save: bool = True
    format: str = "ckpt"
    enc_key: bytes | None = field(default=None, repr=False)
    enc_mode: str = "AES-GCM"
    crc_check: bool = False

    def __post_init__(self) -> None:
        if self.save_checkpoint_steps < 1:
            given = Option("save_checkpoint_steps", self.save_checkpoint_steps)
            raise ContextError(f"{given} is below 1", given)
        if self.keep_checkpoint_max < 0:
            given = Option("keep_checkpoint_max", self.keep_checkpoint_max)
            raise ContextError(f"{given} is below 0 (0 keeps all)", given)
        if format_named(self.format) is None:
            given = Option("format", self.format)
            raise ContextError(f"{given} is not 'ckpt' or 'safetensors'", given)
        if self.enc_key is not None and not isinstance(self.enc_key, bytes):
            raise ArgumentTypeError(f"enc_key is bytes, not {type(self.enc_key).__name__}")
        if self.enc_key is not None and self.crc_check:
            raise ContextError("an encrypted file has no crc; set crc_check=False or leave out enc_key")
        object.__setattr__(self, "enc_key", secret_key(self.enc_key))

    @property
    def file_options(self) -> SaveOptions:
        """As a file writer takes them."""
        return {
            "format": self.format,
            "enc_key": self.enc_key,
            "enc_mode": self.enc_mode,
            "crc_check": self.crc_check,
        }


@checked
class ModelCheckpoint(Callback):
    """Save checkpoints while a model trains.

    With `integrated_save=False` each card writes its own slices to
    `rank_{r}_ckpt/<prefix>-<epoch>_<step>.ckpt` below `directory`; otherwise one merged file
    `<prefix>-<epoch>_<step>.ckpt` is written in `directory`.

    Parameters
    ----------
    prefix
        The start of each file's name; it must not contain a path separator.
    directory
        The folder to write below; it is made when it is missing.
    config
        When and how to save.
    """

    def __init__(
        self,
        prefix: str = "CKP",
        directory: str | os.PathLike[str] | None = None,
        config: CheckpointConfig | None = None,
    ) -> None:
        if not prefix or os.sep in prefix:
            given = Option("prefix", prefix)
            raise ContextError(f"{given} is the start of a file name, without {os.sep!r}", given)
        self.prefix = prefix
        self.directory = Path.cwd() if directory is None else Path(directory)
        self.config = config or CheckpointConfig()
        self._saved: list[list[Path]] = []

    @property
    def latest_ckpt_file_names(self) -> list[Path]:
        """The files of the newest checkpoint, in rank order; empty before the first save."""
        return self._saved[-1] if self._saved else []

    def on_train_step_end(self, run: RunContext) -> None:
        if run.step % self.config.save_checkpoint_steps == 0:
            self._save(run)

    def on_train_end(self, run: RunContext) -> None:
        if run.step % self.config.save_checkpoint_steps:
            self._save(run)

    def _save(self, run: RunContext) -> None:
        name = f"{self.prefix}-{run.epoch}_{run.step_in_epoch}.{self.config.format}"
        paths = run.save(
            self.directory, name, integrated=self.config.integrated_save, **self.config.file_options
        )
        self._saved.append(paths)
        while self.config.keep_checkpoint_max and len(self._saved) > self.config.keep_checkpoint_max:
            self._remove(self._saved.pop(0))

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if not any(path in kept for kept in self._saved):
                path.unlink(missing_ok=True)
