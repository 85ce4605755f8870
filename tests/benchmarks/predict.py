"""A GPT-2 of 12 layers, 768 wide, predicted on cards, beside plain numpy in one process.

    python -m tests.benchmarks.predict             1 and 128 tokens; process and in-process cards

The peer is written out below: numpy alone, all weights in one process, as many BLAS threads as there are
cores. The cards have one BLAS thread each where there are no more cores than cards. Weights lie where they
are used before the clock starts. All sides in turn, A-B-A-B; shown are medians, over numpy in the same round.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

import distinfer_lab as dl

__all__ = ["forward"]

Array = NDArray[Any]
CONFIG = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}


def _norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def _attention(x: Array, weight: Array, bias: Array, heads: int) -> Array:
    tokens, size = x.shape
    query, key, value = (
        part.reshape(tokens, heads, -1).swapaxes(0, 1) for part in np.split(x @ weight + bias, 3, axis=1)
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(size // heads))
    scores = np.where(np.tri(tokens, dtype=bool), scores, np.float32(-np.inf))
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return (shares @ value).swapaxes(0, 1).reshape(tokens, size)


def _gelu(x: Array) -> Array:
    return (
        np.float32(0.5) * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)))
    )


def forward(weights: Mapping[str, Array], ids: Array) -> Array:
    """The logits of one text, by numpy alone; float32, shape (tokens, words)."""
    w = {name.removeprefix("transformer."): value for name, value in weights.items()}
    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for layer in range(CONFIG["n_layer"]):
        at = f"h.{layer}"
        y = _norm(x, w[f"{at}.ln_1.weight"], w[f"{at}.ln_1.bias"])
        y = _attention(y, w[f"{at}.attn.c_attn.weight"], w[f"{at}.attn.c_attn.bias"], CONFIG["n_head"])
        x = x + y @ w[f"{at}.attn.c_proj.weight"] + w[f"{at}.attn.c_proj.bias"]
        y = _norm(x, w[f"{at}.ln_2.weight"], w[f"{at}.ln_2.bias"])
        y = _gelu(y @ w[f"{at}.mlp.c_fc.weight"] + w[f"{at}.mlp.c_fc.bias"])
        x = x + y @ w[f"{at}.mlp.c_proj.weight"] + w[f"{at}.mlp.c_proj.bias"]
    return _norm(x, w["ln_f.weight"], w["ln_f.bias"]) @ w["wte.weight"].T


def _sides(stack: ExitStack, cards: int) -> dict[str, Callable[[Array], Array]]:
    """Name -> what takes token numbers and gives logits; everything is loaded."""
    dl.set_seed(1)
    net = dl.models.GPT2(CONFIG)
    weights = {name: param.asnumpy() for name, param in net.parameters_dict().items()}
    blas = ThreadpoolController()

    def alone(ids: Array) -> Array:
        with blas.limit(limits=os.cpu_count()):
            return forward(weights, ids)

    def on(processes: bool) -> Callable[[Array], Array]:
        group = stack.enter_context(dl.CardGroup(cards, processes=processes))
        model = dl.Model(dl.models.GPT2(CONFIG).shard_by(tp=cards), cards=group)

        def predict(ids: Array) -> Array:
            found: Array = model.predict(dl.Tensor(ids[None])).asnumpy()[0]
            return found

        return predict

    return {
        "numpy, one process": alone,
        f"{cards} process cards": on(True),
        f"{cards} in-process cards": on(False),
    }


def _compare(sides: Mapping[str, Callable[[Array], Array]], tokens: int, rounds: int) -> list[dict[str, Any]]:
    ids = np.random.default_rng(tokens).integers(0, CONFIG["vocab_size"], tokens)
    wanted = next(iter(sides.values()))(ids)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, predict in sides.items():
            start = time.perf_counter()
            found = predict(ids)
            if number > 1:
                seconds[name].append(time.perf_counter() - start)
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    first = next(iter(seconds.values()))
    return [
        {
            "tokens": tokens,
            "side": name,
            "seconds": statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, first, strict=True)),
        }
        for name, found in seconds.items()
    ]


@click.command()
@click.option("--cards", default=4, show_default=True, type=click.IntRange(1, 12))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1))
@click.option("--out", type=click.Path(path_type=Path), help="Write the rows to this file as JSON too.")
def main(cards: int, rounds: int, out: Path | None) -> None:
    """Time the predictions."""
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stack.enter_context(dl.auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True))
        sides = _sides(stack, cards)
        for tokens in (1, 128):
            rows += _compare(sides, tokens, rounds)
    for row in rows:
        click.echo(
            f"{row['tokens']:4} tokens  {row['side']:22} {row['seconds'] * 1e3:8.1f} ms  x numpy {row['ratio']:.2f}"
        )
    if out is not None:
        out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
