"""A safetensors file that is cut in its data: what is whole can be read, and what is not is named."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError, ReshardError
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

VALUES = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5, dtype=np.float32),
    "c": np.arange(7, dtype=np.int8),
    "none": np.zeros((0, 2), np.float32),
}
BYTES = sum(value.nbytes for value in VALUES.values())


def cut(path, values, missing):
    save_slice(path, values, format="safetensors", sync=False)
    path.write_bytes(path.read_bytes()[: -missing or None])
    return path


@given(st.integers(1, BYTES))
def test_what_is_whole_is_read_and_what_is_not_is_refused(tmp_path_factory, missing):
    """Wherever it is cut: each tensor is bit for bit what was saved, or an error tells how many bytes are missing."""
    path = cut(tmp_path_factory.mktemp("cut") / "a.safetensors", VALUES, missing)
    left = BYTES - missing
    said = rf"its last {missing} bytes are missing \(it has \d+ of \d+\); copy or download it again"
    with open_slice(path) as file:
        assert set(file.entries) == set(VALUES)
        end = 0
        for name in ("a", "b", "none", "c"):  # the order of the data: large items first
            end += VALUES[name].nbytes
            if end <= left or not VALUES[name].size:
                np.testing.assert_array_equal(file.read(name), VALUES[name])
            else:
                with pytest.raises(
                    CheckpointError, match=rf"a\.safetensors: {name}: the file is cut: {said}"
                ):
                    file.read(name)


def test_inspect_lists_it_and_select_takes_what_is_whole(tmp_path):
    """The rest is refused with the file, the bytes that are missing, and how to leave it out."""
    path = cut(tmp_path / "model.safetensors", VALUES, 9)
    found = CliRunner().invoke(main, ["inspect", str(path)])
    assert found.exit_code == 0
    assert "a  [2, 3] float32" in found.output
    for name in ("b", "c"):
        assert (
            f"{name}  cannot be read: {path}: the file is cut: its last 9 bytes are missing" in found.output
        )
    command = ["reshard", str(tmp_path), str(tmp_path / "out")]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "b cannot be read, and 1 more entries like it" in refused.output
    assert "leave out what cannot be read by --select '!b' --select '!c'" in refused.output
    taken = CliRunner().invoke(main, [*command, "--select", "!b", "--select", "!c"])
    assert taken.exit_code == 0, taken.output
    with open_checkpoint(tmp_path / "out") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read(0, "a"), VALUES["a"])
        assert set(checkpoint.tensors) == {"a", "none"}


def test_the_file_that_is_cut_is_named(tmp_path):
    """Of several that are one checkpoint."""
    save_slice(tmp_path / "m-1-of-2.safetensors", {"a": VALUES["a"]}, format="safetensors")
    cut(tmp_path / "m-2-of-2.safetensors", {"b": VALUES["b"]}, 2)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.unreadable["b"].startswith(
            f"{tmp_path}/m-2-of-2.safetensors: the file is cut: its last 2 b"
        )
        assert set(checkpoint.tensors) == {"a"}


def test_a_cut_slice_is_rebuilt_from_replicas(tmp_path):
    """As any damaged one: with rebuild its rank is lost, without it the tensor is listed."""
    twice = Strategy({"a": Layout(Mesh(dp=2), "- -")}, {"a": (2, 3)})
    save_slice(tmp_path / "rank_0/a.safetensors", {"a": VALUES["a"]}, format="safetensors")
    cut(tmp_path / "rank_1/a.safetensors", {"a": VALUES["a"]}, 1)
    with open_checkpoint(tmp_path, twice) as checkpoint:
        assert "rank_1/a.safetensors: the file is cut" in checkpoint.unreadable["a"]
        with pytest.raises(ReshardError, match="a cannot be read: .*its last 1 bytes are missing"):
            checkpoint.plan()
    with open_checkpoint(tmp_path, twice, rebuild=True) as checkpoint:
        assert "the file is cut" in checkpoint.lost[1].reason
        checkpoint.plan().write(tmp_path / "out")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read(0, "a"), VALUES["a"])
