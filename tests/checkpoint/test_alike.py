"""Tensors that are alike are checked once, and each as if it were alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distinfer_lab.checkpoint import TensorRecord, open_checkpoint
from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

MESH = Mesh(tp=2)
SLICE = (4, 6)
CUTS = {"tp -": (8, 6), "- tp": (4, 12), "- -": (4, 6)}
"""Cuts, and the shape of a tensor of which all slices are of this one shape."""


def _entries(rng: np.random.Generator) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The cut of each parameter, and what each of two ranks holds; now and then something does not fit."""
    cuts = {f"p{i}": str(rng.choice(list(CUTS))) for i in range(6)}
    ranks: list[dict[str, Any]] = [{}, {}]
    for name in [*cuts, *(f"moments.{name}" for name in cuts), *(f"plain{i}" for i in range(4))]:
        shape = (3,) if name.startswith("plain") else SLICE
        dtype = rng.choice([np.float32, np.float16])
        for held in ranks:
            odd = rng.random()
            if odd < 0.015:
                shape = shape[::-1] + (1,) * (len(shape) == 1)
            if odd < 0.985:
                held[name] = np.zeros(shape, np.int8 if 0.015 < odd < 0.02 else dtype)
    return cuts, ranks


def _opened(
    folder: Path, cuts: dict[str, str], ranks: list[dict[str, Any]], suffix: str, shapes: bool
) -> tuple[dict[str, TensorRecord], dict[str, str]] | str:
    """The records and what cannot be read; or the error, without the folder."""
    paths = [folder / f"{rank}.{suffix}" for rank in range(2)]
    for path, held in zip(paths, ranks, strict=True):
        save_slice(path, held, sync=False)
    layouts = {name: Layout(MESH, cut) for name, cut in cuts.items()}  # equal ones are no one object
    strategy = Strategy(layouts, {name: CUTS[cut] for name, cut in cuts.items()} if shapes else {}, 2)
    try:
        with open_checkpoint(paths, strategy) as found:
            return dict(found.tensors), dict(found.unreadable)
    except CheckpointError as err:
        return str(err)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("seed", range(12))
def test_each_tensor_is_as_if_it_were_alone(seed, suffix, tmp_path):
    """The same record, or the same reason why it cannot be read; and an error is one that a tensor alone has."""
    rng = np.random.default_rng(seed)
    cuts, ranks = _entries(rng)
    shapes = bool(seed % 2)
    alone = []
    for name in dict.fromkeys([*ranks[0], *ranks[1]]):
        parameter = name.removeprefix("moments.")
        kept = {parameter, name}
        some = [{n: value for n, value in held.items() if n in kept} for held in ranks]
        named = {n: cut for n, cut in cuts.items() if n in kept or not parameter.startswith("p")}
        named = named if parameter in cuts else {"other": "- -"}
        alone.append((name, _opened(tmp_path, named, some, suffix, shapes)))
    errors = {found for _, found in alone if isinstance(found, str)}
    whole = _opened(tmp_path, cuts, ranks, suffix, shapes)
    if isinstance(whole, str):
        assert whole in errors
    else:
        assert not errors
        for name, found in alone:
            assert not isinstance(found, str)
            assert [part.get(name) for part in whole] == [part.get(name) for part in found]


def test_the_first_of_many_that_are_wrong_is_named(tmp_path):
    """Its slice, its file and its rank."""
    ranks = [{f"w{i}": np.zeros((4, 6), np.float32) for i in range(30)} for _ in range(2)]
    ranks[1]["w17"] = ranks[1]["w23"] = np.zeros((6, 4), np.float32)
    found = _opened(tmp_path, dict.fromkeys(ranks[0], "tp -"), ranks, "ckpt", True)
    assert isinstance(found, str)
    assert f"{tmp_path}/1.ckpt: w17 has shape [6, 4], but the strategy gives rank 1 [4, 6] of [8, 6]" in found
