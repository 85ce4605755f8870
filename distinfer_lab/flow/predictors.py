"""Nets that a session can predict with: how each is made for some cards, and the code that does the same.

::

    the sample                 trained here; its strategy file has the layouts of the slices
    a Hugging Face folder      its config.json names the net
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..layout import Strategy
from ..net import Cell
from ..net.models import from_pretrained_config, model_type_of
from .sample import SampleNet, create_ckpt_file_list, create_predict_data, strategy_for

__all__ = ["Chosen", "Coded", "Predictor", "of_folder", "of_sample"]

TOKENS = 8
"""How many tokens the first text has that a language model is asked about."""

T = TypeVar("T")


class Coded(NamedTuple, Generic[T]):
    """A value, and code that gives it: it may use `folder` as the code of a session's first step sets it."""

    value: T
    code: str


class Chosen(TypedDict, total=False):
    """Which files of a folder, and which save, see `open_checkpoint`."""

    file: str | Sequence[str] | None
    step: str | int | None


class Predictor(NamedTuple):
    """A net, the files of its weights, and data to begin with."""

    make: Callable[[int], Coded[Cell]]
    """Number of cards -> the net, sharded for them."""
    data: Coded[NDArray[Any]]
    files: Coded[str | Sequence[str]]
    strategy: Coded[str | os.PathLike[str] | Strategy | None]
    """How the files are sharded; None: every file is a full copy."""
    has_training_strategy: bool
    """Whether the strategy file names the net's operators, and belongs in the context."""
    is_language_model: bool
    chosen: Chosen


def of_sample(folder: str | os.PathLike[str], cards: int) -> Predictor:
    """The sample, trained on so many cards."""

    def make(count: int) -> Coded[Cell]:
        code = f"dl.sample.SampleNet(dl.sample.strategy_for({count}))"
        return Coded(SampleNet(strategy_for(count)), code)

    files = create_ckpt_file_list(folder, cards)
    return Predictor(
        make,
        Coded(create_predict_data(), "dl.Tensor(dl.sample.create_predict_data())"),
        Coded(files, "dl.sample.create_ckpt_file_list(folder, train_cards)"),
        Coded(Path(folder) / "train_strategy.ckpt", 'f"{folder}/train_strategy.ckpt"'),
        has_training_strategy=True,
        is_language_model=False,
        chosen=Chosen(),
    )


def of_folder(
    folder: str | os.PathLike[str],
    strategy: str | os.PathLike[str] | Strategy | None,
    chosen: Chosen | None = None,
) -> Predictor:
    """The net of a folder that has a config.json.

    Raises
    ------
    GraphError
        If there is none, or it is of no family that is known.
    """
    model_type_of(folder)
    text = list(range(1, TOKENS + 1))

    def make(count: int) -> Coded[Cell]:
        code = f"dl.models.from_pretrained_config(folder).shard_by(tp={count})"
        return Coded(from_pretrained_config(folder).shard_by(tp=count), code)

    return Predictor(
        make,
        Coded(np.array([text], np.int64), f'dl.Tensor([{text}], "int64")'),
        Coded(os.fspath(folder), "folder"),
        Coded(strategy, "strategy"),
        has_training_strategy=False,
        is_language_model=True,
        chosen=chosen or Chosen(),
    )
