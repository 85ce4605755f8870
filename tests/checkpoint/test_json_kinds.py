"""Valid JSON of the wrong kind: every reader says what it has, and never a raw error of Python."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError, DistinferError
from distinfer_lab.formats import (
    INDEX,
    MANIFEST,
    as_strategy,
    read_index,
    read_manifest,
    read_strategy,
    save_slice,
    write_strategy,
)
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.rules import read_rules

ROWS = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, {"w": (4, 3)})
UNEVEN = Strategy({"w": Layout(Mesh(tp=2), "tp(3,1) -")}, {"w": (4, 3)})
INDEX_JSON = {"metadata": {"total_size": 8}, "weight_map": {"w": "model.safetensors"}}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}
RULES = [{"match": "*.w", "dims": None}]
KINDS = {
    "config": (CONFIG, "it is a model's config.json; give it as config="),
    "index": (INDEX_JSON, "it is an index of safetensors files; give it, or its folder, as the checkpoint"),
    "rules": (RULES, "it is a list of rules; give it as rules="),
    "manifest": ({"format": "x", "files": [], "strategy": {}}, "it is the manifest of an output; its folder"),
}
WRONG = [
    [],
    [1, 2],
    [[]],
    [{}],
    3,
    "text",
    None,
    True,
    {},
    {"tensors": []},
    {"tensors": {"w": []}},
    {"tensors": {"w": {"layout": 0}}},
    {"tensors": {"w": {"layout": {"mesh": [], "dims": []}}}},
    {"weight_map": []},
    {"weight_map": {"w": 3}},
    {"current_stage": 1},
    {"current_stage": 1, "parallel_layout_item": []},
    {"current_stage": [], "parallel_layout_item": {}},
    {"current_stage": 1, "parallel_layout_item": {"w": []}},
    {"current_stage": 1, "parallel_layout_item": {}, "parallel_strategy_item": []},
    {"current_stage": 1, "parallel_layout_item": {}, "parallel_strategy_item": {"a": {"stage": 0}}},
    {"current_stage": 1, "parallel_layout_item": {}, "parallel_strategy_item": {"a": []}},
    {"format": "distinfer-manifest"},
    {"format": "distinfer-manifest", "version": 2},
    {"format": "distinfer-manifest", "version": 2, "files": {}, "strategy": []},
    *(content for content, _ in KINDS.values()),
]
RAW = re.compile(r"(Key|Type|Value|Attribute|Index)Error|indices must|object has no|not subscriptable|unpack")


def error_of(reader, path):
    """The text of the error of ours that a reader raises; "" if it takes the file."""
    try:
        reader(path)
    except DistinferError as err:
        return str(err)
    return ""


def readers(folder):
    """Everything that takes a path of a JSON file, and the name that the file has there."""
    save_slice(folder / "rank_0/a.ckpt", {"w": np.zeros((4, 3), np.float32)}, sync=False)
    return {
        "x.json": (
            as_strategy,
            read_strategy,
            read_rules,
            open_checkpoint,
            lambda path: open_checkpoint(folder, path),
            lambda path: open_checkpoint(folder).plan(path),
        ),
        INDEX: (read_index, open_checkpoint),
        MANIFEST: (lambda path: read_manifest(path.parent),),
    }


@pytest.mark.parametrize("content", WRONG, ids=lambda content: json.dumps(content)[:60])
def test_no_reader_shows_a_raw_error(content, tmp_path):
    """An error of ours that names the file; or the file is what the reader takes."""
    for name, each in readers(tmp_path).items():
        path = tmp_path / "inner" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        for reader in each:
            text = error_of(reader, path)
            assert not text or name in text
            assert not RAW.search(text), text


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_as_a_strategy_is_called_what_it_is(kind, tmp_path):
    """And where it belongs."""
    content, said = KINDS[kind]
    (tmp_path / "x.json").write_text(json.dumps(content))
    for reader in (as_strategy, read_strategy):
        with pytest.raises(CheckpointError, match=rf"x\.json: {re.escape(said)}.*strategy_ckpt_save_file"):
            reader(tmp_path / "x.json")


def test_what_lacks_a_field_says_which(tmp_path):
    """JSON that is nothing known: the first field that is not there."""
    (tmp_path / "x.json").write_text('{"layers": 3}')
    with pytest.raises(
        CheckpointError, match=r"x\.json: not a valid .*: its content lacks the field 'current_"
    ):
        as_strategy(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[3]")
    with pytest.raises(CheckpointError, match=r"x\.json: .*: its content is \[3\]; it should be an object"):
        as_strategy(tmp_path / "x.json")
    (tmp_path / "rules.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointError, match=r"rules\.json: it is a model's config.*; rules are a list"):
        read_rules(tmp_path / "rules.json")


@pytest.mark.parametrize("name", ["train.ckpt", "train.json", "layouts.json"])
def test_a_strategy_file_is_no_checkpoint(name, tmp_path):
    """Given as the checkpoint it is called a strategy file, protobuf, JSON or our own layouts."""
    write_strategy(tmp_path / name, UNEVEN if name == "layouts.json" else ROWS)
    with pytest.raises(
        CheckpointError,
        match=rf"{name}: it is a strategy file, .* not a checkpoint; give .* this file as strategy=",
    ):
        open_checkpoint(tmp_path / name)


def test_inspect_tells_strategies_from_what_is_none(tmp_path):
    """A damaged strategy file is called that; JSON that is none is reported as not a checkpoint."""
    write_strategy(tmp_path / "s.json", ROWS)
    path = tmp_path / "damaged.json"
    path.write_bytes((tmp_path / "s.json").read_bytes()[:-9])
    found = CliRunner().invoke(main, ["inspect", str(path)])
    assert (found.exit_code, f"{path}: not a valid strategy file, or damaged" in found.output) == (1, True)
    for content in (CONFIG, {"layers": 3}):
        path.write_text(json.dumps(content))
        found = CliRunner().invoke(main, ["inspect", str(path)])
        said = f"{path}: it is a JSON file, not a checkpoint; give the weights that it belongs to"
        assert (found.exit_code, said in found.output) == (1, True), found.output


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_slices_are_no_strategy(name, tmp_path):
    """Given as the strategy they are said to hold tensors."""
    save_slice(tmp_path / name, {"w": np.zeros((4, 3), np.float32)})
    with pytest.raises(
        CheckpointError, match=rf"{name}: it holds tensors; give it, .* as the checkpoint; a str"
    ):
        open_checkpoint(tmp_path / name, tmp_path / name)
