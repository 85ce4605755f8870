"""What a user does with a file: for each kind of seed, open it, look at it, plan with it, write with it.

All may raise `DistinferError` and nothing else; whatever is shown can be printed on a terminal.
"""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from distinfer_lab.checkpoint import Checkpoint, check_source, open_checkpoint, verify_folder
from distinfer_lab.cli import main
from distinfer_lab.display import show
from distinfer_lab.errors import DistinferError
from distinfer_lab.formats import as_strategy, open_slice, read_operators, read_strategy
from distinfer_lab.formats.hub import companions, partition_like
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net.models import from_pretrained_config
from distinfer_lab.rules import Rules, read_rules

from .seeds import Seed

__all__ = ["TARGETS", "check_text"]

TP = Mesh(tp=2)
SHAPES = {
    "w": (8, 8),
    "b": (8,),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
}

MOST_DRAWN = 4096
"""Ranks; a picture of more is slow, whoever asked for them."""


def check_text(text: str) -> None:
    """Whatever is shown may be several lines, and no control character."""
    assert all(line.isprintable() for line in text.split("\n")), (
        f"{text[:10]!r} ... is not printable: {text!r:.1000}"
    )


def looked_at(record: Any, deep: bool = False) -> None:
    """Its text, and its picture for a notebook."""
    check_text(repr(record))
    for shown in show(record).values() if deep else ():
        check_text(shown.replace("\t", " "))
        assert "(no picture: " not in shown or "Error: " in shown.rpartition("(no picture: ")[2], shown[-300:]


def _half(name: str, shape: tuple[int, ...]) -> Layout:
    dims = (("tp",), *((),) * (len(shape) - 1)) if shape else ()
    return Layout(TP, dims, split="gspmd_ceil")


def _use(checkpoint: Checkpoint, folder: Path, deep: bool) -> None:
    looked_at(checkpoint, deep)
    checkpoint.coverage()
    cut = Strategy({name: _half(name, record.shape) for name, record in checkpoint.tensors.items()}, None, 2)
    for dst in (None, cut):
        with contextlib.suppress(DistinferError):
            plan = checkpoint.plan(dst)
            looked_at(plan, deep)
            if deep:
                looked_at(plan.explain(), deep)
                looked_at(plan.write(folder / "out"), deep)
                assert verify_folder(folder / "out").ok
                with open_checkpoint(folder / "out") as written:
                    assert set(written.tensors) == set(plan.plan.names)
                shutil.rmtree(folder / "out")


def use_slice(seed: Seed, folder: Path, deep: bool) -> None:
    path = folder / seed.path
    with open_slice(path, **seed.options) as file:
        looked_at(file, deep)
        for name, entry in file.entries.items():
            with contextlib.suppress(DistinferError):
                check_text(repr(entry.shape))
                file.text(name) if entry.is_text else file.read(name)
    with open_checkpoint(path, **seed.options) as checkpoint:
        _use(checkpoint, folder, deep)


def use_strategy(seed: Seed, folder: Path, deep: bool) -> None:
    path = folder / seed.path
    strategy = as_strategy(path)
    deep = deep and strategy.ranks <= MOST_DRAWN
    looked_at(strategy, deep)
    with contextlib.suppress(DistinferError):
        looked_at(read_strategy(path), deep)
        read_operators(path)
    with contextlib.suppress(DistinferError), open_checkpoint(folder / "src", strategy) as checkpoint:
        _use(checkpoint, folder, deep)
    with _whole(folder) as checkpoint:
        plan = checkpoint.plan(strategy)
        looked_at(plan, deep)
        looked_at(plan.explain(), deep)


def _whole(folder: Path) -> Checkpoint:
    """One of the slices, taken as a whole checkpoint."""
    return open_checkpoint(next(path for path in sorted((folder / "src").rglob("*")) if path.is_file()))


def use_folder(seed: Seed, folder: Path, deep: bool) -> None:
    with contextlib.suppress(DistinferError):
        partition_like(folder)
        companions(folder)
    with contextlib.suppress(DistinferError):
        looked_at(verify_folder(folder), deep)
    with open_checkpoint(folder) as checkpoint:
        with contextlib.suppress(DistinferError):
            check_source(checkpoint)
        _use(checkpoint, folder, deep)


def use_stage(seed: Seed, folder: Path, deep: bool) -> None:
    # The source stays where it was: a copy of it would be another, and the run would start over.
    with open_checkpoint(seed.folder / "one.ckpt") as checkpoint:
        result = checkpoint.plan().write(folder / "out")
        looked_at(result, deep)
        result.to_json()
        assert result.verify().ok
        assert len(result.digests[0]) == len(checkpoint.tensors)


def use_config(seed: Seed, folder: Path, deep: bool) -> None:
    from distinfer_lab.net.models.fields import read_config

    config = read_config(folder)
    with contextlib.suppress(DistinferError):
        for kind in ("llama", "gpt2"):
            Rules(Mesh(tp=2), read_rules(kind), config).strategy(SHAPES)
    net = from_pretrained_config(folder)
    assert repr(net)


def use_rules(seed: Seed, folder: Path, deep: bool) -> None:
    rules = Rules(Mesh(tp=2), read_rules(folder / seed.path), {"num_key_value_heads": 2})
    looked_at(rules, deep)
    looked_at(rules.strategy(SHAPES), deep)


def use_command_line(seed: Seed, folder: Path) -> None:
    """The command that reads this kind, in this process; a traceback is what must not come."""
    path = str(folder / seed.path)
    commands: Mapping[str, list[str]] = {
        "slice": ["inspect", path],
        "strategy": ["inspect", str(folder / "src"), "--strategy", path],
        "folder": ["verify", str(folder)],
        "stage": ["reshard", str(seed.folder / "one.ckpt"), str(folder / "out"), "--overwrite"],
        "config": ["plan", str(folder), "--to", "tp=2", "--rules", "llama", "--config", path],
        "rules": ["plan", str(folder), "--to", "tp=2", "--rules", path],
    }
    result = CliRunner().invoke(main, commands[seed.kind])
    check_text(result.output)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception


TARGETS: Mapping[str, Callable[[Seed, Path, bool], None]] = {
    "slice": use_slice,
    "strategy": use_strategy,
    "folder": use_folder,
    "stage": use_stage,
    "config": use_config,
    "rules": use_rules,
}
