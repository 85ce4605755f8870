"""Slice files: what MindSpore wrote is read exactly, and written again byte for byte."""

import ctypes
import errno
import hashlib
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import CheckpointError, CheckpointFileError, EncryptionError
from distinfer_lab.formats import SliceWriter, TensorSpec, allocation, open_slice, save_slice
from distinfer_lab.layout import Box

from ..oracle import CASES, case

KEY = bytes(range(16))


def files_of(name: str) -> list[Path]:
    """Every slice file of a case: sources and MindSpore's outputs."""
    folder = case(name).folder
    found = [*folder.glob("src/rank_*/*"), *folder.glob("out_*/**/*"), *folder.glob("out_load_single.ckpt")]
    return sorted(p for p in found if p.suffix in (".ckpt", ".safetensors"))


@pytest.mark.parametrize("name", CASES)
def test_every_entry_has_the_bytes_that_mindspore_saw(name):
    """Dtype, dims and sha256 of every entry are those that case.json noted."""
    facts = case(name).facts
    compared = 0
    for path in files_of(name):
        known = {**facts["src_files"], **facts.get("outputs", {})}.get(
            str(path.relative_to(case(name).folder))
        )
        if not isinstance(known, dict):
            continue
        with open_slice(path) as found:
            assert list(found.entries) == [n for n in known if n != "__metadata__"]
            for entry in found.entries.values():
                raw = (
                    found.text(entry.name).encode("utf-32-le")
                    if entry.is_text
                    else found.read(entry.name).tobytes()
                )
                assert hashlib.sha256(raw).hexdigest() == known[entry.name]["sha256"]
                assert entry.type_name == known[entry.name]["dtype"]
                if not entry.is_text:
                    assert list(entry.shape) == known[entry.name]["dims"]
                compared += 1
    assert compared or "enc_key" in facts["save_options"]


@pytest.mark.parametrize("name", [n for n in CASES if case(n).facts["format"] == "ckpt" and not case(n).key])
def test_writing_the_same_content_gives_the_same_bytes(name, tmp_path):
    """Byte for byte, with the case's chunk size and checksum."""
    for path in files_of(name):
        with open_slice(path) as found:
            if found.format != "ckpt":
                continue
            values = {
                e.name: found.text(e.name) if e.is_text else found.read(e.name)
                for e in found.entries.values()
            }
        chunk = 1024 if name.startswith("chunked") and "src" in path.parts else 536_870_912
        crc = path.read_bytes()[-17:].startswith(b"crc_num")
        save_slice(tmp_path / "again.ckpt", values, chunk_bytes=chunk, crc_check=crc)
        assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [n for n in CASES if case(n).key])
def test_encrypted_files_of_mindspore_open_with_their_key_only(name):
    """Right key: the cut of the truth. No key, a wrong key, a wrong mode: an error that says so."""
    found = case(name)
    path = found.folder / "src" / "rank_1" / "net-1_1.ckpt"
    with open_slice(path, **found.key) as opened:
        np.testing.assert_array_equal(opened.read("matmul_weight"), found.full["matmul_weight"][:, 4:8])
    with pytest.raises(EncryptionError, match="is encrypted by AES-.*pass dec_key"):
        open_slice(path)
    wrong = bytes(reversed(found.key["dec_key"]))
    with pytest.raises(EncryptionError, match="the key is wrong, or the file is damaged"):
        open_slice(path, dec_key=wrong, dec_mode=found.key["dec_mode"])
    with pytest.raises(EncryptionError, match="not SM4-CBC; pass dec_mode='AES-"):
        open_slice(path, dec_key=found.key["dec_key"][:16], dec_mode="SM4-CBC")


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_what_is_encrypted_is_read_back(mode, tmp_path):
    """All three modes; nothing of the plain content is in the file, nor anything else in the folder."""
    values = {"w": np.arange(5000, dtype=np.float32), "note": "hällo"}
    save_slice(tmp_path / "a.ckpt", values, enc_key=KEY, enc_mode=mode)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
    assert values["w"].tobytes()[400:800] not in (tmp_path / "a.ckpt").read_bytes()
    with open_slice(tmp_path / "a.ckpt", dec_key=KEY, dec_mode=mode) as found:
        np.testing.assert_array_equal(found.read("w"), values["w"])
        assert found.text("note") == "hällo"


ARRAYS = {
    "float32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6),
    "bfloat16": np.linspace(-1, 1, 24).astype(ml_dtypes.bfloat16).reshape(2, 3, 4),
    "bool": np.array([[True, False], [False, True]]),
    "int64": np.array(7),
    "float16": np.zeros((0, 5), np.float16),
    "big": np.arange(6, dtype=">i4"),
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_all_dtypes_and_shapes_survive(suffix, tmp_path):
    """Also 0-d tensors, tensors of no elements, texts, and big-endian arrays (as the same numbers)."""
    path = tmp_path / f"a.{suffix}"
    save_slice(path, {**ARRAYS, "text": "MindSpore ✓"}, format=suffix)
    with open_slice(path) as found:
        assert found.text("text") == "MindSpore ✓"
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found.read(name), array)
            assert found.read(name).shape == array.shape


def test_safetensors_agrees_with_the_library_both_ways(tmp_path):
    """The library reads what we write, and we read what it writes."""
    arrays = {name: ARRAYS[name] for name in ("float32", "bool", "int64")}
    save_slice(tmp_path / "ours.safetensors", arrays, format="safetensors")
    theirs = safetensors.numpy.load_file(tmp_path / "ours.safetensors")
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors")
    with open_slice(tmp_path / "theirs.safetensors") as found:
        for name, array in arrays.items():
            np.testing.assert_array_equal(theirs[name], array)
            np.testing.assert_array_equal(found.read(name), array)


def test_a_tensor_of_no_dims_in_both_spellings(tmp_path):
    """MindSpore 2 writes no dims, 1.3 writes dims [0]; both are one element of no dims."""
    content = struct.pack("<f", 0.5)
    for dims in (b"", b"\x08\x00"):
        tensor = dims + b"\x12\x07Float32\x1a\x04" + content
        value = b"\x0a\x01s\x12" + bytes([len(tensor)]) + tensor
        (tmp_path / "s.ckpt").write_bytes(b"\x0a" + bytes([len(value)]) + value)
        with open_slice(tmp_path / "s.ckpt") as found:
            assert found.read("s").shape == ()
            assert found.read("s") == np.float32(0.5)


@st.composite
def tensors_and_boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=0, max_size=4)))
    bounds = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
    least = 1 + int(np.prod(shape)) // 1000  # smaller parts of many elements are refused
    return shape, Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds)), draw(st.integers(least, 64))


@given(tensors_and_boxes())
def test_a_box_is_what_numpy_cuts(tmp_path_factory, drawn):
    """Any box of any tensor, however its bytes are chunked, equals the slice of the whole."""
    shape, box, chunk = drawn
    array = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    path = tmp_path_factory.mktemp("box") / "a.ckpt"
    save_slice(path, {"t": array}, chunk_bytes=chunk, sync=False)
    with open_slice(path) as found:
        np.testing.assert_array_equal(found.read("t", box), array[box.slices()])


def test_parts_too_tiny_to_be_read_again_are_not_written(tmp_path):
    """The writer knows the reader's bound: it refuses before anything is written, and says which size will do."""
    array = np.arange(20_000, dtype=np.uint8)
    with pytest.raises(
        CheckpointError, match=r"chunk_bytes=1 cuts tensors into 19999 tiny parts.*chunk_bytes=512"
    ):
        save_slice(tmp_path / "a.ckpt", {"t": array}, chunk_bytes=1, sync=False)
    assert not list(tmp_path.iterdir())
    save_slice(tmp_path / "a.ckpt", {"t": array}, chunk_bytes=512, sync=False)
    with open_slice(tmp_path / "a.ckpt") as found:
        np.testing.assert_array_equal(found.read("t"), array)


def test_short_runs_are_read_in_windows(tmp_path):
    """A narrow column of a tall tensor, too many short runs for one read each, is still exact."""
    array = np.arange(3 * 40_000 * 20, dtype=np.float32).reshape(3, 40_000, 20)
    save_slice(tmp_path / "a.ckpt", {"t": array}, sync=False)
    with open_slice(tmp_path / "a.ckpt") as found:
        np.testing.assert_array_equal(
            found.read("t", Box((1, 5, 3), (3, 39_990, 5))), array[1:3, 5:39_990, 3:5]
        )


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 7_000])
def test_bytes_are_put_into_many_places(chunk_bytes, tmp_path):
    """More places than one call of the system fills, some of them the same, whether or not other pieces follow."""
    values = np.random.default_rng(5).integers(0, 255, (2500, 12), np.uint8)
    path = tmp_path / "a.ckpt"
    save_slice(path, {"before": values[:3], "w": values}, chunk_bytes=chunk_bytes)
    kept, gap = np.zeros((2498, 5), np.uint8), memoryview(bytearray(7))
    places = [place for row in kept for place in (row.data, gap)][:-1]
    with open_slice(path) as file:
        assert (len(file.entries["w"].pieces) > 1) == (chunk_bytes < values.size)
        file.scatter("w", 14, places, 2497 * 12 + 5)
        assert file.nbytes_read == 2497 * 12 + 5
        np.testing.assert_array_equal(kept, values[1:-1, 2:7])
        os.truncate(path, 20_000)
        with pytest.raises(CheckpointError, match="a.ckpt: the file became shorter while w was read"):
            file.scatter("w", 14, places, 2497 * 12 + 5)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_memory_does_not_grow_with_the_data(suffix, tmp_path, monkeypatch):
    """A file of 8 GiB (with a hole for its data) opens, and gives a box, in a few kB."""
    monkeypatch.setattr(allocation, "_fallocate", None)
    path = tmp_path / f"big.{suffix}"
    spec = TensorSpec("w", np.dtype("float32"), (1 << 16, 1 << 15))
    writer = SliceWriter(path, [spec], format=suffix)
    Path(f"{path}.tmp").rename(path)
    tracemalloc.start()
    with open_slice(path) as found:
        assert found.entries["w"].nbytes == 8 << 30
        np.testing.assert_array_equal(found.read("w", Box((60_000, 5), (60_002, 9))), np.zeros((2, 4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.__exit__(KeyError)
    assert peak < 200_000


def test_rows_are_read_and_nothing_else(tmp_path):
    """Reading rows reads their bytes only; opening reads none."""
    save_slice(tmp_path / "a.ckpt", {"t": np.zeros((100, 64), np.float32), "u": np.zeros(9)})
    with open_slice(tmp_path / "a.ckpt") as found:
        assert found.nbytes_read == 0
        found.read("t", Box((10, 0), (20, 64)))
        assert found.nbytes_read == 10 * 64 * 4


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    """An error while writing, or a tensor that was not written, leaves the folder as it was."""
    save_slice(tmp_path / "a.ckpt", {"w": np.ones(3)})
    before = (tmp_path / "a.ckpt").read_bytes()
    spec = [TensorSpec("w", np.dtype("float32"), (4,))]
    with (
        pytest.raises(CheckpointError, match="w: 8 bytes were not written"),
        SliceWriter(tmp_path / "a.ckpt", spec) as w,
    ):
        w.write("w", Box((0,), (2,)), np.zeros(2, np.float32))
    with pytest.raises(KeyError), SliceWriter(tmp_path / "a.ckpt", spec):
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
    assert (tmp_path / "a.ckpt").read_bytes() == before


def test_writing_refuses_what_does_not_fit(tmp_path):
    """Unknown names, wrong shapes, names twice, options that exclude each other."""
    path = tmp_path / "a.ckpt"
    spec = TensorSpec("w", np.dtype("float32"), (4,))
    with (
        pytest.raises(CheckpointError, match="no tensor 'v' was announced"),
        SliceWriter(path, [spec]) as writer,
    ):
        writer.write("v", Box((0,), (4,)), np.zeros(4, np.float32))
    with (
        pytest.raises(CheckpointError, match=r"shape \[4\] and dtype float64 for a box"),
        SliceWriter(path, [spec]) as w,
    ):
        w.write("w", Box((0,), (4,)), np.zeros(4))
    with pytest.raises(CheckpointError, match="'w' is to be written twice"):
        SliceWriter(path, [spec, spec])
    with pytest.raises(CheckpointError, match="cannot hold dtype complex64"):
        save_slice(path, {"c": np.zeros(2, np.complex64)})
    with pytest.raises(EncryptionError, match="a key of 5 bytes; AES-GCM takes 16 or 24 or 32"):
        save_slice(path, {"w": np.zeros(2)}, enc_key=b"short")
    with pytest.raises(EncryptionError, match="an encrypted file carries no checksum"):
        save_slice(path, {"w": np.zeros(2)}, enc_key=KEY, crc_check=True)
    with pytest.raises(CheckpointFileError, match="choose a folder that can be written"):
        save_slice("/proc/nowhere/a.ckpt", {"w": np.zeros(2)})
    assert not list(tmp_path.iterdir())


def entry(name: bytes, dims: bytes, kind: bytes, content: bytes) -> bytes:
    """One message of a .ckpt file, put together by hand."""

    def delimited(field: int, data: bytes) -> bytes:
        assert len(data) < 128
        return bytes([field << 3 | 2, len(data)]) + data

    tensor = dims + delimited(2, kind) + delimited(3, content)
    return delimited(1, delimited(1, name) + delimited(2, tensor))


GOOD = entry(b"w", b"\x08\x02", b"Float32", bytes(8))

BAD = {
    "empty": (b"", r"the file is empty \(0 bytes\)"),
    "no checkpoint": (b"PK\x03\x04 a zip file", "archive or a pickle, as torch.save writes them"),
    "a pickle": (
        b"\x80\x04\x95 cos system",
        "may run code when it is loaded; where you trust it, convert it",
    ),
    "cut in a length": (GOOD[:1], "at byte 1: the file ends inside a number"),
    "cut in the content": (GOOD[:-3], r"an entry claims 26 bytes, but only 23 are left"),
    "a length beyond the file": (b"\x0a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes, but only 0 are left"),
    "an endless number": (b"\x0a" + b"\xff" * 12, "a number does not end"),
    "a wrong wire type": (b"\x08\x01", "at byte 0: no checkpoint entry begins here"),
    "an unknown field": (
        b"\x0a\x05\x0a\x01m\x22\x00",
        "field 4 of wire type 2 does not belong into an entry",
    ),
    "no tensor": (b"\x0a\x03\x0a\x01m", "'m' has no tensor"),
    "no name": (b"\x0a\x02\x12\x00", "a tensor has no type"),
    "a name that is no text": (entry(b"\xff\xfe", b"", b"Float32", bytes(4)), "a name is not UTF-8"),
    "dims that disagree": (
        entry(b"w", b"\x08\x03", b"Float32", bytes(8)),
        r"dims \[3\] of Float32 take 12 bytes",
    ),
    "a name that comes again": (
        GOOD + entry(b"v", b"\x08\x02", b"Float32", bytes(8)) + GOOD,
        "'w' comes again, after other entries",
    ),
    "chunks of two dims": (
        GOOD + entry(b"w", b"\x08\x03", b"Float32", bytes(4)),
        "a further part of 'w' has other dims or another type",
    ),
    "a text cut": (
        entry(b"t", b"\x08\x00", b"str", bytes(5)),
        "a text of 5 bytes; it must be a multiple of 4",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_damage_is_named(what, tmp_path):
    """Each kind of damage to a .ckpt file has its own text, with the file and the place."""
    data, text = BAD[what]
    path = tmp_path / "bad.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=text) as found:
        open_slice(path)
    assert str(path) in str(found.value)


BAD_SAFETENSORS = {
    "empty": (b"", r"the file is empty \(0 bytes\)"),
    "a header beyond the file": ((1 << 40).to_bytes(8, "little") + b"{}", "a header of 1099511627776 bytes"),
    "no JSON": ((5).to_bytes(8, "little") + b"{nope", "the header is not JSON"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "the header is not a JSON object"),
    "no offsets": (
        b'{"w":{"dtype":"F32","shape":[1]}}',
        "w: its header entry lacks dtype, shape or data_offsets",
    ),
    "a half character": (
        rb'{"\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        "a text holds half a surrogate pair",
    ),
    "a name twice": (
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        "w: the header has it twice",
    ),
    "a tensor in a tensor": (
        b'{"w":{"dtype":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"shape":[1],"data_offsets":[0,4]}}',
        "dtype .* is not a text",
    ),
    "a negative size": (b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "are not lists of sizes"),
    "another length": (b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}', "do not fit that"),
    "a hole": (b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "tensors overlap or leave a hole"),
    "too much data": (
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "4 bytes follow the last tensor",
    ),
}


@pytest.mark.parametrize("what", BAD_SAFETENSORS)
def test_damage_of_safetensors_is_named(what, tmp_path):
    """Each kind of damage to a safetensors header has its own text."""
    data, text = BAD_SAFETENSORS[what]
    if data.startswith(b"{"):
        data = len(data).to_bytes(8, "little") + data + bytes(8)
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=text):
        open_slice(tmp_path / "bad.safetensors")


def test_a_wrong_checksum_is_called_that(tmp_path):
    """It is looked at when asked for; a file without one says so."""
    save_slice(tmp_path / "a.ckpt", {"w": np.ones(3)}, crc_check=True)
    open_slice(tmp_path / "a.ckpt", crc_check=True).close()
    data = bytearray((tmp_path / "a.ckpt").read_bytes())
    data[-20] ^= 1
    (tmp_path / "a.ckpt").write_bytes(data)
    open_slice(tmp_path / "a.ckpt").close()
    with pytest.raises(CheckpointError, match="its checksum is wrong"):
        open_slice(tmp_path / "a.ckpt", crc_check=True)
    save_slice(tmp_path / "b.ckpt", {"w": np.ones(3)})
    with pytest.raises(CheckpointError, match="carries no checksum; open it with crc_check=False"):
        open_slice(tmp_path / "b.ckpt", crc_check=True)


def test_missing_things_are_named(tmp_path):
    """A missing file, a missing entry, a text read as a tensor, a key for a plain file."""
    with pytest.raises(CheckpointFileError, match=r"gone\.ckpt: No such file"):
        open_slice(tmp_path / "gone.ckpt")
    save_slice(tmp_path / "a.ckpt", {"w": np.ones(3), "t": "text"})
    with pytest.raises(EncryptionError, match="is not encrypted; leave out dec_key"):
        open_slice(tmp_path / "a.ckpt", dec_key=KEY)
    with open_slice(tmp_path / "a.ckpt") as found:
        with pytest.raises(CheckpointError, match="has no entry 'v'; it has w, t"):
            found.read("v")
        with pytest.raises(CheckpointError, match="t is a text, not a tensor"):
            found.read("t")
        with pytest.raises(ValueError, match="does not lie inside"):
            found.read("w", Box((1,), (4,)))


def test_a_header_may_begin_like_a_pickle(tmp_path):
    """A safetensors header of 640 bytes has the length 80 02 ...: it is read as ever."""
    file, values = tmp_path / "a.safetensors", {"w": np.arange(4, dtype=np.float32)}
    save_slice(file, values, format="safetensors", metadata={"note": ""})
    padding = 640 - int.from_bytes(file.read_bytes()[:8], "little")
    save_slice(file, values, format="safetensors", metadata={"note": "x" * padding})
    assert file.read_bytes()[:2] == b"\x80\x02"
    with open_slice(file) as found:
        np.testing.assert_array_equal(found.read("w"), values["w"])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's call")
def test_a_file_has_its_room_at_once(tmp_path):
    """Before anything is written the disk has given all blocks of the file."""
    spec = TensorSpec("w", np.dtype("float32"), (1 << 18,))
    with pytest.raises(KeyError), SliceWriter(tmp_path / "a.ckpt", [spec]):
        (path,) = tmp_path.iterdir()
        assert path.stat().st_blocks * 512 >= 1 << 20
        raise KeyError


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_take_room_is_written_to(code, tmp_path, monkeypatch):
    """Then a file has its size, and holes until it is written."""

    def refuse(fd, mode, offset, nbytes):
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(allocation, "_fallocate", refuse)
    save_slice(tmp_path / "a.ckpt", {"w": np.arange(6)})
    with open_slice(tmp_path / "a.ckpt") as file:
        np.testing.assert_array_equal(file.read("w"), np.arange(6))


@pytest.mark.parametrize("resume", [False, True])
def test_a_full_disk_is_told_before_anything_is_written(resume, tmp_path, monkeypatch):
    """With the bytes that the file takes; nothing of them is kept."""
    answers = [errno.EINTR, errno.ENOSPC]

    def refuse(fd, mode, offset, nbytes):
        os.truncate(fd, nbytes // 2)  # what there was room for
        ctypes.set_errno(answers.pop(0))
        return -1

    monkeypatch.setattr(allocation, "_fallocate", refuse)
    spec = TensorSpec("w", np.dtype("float32"), (1 << 18,))
    with pytest.raises(CheckpointFileError, match=r"a.ckpt: No space left on device.* it takes 1 MiB"):
        SliceWriter(tmp_path / "a.ckpt", [spec], resume=resume)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


@pytest.mark.parametrize("enc_key", [None, b"k" * 16])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_temporary_file_that_is_there_is_not_written_to(tmp_path, enc_key, is_link):
    """Another user may have made it, and could change what is in it later; a link may lead to a file to keep."""
    path, temporary, kept = tmp_path / "w.ckpt", tmp_path / "w.ckpt.tmp", tmp_path / "kept"
    kept.write_bytes(b"as it was")
    (temporary.symlink_to if is_link else temporary.hardlink_to)(kept)
    save_slice(path, {"w": np.ones(3, np.float32)}, enc_key=enc_key, sync=False)
    assert kept.read_bytes() == b"as it was"
    assert not path.is_symlink()
    assert not path.samefile(kept)
    assert not temporary.exists()
    with open_slice(path, dec_key=enc_key) as found:
        np.testing.assert_array_equal(found.read("w", Box((0,), (3,))), [1, 1, 1])
