"""Nets that a session can predict with: how each is made for some cards, and the code that does the same.

::

    the sample                 trained here; its strategy file says how the slices lie
    a Hugging Face folder      its config.json says which net it is
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout import Strategy
from ..net import Cell
from ..net.models import from_pretrained_config, model_type_of
from .sample import SampleNet, create_ckpt_file_list, create_predict_data, strategy_for

__all__ = ["Predictor", "of_folder", "of_sample"]

TOKENS = 8
"""How many tokens the first text has that a model of language is asked about."""


class Predictor(NamedTuple):
    """A net, the files of its weights, and data to begin with; beside each the code that gives it.

    Code may speak of `folder`, as the code of a session's first step sets it.
    """

    make: Callable[[int], Cell]
    """Number of cards -> the net, cut for them."""
    make_code: Callable[[int], str]
    data: NDArray[Any]
    data_code: str
    files: str | Sequence[str]
    files_code: str
    strategy: str | os.PathLike[str] | Strategy | None
    """How the files were cut; None: every file holds everything."""
    strategy_code: str
    has_training_strategy: bool
    """Whether the strategy file speaks of the net's operators, and belongs in the context."""
    goes_on: bool
    """Whether it is a model of language, which goes on with texts."""
    chosen: Mapping[str, Any] = MappingProxyType({})
    """`file` and `step` of `open_checkpoint`."""


def of_sample(folder: str | os.PathLike[str], cards: int) -> Predictor:
    """The sample, trained on so many cards."""
    return Predictor(
        lambda count: SampleNet(strategy_for(count)),
        lambda count: f"dl.sample.SampleNet(dl.sample.strategy_for({count}))",
        create_predict_data(),
        "dl.Tensor(dl.sample.create_predict_data())",
        create_ckpt_file_list(folder, cards),
        "dl.sample.create_ckpt_file_list(folder, train_cards)",
        Path(folder) / "train_strategy.ckpt",
        'f"{folder}/train_strategy.ckpt"',
        has_training_strategy=True,
        goes_on=False,
    )


def of_folder(
    folder: str | os.PathLike[str],
    strategy: str | os.PathLike[str] | Strategy | None,
    chosen: Mapping[str, Any] = MappingProxyType({}),
) -> Predictor:
    """The net of a folder that has a config.json.

    Raises
    ------
    GraphError
        If there is none, or it is of no family that is known.
    """
    model_type_of(folder)
    text = list(range(1, TOKENS + 1))
    return Predictor(
        lambda count: from_pretrained_config(folder).shard_by(tp=count),
        lambda count: f"dl.models.from_pretrained_config(folder).shard_by(tp={count})",
        np.array([text], np.int64),
        f'dl.Tensor([{text}], "int64")',
        os.fspath(folder),
        "folder",
        strategy,
        "strategy",
        has_training_strategy=False,
        goes_on=True,
        chosen=chosen,
    )
