"""The doors: the command line, the names of the package, and what is shown of its records."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import distinfer_lab as dl
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointFileError
from distinfer_lab.flow.sample import strategy_for
from distinfer_lab.formats import SliceFile, open_slice

from .oracle import case
from .resharding import plan_and_write

ROOT = Path(__file__).parents[1]


def distinfer(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("arguments", [[], ["--predict-cards", "2"], ["--processes", "--predict-cards", "3"]])
def test_the_demo_proves_its_prediction(arguments):
    """As a command of its own: four steps, moved against bound, the proof, status 0, nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "distinfer_lab", "demo", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    for words in (
        "[1/4] train on 8 cards",
        "[2/4] infer",
        "[3/4] load",
        "[4/4] predict",
        "weights on the cards equal",
    ):
        assert words in done.stdout
    assert "moved 6144 bytes, the bound is 6144" in done.stdout or "moved 18432" in done.stdout
    assert done.stdout.rstrip().endswith("equal to one card")
    assert "NOT" not in done.stdout


def test_the_demo_fails_if_the_prediction_differs(monkeypatch):
    """A prediction that is off by a little too much is reported, and the status is 1."""
    honest = dl.Model.predict
    monkeypatch.setattr(
        dl.Model, "predict", lambda self, *data: dl.Tensor(honest(self, *data).asnumpy() + 1e-2)
    )
    done = distinfer("demo")
    assert done.exit_code == 1
    assert "NOT equal to one card" in done.output


@pytest.mark.parametrize("cards", range(1, 17))
def test_the_demo_cuts_for_any_number_of_cards(cards):
    """The parts divide the cards and the tensor."""
    (rows, one), (other, columns) = strategy_for(cards)
    assert (one, other) == (1, 1)
    assert cards % (rows * columns) == 0
    assert 16 % columns == 0
    assert 128 % rows == 0


def test_the_demo_trains_on_other_counts_too():
    """2 cards to 8; and a count that cannot share the rows says which can."""
    done = distinfer("demo", "--cards", "2", "--predict-cards", "8")
    assert done.exit_code == 0
    assert "[1/4] train on 2 cards" in done.output
    done = distinfer("demo", "--cards", "3")
    assert done.exit_code == 1
    assert "3 cards cannot share the sample's 128 rows evenly; use 1" in done.output


def test_inspect_tells_what_a_path_holds():
    """A folder with its strategy, a slice file, a strategy file; and a missing key in one line."""
    found = case("pipeline_2x4_to_1")
    done = distinfer("inspect", found.folder / "src", "--strategy", found.src_strategy)
    assert "Checkpoint of 8 ranks: 9 tensors, 33540 bytes (68128 in the slices)" in done.output
    assert "l1.w  [32, 64] float32  b -, ranks=4..7  parameter" in done.output
    done = distinfer("inspect", case("sample_r13").folder / "src_strategy.ckpt")
    assert "MatMul_matmul_weight  stage 0  ((2, 1), (1, 4))" in done.output
    slice_file = case("aes_gcm_4_to_2").folder / "src/rank_0/net-0_1.ckpt"
    done = distinfer("inspect", slice_file)
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "is encrypted by AES-GCM; pass --key (and --mode AES-GCM)" in done.output
    done = distinfer("inspect", slice_file, "--key", "000102030405060708090a0b0c0d0e0f")
    assert "matmul_weight  [32, 4] float32" in done.output
    assert distinfer("inspect", slice_file, "--key", "zz").exit_code == 2


def test_slices_without_their_strategy_are_told(tmp_path):
    """By inspect, which warns; plan, a dry run and a run refuse them, and name two files and the way out."""
    source = case("tp_col8_to_row4").folder / "src"
    done = distinfer("inspect", source)
    assert (done.exit_code, "Checkpoint of 8 ranks: 1 tensor, 768 bytes" in done.stdout) == (0, True)
    expected = (
        "no strategy names .* matmul_weight differs between .*rank_0/.* and .*rank_1/.* give the strategy"
    )
    assert re.search(f"Warning: {expected}", done.stderr)
    assert not distinfer("inspect", source, "--strategy", case("tp_col8_to_row4").src_strategy).stderr
    for words in (["plan", source], ["reshard", source, tmp_path / "out", "--dry-run"]):
        done = distinfer(*words)
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.search(expected, done.stderr)
    assert distinfer("reshard", source, tmp_path / "out").exit_code == 1
    assert not list(tmp_path.iterdir())


def test_inspect_tells_what_headers_say_of_files_that_cannot_be_read(monkeypatch):
    """A disk that fails is a warning, after what is known."""

    def broken(self, name, offset, into):
        raise CheckpointFileError("rank_0/a.ckpt: Input/output error")

    monkeypatch.setattr(SliceFile, "fill", broken)
    done = distinfer("inspect", case("tp_col8_to_row4").folder / "src")
    assert (done.exit_code, "1 tensor, 768 bytes" in done.stdout) == (0, True)
    assert done.stderr == "Warning: rank_0/a.ckpt: Input/output error\n"


def test_an_axis_that_cuts_nothing_is_told(tmp_path):
    """On stderr; the configuration may be named by its folder."""
    folder = ROOT / "tests/data/oracle/hf/llama_gqa_tiny"
    done = distinfer("plan", folder, "--to", "pt=2,tp=2", "--rules", "llama", "--config", folder)
    assert (done.exit_code, done.stderr) == (0, "no rule shards by pt: ranks along it hold the same\n")
    assert distinfer("plan", folder, "--to", "tp=2", "--rules", "llama").stderr == ""
    (tmp_path / "own.json").write_text('[{"match": "*.down_proj.weight", "dims": "- tpp"}]')
    done = distinfer("plan", folder, "--to", "tp=2", "--rules", f"llama,{tmp_path / 'own.json'}")
    assert (done.exit_code, done.stderr) == (
        0,
        "rules shard by tpp, which --to tp=2 lacks: those dims stay whole\n",
    )


def test_a_configuration_of_another_model_is_reported(tmp_path):
    """What --config says is compared with the weights, of slices, too."""
    folder = ROOT / "tests/data/oracle/hf/llama_gqa_tiny"
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 99}))
    options = ("--to", "tp=2", "--rules", "llama", "--config", tmp_path)
    assert distinfer("reshard", folder, tmp_path / "tp", *options[:-1], folder).exit_code == 0
    done = distinfer("plan", tmp_path / "tp", *options)
    assert (done.exit_code, f"Note: {tmp_path}: it has 99 layers, but there is no" in done.stderr) == (
        0,
        True,
    )


def test_slices_that_the_strategy_does_not_name_are_reported(tmp_path):
    """One rank's is taken for the whole, which a line of every command says; equal ones are no matter."""
    layout = dl.Layout(dl.Mesh(x=2), "x")
    dl.write_strategy(tmp_path / "s.json", dl.Strategy({"w": layout}, {"w": (4,)}))
    for rank in range(2):
        folder = tmp_path / f"src/rank_{rank}"
        folder.mkdir(parents=True)
        dl.save_slice(folder / "a.ckpt", {"w": np.ones(2), "u": np.full(3, rank), "v": np.ones(3)})
    for command in (["inspect"], ["plan"], ["reshard", tmp_path / "out"]):
        done = distinfer(command[0], tmp_path / "src", *command[1:], "--strategy", tmp_path / "s.json")
        assert (done.exit_code, done.stderr.count("the strategy does not name it")) == (0, 1)
        assert re.search("Note: u: .* differs between .*rank_0/a.ckpt and .*rank_1/a.ckpt", done.stderr)


def test_modules_are_where_mindspore_has_them():
    """Imported by their dotted names too, and the same as those of the package."""
    for name, member in (("nn", "Cell"), ("ops", "MatMul"), ("context", "set_auto_parallel_context")):
        module = importlib.import_module(f"distinfer_lab.{name}")
        assert module is getattr(dl, name)
        assert callable(getattr(module, member))
    assert importlib.import_module("distinfer_lab.communication").init is dl.init


def test_reshard_plans_and_writes(tmp_path):
    """--dry-run writes nothing; without it the files are there; a folder that exists is refused."""
    found = case("tp_col8_to_row4")
    arguments = ["reshard", found.folder / "src", tmp_path / "out", "--strategy", found.src_strategy]
    arguments += ["--to", found.dst_strategy]
    done = distinfer(*arguments, "--dry-run")
    assert "1 tensor, 8 -> 4 ranks, 32 pieces" in done.output
    assert not list(tmp_path.iterdir())
    done = distinfer(*arguments, "--prefix", "dst", "--format", "safetensors")
    assert done.exit_code == 0
    assert "bytes needed (1.00)" in done.output
    with open_slice(tmp_path / "out/rank_3/dst3.safetensors") as written:
        rows = found.full["matmul_weight"].shape[0] // 4
        np.testing.assert_array_equal(written.read("matmul_weight"), found.full["matmul_weight"][3 * rows :])
    done = distinfer(*arguments)
    assert done.exit_code == 1
    assert "exists; choose another folder" in done.output


def test_the_version_is_told():
    """By the command and by the package."""
    assert distinfer("--version").output == f"distinfer, version {dl.__version__}\n"


def test_every_name_is_there():
    """All of __all__, and MindSpore's dtypes; anything else is an AttributeError."""
    for name in dl.__all__:
        assert getattr(dl, name) is not None
    assert dl.float32 == np.dtype("float32")
    assert dl.bfloat16.itemsize == 2
    assert {"CardGroup", "Model", "nn", "float32"} <= set(dir(dl))
    with pytest.raises(AttributeError, match="No distinfer_lab attribute Modl"):
        dl.Modl  # noqa: B018
    assert {"Conversion", "Threads", "explain", "write"} <= set(dl.__all__)
    assert not {"Topology", "exercises", "in_words"} & set(dl.__all__)


def test_importing_brings_in_nothing_heavy():
    """No Dask, no matplotlib, no widgets, no scipy; and in well under what a click of a key takes."""
    code = (
        "import sys, distinfer_lab\n"
        "heavy = {'dask', 'distributed', 'matplotlib', 'ipywidgets', 'anywidget', 'scipy', 'numpy'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "\n"


def records(tmp_path):
    """One of each kind of record that Jupyter may be asked to show."""
    found = case("mlp_adam_8_to_4")
    with dl.open_checkpoint(found.folder / "src", found.src_strategy) as checkpoint:
        yield checkpoint
        yield checkpoint.strategy
        plan = dl.plan_reshard(checkpoint.strategy, None)
        yield plan
        result = plan_and_write(checkpoint, None, tmp_path / "out")
        yield result
        yield result.conversion
        yield result.conversion.explain()
        yield dl.explain(plan)
        yield result.verify()
    layout = next(iter(checkpoint.strategy.values()))
    yield layout
    yield layout.mesh
    with dl.CardGroup(2) as cards:
        yield cards
        yield cards.memory()
        net = dl.sample.SampleNet()
        yield dl.load_distributed_checkpoint(
            net, case("sample_r13").folder / "out_load_single.ckpt", cards=cards
        )
    yield cards


def test_every_record_shows_itself(tmp_path):
    """Text without addresses, HTML below 50 kB in which nothing needs trust, the same every time."""
    kinds = set()
    for record in records(tmp_path):
        bundle = record._repr_mimebundle_()
        assert "object at 0x" not in bundle["text/plain"]
        assert "no picture" not in bundle["text/plain"]
        html = bundle["text/html"]
        assert 0 < len(html) < 50_000
        assert "<svg" not in html
        assert "<script" not in html
        assert '<img alt="' in html or type(record).__name__ == "Verification"
        assert record._repr_mimebundle_() == bundle
        kinds.add(type(record).__name__)
    assert len(kinds) == 12


def test_errors_are_also_python_s_own():
    """Whoever catches ValueError, TypeError or OSError catches ours; there is one base for all."""
    assert issubclass(dl.errors.CheckpointError, (dl.errors.DistinferError, ValueError))
    texts = ("Option", "Remark", "in_lines", "listed", "options_of")
    for name in [n for n in dl.errors.__all__ if n not in texts]:
        kind = getattr(dl.errors, name)
        assert issubclass(kind, dl.errors.DistinferError)
        assert kind is dl.errors.DistinferError or issubclass(kind, ValueError | TypeError | OSError)
