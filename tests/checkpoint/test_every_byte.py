"""Every byte of an output is under a digest, every file is named, and nothing else is replaced."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

KEY = bytes(range(16))
DST = Strategy({"w": Layout(Mesh(tp=2), "- tp"), "empty": Layout.replicated(2, 1)})
OUTPUTS = {
    "ckpt": {},
    "chunks": {"chunk_bytes": 24, "crc_check": True},
    "safetensors": {"format": "safetensors"},
    "encrypted": {"enc_key": KEY},
    "huggingface": {"format": "huggingface", "partition": {"w": "a.safetensors", "empty": "b.safetensors"}},
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One output of each kind, and the bytes of its files."""
    folder = tmp_path_factory.mktemp("outputs")
    values = {"w": np.arange(32, dtype=np.float32).reshape(4, 8), "empty": np.zeros(0, np.float32)}
    save_slice(folder / "w.ckpt", values | {"note": "some text"}, sync=False)
    with open_checkpoint(folder / "w.ckpt") as checkpoint:
        for kind, options in OUTPUTS.items():
            whole = kind == "huggingface"
            select = ["w", "empty"] if whole else None
            checkpoint.plan(None if whole else DST, select=select).write(folder / kind, **options)
    return folder


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def complaint(folder):
    """What verify says of a folder, be it differences or an error; "" if all is as it was written."""
    try:
        return "\n".join(verify_folder(folder).differences)
    except CheckpointError as err:
        return str(err)


@pytest.mark.parametrize("kind", OUTPUTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(outputs, kind, data):
    """In a tensor, a header, a text, a checksum, an index or the manifest: verify names the file."""
    assert complaint(outputs / kind) == ""
    path = data.draw(st.sampled_from(files_of(outputs / kind)))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    after = bytearray(before)
    after[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(after)
        assert str(path.relative_to(outputs / kind)) in complaint(outputs / kind)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_file_that_is_moved_removed_added_or_cut_is_found(outputs, kind, tmp_path):
    """By its name; an added folder or link, too."""
    for number, path in enumerate(files_of(outputs / kind)):
        name = str(path.relative_to(outputs / kind))
        for how in ("remove", "rename", "cut", "extend"):
            folder = tmp_path / f"{number}{how}"
            shutil.copytree(outputs / kind, folder)
            victim = folder / name
            if how == "remove":
                victim.unlink()
            elif how == "rename":
                victim.rename(victim.with_name("other"))
            elif how == "cut":
                victim.write_bytes(victim.read_bytes()[:-1])
            else:
                victim.write_bytes(victim.read_bytes() + b"\0")
            said = complaint(folder)
            assert (name in said) or (name == "distinfer.json" and "there is no manifest" in said)
    folder = tmp_path / "more"
    shutil.copytree(outputs / kind, folder)
    (folder / "link").symlink_to(outputs / kind)
    (folder / "notes\x1b[2J.md").touch()
    (folder / ".git").mkdir()
    said = complaint(folder).splitlines()
    assert [line.split(":")[0] for line in said] == [".git/", "link/", "notes\\x1b[2J.md"]


def test_a_source_whose_header_was_changed_is_refused(outputs, tmp_path):
    """verify_source compares what verify compares: an I32 where F32 was written."""
    shutil.copytree(outputs / "safetensors", tmp_path / "src")
    path = tmp_path / "src/rank_0/checkpoint_0.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    other = tmp_path / "src/rank_1/checkpoint_1.safetensors"
    other.write_bytes(other.read_bytes().replace(b'"F32"', b'"I32"'))
    with open_checkpoint(tmp_path / "src") as checkpoint:
        with pytest.raises(
            CheckpointError, match="rank_0/checkpoint_0.safetensors: names, dtypes, shapes or texts"
        ):
            checkpoint.plan().write(tmp_path / "again", verify_source=True)
    assert not (tmp_path / "again").exists()


def test_a_manifest_of_before_is_refused_with_a_way_out(outputs, tmp_path):
    """Version 1 says nothing of headers; without it, and with the strategy, the files open."""
    shutil.copytree(outputs / "ckpt", tmp_path / "old")
    path = tmp_path / "old/distinfer.json"
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps({**found, "version": 1}))
    for use in (verify_folder, open_checkpoint):
        with pytest.raises(CheckpointError, match=r"is of version 1.*remove this file, and open the others"):
            use(tmp_path / "old")
    path.unlink()
    with open_checkpoint(tmp_path / "old", DST) as checkpoint:
        assert checkpoint.tensors["w"].shape == (4, 8)


def test_only_an_intact_output_and_nothing_else_is_replaced(outputs, tmp_path):
    """Files of others beside it, a changed manifest, a link to it: refused, listed and kept."""
    with open_checkpoint(outputs / "w.ckpt") as checkpoint:

        def refused(folder, match):
            before = {path: path.read_bytes() for path in files_of(folder)}
            for act in (checkpoint.plan().check, checkpoint.plan().write):
                with pytest.raises(CheckpointFileError, match=match):
                    act(folder, overwrite=True)
            assert {path: path.read_bytes() for path in files_of(folder)} == before

        (tmp_path / "home").mkdir()
        (tmp_path / "home/distinfer.json").touch()
        (tmp_path / "home/thesis.tex").write_text("years of work")
        refused(tmp_path / "home", r"home: it is not an intact earlier output \(.*distinfer.json: .* damaged")
        for name, folder in (("notes.md", "notes.md"), ("rank_0/mine/notes.md", "rank_0/mine/")):
            shutil.copytree(outputs / "ckpt", tmp_path / "out")
            (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_text("mine")
            refused(tmp_path / "out", rf"its distinfer.json does not name \({folder}\), so it is not overwr")
            shutil.rmtree(tmp_path / "out")
        shutil.copytree(outputs / "ckpt", tmp_path / "out")
        (tmp_path / "link").symlink_to(tmp_path / "out")
        refused(tmp_path / "link", "it is not a folder")
        (tmp_path / "out/rank_0/checkpoint_0.ckpt").unlink()
        assert checkpoint.plan().write(tmp_path / "out", overwrite=True).verify().ok


def test_what_comes_into_the_old_output_during_a_run_is_kept(outputs, tmp_path):
    """The folder is looked at once more before it is exchanged; the new one stays in the stage."""
    shutil.copytree(outputs / "ckpt", tmp_path / "out")

    def intrude(progress):
        (tmp_path / "out/late.md").write_text("mine")

    with open_checkpoint(outputs / "w.ckpt") as checkpoint:
        with pytest.raises(CheckpointFileError, match=r"does not name \(late.md\)"):
            checkpoint.plan().write(tmp_path / "out", overwrite=True, progress=intrude)
        assert (tmp_path / "out/late.md").read_text() == "mine"
        assert verify_folder(tmp_path / "out").differences[0].startswith("late.md: ")
        (tmp_path / "out/late.md").unlink()
        assert checkpoint.plan().write(tmp_path / "out", overwrite=True).resumed


def test_an_output_without_digests_says_so(outputs, tmp_path):
    """digests=False: each file is named as not compared."""
    with open_checkpoint(outputs / "w.ckpt") as checkpoint:
        found = checkpoint.plan().write(tmp_path / "out", digests=False).verify()
    assert not found.ok
    assert all("no digest was taken" in text for text in found.differences)
    with open_slice(tmp_path / "out/rank_0/checkpoint_0.ckpt") as file:
        assert file.text("note") == "some text"
