"""The command line of checkpoints: inspect, plan, reshard, verify; what goes to stdout, and the status."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from distinfer_lab.checkpoint import Conversion, Threads, open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import CardError, CheckpointFileError, ReshardError
from distinfer_lab.formats import open_slice, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.plain import strategy_to_json

from .oracle import case


def distinfer(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    """Two tensors and a state in four slices of columns, and the JSON layouts of source and destination."""
    columns = Layout(Mesh(tp=4), "- tp")
    rows = Layout(Mesh(tp=2), "tp -")
    source = Strategy({"net.w": columns, "net.v": columns}, {"net.w": (8, 8), "net.v": (8, 8)})
    for rank in range(4):
        part = np.arange(64, dtype=np.float32).reshape(8, 8)[:, 2 * rank : 2 * rank + 2].copy()
        entries = {
            "net.w": part,
            "moments.net.w": part + 100,
            "net.v": part * np.float32(1e36),
            "step": np.int32(7),
        }
        save_slice(tmp_path / f"src/rank_{rank}/a.ckpt", entries, sync=False)
    (tmp_path / "src.json").write_text(json.dumps(strategy_to_json(source)))
    (tmp_path / "dst.json").write_text(json.dumps(strategy_to_json(Strategy({"net.w": rows, "net.v": rows}))))
    return tmp_path


def given(folder):
    return [folder / "src", "--strategy", folder / "src.json", "--to", folder / "dst.json"]


def test_plan_tells_what_reshard_then_does(folder):
    """As text and as JSON; nothing is written."""
    done = distinfer("plan", *given(folder))
    assert done.exit_code == 0
    assert "4 tensors, 4 -> 2 ranks, 26 pieces" in done.output
    assert "rank_0/a.ckpt: 19" in done.output
    found = json.loads(distinfer("plan", *given(folder), "--json").output)
    assert found["needed_bytes"] == 3 * 256 + 2 * 4
    # Half of the rows of a slice are one run; the step is read twice, from whichever file.
    assert sorted(file["read"] for file in found["files"]) == [192, 192, 196, 196]
    assert sorted(file["seeks"] for file in found["files"]) == [6, 6, 7, 7]
    assert {file["readers"] for file in found["files"]} == {2}
    assert [card["needed"] for card in found["cards"]] == [388, 388]
    assert found["kinds"][0] == {
        "name": "net.w",
        "tensors": 3,
        "shape": [8, 8],
        "dtype": "float32",
        "src": "4 slices [8, 2]",
        "dst": "2 slices [4, 8]",
        "needed": 768,
        "moved": 0,
    }
    assert done.output.splitlines()[-2:] == [
        "  net.w and 2 more: [8, 8] float32, 4 slices [8, 2] -> 2 slices [4, 8]; 768 B read",
        "  step: [] int32, whole on 4 ranks -> whole on 2 ranks; 8 B read",
    ]
    assert sorted(p.name for p in folder.iterdir()) == ["dst.json", "src", "src.json"]
    done = distinfer("reshard", folder / "src", folder / "out", *given(folder)[1:], "--json")
    assert json.loads(done.output)["needed_bytes"] == found["needed_bytes"]
    with open_slice(folder / "out/rank_1/checkpoint_1.ckpt") as written:
        np.testing.assert_array_equal(written.read("net.w"), np.arange(32, 64).reshape(4, 8))
        np.testing.assert_array_equal(written.read("moments.net.w"), np.arange(132, 164).reshape(4, 8))


def test_a_plan_of_many_kinds_of_tensors_is_told_in_few_lines(tmp_path):
    """Those with the most bytes; JSON has all."""
    save_slice(tmp_path / "a.ckpt", {f"w{n}": np.zeros(n, np.int8) for n in range(1, 41)}, sync=False)
    lines = distinfer("plan", tmp_path / "a.ckpt").output.splitlines()
    assert lines[-18:-15] == [
        "tensors, those with the most bytes first:",
        "  w40: [40] int8, whole -> whole; 40 B read",
        "  w39: [39] int8, whole -> whole; 39 B read",
    ]
    assert lines[-1] == "  ... and 24 more"
    assert len(json.loads(distinfer("plan", tmp_path / "a.ckpt", "--json").output)["kinds"]) == 40


def test_entries_are_selected_renamed_and_converted(folder):
    """bfloat16 of some entries under other names; what became infinite is reported."""
    arguments = ["--select", "net.*", "--rename", "net.*=model.*", "--dtype", "float16"]
    done = distinfer("reshard", folder / "src", folder / "out", "--strategy", folder / "src.json", *arguments)
    assert done.exit_code == 0
    assert "model.v: 63 values overflowed" in done.output
    with open_slice(folder / "out/rank_0/checkpoint_0.ckpt") as written:
        assert sorted(written.entries) == ["model.v", "model.w"]
        assert written.read("model.w").dtype == np.float16
        np.testing.assert_array_equal(written.read("model.w"), np.arange(64).reshape(8, 8))
        assert np.isinf(written.read("model.v")).sum() == 63
    arguments = [
        "--select",
        "!moments.*",
        "--select",
        "!net.v",
        "--dtype",
        "bfloat16",
        "--format",
        "safetensors",
    ]
    distinfer("reshard", folder / "src", folder / "out2", "--strategy", folder / "src.json", *arguments)
    with open_slice(folder / "out2/rank_0/checkpoint_0.safetensors") as written:
        assert {n: e.dtype for n, e in written.entries.items()} == {
            "net.w": ml_dtypes.bfloat16,
            "step": np.int32,
        }


def test_a_rename_applies_before_the_destination_is_asked(folder):
    """Destination layouts and rules are by the new names."""
    (folder / "rules.json").write_text('[{"match": "model.*", "dims": "tp -"}]')
    arguments = ["--rename", "net.*=model.*", "--to", "tp=2", "--rules", folder / "rules.json"]
    done = distinfer("reshard", folder / "src", folder / "out", "--strategy", folder / "src.json", *arguments)
    assert done.exit_code == 0, done.output
    with open_checkpoint(folder / "out") as checkpoint:
        assert checkpoint.tensors["model.w"].layout.parts == (2, 1)
        assert checkpoint.tensors["moments.model.w"].layout.parts == (2, 1)


def test_status_and_streams(folder):
    """0 for done, 1 for wrong data, 2 for a wrong call; errors and progress go to stderr, data to stdout."""

    def run(*arguments):
        words = [sys.executable, "-m", "distinfer_lab", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    status, out, err = run("reshard", folder / "src", folder / "out", *given(folder)[1:])
    assert (status, err) == (0, "")
    assert out.startswith("ReshardResult: 2 files")
    status, out, err = run("reshard", folder / "src", folder / "out", *given(folder)[1:])
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")
    for wrong in (
        ["plan", folder / "nowhere"],
        ["plan", folder / "src", "--to", "tp=4"],
        ["plan", folder / "src", "--rules", "llama"],
        ["plan", folder / "src", "--rename", "a"],
        ["reshard", folder / "src", folder / "out3", "--cards", "2", "--scheduler", "tcp://x"],
    ):
        status, out, err = run(*wrong)
        assert (status, out) == (2, "")
        assert "Error: " in err


def test_errors_name_the_options_of_the_command(folder):
    """What Python calls by a keyword; a path in which such a word stands is left as it is."""
    known = case("aes_gcm_4_to_2")
    encrypted = known.folder / "src/rank_0/net-0_1.ckpt"
    source, out = given(folder)[:3], folder / "overwrite=True"
    reshard = ["reshard", source[0], out, *source[1:]]
    assert distinfer(*reshard).exit_code == 0
    (folder / "rules.json").write_text('[{"match": "*", "dims": "tp -", "units": "heads"}]')
    one = Strategy({"net.w": Layout.replicated(1, 2)})
    (folder / "one.json").write_text(json.dumps(strategy_to_json(one)))
    ruled = ["plan", *source, "--to", "tp=2", "--rules", folder / "rules.json"]
    four = ["reshard", *source[:1], folder / "x", *given(folder)[1:], "--format", "huggingface"]
    for words, told in (
        (reshard, f"{out} exists; choose another folder, or pass --overwrite"),
        ([*reshard, "--without-rank", 9], "--without-rank 9: the checkpoint has ranks 0..3"),
        ([*reshard, "--overwrite", "--buffer", "a lot"], "--buffer 'a lot' is not a valid size"),
        ([*reshard, "--overwrite", "--memory-limit", 9], "use --memory-limit 65536"),
        ([*reshard, "--overwrite", "--prefix", "a/b"], "--prefix a/b is the start of a file name"),
        (four, "--format huggingface is one whole checkpoint, but the plan has 2 destination ranks"),
        (["plan", *source, "--to", folder / "one.json"], "or leave the tensor out by --select '!net.v'"),
        (ruled, "give the model's config.json as --config, or"),
        (["inspect", encrypted], "is encrypted by AES-GCM; pass --key (and --mode AES-GCM)"),
        (["inspect", encrypted, "--key", "00" * 16, "--mode", "AES-CBC"], "pass --mode AES-GCM"),
        (["inspect", source[0], "--key", "00" * 16], "is not encrypted; leave out --key"),
    ):
        done = distinfer(*words)
        assert done.exit_code == (2 if "a lot" in words else 1), words  # a wrong call
        assert told in done.output
    path = folder / "src/rank_2/a.ckpt"
    data = bytearray(path.read_bytes())
    at = data.index(np.int32(7).tobytes(), len(data) // 2)
    data[at] = 8
    path.write_bytes(data)
    done = distinfer(*reshard, "--overwrite", "--verify-source")
    assert "leave the wrong one out by --without-rank 0 or --without-rank 2" in done.output


def test_inspect_says_once_what_is_the_same_in_every_layer(tmp_path):
    """One line for each tensor of a layer, unless a layer has it in another shape; --all lists each."""
    entries = {f"model.layers.{layer}.w": np.zeros((2, 4), np.float32) for layer in range(12)}
    entries["model.layers.7.w"] = np.zeros((2, 5), np.float32)
    entries |= {f"model.layers.{layer}.b": np.zeros(4, np.float32) for layer in range(12)}
    save_slice(tmp_path / "a.ckpt", {**entries, "head": np.zeros(4, np.float32)})
    lines = distinfer("inspect", tmp_path / "a.ckpt").output.splitlines()
    tensors = [line.split() for line in lines if line.startswith("  ") and " float32 " in line]
    assert [(words[0], words[-3:] if words[-1] == "layers" else "") for words in tensors] == [
        ("model.layers.*.w", ["in", "11", "layers"]),
        ("model.layers.7.w", ""),
        ("model.layers.*.b", ["in", "12", "layers"]),
        ("head", ""),
    ]
    every = distinfer("inspect", tmp_path / "a.ckpt", "--all").output
    assert all(f"  {name}  [" in every for name in entries)


def test_an_error_keeps_the_options_that_it_names(folder):
    """As fields, which survive the way from a worker: the command line needs no second look at the text."""
    out = folder / "out"
    out.mkdir()
    (out / "mine").touch()
    with open_checkpoint(folder / "src", folder / "src.json") as checkpoint:
        with pytest.raises(CheckpointFileError) as caught:
            checkpoint.plan(None).write(out)
        assert caught.value.options == (("overwrite", True),)
        with pytest.raises(ReshardError) as refused:
            checkpoint.plan(None, states="folow")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (type(again), again.options, str(again)) == (
        ReshardError,
        (("states", "folow"),),
        str(refused.value),
    )
    assert str(again).startswith("states='folow' is not one of")


def test_cards_do_it_too(folder):
    """Two processes, over channels; and the workers of a cluster."""
    serial = distinfer("reshard", folder / "src", folder / "serial", *given(folder)[1:])
    done = distinfer(
        "reshard",
        folder / "src",
        folder / "out",
        *given(folder)[1:],
        "--cards",
        2,
        "--route",
        "channels",
        "--json",
    )
    assert (serial.exit_code, done.exit_code) == (0, 0)
    assert json.loads(done.output)["moved_bytes"] > 0
    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0", protocol="tcp://") as cluster:
        distinfer(
            "reshard",
            folder / "src",
            folder / "third",
            *given(folder)[1:],
            "--scheduler",
            cluster.scheduler_address,
        )
    for rank in range(2):
        name = f"rank_{rank}/checkpoint_{rank}.ckpt"
        wanted = (folder / "serial" / name).read_bytes()
        assert (folder / "out" / name).read_bytes() == wanted
        assert (folder / "third" / name).read_bytes() == wanted


def test_verify_leaves_with_1_if_anything_differs(folder):
    """One flipped bit."""
    distinfer("reshard", folder / "src", folder / "out", *given(folder)[1:])
    assert distinfer("verify", folder / "out").exit_code == 0
    path = folder / "out/rank_1/checkpoint_1.ckpt"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    done = distinfer("verify", folder / "out")
    assert done.exit_code == 1
    assert "rank_1/checkpoint_1.ckpt: step: its bytes differ" in done.output
    assert json.loads(distinfer("verify", folder / "out", "--json").output)["ok"] is False
    assert distinfer("verify", folder / "src").exit_code == 1


def test_inspect_speaks_json_of_layouts(folder):
    """What it prints with --json is itself a destination."""
    done = distinfer("inspect", folder / "src", "--strategy", folder / "src.json", "--json")
    (folder / "again.json").write_text(done.output)
    assert "net.w  [8, 8]  - tp  Mesh(tp=4)" in distinfer("inspect", folder / "again.json").output
    done = distinfer("plan", folder / "src", "--strategy", folder / "src.json", "--to", folder / "again.json")
    assert done.exit_code == 0
    found = json.loads(distinfer("inspect", case("sample_r13").folder / "src_strategy.ckpt", "--json").output)
    assert found["ranks"] == 8
    assert sorted(found["tensors"]) == ["matmul_weight", "moments.matmul_weight"]


def test_a_checkpoint_plans_and_runs_in_python(folder):
    """open_checkpoint, plan, run, verify."""
    with open_checkpoint(folder / "src", folder / "src.json") as checkpoint:
        plan = checkpoint.plan(folder / "dst.json", select=["net.w"])
        assert plan.explain().needed_bytes == 256
        result = plan.write(folder / "out", on=Threads(2), buffer="1 MiB")
    assert result.verify().ok
    assert Path(result.paths[1]).name == "checkpoint_1.ckpt"


SOURCE = case("tp_col8_to_row4")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--buffer", "5x"], "--buffer"),
        (["--memory-limit", "much"], "--memory-limit"),
        (["--dtype", "int8"], "--dtype"),
        (["--threads", "0"], "--threads"),
        (
            ["--scheduler", "a", "--scheduler-file", "{file}"],
            "--scheduler and --scheduler-file both name a cluster",
        ),
        (["--cards", "2", "--scheduler-file", "{file}"], "--cards and --scheduler-file exclude each other"),
        (["--scheduler", "a", "--tls-cert", "{file}"], "add --tls-ca-file and --tls-key"),
        (
            ["--tls-cert", "{file}", "--tls-ca-file", "{file}", "--tls-key", "{file}"],
            "need --scheduler or",
        ),
    ],
)
def test_a_wrong_call_has_status_2_and_names_the_option(options, text, tmp_path):
    """Before anything is opened or written."""
    (tmp_path / "file").touch()
    options = [option.format(file=tmp_path / "file") for option in options]
    done = distinfer("reshard", SOURCE.folder / "src", tmp_path / "out", *options)
    assert (done.exit_code, text in done.output) == (2, True), done.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("by", ["--scheduler", "--scheduler-file"])
def test_a_cluster_is_named_as_dask_names_it(by, tmp_path, monkeypatch):
    """By address or file, with the certificates; the files of SRC go to the workers by absolute paths."""
    seen = {}

    class Group:
        def __init__(self, *given, **options):
            seen.update(options)

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

        def write_files(self, tasks, sources, control, route):
            seen["paths"] = [source.path for task in tasks for source in task.share.sources.values()]
            raise CardError("enough")

    monkeypatch.setattr("distinfer_lab.cards.CardGroup", Group)
    monkeypatch.chdir(SOURCE.folder)
    for name in ("s.json", "ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    where = os.fspath(tmp_path / "s.json") if by == "--scheduler-file" else "tls://host:1"
    words = ["--tls-ca-file", tmp_path / "ca.pem", "--tls-cert", tmp_path / "cert.pem", "--tls-key"]
    words += [tmp_path / "key.pem", "--strategy", SOURCE.src_strategy, by, where]
    done = distinfer("reshard", "src", tmp_path / "out", *words)
    assert (done.exit_code, "enough" in done.output) == (1, True), done.output
    assert seen["scheduler_file" if by == "--scheduler-file" else "address"] == where
    security = seen["security"]
    assert security.tls_ca_file == os.fspath(tmp_path / "ca.pem")
    assert security.tls_client_cert == os.fspath(tmp_path / "cert.pem")
    assert security.tls_client_key == os.fspath(tmp_path / "key.pem")
    assert security.require_encryption
    assert seen["paths"]
    assert all(os.path.isabs(path) for path in seen["paths"])


def test_a_pattern_that_fits_nothing_names_what_is_near(tmp_path):
    """With --select and --rename; where nothing is near, what there is."""
    for option, given in (("--select", "matmul_wieght"), ("--rename", "matmul_wieght=w")):
        words = [SOURCE.folder / "src", "--strategy", SOURCE.src_strategy, option, given]
        done = distinfer("plan", *words)
        assert (done.exit_code, "did you mean matmul_weight?" in done.output) == (1, True), done.output
    done = distinfer("plan", *words[:-2], "--select", "zzz")
    assert "no entry fits 'zzz'; the checkpoint has matmul_weight" in done.output


def test_files_are_written_by_as_many_threads_as_cores(tmp_path, monkeypatch):
    """At most eight; --threads says another number."""
    seen = []
    real = Conversion.write

    def run(plan, folder, **options):
        seen.append(options["on"].count)
        return real(plan, folder, **options)

    monkeypatch.setattr(Conversion, "write", run)
    for cores, out, words in ((3, "a", []), (64, "b", []), (64, "c", ["--threads", "1"])):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        source = [SOURCE.folder / "src", tmp_path / out, "--strategy", SOURCE.src_strategy]
        assert distinfer("reshard", *source, *words).exit_code == 0
    assert seen == [3, 8, 1]
