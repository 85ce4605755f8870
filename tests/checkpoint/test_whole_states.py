"""States of parameters that training did not cut follow their parameter; texts stay in a whole checkpoint."""

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

VALUES = np.arange(32, dtype=np.float32).reshape(8, 4)


@pytest.fixture(params=["one rank", "two copies"])
def source(request, tmp_path):
    """A parameter that is whole on each rank, its state, and a text; and the strategy."""
    ranks = 1 if request.param == "one rank" else 2
    for rank in range(ranks):
        entries = {"w": VALUES, "moments.w": -VALUES, "note": "hello"}
        save_slice(tmp_path / f"src/rank_{rank}/a.safetensors", entries, sync=False)
    return tmp_path / "src", Strategy({"w": Layout(Mesh(dp=ranks), "- -")}, {"w": (8, 4)})


@pytest.mark.parametrize("stated", [True, False], ids=["with a strategy", "without"])
@pytest.mark.parametrize("states", ["follow", "replicate"])
def test_a_state_follows_its_parameter_or_is_on_every_rank(source, stated, states, tmp_path):
    """As `states` says, whether or not a strategy says what the parameter's layout was."""
    folder, strategy = source
    target = Strategy({"w": Layout(Mesh(tp=4), "tp -")}, {"w": (8, 4)})
    with open_checkpoint(folder, strategy if stated else None) as checkpoint:
        result = checkpoint.plan(target, states=states).write(tmp_path / "out")
    for rank, path in enumerate(result.paths):
        part = slice(2 * rank, 2 * rank + 2)
        with open_slice(path) as file:
            np.testing.assert_array_equal(file.read("w"), VALUES[part])
            np.testing.assert_array_equal(
                file.read("moments.w"), -VALUES[part] if states == "follow" else -VALUES
            )


@pytest.mark.parametrize("most", [None, 128], ids=["one file", "several files"])
def test_a_text_stays_in_a_whole_checkpoint(source, most, tmp_path):
    """Once, in its first file; opened again it is there."""
    with open_checkpoint(*source) as checkpoint:
        result = checkpoint.plan(None).write(tmp_path / "out", format="huggingface", max_shard_size=most)
    assert result.verify()
    with open_checkpoint(tmp_path / "out") as again:
        assert again.texts == {"note": "hello"}
        assert sorted(again.tensors) == ["moments.w", "w"]
