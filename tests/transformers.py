"""The oracle's tiny transformers: their folders, weights and answers, and small folders made on the spot."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from distinfer_lab.formats import open_files
from distinfer_lab.layout import Mesh, Strategy
from distinfer_lab.net.models import CausalLM, from_pretrained_config
from distinfer_lab.rules import Rules, read_rules

from .oracle import ORACLE

NAMES = ("gpt2_tiny", "llama_gqa_tiny")

LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "vocab_size": 50,
    "rms_norm_eps": 1e-5,
}
"""Small sizes, of which the words cannot be shared evenly by 4 cards."""


def folder_of(name: str) -> Path:
    """A folder as transformers saved it."""
    return ORACLE / "hf" / name


@cache
def expected(name: str) -> dict[str, np.ndarray]:
    """input_ids, logits and greedy, as transformers computed them."""
    return dict(np.load(folder_of(name) / "expected.npz"))


@cache
def weights(name: str) -> dict[str, np.ndarray]:
    """All tensors, whole."""
    with open_files(folder_of(name)) as files:
        return {entry: files.read(entry) for entry in files.entries}


def net_of(name: str) -> CausalLM:
    """The net of an oracle's folder."""
    return from_pretrained_config(folder_of(name))


def by_rules(net: CausalLM, dp: int, tp: int) -> Strategy:
    """How the files of such a net lie by the rules of its family."""
    shapes = {name: param.shape for name, param in net.parameters_dict().items()}
    return Rules(Mesh(dp=dp, tp=tp), read_rules(net.rules), net.config).strategy(shapes)


def held_bytes(strategy: Strategy, dtypes: dict[str, Any]) -> list[int]:
    """What each card holds of it, by the boxes of its layouts alone."""
    out = np.zeros(strategy.ranks, np.int64)
    for name, layout in strategy.items():
        found = layout.regions(strategy.shapes[name])
        sizes = (found.boxes[..., 1] - found.boxes[..., 0]).prod(axis=1) * np.dtype(dtypes[name]).itemsize
        np.add.at(out, found.ranks, sizes)
    return out.tolist()


def random_weights(net: CausalLM, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights at which every part of a net matters: biases and norms are no zeros and ones."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0.5 if "norm" in name or ".ln_" in name else 0, 0.3, param.shape).astype(
            np.float32
        )
        for name, param in net.parameters_dict().items()
    }


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A Hugging Face folder of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
