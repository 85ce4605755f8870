"""What every format in `FILE_FORMATS` must do; a new one is tested by its line there."""

import numpy as np
import pytest

from distinfer_lab.dtypes import SAFETENSORS_TYPES
from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import FILE_FORMATS, open_slice, save_slice

SHAPES = ((3, 4), (5,), (), (2, 0))
FORMATS = pytest.mark.parametrize("name", [one.name for one in FILE_FORMATS])


def tensors(dtype):
    """One tensor of each shape, with bytes that tell the elements apart."""
    arrays = {}
    for number, shape in enumerate(SHAPES):
        nbytes = int(np.prod(shape)) * dtype.itemsize
        fill = np.arange(number, number + nbytes, dtype=np.uint8) & (1 if dtype.kind == "b" else 255)
        arrays[f"t{number}"] = np.frombuffer(fill.tobytes(), dtype).reshape(shape)
    return arrays


def refusal(act):
    """The text of the package's own error; "" if there is none."""
    try:
        act()
    except CheckpointError as err:
        return str(err)
    return ""


def check_readable(path, arrays):
    """Every tensor that a file lists as readable is one of `arrays`, bit by bit."""
    with open_slice(path) as file:
        for key, entry in file.entries.items():
            if not entry.problem:
                found = file.read(key)
                assert (found.dtype, found.shape) == (arrays[key].dtype, arrays[key].shape)
                assert found.tobytes() == arrays[key].tobytes()


@FORMATS
@pytest.mark.parametrize("dtype", SAFETENSORS_TYPES.values(), ids=str)
def test_a_dtype_is_read_back_or_refused(name, dtype, tmp_path):
    """Each dtype comes back with its shape and its bytes, or the format's `problem` or `lay_out` refuses it."""
    path, arrays = tmp_path / f"a.{name}", tensors(dtype)
    refused = refusal(lambda: save_slice(path, arrays))
    assert not refused or dtype != np.float32
    if refused:
        assert "t0" in refused
        assert "fault of distinfer_lab" not in refused
        return
    check_readable(path, arrays)
    with open_slice(path) as file:
        assert file.format == name
        assert set(file.entries) == set(arrays)


@FORMATS
@pytest.mark.parametrize("count", [1, 60], ids=["short header", "long header"])
def test_a_file_is_recognised_by_its_first_bytes(name, count, tmp_path):
    """Under another suffix its format is named; a damaged one has the error of its own format."""
    (one,) = (one for one in FILE_FORMATS if one.name == name)
    path = tmp_path / f"a.{name}"
    arrays = {f"layers.{i}.weight": np.ones(4, np.float32) for i in range(count)}
    save_slice(path, arrays)
    renamed = tmp_path / f"a.{'safetensors' if name == 'ckpt' else 'ckpt'}"
    renamed.write_bytes(path.read_bytes())
    assert f"it is a {one.title} file by its content" in refusal(lambda: open_slice(renamed).close())
    path.write_bytes(path.read_bytes()[:-1])
    refused = refusal(lambda: check_readable(path, arrays))
    assert "text file" not in refused
    assert "by its content" not in refused


@FORMATS
def test_a_truncated_file_is_refused_or_read_in_part(name, tmp_path):
    """Ended at any byte, a file is an error that names it, or what it lists as readable is as it was written."""
    path, arrays = tmp_path / f"a.{name}", tensors(np.dtype("<f4"))
    save_slice(path, arrays)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        refused = refusal(lambda: check_readable(path, arrays))
        assert not refused or path.name in refused
        assert "became shorter" not in refused


def list_entries(path, size):
    """Open a file, and hold every readable entry to its bounds."""
    with open_slice(path) as file:
        pieces = [piece for entry in file.entries.values() if not entry.problem for piece in entry.pieces]
    assert all(0 <= offset <= offset + nbytes <= size for offset, nbytes in pieces)


@FORMATS
def test_a_damaged_file_is_an_error_of_the_package(name, tmp_path):
    """With any byte changed, what is listed as readable lies within the file, or an error names the file."""
    path = tmp_path / f"a.{name}"
    save_slice(path, {"w": np.zeros(4, np.float32), "b": np.zeros((2, 3), np.int64)})
    content = path.read_bytes()
    for at in range(min(len(content), 400)):
        for value in (0, 0x31, 0x7F, 0xFF):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            refused = refusal(lambda: list_entries(path, len(content)))
            assert not refused or path.name in refused
