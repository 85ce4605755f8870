"""Every dtype of safetensors goes through as the bits that it is; what is not supported can be left out."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.dtypes import dtype_name
from distinfer_lab.errors import CheckpointError, ReshardError
from distinfer_lab.formats import open_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

from ..strategies import examples

BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""All of safetensors 0.8."""


def raw_file(path, tensors):
    """A safetensors file, by hand: name -> (dtype, shape, bytes)."""
    at, head = 0, {}
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t[2] for t in tensors.values()))


def raw_tensor(path, name):
    """Dtype, shape and bytes of one tensor of a safetensors file, by hand."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    item = json.loads(data[8 : 8 + length])[name]
    begin, end = item["data_offsets"]
    return item["dtype"], tuple(item["shape"]), data[8 + length + begin : 8 + length + end]


def bits_of(data, shape, bits):
    """The bits of each element: bool, shape (*shape, bits). Little-endian, as elements follow each other."""
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(*shape, bits)


@st.composite
def stored(draw):
    """A dtype, and a shape of which the content is whole bytes."""
    dtype = draw(st.sampled_from(list(BITS)))
    shape = draw(
        st.lists(st.integers(0, 8), max_size=3).filter(lambda s: math.prod(s) * BITS[dtype] % 8 == 0)
    )
    return dtype, tuple(shape)


@settings(max_examples=examples(25, 500), deadline=None)
@given(stored(), st.sampled_from([1, 2, 4]), st.integers(0, 2), st.randoms(use_true_random=False))
def test_bits_that_are_cut_and_joined_are_the_same(tmp_path_factory, drawn, parts, dim, random):
    """Where a cut falls between units, ranks have the bits that numpy cuts out; joined again they are the file's."""
    (dtype, shape), folder = drawn, tmp_path_factory.mktemp("bits")
    content = random.randbytes(math.prod(shape) * BITS[dtype] // 8)
    raw_file(folder / "src/model.safetensors", {"w": (dtype, shape, content)})
    mesh = Mesh(tp=parts)
    with open_checkpoint(folder / "src") as source:
        units = source.tensors["w"].shape
        if dim >= len(units) or units[dim] % parts:
            dim = -1
        dst = Strategy({"w": Layout(mesh, tuple(("tp",) if d == dim else () for d in range(len(units))))})
        source.plan(dst).write(folder / "cut", sync=False)
    whole = bits_of(content, shape, BITS[dtype])
    pieces = np.split(whole, parts, dim) if dim >= 0 else [whole] * parts
    for rank, piece in enumerate(pieces):
        found = raw_tensor(folder / f"cut/rank_{rank}/checkpoint_{rank}.safetensors", "w")
        assert found[:2] == (dtype, piece.shape[:-1])
        np.testing.assert_array_equal(bits_of(found[2], *found[1:2], BITS[dtype]), piece)
    assert not verify_folder(folder / "cut").differences
    with open_checkpoint(folder / "cut") as joined:
        joined.plan().write(folder / "out", format="huggingface", sync=False)
    assert raw_tensor(folder / "out/model.safetensors", "w") == (dtype, shape, content)


@pytest.mark.parametrize("dtype", BITS)
def test_the_library_opens_what_is_written(dtype, tmp_path):
    """Each dtype is one of the installed library, and a header of ours is right for it."""
    raw_file(tmp_path / "a/model.safetensors", {"w": (dtype, (2, 8), bytes(2 * BITS[dtype]))})
    with open_checkpoint(tmp_path / "a") as source:
        source.plan().write(tmp_path / "b", sync=False)
    with safe_open(tmp_path / "b/rank_0/checkpoint_0.safetensors", "numpy") as found:
        assert found.get_slice("w").get_dtype() == dtype
        assert found.get_slice("w").get_shape() == [2, 8]


def test_units_are_not_cut(tmp_path):
    """Elements that share a byte stay together: the refusal names the dim."""
    raw_file(
        tmp_path / "model.safetensors", {"w": ("F4", (4, 3), bytes(6)), "v": ("F6_E2M3", (2, 8), bytes(12))}
    )
    with open_checkpoint(tmp_path) as source:
        assert [dtype_name(r.dtype) for r in source.tensors.values()] == ["F4[2,3]", "F6_E2M3[4]"]
        columns = Layout(Mesh(tp=4), "- tp")
        for name in ("w", "v"):
            with pytest.raises(ValueError, match=f"{name}: dim 1 "):
                source.plan(Strategy({name: columns}), select=[name])
        with pytest.raises(
            CheckpointError, match=r"v: a .ckpt file cannot hold dtype F6_E2M3\[4\].*safetensors"
        ):
            source.plan(select=["v"]).write(tmp_path / "out", format="ckpt")


def test_what_cannot_be_read_is_listed_and_left_out(tmp_path):
    """A dtype of a later safetensors, and kinds of entries that MindSpore has: named, and the rest is written."""
    raw_file(tmp_path / "st/model.safetensors", {"w": ("F32", (2,), bytes(8)), "q": ("F2", (2,), b"1")})
    tensor = b"\x12\x04Int4\x1a\x01\x00"
    mapped, int4 = b"\x0a\x01m\x1a\x00", b"\x0a\x01q\x12" + bytes([len(tensor)]) + tensor
    good = b"\x0a\x01w\x12\x0c\x08\x01\x12\x05UInt8\x1a\x01\x07"
    data = b"".join(b"\x0a" + bytes([len(value)]) + value for value in (mapped, good, int4))
    (tmp_path / "ms").mkdir()
    (tmp_path / "ms/a.ckpt").write_bytes(data)
    for path, reasons in (
        (tmp_path / "st", {"q": "its dtype 'F2' is not supported"}),
        (tmp_path / "ms/a.ckpt", {"m": "its type 'map tensor' is", "q": "its type 'Int4' is not supported"}),
    ):
        with open_checkpoint(path) as source:
            assert list(source.tensors) == ["w"]
            for name, reason in reasons.items():
                assert reason in source.unreadable[name]
                assert f"{name}  cannot be read" in repr(source)
            select = [f"!{name}" for name in reasons]
            with pytest.raises(ReshardError, match="cannot be read.*" + re.escape(f"select={select}")):
                source.plan()
            source.plan(select=select).write(tmp_path / f"out{path.name}", sync=False)
    with (
        open_slice(tmp_path / "ms/a.ckpt") as file,
        pytest.raises(CheckpointError, match="q: its type 'Int4'"),
    ):
        file.read("q")
