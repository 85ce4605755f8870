"""What cannot be opened is called what it is, and each advice names what to do."""

import gzip
import io
import lzma
import re
import zipfile

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import CheckpointError, CheckpointFileError
from distinfer_lab.formats import FOREIGN, open_slice, recognisers, save_slice
from distinfer_lab.formats.recognisers import recognise_file, recognise_folder


def zipped(*names):
    """A zip archive with these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 8)
    return out.getvalue()


def npz():
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    return out.getvalue()


def npy():
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e\nsize 9\n"
)

FILES = {
    "model.safetensors": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "a.ckpt": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "page.safetensors": (b"<!DOCTYPE html>\n<html>" + b" " * 600, "a web page.*hf download"),
    "denied.ckpt": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    "a.pt": (zipped("a/data.pkl", "a/version"), "as torch.save writes them.*torch.load"),
    "pytorch_model.bin": (zipped("archive/.format_version", "archive/data.pkl"), "as torch.save writes them"),
    "cut.pt": (b"PK\x03\x04xxxx", "as torch.save writes them"),
    "old.pth": (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "as torch.save writes them"),
    "a.npz": (npz(), r"numpy arrays \(.npz\).*numpy.load"),
    "npz.ckpt": (npz(), r"numpy arrays \(.npz\)"),
    "a.npy": (npy(), r"a numpy array \(.npy\)"),
    "a.zip": (zipped("readme.txt"), "a zip archive; unpack it"),
    "zip.safetensors": (zipped("readme.txt"), "a zip archive; unpack it"),
    "a.pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.", "a pickle, which may run code"),
    "__0_0.distcp": (zipped("archive/data.pkl"), "a part of a torch DCP checkpoint.*dcp_to_torch FOLDER"),
    "a.gguf": (b"GGUF\x03\x00\x00\x00", "a GGUF file.*gguf_file"),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file.*h5py"),
    "h5.ckpt": (b"\x89HDF\r\n\x1a\n", "an HDF5 file.*h5py"),
    "a.onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX model"),
    "a.mindir": (b"\x0a\x050.1.0\x12\x09MindSpore", "a MindIR graph"),
    "flax_model.msgpack": (b"\x82\xa3abc", "Flax weights"),
    "a.safetensors.gz": (gzip.compress(b"x"), "a gzip archive.*gunzip"),
    "a.xz": (lzma.compress(b"x"), "an xz archive"),
    "a.bz2": (b"BZh91AY&SY\x00", "a bzip2 archive"),
    "a.zst": (b"\x28\xb5\x2f\xfd\x04", "a zstd archive"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    "a.nemo": (b"./model_config.yaml".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), "a tar archive"),
    "a.safetensors.incomplete": (b"\x10\x00\x00\x00", "an unfinished download"),
    "strategy.ckpt": (
        b"\x08\x01\x12\x17\n\x0bMatMul_l0.w\x12\x08\x08\x00\x12\x04\x08\x01\x08\x01",
        "a strategy file, .* not a checkpoint; .* as strategy=",
    ),
    "config.json": (b'{"model_type": "llama"}', "a JSON file"),
    "train.txt": (b"step 1: loss 2.3\n" * 40, "a text file"),
    "zeros.safetensors": (bytes(4096), "all zeros"),
    "empty.safetensors": (b"", "empty \\(0 bytes\\); copy or download"),
    "empty.ckpt": (b"", "empty \\(0 bytes\\); copy or download"),
    "noise.ckpt": (b"\x07\xff\x13" * 40, "damaged or no .ckpt file; copy or download"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_called_what_it_is(name, tmp_path):
    """Its own words for each kind, with the path and what to do, opened as a file and as a checkpoint."""
    data, words = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    for open_it in (open_slice, open_checkpoint):
        with pytest.raises(CheckpointError, match=f"(?s){name}.*{words}") as raised:
            open_it(path)
        assert "{" + "path}" not in str(raised.value)


def test_swapped_suffixes_are_named(tmp_path):
    """What is right but for its name says how to be called."""
    save_slice(tmp_path / "a.ckpt", {"w": np.zeros(3)})
    save_slice(tmp_path / "b.safetensors", {"w": np.zeros(3)}, format="safetensors")
    (tmp_path / "a.ckpt").rename(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").rename(tmp_path / "b.ckpt")
    with pytest.raises(
        CheckpointError, match="a MindSpore .ckpt file by its content.*rename it to end in .ckpt"
    ):
        open_slice(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="a safetensors file by its content.*end in .safetensors"):
        open_slice(tmp_path / "b.ckpt")


FOLDERS = {
    "a torch DCP checkpoint.*dcp_to_torch": [".metadata", "__0_0.distcp", "__1_0.distcp"],
    "a DeepSpeed checkpoint.*zero_to_fp32": [
        "latest",
        "zero_to_fp32.py",
        "global_step5/zero_pp_rank_0_mp_rank_00_x.pt",
    ],
    "a Megatron-LM checkpoint.*convert.py": ["latest_checkpointed_iteration.txt", "iter_5/mp_rank_00/x.pt"],
    "FSDP shards by verl.*model_merger": ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"],
    "an Orbax checkpoint": ["_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt"],
    "a model in a Hugging Face cache.*models--o--m/snapshots/abc": [
        "blobs/1",
        "refs/main",
        "snapshots/abc/config.json",
    ],
    "a Hugging Face cache; give one revision of a model: .*/models--o--m/snap": [
        "models--o--m/refs/main",
        "version.txt",
    ],
    "a diffusers pipeline.*/unet": ["model_index.json", "unet/diffusion_pytorch_model.safetensors"],
    "a PEFT adapter.*/adapter_model.safetensors": ["adapter_config.json", "adapter_model.safetensors"],
    "one model by diffusers.*/diffusion_pytorch_model.safetensors": [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ],
    "a folder of PyTorch weights.*save_pretrained": ["config.json", "pytorch_model.bin"],
    "a folder of Flax weights": ["config.json", "flax_model.msgpack"],
    "a TensorFlow checkpoint": ["checkpoint", "model.data-00000-of-00001", "model.index"],
    "a folder of GGUF files": ["q4.gguf"],
}


@pytest.mark.parametrize("words", FOLDERS)
def test_a_folder_is_called_what_it_is(words, tmp_path):
    """Its own words for each kind."""
    folder = tmp_path / "models--o--m"
    folder.mkdir()
    for name in FOLDERS[words]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 64)
    found = recognise_folder(folder)
    assert re.search(words, found), found


def test_a_folder_of_pointers_is_called_that(tmp_path):
    """A clone without its large files: the file in it says what is wrong."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights.safetensors.part2").write_bytes(POINTER)
    assert "a Git LFS pointer" in recognise_folder(tmp_path)


def test_no_name_gets_into_a_command():
    """A path that a shell or Python would take apart is not part of the advice."""
    for path in ("a'); evil('.pt", "a b.pt", "$(x).pt", "-x.pt", 'a".pt', "a;b.pt", "a\nb.pt"):
        found = recognise_file(path, zipped("a/data.pkl"))
        assert "torch.load('PATH'" in found
    assert "torch.load('dir/é-1.pt'" in recognise_file("dir/é-1.pt", zipped("a/data.pkl"))


def test_every_row_is_tried():
    """No row stands behind one that takes all that it would take."""
    hit = {
        recognise_file(name, data[:1024]).removeprefix("it is ").split(";")[0]
        for name, (data, _) in FILES.items()
    }
    rows = {row.what for row in FOREIGN if not row.inside}
    assert rows <= hit


def test_a_good_file_is_never_recognised_away(tmp_path):
    """The table is asked only about what failed: a header of 0x04034b50 bytes would be one like a zip's."""
    values = {"w": np.arange(4, dtype=np.float32)}
    save_slice(tmp_path / "GGUF.onnx.safetensors", values, format="safetensors")
    with open_slice(tmp_path / "GGUF.onnx.safetensors") as file:
        np.testing.assert_array_equal(file.read("w"), values["w"])


def test_a_missing_file_is_still_missing(tmp_path):
    with pytest.raises(CheckpointFileError, match="No such file"):
        open_slice(tmp_path / "model.safetensors")


class Lines:
    """A format whose files begin with text."""

    name, title, head = "lines", "lines", rb"lines \d+\n"


def test_an_own_format_that_begins_with_text_is_not_called_text(monkeypatch):
    """Rows that fit many formats come last: a damaged file keeps its own error, one under another name is named."""
    monkeypatch.setattr(recognisers, "FILE_FORMATS", (*recognisers.FILE_FORMATS, Lines))
    monkeypatch.setattr(recognisers, "format_of", lambda path: Lines if path.endswith(".lines") else None)
    head = b"lines 3\n" + b"{}" * 600
    assert recognisers.recognise_file("a.lines", head) == ""
    assert "it is a lines file by its content" in recognisers.recognise_file("a.ckpt", head)
    assert "it is a text file" in recognisers.recognise_file("a.lines", b"another text " * 90)
