"""Hugging Face folders: how they are divided into files, and what lies beside the weights."""

import os

import pytest

from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import MANIFEST, companions, hub_files, partition_like, read_companion
from distinfer_lab.formats.hub import COMPANIONS, INDEX, LARGEST_COMPANION, SINGLE


@pytest.fixture
def folder(tmp_path):
    """One file of weights (which nobody opens here), two companions and a stranger."""
    (tmp_path / "model").mkdir()
    for name in (SINGLE, "config.json", "tokenizer.model", "notes.txt"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_companions_are_those_of_the_list(folder):
    """In the order of the list, by the folder or by its index; none of them is a file of the model or a manifest."""
    assert [path.name for path in companions(folder)] == ["config.json", "tokenizer.model"]
    (folder / INDEX).write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    assert companions(folder / INDEX) == companions(folder)
    assert read_companion(folder / "config.json") == b"config.json"
    assert not {INDEX, MANIFEST} & set(COMPANIONS)
    assert not [name for name in COMPANIONS if name.endswith((".safetensors", ".py", ".bin"))]


def test_links_lead_nowhere_else(folder):
    """Out of the folder: refused, whatever is there. Within it, or to the blobs of a cached snapshot: taken."""
    secret = folder.parent / "secret"
    secret.write_text("secret")
    (folder / "vocab.json").symlink_to("config.json")
    assert read_companion(folder / "vocab.json") == b"config.json"
    for target, words in (
        (secret, "it is a link that leaves"),
        (folder.parent / "nothing", "it is a link that leaves"),
        ("nothing", "No such file"),
        ("merges.txt", "Too many levels of symbolic links"),
    ):
        (folder / "merges.txt").symlink_to(target)
        with pytest.raises((CheckpointError, CheckpointFileError), match=rf"merges\.txt: {words}"):
            companions(folder)
        (folder / "merges.txt").unlink()
    snapshot, blobs = folder.parent / "cache/snapshots/1f", folder.parent / "cache/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "ab").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/ab")
    assert read_companion(companions(snapshot)[0]) == b"{}"
    (snapshot / "vocab.json").symlink_to(secret)
    with pytest.raises(
        CheckpointError, match="a link that leaves the folder; put the file itself in its place"
    ):
        companions(snapshot)


def test_only_small_regular_files_are_companions(folder):
    """A folder, a pipe (which would be waited for), and what is too large are named."""
    (folder / "vocab.txt").mkdir()
    with pytest.raises(CheckpointError, match=r"vocab\.txt: it is no regular file"):
        companions(folder)
    (folder / "vocab.txt").rmdir()
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(CheckpointError, match=r"vocab\.txt: it is no regular file"):
        read_companion(folder / "vocab.txt")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").touch()
    os.truncate(folder / "tokenizer.json", LARGEST_COMPANION + 1)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: 67108865 bytes, and at most 67108864"):
        companions(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointFileError, match=r"tokenizer\.json: No such file"):
        read_companion(folder / "tokenizer.json")


def test_a_partition_is_that_of_the_index(folder):
    """One file has none; what is no Hugging Face folder says what would be one."""
    assert partition_like(folder) == (None, "")
    (folder / INDEX).write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    assert partition_like(folder) == partition_like(folder / INDEX) == ({"w": "model-1.safetensors"}, INDEX)
    assert hub_files(folder.parent) is None
    with pytest.raises(
        CheckpointFileError, match=r"not a Hugging Face folder; give one with model\.safetensors or"
    ):
        partition_like(folder.parent)
