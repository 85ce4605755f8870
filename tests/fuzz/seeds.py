"""Small valid files of each kind, each in a folder with whatever it is used with."""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import DistinferError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.plain import strategy_to_json

from ..oracle import ORACLE, case

__all__ = ["Seed", "make_seeds"]

CASES = ORACLE / "cases"
TP = Mesh(tp=2)
CUT = {
    "w": Layout(TP, "tp -"),
    "b": Layout(TP, "-"),
    "step": Layout(TP, ""),
    "empty": Layout(TP, "- -"),
}
STRATEGY = Strategy(CUT)
LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}
RULES = [
    {"match": "*.q_proj.weight", "dims": "tp -", "units": "num_key_value_heads"},
    {"match": "w", "dims": "tp -", "fused": [[4, 4], None], "split": "torch_chunk"},
    {"match": "b", "dims": "tp", "fused": [2], "units": 2},
    {"match": "*", "dims": None},
]
OTHER_LAYOUTS = [
    Layout(Mesh(dp=2, tp=2), "-/2 tp"),
    Layout(Mesh(a=4), "a(1,0,3,4) -"),
    Layout(Mesh(a=2), "a[4|2|2] -", first_ranks=(0, 2)),
    Layout(Mesh(a=2, b=2), "a+b -", strides=(1, 2), split="gspmd_ceil"),
]


class Seed(NamedTuple):
    """A file to be changed."""

    kind: str
    """The target that reads it."""
    folder: Path
    """What is copied for a run."""
    path: str
    """The file, within the folder."""
    form: str
    """How it is parsed, see `mutations`."""
    options: Mapping[str, Any] = {}

    @property
    def data(self) -> bytes:
        """The valid file."""
        return (self.folder / self.path).read_bytes()


def _tensors() -> dict[str, Any]:
    return {
        "w": np.arange(64, dtype=np.float32).reshape(8, 8),
        "b": np.arange(8, dtype=np.float16),
        "moments.w": np.ones((8, 8), np.float32),
        "step": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.int8),
        "note": "text",
    }


def _slices(root: Path) -> list[Seed]:
    out = []
    for suffix, form in (("ckpt", "ckpt"), ("safetensors", "safetensors")):
        folder = root / f"one_{suffix}"
        save_slice(folder / f"one.{suffix}", _tensors(), format=suffix, sync=False)
        out.append(Seed("slice", folder, f"one.{suffix}", form))
    for name, path, form in (
        ("chunked_4_to_2", "rank_1/net-1_1.ckpt", "ckpt"),
        ("crc_4_to_2", "rank_0/net-0_1.ckpt", "ckpt"),
        ("string_entry_4_to_2", "rank_0/net-0_1.ckpt", "ckpt"),
        ("dtypes_4_to_2", "rank_0/net-0_1.ckpt", "ckpt"),
        ("aes_gcm_4_to_2", "rank_0/net-0_1.ckpt", "encrypted"),
        ("aes_cbc_4_to_2", "rank_0/net-0_1.ckpt", "encrypted"),
    ):
        folder = root / name
        folder.mkdir()
        shutil.copyfile(CASES / name / "src" / path, folder / "one.ckpt")
        out.append(Seed("slice", folder, "one.ckpt", form, case(name).key))
    return out


def _strategies(root: Path) -> list[Seed]:
    out = []
    for name in (
        "mlp_adam_8_to_4",
        "manual_split_4_to_1",
        "layout_multi_8_to_4",
        "json_strategy_8_to_4",
        "optshard_full_8_to_4",
        "pipeline_2x4_to_1",
    ):
        folder = root / f"strategy_{name}"
        shutil.copytree(CASES / name / "src", folder / "src")
        file = case(name).src_strategy
        shutil.copyfile(file, folder / file.name)
        out.append(Seed("strategy", folder, file.name, "strategy" if file.suffix == ".ckpt" else "json"))
    for number, layout in enumerate(OTHER_LAYOUTS):
        folder = root / f"layouts_{number}"
        save_slice(folder / "src/rank_0/one.ckpt", _tensors(), sync=False)
        found = strategy_to_json(Strategy({"w": layout, "b": Layout(TP, "-")}, {"w": (8, 8)}))
        (folder / "layouts.json").write_text(json.dumps(found))
        out.append(Seed("strategy", folder, "layouts.json", "json"))
    return out


def _folders(root: Path) -> list[Seed]:
    save_slice(root / "whole/one.ckpt", _tensors(), sync=False)
    out: list[Seed] = []
    tensors = {name: value for name, value in _tensors().items() if name != "note"}
    hub = root / "hub"
    save_slice(
        hub / "model-00001-of-00002.safetensors", {"w": tensors["w"]}, format="safetensors", sync=False
    )
    save_slice(
        hub / "model-00002-of-00002.safetensors", {"b": tensors["b"]}, format="safetensors", sync=False
    )
    (hub / "config.json").write_text(json.dumps(LLAMA))
    files = {"w": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (hub / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 272}, "weight_map": files})
    )
    out.append(Seed("folder", hub, "model.safetensors.index.json", "json"))
    with open_checkpoint(root / "whole/one.ckpt") as checkpoint:
        checkpoint.plan(STRATEGY).write(root / "cut")
    out.append(Seed("folder", root / "cut", "distinfer.json", "manifest"))
    with open_checkpoint(hub) as checkpoint:
        checkpoint.plan().write(root / "like", format="huggingface", like=hub)
    out.append(Seed("folder", root / "like", "distinfer.json", "manifest"))
    return out


def _stages(root: Path) -> list[Seed]:
    """What a run leaves that was stopped in the middle."""
    stage = root / "stage"
    stage.mkdir()
    save_slice(stage / "one.ckpt", {f"w{i}": np.ones((96, 96), np.float32) for i in range(4)}, sync=False)
    with open_checkpoint(stage / "one.ckpt") as checkpoint:
        for calls in map(iter, map(range, range(1, 100))):
            with contextlib.suppress(DistinferError):
                checkpoint.plan().write(stage / "out", cancelled=lambda left=calls: next(left, None) is None)
            journals = list((stage / ".out.stage").rglob("*.jsonl"))
            if journals and journals[0].read_bytes().count(b"\n") >= 2:
                break
    journal = journals[0]
    return [
        Seed("stage", stage, str(journal.relative_to(stage)), "lines"),
        Seed("stage", stage, ".out.stage/job.json", "json"),
    ]


def _configurations(root: Path) -> list[Seed]:
    out = []
    for name, found in (("llama", LLAMA), ("gpt2", GPT2)):
        folder = root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(found))
        out.append(Seed("config", folder, "config.json", "json"))
    folder = root / "rules"
    folder.mkdir()
    (folder / "rules.json").write_text(json.dumps(RULES))
    out.append(Seed("rules", folder, "rules.json", "json"))
    return out


MAKERS: tuple[Callable[[Path], list[Seed]], ...] = (_slices, _strategies, _folders, _stages, _configurations)


def make_seeds(root: Path) -> list[Seed]:
    """The seeds, made in a folder that is empty."""
    return [seed for make in MAKERS for seed in make(root)]
