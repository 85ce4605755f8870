"""Files of an output that were exchanged: shapes and headers are equal, and a few small slices tell it."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import check_places, open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

FEW = settings(max_examples=settings().max_examples // 4)
GRID = Mesh(dp=2, tp=2)
KEY = b"0123456789abcdef"
TENSORS = {
    "norm": ((8,), ((),)),  # whole everywhere
    "w": ((8, 64), ((), ("tp",))),
    "bias": ((8,), (("tp",),)),
    "expert": ((8, 4), (("dp",), ())),
}
STRATEGY = Strategy(
    {name: Layout(GRID, dims) for name, (_, dims) in TENSORS.items()},
    {name: shape for name, (shape, _) in TENSORS.items()},
)


def output(folder, names, format="ckpt", **options):
    """An output of these tensors on 2 x 2 ranks."""
    values = {n: np.arange(np.prod(TENSORS[n][0]), dtype=np.float32).reshape(TENSORS[n][0]) for n in names}
    save_slice(folder / "whole.ckpt", values, sync=False)
    strategy = Strategy({n: STRATEGY[n] for n in names}, {n: TENSORS[n][0] for n in names}, 4)
    with open_checkpoint(folder / "whole.ckpt") as checkpoint:
        return checkpoint.plan(strategy).write(folder / "out", format=format, **options).paths


def exchange(paths, one, other):
    shutil.move(paths[one], paths[one] + ".kept")
    shutil.move(paths[other], paths[one])
    shutil.move(paths[one] + ".kept", paths[other])


@FEW
@given(
    st.sets(st.sampled_from(sorted(TENSORS)), min_size=1),
    st.permutations(range(4)),
    st.sampled_from(["ckpt", "safetensors"]),
)
def test_an_exchange_is_found_exactly_where_it_matters(tmp_path_factory, names, order, format):
    """Any two ranks: it is found if, and only if, they hold other slices of anything."""
    folder = tmp_path_factory.mktemp("places")
    paths = output(folder, sorted(names), format)
    one, other, *_ = order
    exchange(paths, one, other)
    differ = any(
        STRATEGY[name].boxes(TENSORS[name][0])[one].tolist()
        != STRATEGY[name].boxes(TENSORS[name][0])[other].tolist()
        for name in names
    )
    with open_checkpoint(folder / "out") as checkpoint:
        if not differ:
            check_places(checkpoint)
            return
        first = min(one, other)
        with pytest.raises(
            CheckpointError, match=rf"_{first}\S*: its \w+ is that of rank .* the file was exchanged"
        ):
            check_places(checkpoint)
        with pytest.raises(CheckpointError, match="the file was exchanged"):
            checkpoint.plan().write(folder / "again")
    assert not (folder / "again").exists()


def test_the_commands_say_it(tmp_path):
    """Plan and reshard refuse it, inspect warns, verify lists it; put back, all is well."""
    paths = output(tmp_path, ["w", "bias"])
    folder, to = str(tmp_path / "out"), str(tmp_path / "to")
    exchange(paths, 0, 1)
    said = (
        f"{paths[0]}: its bias is that of rank 1 or 3, as the digests in distinfer.json say, so the file was"
    )
    runner = CliRunner()
    for command in (["plan", folder], ["reshard", folder, to], ["reshard", folder, to, "--dry-run"]):
        found = runner.invoke(main, command)
        assert (found.exit_code, said in found.output) == (1, True), found.output
    found = runner.invoke(main, ["inspect", folder])
    assert (found.exit_code, f"Warning: {said}" in found.output) == (0, True)
    found = runner.invoke(main, ["verify", folder])
    assert (found.exit_code, "bias: its bytes differ" in found.output) == (1, True)
    exchange(paths, 0, 1)
    assert runner.invoke(main, ["reshard", folder, to]).exit_code == 0


def test_little_is_read(tmp_path):
    """The small tensor, and of files that are encrypted what is in them; a damaged slice is called that."""
    paths = output(tmp_path, ["w", "bias"], enc_key=KEY)
    with open_checkpoint(tmp_path / "out", dec_key=KEY) as checkpoint:
        check_places(checkpoint)
        assert [file.nbytes_read for file in checkpoint.files] == [16] * 4
    exchange(paths, 2, 3)
    with (
        open_checkpoint(tmp_path / "out", dec_key=KEY) as checkpoint,
        pytest.raises(CheckpointError, match="rank_2.*its bias is that of rank 1 or 3, as"),
    ):
        check_places(checkpoint)
    save_slice(paths[2], {"w": np.zeros((8, 32), np.float32), "bias": np.full(4, 7, np.float32)}, enc_key=KEY)
    with (
        open_checkpoint(tmp_path / "out", dec_key=KEY) as checkpoint,
        pytest.raises(CheckpointError, match=r"rank_2.*bias differs from what was written.*without=\[2\]"),
    ):
        check_places(checkpoint)
    with open_checkpoint(tmp_path / "out", dec_key=KEY, without=[2, 3]) as checkpoint:
        check_places(checkpoint)
