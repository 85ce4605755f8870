"""The options of a run are spelled once: every door that takes or records them has them all."""

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

from distinfer_lab.checkpoint import FileOptions, Output, OutputOptions, WriteOptions, open_checkpoint, write
from distinfer_lab.cli.checkpoints import reshard
from distinfer_lab.formats import SliceWriter, save_slice

LLAMA = Path(__file__).parents[1] / "data/oracle/hf/llama_gqa_tiny"
ANEW = {
    "format": "safetensors",
    "prefix": "other_",
    "partition": {"w": "a.safetensors"},
    "like": LLAMA,
    "max_shard_size": "1 MiB",
    "chunk_bytes": 64,
    "crc_check": True,
    "enc_key": bytes(16),
    "enc_mode": "AES-CBC",
}
"""Options on which bytes of the output depend, each with another value than its default."""
IDLE = {
    "buffer": "1 MiB",
    "memory_limit": "1 MiB",
    "overwrite": True,
    "resume": False,
    "digests": False,
    "sync": False,
}
"""Options on which no byte depends."""
FOR_A_FOLDER = {"partition", "like", "max_shard_size"}
PYTHON_ONLY = {"progress", "cancelled", "partition", "digests", *FileOptions.__annotations__}
"""Options that the command does not have; how far it is, it shows itself."""


def output(**options):
    files = {name: options.pop(name) for name in FileOptions.__annotations__ if name in options}
    return Output("out", **options, file_options=files)


def test_options_are_those_of_an_output_its_files_and_a_run():
    """The typed options name what `Output`, `SliceWriter` and `write` take, and nothing else."""
    fields = {field.name for field in dataclasses.fields(Output) if field.init}
    assert set(OutputOptions.__annotations__) == fields - {"folder", "file_options"} | set(
        FileOptions.__annotations__
    )
    assert set(FileOptions.__annotations__) <= set(inspect.signature(SliceWriter).parameters)
    taken = set(inspect.signature(write).parameters) - {"conversion", "folder", "on", "options"}
    assert set(WriteOptions.__annotations__) == set(OutputOptions.__annotations__) | taken


@pytest.mark.parametrize("name", OutputOptions.__annotations__)
def test_the_record_of_a_run_has_the_options_on_which_its_bytes_depend(name):
    """Another value of one makes another record, which is not resumed; another speed does not."""
    kind = {"format": "huggingface"} if name in FOR_A_FOLDER else {}
    before = output(**kind).recorded
    after = output(**kind, **{name: (ANEW | IDLE)[name]}).recorded
    assert (before == after) == (name in IDLE)


def test_no_record_has_a_key():
    """That a file is encrypted is recorded, and not by which key."""
    found = output(enc_key=b"0123456789abcdef").recorded
    assert found["encrypted"]
    assert "0123456789abcdef" not in repr(found)
    assert "enc_key" not in found["options"]


def test_the_command_has_the_options_by_their_names_and_defaults(tmp_path, monkeypatch):
    """What `distinfer reshard` gives to `write` is what it has of the options, with the defaults of Python."""
    has = {param.name for param in reshard.params} & set(WriteOptions.__annotations__)
    assert set(WriteOptions.__annotations__) - has == PYTHON_ONLY
    save_slice(tmp_path / "a.ckpt", {"w": np.zeros((2, 3), np.float32)})
    given = []

    def written(conversion, folder, *, on, **options):
        given.append(options)
        raise SystemExit

    monkeypatch.setattr("distinfer_lab.checkpoint.Conversion.write", written)
    with pytest.raises(SystemExit):
        reshard.main([str(tmp_path / "a.ckpt"), str(tmp_path / "out")], standalone_mode=False)
    assert given[0].keys() == has | {"progress"}
    with open_checkpoint(tmp_path / "a.ckpt") as checkpoint:
        expected = checkpoint.plan().check(tmp_path / "out")
        options = {name: value for name, value in given[0].items() if name in OutputOptions.__annotations__}
        assert checkpoint.plan().check(tmp_path / "out", **options) == dataclasses.replace(
            expected, buffer="32 MiB"
        )
    run = inspect.signature(write).parameters
    assert {name: run[name].default for name in ("route", "verify_source")} == {
        name: given[0][name] for name in ("route", "verify_source")
    }
