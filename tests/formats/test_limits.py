"""What is written can be read, or is refused before a byte of it is written."""

import fnmatch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import ArgumentTypeError, CheckpointError, DistinferError
from distinfer_lab.formats import SliceWriter, TensorSpec, open_slice, save_slice
from distinfer_lab.formats.entry import Piece
from distinfer_lab.formats.entry_table import EntryTable
from distinfer_lab.formats.file_format import FileLayout
from distinfer_lab.formats.safetensors_file import Safetensors
from distinfer_lab.text import pattern_of

from ..strategies import examples

NAMES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["__metadata__", "text:w", "w", "w.", "a/b", "../x", "\x00", "\ud800", "é" * 40, "\u202ew", "[0]*"]
    ),
    st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=4),
)
DTYPES = [
    np.float32,
    np.float16,
    np.int8,
    np.bool_,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e8m0fnu,
    np.complex64,
    ">f4",
]
SHAPES = st.lists(st.integers(0, 3), max_size=3) | st.sampled_from([[1] * 30, [1] * 31])


@st.composite
def values(draw):
    """A text, or an array."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.text(max_size=9))
    return np.zeros(draw(SHAPES), draw(st.sampled_from(DTYPES)))


@settings(max_examples=examples(150), deadline=None)
@given(st.dictionaries(NAMES, values(), max_size=4), st.sampled_from(["ckpt", "safetensors"]))
def test_what_is_written_is_read_back(tmp_path_factory, entries, format):
    """Any names, texts, dtypes and shapes: the same entries come back, or an error of ours and no file."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / f"a.{format}"
    try:
        save_slice(path, entries, sync=False)
    except DistinferError:
        assert not list(folder.iterdir())
        return
    with open_slice(path) as found:
        assert set(found.entries) == set(entries)
        for name, value in entries.items():
            if isinstance(value, str):
                assert found.text(name) == value
            else:
                np.testing.assert_array_equal(found.read(name), value)
    with open_checkpoint(path) as source:
        source.plan().write(folder / "out", sync=False)


REFUSED = {
    "__metadata__": (
        "safetensors",
        np.zeros(1),
        "'__metadata__': safetensors reserves this name; rename it, or",
    ),
    "\ud800": ("ckpt", np.zeros(1), "half a surrogate pair"),
    "w\ud800": ("safetensors", np.zeros(1), "half a surrogate pair"),
    "text": ("ckpt", "\udc00", "half a surrogate pair"),
    "n" * 70_000: ("ckpt", np.zeros(1), "takes 70000 bytes, and a .ckpt file holds at most 65536"),
    "deep": ("ckpt", np.zeros((1,) * 31), "has 31 dims; at most 30 are supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_cannot_hold_is_refused(name, tmp_path):
    """By name and with the reason; nothing is left."""
    format, value, words = REFUSED[name]
    with pytest.raises(CheckpointError, match=words):
        save_slice(tmp_path / f"a.{format}", {name: value})
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_it_too_and_the_way_out_works(tmp_path):
    """A name that .ckpt has and safetensors reserves: `check` refuses; renamed or left out, it is written."""
    save_slice(tmp_path / "a.ckpt", {"__metadata__": np.ones(3), "w": np.ones(2)})
    with open_checkpoint(tmp_path / "a.ckpt") as source:
        plan = source.plan()
        for work in (plan.check, plan.write):
            with pytest.raises(CheckpointError, match=r"reserves this name.*select=\['!__metadata__'\]"):
                work(tmp_path / "out", format="safetensors")
        source.plan(rename={"__metadata__": "m"}).write(tmp_path / "out", format="safetensors")
        source.plan(select=["!__metadata__"]).write(tmp_path / "out2", format="safetensors")
    with open_checkpoint(tmp_path / "out") as out:
        np.testing.assert_array_equal(out.read(0, "m"), np.ones(3))


@pytest.mark.parametrize(
    ("name", "format"), [("a.safetensors", "ckpt"), ("a.ckpt", "safetensors"), ("a", "safetensors")]
)
def test_the_name_and_the_format_agree(name, format, tmp_path):
    """The suffix decides; a format that says otherwise is refused, with the two ways out."""
    with pytest.raises(CheckpointError, match=f"{name}: a file of this name is read as .*ends in .{format}"):
        save_slice(tmp_path / name, {"w": np.ones(2)}, format=format)
    save_slice(tmp_path / name, {"w": np.ones(2)})
    with open_slice(tmp_path / name) as file:
        np.testing.assert_array_equal(file.read("w"), np.ones(2))


def test_a_name_that_is_no_text_is_refused(tmp_path):
    """Also an empty one."""
    with pytest.raises(ArgumentTypeError, match="a key of values=5 should be a string"):
        save_slice(tmp_path / "a.ckpt", {5: np.ones(2)})
    with pytest.raises(ArgumentTypeError, match="every entry needs a name that is a text"):
        save_slice(tmp_path / "a.ckpt", {"": np.ones(2)})


@pytest.mark.parametrize("changed", ["name", "shape", "dtype", "offset", "size", "further"])
@pytest.mark.parametrize("as_columns", [True, False])
def test_an_index_that_differs_is_found(tmp_path, monkeypatch, as_columns, changed):
    """Where the writer put an entry elsewhere than its header says, nothing is written."""
    real = Safetensors.lay_out

    def wrong(self, *args):
        frame, found, size = real(self, *args)
        entries = dict(found)
        last = entries.pop("w")
        first = last.pieces[0]
        last = {
            "name": last._replace(name="v"),
            "shape": last._replace(shape=(2, 1)),
            "dtype": last._replace(dtype=np.dtype("i4")),
            "offset": last._replace(pieces=(Piece(first.offset - 1, 8),)),
            "size": last._replace(pieces=(Piece(first.offset, 7),)),
            "further": last._replace(pieces=(first, Piece(0, 0))),
        }[changed]
        entries[last.name] = last
        return FileLayout(frame, columns(entries) if as_columns else entries, size)

    monkeypatch.setattr(Safetensors, "lay_out", wrong)
    specs = [TensorSpec(name, np.dtype("f4"), (2,)) for name in ("a", "w")]
    with pytest.raises(CheckpointError, match="'w' would not be read back as it is written"):
        SliceWriter(tmp_path / "a.safetensors", specs)
    assert not list(tmp_path.iterdir())


def columns(entries):
    table = EntryTable()
    for name, entry in entries.items():
        first, *more = entry.pieces
        table.add(name, table.number_of(entry.kind), *first)
        for piece in more:
            table.extend(name, piece)
    return table


@given(st.text(max_size=20))
def test_a_pattern_fits_its_name(name):
    """Whatever is in it."""
    assert fnmatch.fnmatchcase(name, pattern_of(name))
