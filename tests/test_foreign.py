"""Whatever is no checkpoint is called what it is, with a way out, by every door that takes a path of one."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

import distinfer_lab as dl
from distinfer_lab.checkpoint import open_checkpoint, transform_checkpoints
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import FOREIGN, open_slice, save_slice

from .formats.test_recognisers import FILES, FOLDERS

REFUSED = [
    words
    for words, names in FOLDERS.items()
    if not any(re.fullmatch(r"[^/]*\.safetensors", n) for n in names)
]
"""A folder with one file that can be read is opened, whatever else it is."""


@pytest.fixture(scope="module")
def cards():
    with dl.CardGroup(1) as group:
        yield group


def refusals(path, cards, tmp_path):
    """Door -> what it says to a path: commands, and functions with the path alone and in a list."""
    net = dl.nn.Dense(2, 2)
    commands = {
        "inspect": ["inspect", path],
        "plan": ["plan", path],
        "reshard": ["reshard", path, tmp_path / "out"],
    }
    functions = {
        "open_checkpoint": lambda: open_checkpoint(path),
        "a list": lambda: open_checkpoint([path]),
        "a mapping": lambda: open_checkpoint({0: path}),
        "transform_checkpoints": lambda: transform_checkpoints(path, tmp_path / "out", "checkpoint_"),
        "load_distributed_checkpoint": lambda: dl.load_distributed_checkpoint(net, path, cards=cards),
        "load_checkpoint": lambda: dl.load_checkpoint(path),
        "open_slice": lambda: open_slice(path),
    }
    said = {}
    for door, words in commands.items():
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 1, (door, done.output)
        said[door] = done.output
    for door, call in functions.items():
        with pytest.raises((CheckpointError, CheckpointFileError)) as raised:
            call()
        said[door] = str(raised.value)
    assert not (tmp_path / "out").exists()
    return said


def row_of(words):
    """The row that says this."""
    return next(row for row in FOREIGN if f"it is {row.what}; " in words)


@pytest.mark.parametrize("words", REFUSED)
def test_a_foreign_folder_is_refused_alike_by_all(words, cards, tmp_path):
    """One sentence for all of them: the row's, with what it is and what to do."""
    folder = tmp_path / "models--o--m"
    for name in FOLDERS[words]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 64)
    said = refusals(folder, cards, tmp_path)
    known = re.search("it is (?s:.*)", said["open_checkpoint"])[0]
    assert re.search(words, known)
    assert row_of(known).inside
    assert {door: known in text for door, text in said.items()} == dict.fromkeys(said, True)


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_file_is_refused_alike_by_all(name, cards, tmp_path):
    """The same of files; the command line calls an option as it does."""
    path = tmp_path / name
    path.write_bytes(FILES[name][0])
    said = refusals(path, cards, tmp_path)
    known = said["open_checkpoint"].partition(f"{path}: ")[2].replace("strategy=", "--strategy")
    if "a strategy file" in known:
        del said["inspect"]  # which shows those, too
    said = {door: text.replace("strategy=", "--strategy") for door, text in said.items()}
    assert {door: known in text for door, text in said.items()} == dict.fromkeys(said, True)


def test_a_folder_that_is_a_checkpoint_is_no_file(tmp_path):
    """Who wants a file is told that it is a folder, and of which kind; a list takes a folder of one rank."""
    save_slice(tmp_path / "hub/model.safetensors", {"w": np.zeros(2)}, format="safetensors")
    save_slice(tmp_path / "ours/rank_0/a.ckpt", {"w": np.zeros(2)})
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("hub", "it is a Hugging Face folder, not a file; open it as a checkpoint, or give one of its files"),
        ("ours", "it is a folder, not a file; give one of the files in it, or open it as a checkpoint"),
        ("empty", "it is a folder, not a file; give one of the files in it, or open it as a checkpoint"),
    ):
        for door in (open_slice, dl.load_checkpoint):
            with pytest.raises(CheckpointFileError, match=f"{name}: {words}"):
                door(tmp_path / name)
    open_checkpoint([tmp_path / "ours/rank_0"]).close()
    open_checkpoint([tmp_path / "hub"]).close()
