"""Headers of safetensors files that are spelled as writers do are read as columns: what is found is the same."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import open_slice
from distinfer_lab.formats.entry import TensorSpec
from distinfer_lab.formats.safetensors_file import _Index, header, index_safetensors


def _file(text: bytes, nbytes: int) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(nbytes)


def _found(data: bytes) -> object:
    """The entries and the texts of a file, or the error."""
    try:
        found = index_safetensors("a", lambda at, count: data[at : at + count], len(data))
    except CheckpointError as err:
        return str(err)
    return list(found.entries.items()), found.texts, found.cut


def _parsed(data: bytes) -> object:
    """The same by the parser of JSON alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Index, "indexed_common", lambda self, data: None)
        return _found(data)


def _is_common(data: bytes) -> bool:
    length = int.from_bytes(data[:8], "little")
    return _Index("a", 8 + length, len(data)).indexed_common(data[8 : 8 + length]) is not None


HEADER = (
    b'{"__metadata__":{"format":"pt","text:t":"\\u00e4"},'
    b'"a.b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    b'"\xc3\xa4 }":{"dtype":"BOOL","shape":[],"data_offsets":[24,25]},'
    b'"c":{"dtype":"ODD","shape":[0],"data_offsets":[25,25]}}'
)
WORDS = [
    b"}",
    b"},",
    b",",
    b"]",
    b"[",
    b"0",
    b"1",
    b'"',
    b"\\",
    b" ",
    b"\n",
    b"{",
    b":",
    b"\xff",
    b"\0",
    b"\xc2\xb2",
]
WORDS += [b'"a.b":', b'"__metadata__":', b'{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}', b"9" * 20]


@given(st.data())
def test_whatever_a_header_says_is_found_or_refused_as_by_the_parser(data):
    """With some bytes of it taken out, put in, or doubled; and in files that are cut or too long."""
    text = HEADER
    for _ in range(data.draw(st.integers(0, 3))):
        at, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        stop = min(stop, at + data.draw(st.sampled_from([0, 1, 2, 60])))
        text = text[:at] + data.draw(st.sampled_from([*WORDS, b"", text[at:stop] * 2])) + text[stop:]
    file = _file(text, data.draw(st.sampled_from([25, 25, 25, 3, 26])))
    assert _found(file) == _parsed(file)


def test_files_of_writers_are_read_as_columns():
    """Those of the safetensors library and of this one, with metadata and without; other spellings are parsed."""
    arrays = {f"l.{i}.w": np.full((2, i % 7), i, np.float32) for i in range(10_000)}
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in arrays.items()]
    ours, _ = header([*specs, TensorSpec("note", np.dtype("<U1"), (), "a text")])
    files = [
        save(arrays),
        save(arrays, {"format": "np"}),
        ours + bytes(sum(a.nbytes for a in arrays.values())),
    ]
    for data in files:
        assert _is_common(data)
        assert _found(data) == _parsed(data)
    spaced = _file(json.dumps(json.loads(HEADER)).encode(), 25)
    assert not _is_common(spaced)
    assert _found(spaced)[1] == _found(_file(HEADER, 25))[1] == {"t": "\u00e4"}


def test_a_header_that_is_wrong_is_not_common():
    """Of an entry twice, of something between two entries, of one of the wrong size, or of no object at all."""
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for text in [
        b"{" + entry + b"," + entry + b"}",
        b"{" + entry + b",," + entry.replace(b'"a"', b'"b"') + b"}",
        b"{x" + entry + b"}",
        b"{" + entry + b"}" + entry.replace(b'"a"', b'"b"') + b"}",
        b"{" + entry + b"," + 100 * b"x" + entry.replace(b'"a"', b'"b"') + b"}",
        b"[" + entry + b"}",
        b"{" + entry + b"}}",
        b"{" + entry + b",}",
        b"{" + entry.replace(b"[1]", b"[01]") + b"}",
        b"{" + entry.replace(b"[1]", b"[2]") + b"}",
        b"{" + entry.replace(b'"a"', b'"__metadata__"') + b"}",
        b'{"__metadata__":{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},' + entry + b"}",
    ]:
        assert not _is_common(_file(text, 1)), text
        assert _found(_file(text, 1)) == _parsed(_file(text, 1))
    assert _is_common(_file(b"{" + entry + b"} \n", 1))


def file_of(tmp_path, header, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + content)
    return path


@pytest.mark.parametrize(("first", "shape"), [("[2]", "[2.0]"), ("[2]", "[2e0]"), ("[1, 2]", "[true, 2]")])
def test_a_size_that_only_equals_an_integer_is_refused(first, shape, tmp_path):
    """Also after an entry of the same dtype and shape."""
    a, b = (
        f'"{name}":{{"dtype":"F32","shape":{sizes},"data_offsets":[{begin},{begin + 8}]}}'
        for name, sizes, begin in (("a", first, 0), ("b", shape, 8))
    )
    with pytest.raises(CheckpointError, match="b: shape .* are not lists of sizes"):
        open_slice(file_of(tmp_path, f"{{{a},{b}}}", bytes(16)))


def test_metadata_twice_is_refused(tmp_path):
    """As by the safetensors library: one of them would be lost."""
    header = '{"__metadata__":{"text:a":"1"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{}}'
    with pytest.raises(CheckpointError, match="__metadata__"):
        open_slice(file_of(tmp_path, header, b"x"))


def test_metadata_of_lists_takes_little(tmp_path):
    """It is refused by the parser that has limits, within 60 MiB for a header of 15 MB."""
    header = (
        '{"__metadata__":{"x":['
        + "[]," * 5_000_000
        + '[]]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    )
    path = file_of(tmp_path, header, b"x")
    del header
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        open_slice(path)
    assert tracemalloc.get_traced_memory()[1] < 60 << 20
    tracemalloc.stop()
