"""The demo: the four steps on the tutorial's sample, each with what it did and what it proved."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .cards import CardGroup
from .display import counted, format_bytes
from .flow import Model, auto_parallel_context, load_distributed_checkpoint
from .flow.sample import (
    TRAIN_CARDS,
    SampleNet,
    create_ckpt_file_list,
    create_predict_data,
    strategy_for,
    train_sample,
)
from .layout import Strategy
from .net import Tensor

__all__ = ["run_demo"]

TOLERANCE = 1e-5
"""Relative to the largest result: float32 sums in another order."""


def run_demo(
    cards: int = TRAIN_CARDS, predict_cards: int = 4, processes: bool = False, out: Any = None
) -> bool:
    """Run the four steps, telling each; True if the prediction equals one card's.

    Parameters
    ----------
    cards
        Cards to train on; they must be able to share 128 rows evenly.
    predict_cards
        Cards to predict on.
    processes
        Every card is a process of its own.
    out
        Where to write; by default standard output.
    """
    say = _Teller(out or sys.stdout)
    with tempfile.TemporaryDirectory(prefix="distinfer-") as folder:
        say(f"[1/4] train on {counted(cards, 'card')}{' in processes' if processes else ''}")
        strategy_file = Path(folder) / "train_strategy.ckpt"
        with CardGroup(cards, processes=processes) as group:
            model = train_sample(folder, group)
            trained = model.network.parameters_dict()["matmul_weight"].asnumpy()
            say.done(
                f"2 epochs of 2 steps; slices in rank_0_ckpt .. rank_{cards - 1}_ckpt, {strategy_file.name}, "
                "for the time of the demo"
            )
        say(f"[2/4] infer the predict layout for {counted(predict_cards, 'card')}")
        with (
            CardGroup(predict_cards, processes=processes) as group,
            auto_parallel_context(
                parallel_mode="semi_auto_parallel",
                full_batch=True,
                strategy_ckpt_load_file=strategy_file,
                device_num=None,
            ),
        ):
            net = SampleNet(strategy_for(predict_cards))
            model = Model(net)
            data = Tensor(create_predict_data())
            layout = model.infer_predict_layout(data)
            say.done("matmul_weight " + _tuple_words(layout["matmul_weight"]))
            say("[3/4] load the distributed checkpoint: each card reads its share")
            files = create_ckpt_file_list(folder, cards)
            result = load_distributed_checkpoint(net, files, layout, strategy_file)
            say.done(f"moved {result.plan.moved_bytes} bytes, the bound is {result.plan.bound_bytes}")
            _tell_holdings(say, result.plan["matmul_weight"], layout.strategy)
            say(f"[4/4] predict on {counted(predict_cards, 'card')}")
            prediction = model.predict(data)
            assert isinstance(prediction, Tensor)
            return _prove(say, model, group, trained, prediction.asnumpy(), data.asnumpy())


def _tuple_words(items: Any) -> str:
    return f"dev_matrix {items[0]} tensor_map {items[1]}: {items[6]} in slices of {items[2]}"


def _tell_holdings(say: "_Teller", plan: Any, layout: Strategy) -> None:
    say.line("who holds what of matmul_weight [96, 16]:")
    say.line("  training   " + _holdings(plan.src.ranks, plan.src.boxes))
    say.line("  inference  " + _holdings(plan.dst.ranks, plan.dst.boxes))


def _holdings(ranks: Any, boxes: Any) -> str:
    """Cards grouped by what they hold, in the order of the first of each."""
    held: dict[str, list[str]] = {}
    for rank, box in zip(ranks.tolist(), boxes.tolist(), strict=True):
        words = "[" + ", ".join(f"{a}:{b}" for a, b in box) + "]"
        held.setdefault(words, []).append(str(rank))
    return "  ".join(f"cards {','.join(cards)}: {words}" for words, cards in held.items())


def _prove(say: "_Teller", model: Model, group: CardGroup, trained: Any, prediction: Any, data: Any) -> bool:
    """The weights bit for bit, the prediction within float32's rounding, and nothing gathered."""
    memory = group.memory()
    whole = trained.nbytes
    weights = model.network.parameters_dict()["matmul_weight"].asnumpy()
    same = bool(np.array_equal(weights, trained))
    one_card = -(data @ trained)
    largest = float(np.abs(prediction - one_card).max())
    allowed = TOLERANCE * float(np.abs(one_card).max())
    say.done(f"result {prediction.shape}")
    say.line(f"weights on the cards equal the trained ones, bit for bit: {same}")
    say.line(f"largest difference from one card's prediction: {largest:.2e} (allowed {allowed:.2e})")
    say.line(
        f"a card holds at most {format_bytes(int(memory.held_bytes.max()))} of the weight's "
        f"{format_bytes(whole)}; its peak with inputs and results is {format_bytes(int(memory.peak_bytes.max()))}"
    )
    private = [card.private_bytes for card in memory if card.private_bytes is not None]
    if private:
        say.line(f"private memory of a card's process above idle: at most {format_bytes(max(private))}")
    sent = model.last.communication.sent_bytes
    say.line(f"bytes that a card sent to others while predicting: {sent.max()}")
    proved = same and largest <= allowed
    say.line("equal to one card" if proved else "NOT equal to one card")
    return proved


class _Teller:
    """Writes progress lines, with the seconds that each step took."""

    def __init__(self, out: Any) -> None:
        self.write: Callable[[str], Any] = out.write
        self.started = time.perf_counter()

    def __call__(self, text: str) -> None:
        self.started = time.perf_counter()
        self.write(f"{text}\n")

    def done(self, text: str) -> None:
        self.line(f"{text} ({time.perf_counter() - self.started:.1f} s)")

    def line(self, text: str) -> None:
        self.write(f"      {text}\n")
