"""The code that does what a session did: lines for each step, and how they stand together.

Code of later steps may speak of what earlier ones set: `folder`, `strategy`, `checkpoint`, `net`, `model`, `layout`.
"""

import os
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

from ..layout import Strategy
from ..layout.dialects.plain import strategy_to_json
from .predictors import Predictor

__all__ = [
    "bringing",
    "laying_out",
    "laying_out_as",
    "loading",
    "predicting_on",
    "training",
    "with_cards",
    "writing",
]


def training(folder: str, cards: int) -> list[str]:
    """Train the sample."""
    train = with_cards(cards, ["dl.sample.train_sample(folder, cards)"])
    return [f"folder, train_cards = {folder!r}, {cards}", *train]


def bringing(
    folder: str | os.PathLike[str],
    strategy: str | os.PathLike[str] | Strategy | None,
    chosen: Mapping[str, Any],
) -> list[str]:
    """Open a folder."""
    lines = [f"folder = {os.fspath(folder)!r}"]
    if isinstance(strategy, Strategy):
        lines += _strategy_from_json("strategy", strategy)
    elif strategy is not None:
        lines.append(f"strategy = {os.fspath(strategy)!r}")
    cut = "" if strategy is None else ", strategy"
    return [*lines, f"checkpoint = dl.open_checkpoint(folder{cut}{_keywords(chosen)})"]


def _keywords(chosen: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in chosen.items() if value is not None)


def laying_out(predictor: Predictor, cards: int) -> list[str]:
    """Infer the predict layout."""
    return [
        f"net = {predictor.make_code(cards)}",
        "model = dl.Model(net)",
        f"data = {predictor.data_code}",
        "layout = model.infer_predict_layout(data)",
    ]


def laying_out_as(strategy: Strategy, trained: bool) -> list[str]:
    """Say how tensors shall lie; what was trained is opened first."""
    opening = [
        "files = dl.sample.create_ckpt_file_list(folder, train_cards)",
        'checkpoint = dl.open_checkpoint(files, f"{folder}/train_strategy.ckpt")',
    ]
    return [*(opening if trained else []), *_strategy_from_json("layout", strategy)]


def loading(predictor: Predictor) -> list[str]:
    """Bring the weights to the cards."""
    cut = "" if predictor.strategy is None else f", {predictor.strategy_code}"
    return [
        f"files = {predictor.files_code}",
        f"result = dl.load_distributed_checkpoint(net, files, layout{cut}{_keywords(predictor.chosen)})",
    ]


def writing(folder: str | os.PathLike[str], *, on_cards: bool, overwrite: bool) -> list[str]:
    """Write the files anew."""
    options = ", cards=cards" * on_cards + ", overwrite=True" * overwrite
    return [f"result = checkpoint.plan(layout).run({os.fspath(folder)!r}{options})"]


def predicting_on(cards: int, predictor: Predictor, lines: Sequence[str]) -> list[str]:
    """The settings under which the net predicts, and what is done on the cards under them."""
    trained = predictor.has_training_strategy
    return [
        "dl.reset_auto_parallel_context()",
        "dl.set_auto_parallel_context(",
        '    parallel_mode="semi_auto_parallel", full_batch=True, device_num=None,',
        *([f"    strategy_ckpt_load_file={predictor.strategy_code},"] if trained else []),
        ")",
        *with_cards(cards, lines),
    ]


def with_cards(cards: int, lines: Sequence[str]) -> list[str]:
    """Lines within a group of cards."""
    return [f"with dl.CardGroup({cards}) as cards:", *(f"    {line}" for line in lines)]


def _strategy_from_json(name: str, strategy: Any) -> list[str]:
    found = pformat(strategy_to_json(strategy), sort_dicts=False, width=100, compact=True)
    return [
        "from distinfer_lab.layout.dialects.plain import strategy_from_json",
        f"{name} = strategy_from_json(",
        *(f"    {line}" for line in found.splitlines()),
        ")",
    ]
