"""Nothing is a value: ranks, tensors and checkpoints without a byte go all the way, in both formats."""

import numpy as np
import pytest

from distinfer_lab.checkpoint import check_source, open_checkpoint, verify_folder
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.views.shown.checkpoints import checkpoint_html

TP2, TP4 = Mesh(tp=2), Mesh(tp=4)
VALUES = {"w": np.arange(24, dtype=np.float32).reshape(6, 4), "b": np.arange(3, dtype=np.float32)}
ROWS = Layout(TP2, "tp -")

CASES = {
    "a stage whose tensors are left out": (
        VALUES, Strategy({"w": ROWS, "b": Layout(TP2, "-", first_ranks=(2,))}), ["w"],
    ),
    "three elements on four ranks": (VALUES, Strategy({"b": Layout(TP4, "tp", split="torch_chunk")}), ["b"]),
    "a rank that the strategy gives nothing": (VALUES, Strategy({"w": ROWS, "b": Layout(TP2, "-")}, ranks=3), None),
    "a tensor without elements": ({"e": np.zeros((0, 4), np.float32)}, None, None),
    "an empty tensor, cut": ({"e": np.zeros((4, 0), np.float32)}, Strategy({"e": Layout(TP4, "tp -")}), None),
    "texts only": ({"note": "hello"}, None, None),
    "texts only, for two ranks": ({"note": "hello"}, Strategy({}, ranks=2), None),
    "nothing at all": ({}, None, None),
    "everything left out": (VALUES, None, ["!*"]),
}  # fmt: skip


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("what", CASES)
def test_nothing_goes_all_the_way(what, format, tmp_path):
    """Opened, planned, explained, written, shown, verified, opened again, joined: the values are what they were."""
    values, dst, select = CASES[what]
    options = {"sync": False}
    save_slice(tmp_path / f"a.{format}", values, format=format, sync=False)
    with open_checkpoint(tmp_path / f"a.{format}") as source:
        plan = source.plan(dst, select=select)
        assert repr(plan.explain())
        assert repr(source)
        assert checkpoint_html(source)
        chosen = set(plan.plan)
        plan.write(tmp_path / "cut", **options)
    assert verify_folder(tmp_path / "cut").ok
    with open_checkpoint(tmp_path / "cut") as cut:
        assert repr(cut)
        assert checkpoint_html(cut)
        check_source(cut)
        assert set(cut.tensors) == chosen
        cut.plan().write(tmp_path / "joined", **options)
    with open_checkpoint(tmp_path / "joined") as joined:
        for name in chosen:
            np.testing.assert_array_equal(joined.read(0, name), values[name])
            assert joined.tensors[name].dtype == values[name].dtype
        assert dict(joined.texts) == {n: v for n, v in values.items() if isinstance(v, str)}
