"""What lies beside a checkpoint's files and is not opened is reported: strategy files, and slices without a name."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from distinfer_lab.checkpoint import open_checkpoint, strategy_files
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy

ROWS = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, {"w": (4, 3)})
WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    """run/ckpt with two ranks' halves of w."""
    for rank in range(2):
        save_slice(
            tmp_path / f"run/ckpt/rank_{rank}/a.ckpt", {"w": WHOLE[2 * rank : 2 * rank + 2]}, sync=False
        )
    return tmp_path / "run/ckpt"


@pytest.mark.parametrize(
    "place",
    ["train_strategy.ckpt", "strategy.json", "strategy/ckpt_strategy_rank_0.ckpt", "../strategy/s.ckpt"],
)
def test_a_strategy_that_is_not_given_is_named(folder, place):
    """In the folder, and where MindFormers puts it; the way out is the command's own option."""
    (folder / place).parent.mkdir(exist_ok=True)
    named = folder / place if "s.ckpt" not in place else folder / "../strategy/strategy.ckpt"
    write_strategy(named, ROWS)
    found = CliRunner().invoke(main, ["inspect", str(folder)])
    path = folder.parent / "strategy" / named.name if ".." in place else named
    said = f"a strategy file lies there (for 2 ranks): if the files are slices, give it as --strategy {path}"
    assert found.exit_code == 0
    assert said in found.output
    with open_checkpoint(folder, named) as checkpoint:
        assert checkpoint.notes == ()


def test_slices_that_cannot_be_wholes_name_it_too(folder):
    """The error that asks for a strategy says where one lies."""
    save_slice(folder / "rank_1/a.ckpt", {"w": WHOLE[:3]})
    write_strategy(folder / "strategy.ckpt", ROWS)
    said = r"w has shape .* give the strategy that .*; a strategy file lies there .* strategy='\S*/strategy\.ckpt'"
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder)


def test_what_is_only_called_a_strategy_is_not_named(folder):
    """Slices, a configuration and a text of that name are none."""
    save_slice(folder / "strategy_rank.ckpt", {"w": WHOLE})
    (folder / "strategy.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "layout.json").write_text("no JSON")
    (folder / "strategy.ckpt").write_bytes(b"")
    assert strategy_files(folder) == []
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.notes == ()


def test_slices_that_the_manifest_does_not_name(folder, tmp_path):
    """Files and folders of ranks that came later are reported on opening; notes and logs are not."""
    with open_checkpoint(folder, ROWS) as checkpoint:
        checkpoint.plan(ROWS).write(tmp_path / "out")
    (tmp_path / "out/README.md").write_text("mine")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.notes == ()
    save_slice(tmp_path / "out/rank_2/a.ckpt", {"w": WHOLE})
    save_slice(tmp_path / "out/rank_1/b.ckpt", {"w": WHOLE})
    with open_checkpoint(tmp_path / "out") as checkpoint:
        (note,) = checkpoint.notes
        assert checkpoint.ranks == 2
    assert "not opened, since its manifest does not name it: rank_1/b.ckpt, rank_2/; move" in note
