"""The code that does what a session did: lines for each step, and their composition.

Code of later steps may use what earlier ones set: `folder`, `strategy`, `checkpoint`, `net`, `model`, `layout`.
"""

import os
from collections.abc import Sequence
from pprint import pformat

from ..layout import Strategy
from ..layout.dialects.plain import strategy_to_json
from .predictors import Chosen, Predictor

__all__ = [
    "inferring",
    "loading",
    "opening",
    "predicting_on",
    "setting",
    "training",
    "with_cards",
    "writing",
]


def training(folder: str, cards: int) -> list[str]:
    """Train the sample."""
    train = with_cards(cards, ["dl.sample.train_sample(folder, cards)"])
    return [f"folder, train_cards = {folder!r}, {cards}", *train]


def opening(
    folder: str | os.PathLike[str],
    strategy: str | os.PathLike[str] | Strategy | None,
    chosen: Chosen,
) -> list[str]:
    """Open a folder."""
    lines = [f"folder = {os.fspath(folder)!r}"]
    if isinstance(strategy, Strategy):
        lines += _strategy_from_json("strategy", strategy)
    elif strategy is not None:
        lines.append(f"strategy = {os.fspath(strategy)!r}")
    second = "" if strategy is None else ", strategy"
    return [*lines, f"checkpoint = dl.open_checkpoint(folder{second}{_keywords(chosen)})"]


def _keywords(chosen: Chosen) -> str:
    return "".join(f", {name}={value!r}" for name, value in chosen.items() if value is not None)


def inferring(net: str, data: str) -> list[str]:
    """Infer the predict layout."""
    return [
        f"net = {net}",
        "model = dl.Model(net)",
        f"data = {data}",
        "layout = model.infer_predict_layout(data)",
    ]


def setting(strategy: Strategy, trained: bool) -> list[str]:
    """Set the layout of tensors; what was trained is opened first."""
    first = [
        "files = dl.sample.create_ckpt_file_list(folder, train_cards)",
        'checkpoint = dl.open_checkpoint(files, f"{folder}/train_strategy.ckpt")',
    ]
    return [*(first if trained else []), *_strategy_from_json("layout", strategy)]


def loading(predictor: Predictor) -> list[str]:
    """Load the weights into the cards."""
    strategy = "" if predictor.strategy.value is None else f", {predictor.strategy.code}"
    return [
        f"files = {predictor.files.code}",
        f"result = dl.load_distributed_checkpoint(net, files, layout{strategy}{_keywords(predictor.chosen)})",
    ]


def writing(folder: str | os.PathLike[str], *, on_cards: bool, overwrite: bool) -> list[str]:
    """Write other files."""
    options = ", on=cards" * on_cards + ", overwrite=True" * overwrite
    return [f"result = checkpoint.plan(layout).write({os.fspath(folder)!r}{options})"]


def predicting_on(cards: int, predictor: Predictor, lines: Sequence[str]) -> list[str]:
    """The settings under which the net predicts, and what is done on the cards under them."""
    trained = predictor.has_training_strategy
    return [
        "dl.reset_auto_parallel_context()",
        "dl.set_auto_parallel_context(",
        '    parallel_mode="semi_auto_parallel", full_batch=True, device_num=None,',
        *([f"    strategy_ckpt_load_file={predictor.strategy.code},"] if trained else []),
        ")",
        *with_cards(cards, lines),
    ]


def with_cards(cards: int, lines: Sequence[str]) -> list[str]:
    """Lines within a group of cards."""
    return [f"with dl.CardGroup({cards}) as cards:", *(f"    {line}" for line in lines)]


def _strategy_from_json(name: str, strategy: Strategy) -> list[str]:
    found = pformat(strategy_to_json(strategy), sort_dicts=False, width=100, compact=True)
    return [
        "from distinfer_lab.layout.dialects.plain import strategy_from_json",
        f"{name} = strategy_from_json(",
        *(f"    {line}" for line in found.splitlines()),
        ")",
    ]
