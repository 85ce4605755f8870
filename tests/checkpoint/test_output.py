"""Where an output goes and what it is like: a Hugging Face folder's division and the files beside its weights."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

from distinfer_lab.checkpoint import Output, open_checkpoint, verify_folder
from distinfer_lab.checkpoint.staging import Stage
from distinfer_lab.cli import main
from distinfer_lab.errors import CheckpointFileError, ReshardError
from distinfer_lab.formats import INDEX, MANIFEST, config_with_dtype, read_manifest, save_slice

from ..resharding import plan_and_write

LLAMA = Path(__file__).parents[1] / "data/oracle/hf/llama_gqa_tiny"


@pytest.fixture
def like(tmp_path):
    """A folder whose weights are not there, only their index; with a tokenizer and a program that nobody wants."""
    folder = tmp_path / "like"
    folder.mkdir()
    for name in (INDEX, "config.json", "generation_config.json"):
        shutil.copy(LLAMA / name, folder / name)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "modeling_llama.py").write_text("raise SystemExit")
    return folder


def written(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def test_both_doors_make_a_folder_like_another(like, tmp_path):
    """Python's `like` and the command line's make the same files; programs and strangers stay behind."""
    with open_checkpoint(LLAMA) as checkpoint:
        checkpoint.plan().write(tmp_path / "plan", format="huggingface", like=like)
        plan_and_write(checkpoint, None, tmp_path / "files", format="huggingface", like=like)
    words = ["reshard", LLAMA, tmp_path / "cli", "--format", "huggingface", "--like", like]
    assert CliRunner().invoke(main, list(map(str, words))).exit_code == 0
    wanted = {path.name: path.read_bytes() for path in LLAMA.glob("*.json")}
    wanted |= {path.name: path.read_bytes() for path in LLAMA.glob("*.safetensors")}
    wanted["tokenizer.json"] = b"{}"
    for door in ("plan", "files", "cli"):
        assert written(tmp_path / door) == wanted, door


def test_a_renamed_output_is_divided_as_a_folder_with_the_old_names(like, tmp_path):
    """Each tensor is in the file in which its old name is; the index has the new names."""
    words = ["reshard", LLAMA, tmp_path / "out", "--format", "huggingface", "--like", like]
    done = CliRunner().invoke(main, [str(word) for word in (*words, "--rename", "model.*=net.*")])
    assert done.exit_code == 0, done.output
    before, after = (
        json.loads((folder / INDEX).read_text())["weight_map"] for folder in (like, tmp_path / "out")
    )
    assert len(set(before.values())) > 1
    assert after == {name.replace("model.", "net.", 1): file for name, file in before.items()}
    assert verify_folder(tmp_path / "out").ok
    with open_checkpoint(LLAMA) as old, open_checkpoint(tmp_path / "out") as new:
        for name in old.tensors:
            np.testing.assert_array_equal(new.read(0, name.replace("model.", "net.", 1)), old.read(0, name))
    del before["model.norm.weight"]
    (like / INDEX).write_text(json.dumps({"weight_map": before}))
    done = CliRunner().invoke(
        main, [str(word) for word in (*words, "--overwrite", "--rename", "model.*=net.*")]
    )
    assert "has no model.norm.weight, which the output has; leave --like out" in done.output


def test_a_configuration_says_the_dtype_that_is_written(like, tmp_path):
    """Other weights, another dtype in config.json, and nothing else changed there."""
    before = json.loads((like / "config.json").read_text())
    assert before["dtype"] == "float32"
    options = {"format": "huggingface", "like": like}
    before["name"] = "é"
    (like / "config.json").write_text(json.dumps(before, ensure_ascii=False))
    (like / INDEX).unlink()
    with open_checkpoint(LLAMA) as checkpoint:
        values = {name: checkpoint.read(0, name) for name in checkpoint.tensors}
    save_slice(like / "model.safetensors", {**values, "scale": np.float32([2])}, format="safetensors")
    with open_checkpoint(like) as checkpoint:
        result = checkpoint.plan(dtype="bfloat16").write(tmp_path / "half", **options)
    with open_checkpoint(tmp_path / "half") as half:
        assert {str(half.tensors[name].dtype) for name in values} == {"bfloat16"}
        assert half.tensors["scale"].dtype == np.float32
    assert "é" in (tmp_path / "half/config.json").read_text()
    assert json.loads((tmp_path / "half/config.json").read_text()) == {**before, "dtype": "bfloat16"}
    assert result.verify().ok


def test_floats_that_are_not_converted_are_named(tmp_path):
    """Single numbers and kinds of floats that no conversion takes: in the plan, its costs, and the result."""
    fnuz = np.ones(4, ml_dtypes.float8_e4m3fnuz)
    values = {"w": np.ones((2, 2), np.float32), "beta": np.float32([1]), "none": np.ones((0, 2), np.float16)}
    values |= {"z": np.ones(2, np.complex64), "f": fnuz, "i": np.ones(2, np.int32)}
    save_slice(tmp_path / "a.safetensors", values, format="safetensors")
    notes = {
        "not converted to bfloat16: 2 tensors of one element or none (beta, none)",
        "not converted to bfloat16: 1 tensor of complex64, which is not converted (z)",
        "not converted to bfloat16: 1 tensor of float8_e4m3fnuz, which is not converted (f)",
    }
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        plan = checkpoint.plan(dtype="bf16")
        result = plan.write(tmp_path / "out")
        assert set(plan.notes) == notes
        for shown in (plan, plan.explain(), result):
            for note in notes:
                assert note in repr(shown)
                assert note in shown._repr_mimebundle_()["text/html"]
        assert set(plan.explain().to_json()["notes"]) == set(result.to_json()["notes"]) == notes
        assert checkpoint.plan().notes == ()
        assert {n for n in checkpoint.plan(dtype="float32").notes if "one element" in n} == {
            "not converted to float32: 1 tensor of one element or none (none)"
        }
    with open_checkpoint(tmp_path / "out") as written:
        kept = {name for name, tensor in written.tensors.items() if tensor.dtype == values[name].dtype}
        assert kept == {"beta", "none", "z", "f", "i"}


@pytest.mark.parametrize(
    "config",
    [
        *(b"", b"[" * 100_000, b"[1]", b"\xff"),
        *(b'{"vocab_size": 3}', b'{"dtype":"bfloat16"}', b'{"dtype":null}'),
    ],
)
def test_other_configurations_stay_as_they_are(config):
    """Damaged ones, those that say no dtype, and the right ones: byte for byte."""
    assert config_with_dtype(config, ["bfloat16", "int32"]) == config


@pytest.mark.parametrize("dtypes", [["float16", "float32"], ["int32"], []])
def test_weights_that_have_no_one_dtype_leave_the_configuration(dtypes):
    """Several, and none that floats."""
    assert config_with_dtype(b'{"dtype":"bfloat16"}', dtypes) == b'{"dtype":"bfloat16"}'


def test_configurations_of_parts_and_small_floats_are_true_too():
    """Of a model of several inputs, of floats of 8 bits; a quantised model's dtype is that of what it computes."""
    config = {
        "torch_dtype": "float32",
        "text_config": {"dtype": "float32"},
        "vision_config": {"hidden_size": 3},
    }
    changed = json.loads(config_with_dtype(json.dumps(config).encode(), ["float8_e4m3fn"]))
    assert changed == {**config, "torch_dtype": "float8_e4m3fn", "text_config": {"dtype": "float8_e4m3fn"}}
    quantised = b'{"dtype": "bfloat16", "quantization_config": {}}'
    assert config_with_dtype(quantised, ["float8_e4m3fn"]) == quantised


@pytest.mark.parametrize("door", ["plan", "cli"])
def test_files_of_at_most_a_size(door, tmp_path):
    """As many tensors to a file as fit, in their order, with an index; the tensors are those of one file."""
    values = {f"w{i}": np.full(10 * n, i, np.float32) for i, n in enumerate((3, 2, 9, 1, 1))}
    save_slice(tmp_path / "a.safetensors", values, format="safetensors")
    if door == "plan":
        with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
            checkpoint.plan().write(tmp_path / "out", format="huggingface", max_shard_size=200)
    else:
        words = ["reshard", tmp_path / "a.safetensors", tmp_path / "out", "--format", "huggingface"]
        done = CliRunner().invoke(main, [*map(str, words), "--max-shard-size", "200"])
        assert done.exit_code == 0, done.output
    files = {"w0": 1, "w1": 1, "w2": 2, "w3": 3, "w4": 3}
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"] == {n: f"model-{i:05}-of-00003.safetensors" for n, i in files.items()}
    assert index["metadata"]["total_size"] == 640
    with open_checkpoint(tmp_path / "out") as written:
        for name, value in values.items():
            np.testing.assert_array_equal(written.read(0, name), value)
    assert verify_folder(tmp_path / "out").ok


def test_two_ways_to_divide_files_are_refused(like, tmp_path):
    """And a size for files of ranks."""
    with open_checkpoint(LLAMA) as checkpoint:
        plan = checkpoint.plan()
        for options, text in (
            ({"format": "huggingface", "like": like}, "like= and max_shard_size= both say"),
            ({"format": "safetensors"}, "max_shard_size='1GB' is for format='huggingface'"),
        ):
            with pytest.raises(ReshardError, match=text):
                plan.check(tmp_path / "out", max_shard_size="1GB", **options)


def test_without_like_nothing_is_copied(tmp_path):
    """Not from the source either, whose configuration may not fit what is written."""
    with open_checkpoint(LLAMA) as checkpoint:
        checkpoint.plan().write(tmp_path / "out", format="huggingface")
    assert sorted(written(tmp_path / "out")) == ["model.safetensors"]


def test_what_was_copied_is_verified_and_replaced(like, tmp_path):
    """The manifest holds it; a change and a loss are told; the folder is an earlier output, and a source."""
    out = tmp_path / "out"
    with open_checkpoint(LLAMA) as checkpoint:
        plan = checkpoint.plan()
        result = plan.write(out, format="huggingface", like=like)
        assert [file.path for file in read_manifest(out).beside] == [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            INDEX,
        ]
        sizes = sum(path.stat().st_size for path in like.iterdir() if path.suffix == ".json")
        found = result.verify()
        assert (found.ok, found.files) == (True, 14)
        assert found.nbytes == sizes + sum(file.size for file in read_manifest(out).files)
        (out / "tokenizer.json").write_text("[]")
        (out / "generation_config.json").write_text("")
        (out / "config.json").unlink()
        (out / INDEX).write_text("{}")
        size = (like / "generation_config.json").stat().st_size
        assert verify_folder(out).differences == (
            "config.json: No such file or directory",
            f"generation_config.json: 0 bytes, not {size}",
            "tokenizer.json: its bytes differ from what was written",
            f"{INDEX}: 2 bytes, not {(like / INDEX).stat().st_size}",
        )
        plan.write(out, format="huggingface", like=like, overwrite=True)
    assert verify_folder(out).ok
    with open_checkpoint(out) as again, open_checkpoint(LLAMA) as checkpoint:
        for name in checkpoint.tensors:
            np.testing.assert_array_equal(again.read(0, name), checkpoint.read(0, name))


def test_an_interrupted_run_takes_what_is_there_in_the_end(like, tmp_path, monkeypatch):
    """Weights are resumed, companions are copied again; with others than before it starts over."""
    options = {"format": "huggingface", "like": like}

    def interrupted():
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "commit", lambda self: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                plan.write(tmp_path / "out", **options)

    with open_checkpoint(LLAMA) as checkpoint:
        plan = checkpoint.plan()
        interrupted()
        (like / "tokenizer.json").write_text("[1]")
        result = plan.write(tmp_path / "out", **options)
        assert (result.resumed, result.reused_bytes) == (True, result.written_bytes)
        assert (tmp_path / "out/tokenizer.json").read_text() == "[1]"
        assert result.verify().ok
        shutil.rmtree(tmp_path / "out")
        interrupted()
        (like / "tokenizer.json").unlink()
        assert not plan.write(tmp_path / "out", **options).resumed
    assert not (tmp_path / "out/tokenizer.json").exists()


def test_like_is_for_hugging_face_alone(like, tmp_path):
    """Another format, another partition, or a folder that is none are refused; the first is a wrong call."""
    with pytest.raises(ReshardError, match="like='a' is for format='huggingface'; give both, or neither"):
        Output(tmp_path / "out", like="a")
    with pytest.raises(ReshardError, match="partition= is for format='huggingface'; give both, or neither"):
        Output(tmp_path / "out", partition={"w": "a.safetensors"})
    with pytest.raises(ReshardError, match="like= and partition= both say which tensor goes"):
        Output(tmp_path / "out", format="huggingface", like=like, partition={})
    with pytest.raises(CheckpointFileError, match="it is not a Hugging Face folder"):
        Output(tmp_path / "out", format="huggingface", like=tmp_path)
    for more in ([], ["--format", "safetensors"], ["--dry-run"]):
        words = ["reshard", LLAMA, tmp_path / "out", "--like", like, *more]
        done = CliRunner().invoke(main, list(map(str, words)))
        assert (done.exit_code, "--like needs --format huggingface" in done.output) == (2, True)
    (like / INDEX).write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    with open_checkpoint(LLAMA) as checkpoint:
        with pytest.raises(ReshardError, match="like has w, which the output lacks"):
            checkpoint.plan().write(tmp_path / "out", format="huggingface", like=like)


def test_a_dry_run_refuses_what_a_run_refuses(like, tmp_path):
    """In its words: a folder that exists, one that holds the source, what `like` does not know, too little memory."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").touch()
    (like / INDEX).write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    hub = ["--format", "huggingface"]
    before = sorted(tmp_path.rglob("*"))
    for words, expected in (
        ([LLAMA, tmp_path / "there"], f"{tmp_path}/there exists; choose another folder, or pass --overwrite"),
        ([LLAMA, tmp_path / "there", "--overwrite"], f"it has no {MANIFEST}"),
        ([LLAMA, LLAMA, "--overwrite"], "is read from, and lies in"),
        ([LLAMA, tmp_path / "out", *hub, "--like", like], "like has w, which the output lacks"),
        ([LLAMA, tmp_path / "out", *hub, "--like", tmp_path], "it is not a Hugging Face folder"),
        ([LLAMA, tmp_path / "out", "--memory-limit", "1"], "files are written through a buffer of at least"),
        ([LLAMA, like / "config.json/out"], f"{like}/config.json cannot be written; choose a folder"),
    ):
        said = []
        for more in (["--dry-run"], []):
            done = CliRunner().invoke(main, ["reshard", *map(str, words), *more])
            assert (done.exit_code, expected in done.output) == (1, True), done.output
            said.append(done.output)
        assert said[0] == said[1]
    assert sorted(tmp_path.rglob("*")) == before
    assert not (LLAMA / MANIFEST).exists()
    done = CliRunner().invoke(
        main, ["reshard", str(LLAMA), str(tmp_path / "out"), "--dry-run", "--memory-limit", "1 MiB"]
    )
    assert "takes a buffer of at most 1 MiB of memory" in done.output


def test_an_output_that_exists_is_refused_before_the_source_is_read(tmp_path):
    """However much there would be to compare."""
    with open_checkpoint(LLAMA) as checkpoint:
        with pytest.raises(CheckpointFileError, match="exists; choose another folder"):
            checkpoint.plan().write(tmp_path, verify_source=True)
        assert sum(file.nbytes_read for source in checkpoint.files for file in source.files) == 0


def test_the_format_is_that_of_the_source_unless_said(tmp_path):
    """By every door: safetensors stay safetensors, .ckpt stays .ckpt; what is said is written."""
    for kind in ("safetensors", "ckpt"):
        source = tmp_path / f"a.{kind}"
        save_slice(source, {"w": np.arange(6.0)}, format=kind)
        with open_checkpoint(source) as checkpoint:
            checkpoint.plan().write(tmp_path / kind / "plan")
            checkpoint.plan().write(tmp_path / kind / "none", format=None)
            plan_and_write(checkpoint, None, tmp_path / kind / "files")
            checkpoint.plan().write(tmp_path / kind / "said", format="ckpt")
        words = ["reshard", source, tmp_path / kind / "cli"]
        assert CliRunner().invoke(main, list(map(str, words))).exit_code == 0
        for door in ("plan", "none", "files", "cli"):
            assert (tmp_path / kind / door / f"rank_0/checkpoint_0.{kind}").is_file(), door
        assert (tmp_path / kind / "said/rank_0/checkpoint_0.ckpt").is_file()
