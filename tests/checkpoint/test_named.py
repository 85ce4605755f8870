"""What is named against what is there: an index, a strategy, a destination, `like` and its config.json."""

import json
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import ArgumentTypeError, CheckpointFileError, DistinferError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

FEW = settings(max_examples=settings().max_examples // 4)
INDEX = "model.safetensors.index.json"
CONFIG = {"num_hidden_layers": 2, "vocab_size": 6, "tie_word_embeddings": False}
LLAMA = {
    "model.embed_tokens.weight": (6, 4),
    "model.layers.0.mlp.up_proj.weight": (8, 4),
    "model.layers.1.mlp.up_proj.weight": (8, 4),
    "lm_head.weight": (6, 4),
}


def filled(shapes, dtype=np.float32):
    return {name: np.full(shape, i, dtype) for i, (name, shape) in enumerate(shapes.items())}


def hub(folder, tensors, config=None, shards=1, weight_map=None):
    """A Hugging Face folder; with several shards, or with a map of its own, it has an index."""
    names = list(tensors)
    folder.mkdir(parents=True)
    files = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        files |= dict.fromkeys(names[shard::shards], name)
        held = {n: tensors[n] for n in names[shard::shards]}
        save_slice(folder / name, held, sync=False, format="safetensors")
    if shards > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": files | (weight_map or {})}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


names = st.sets(st.sampled_from("abcdefgh"), min_size=3)


@FEW
@given(names, st.integers(2, 3), st.data())
def test_an_index_and_its_files(tmp_path_factory, names, shards, data):
    """Everything arrives without a word; or what is missing or forgotten is named, and the way out works."""
    folder = tmp_path_factory.mktemp("index") / "m"
    tensors = filled(dict.fromkeys(sorted(names), (2, 2)))
    hub(folder, tensors, shards=shards)
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    ghosts = data.draw(st.sets(st.sampled_from(["x.ghost", "y.ghost"])))
    forgotten = data.draw(st.sets(st.sampled_from(sorted(names)), max_size=len(names) - shards))
    kept = {name: file for name, file in index.items() if name not in forgotten}
    opened = set(kept.values())
    there = {name for name, file in index.items() if file in opened}
    files = kept | dict.fromkeys(ghosts, next(iter(kept.values())))
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == there
        said = "\n".join(checkpoint.notes)
        assert all(name in said for name in ghosts | (forgotten & there))
        assert all(file in said for file in set(index.values()) - opened)
        assert bool(said) == bool(ghosts | forgotten)
        if ghosts:
            with pytest.raises(ReshardError, match=f"{min(ghosts)}.*no file holds it.* by allow_missing="):
                checkpoint.plan()
        for options in ({"allow_missing": ["*.ghost"]}, {"select": [f"!{name}" for name in ghosts] or None}):
            assert set(checkpoint.plan(**options).targets) == there


def test_a_tensor_that_the_index_puts_elsewhere_or_two_files_have(tmp_path):
    """It is taken from the file that the index names, if that has it."""
    folder = hub(tmp_path / "m", filled({"a": (2,), "b": (2,)}), shards=2)
    one, two = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    save_slice(
        folder / two, filled({"b": (2,), "a": (2,)}) | {"a": np.ones(2, np.float32)}, format="safetensors"
    )
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.read(0, "a").tolist() == [0, 0]
        assert f"{two} holds a too, which is taken from" in checkpoint.notes[0]
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": two, "b": two}}))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.read(0, "a").tolist() == [1, 1]
        assert f"does not name them: {one}" in checkpoint.notes[0]
    (folder / INDEX).unlink()
    with pytest.raises(
        DistinferError, match=r"a is also in .* not parts of one save; choose one by file='model"
    ):
        open_checkpoint(folder)
    (folder / two).unlink()
    with pytest.raises(CheckpointFileError, match=r"part 2 of 2 of model is missing"):
        open_checkpoint(folder)
    open_checkpoint(folder, file=one).close()


def test_a_shard_that_is_missing(tmp_path):
    """It is said to be listed; the pattern opens the rest."""
    folder = hub(tmp_path / "m", filled({"a": (2,), "b": (2,)}), shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointFileError, match=r"00002\.safetensors: the index .* lists this file, and"):
        open_checkpoint(folder)
    with open_checkpoint(folder, file="model-00001-of-00002.safetensors") as checkpoint:
        assert set(checkpoint.tensors) == {"a"}


def test_other_names_of_indices_and_files(tmp_path):
    """Diffusers' index is found, and an output like it has an index of that name; a single file may have any name."""
    folder = hub(tmp_path / "m", filled({"a": (2,), "b": (2,)}), shards=2)
    other = folder / "diffusion_pytorch_model.safetensors.index.json"
    (folder / INDEX).rename(other)
    with open_checkpoint(folder) as checkpoint:
        result = checkpoint.plan().write(tmp_path / "out", format="huggingface", like=folder)
    assert (tmp_path / "out" / other.name).is_file()
    assert not (tmp_path / "out" / INDEX).exists()
    with open_checkpoint(result.folder) as again, open_checkpoint(other) as before:
        assert set(again.tensors) == set(before.tensors) == {"a", "b"}
    save_slice(tmp_path / "peft/adapter_model.safetensors", filled({"a": (2,)}), format="safetensors")
    open_checkpoint(tmp_path / "peft").close()


@FEW
@given(st.sets(st.sampled_from("abcd"), min_size=1), st.sets(st.sampled_from("abcd"), min_size=1), st.data())
def test_a_destination_and_a_strategy(tmp_path_factory, source, named, data):
    """Names that the source's strategy or the destination has and no file holds are refused, or allowed by name."""
    folder = tmp_path_factory.mktemp("named")
    save_slice(folder / "a.ckpt", filled(dict.fromkeys(sorted(source), (2,))), sync=False)
    one = Layout.replicated(1, 1)
    strategy = Strategy(dict.fromkeys(sorted(source | named), one))
    dst = Strategy(dict.fromkeys(sorted(source | data.draw(st.sets(st.sampled_from("abcdef")))), one))
    lacking = sorted((set(strategy) | set(dst)) - source)
    with open_checkpoint(folder / "a.ckpt", strategy) as checkpoint:
        assert set(checkpoint.missing) == set(strategy) - source
        if lacking:
            with pytest.raises(ReshardError, match="(?s)no file holds it|has no entry of this name"):
                checkpoint.plan(dst)
        plan = checkpoint.plan(dst, allow_missing=lacking)
        assert set(plan.targets) == set(
            checkpoint.plan(dst, select=[f"!{n}" for n in lacking] or None).targets
        )
        assert set(plan.targets) == source


@FEW
@given(st.dictionaries(st.sampled_from("abcde"), st.permutations((2, 4)).map(tuple), min_size=1))
def test_a_destination_that_says_other_shapes(tmp_path_factory, said):
    """Whatever strategy of another net is given is refused by tensor and both shapes; renamed tensors, too."""
    folder = tmp_path_factory.mktemp("shapes")
    save_slice(folder / "a.ckpt", filled(dict.fromkeys("abcde", (2, 4))), sync=False)
    dst = Strategy(dict.fromkeys("Abcde", Layout(Mesh(x=2), "x -")), {"A": (2, 4)} | said)
    other = sorted(name for name, shape in said.items() if shape != (2, 4) and name != "a")
    with open_checkpoint(folder / "a.ckpt") as checkpoint:
        if other:
            words = rf"{other[0]}.*: the destination says shape \[4, 2\], but the checkpoint has \[2, 4\]"
            with pytest.raises(ReshardError, match=words):
                checkpoint.plan(dst, rename={"a": "A"})
        select = [f"!{name}" for name in other] or None
        assert len(checkpoint.plan(dst, rename={"a": "A"}, select=select).targets) == 5 - len(other)
        with pytest.raises(ReshardError, match="^A.*leave out what differs by select="):
            checkpoint.plan(Strategy(dst, {"A": (4, 2)}), rename={"a": "A"})
        with pytest.raises(
            ArgumentTypeError, match="dst={'A': None} should be a Strategy, a Rules, a path or None"
        ):
            checkpoint.plan({"A": None})


def test_states_that_were_left_out_are_no_fault(tmp_path):
    """Weights are often passed on without the states that the strategy of training names; a note says it."""
    save_slice(tmp_path / "a.ckpt", filled({"w": (2,)}))
    one = Layout.replicated(1, 1)
    strategy = Strategy({"w": one, "adam_m.w": one, "global_step": one})
    with open_checkpoint(tmp_path / "a.ckpt", strategy) as checkpoint:
        assert checkpoint.missing == ()
        assert checkpoint.notes == (
            "states that the strategy names, and no file holds: adam_m.w, global_step",
        )
        assert set(checkpoint.plan(strategy).targets) == {"w"}


LIKE_FAULTS = {
    "a layer too few": (
        {"model.layers.1.mlp.up_proj.weight": None},
        r"has model\.layers\.1.*which the output lacks",
    ),
    "no head": ({"lm_head.weight": None}, r"has lm_head\.weight, which the output lacks"),
    "a tensor too many": ({"extra.weight": (2, 2)}, r"has no extra\.weight, which the output has"),
    "other rows": ({"lm_head.weight": (7, 4)}, r"lm_head\.weight has shape \[6, 4\] there, but \[7, 4\]"),
}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("fault", LIKE_FAULTS)
def test_an_output_that_is_not_like_its_model(tmp_path, fault, shards):
    """Names and shapes, with one file and with an index; without `like` it is written."""
    changes, words = LIKE_FAULTS[fault]
    shapes = {name: shape for name, shape in (LLAMA | changes).items() if shape is not None}
    like = hub(tmp_path / "like", filled(LLAMA), CONFIG, shards)
    with open_checkpoint(hub(tmp_path / "src", filled(shapes))) as checkpoint:
        with pytest.raises(ReshardError, match=words):
            checkpoint.plan().write(tmp_path / "out", format="huggingface", like=like)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lacking", "allowed"), [("lm_head", ["lm_head.weight"]), ("model.layers.1", ["*"])])
def test_what_an_output_may_lack(tmp_path, lacking, allowed):
    """As the refusal says it."""
    like = hub(tmp_path / "like", filled(LLAMA), CONFIG)
    shapes = {name: shape for name, shape in LLAMA.items() if not name.startswith(lacking)}
    with open_checkpoint(hub(tmp_path / "src", filled(shapes))) as checkpoint:
        plan = checkpoint.plan(allow_missing=allowed)
        assert len(plan.write(tmp_path / "out", format="huggingface", like=like).paths) == 1


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNTIED_WORDS = (
    "tie_word_embeddings false{}, but there is no lm_head.weight, which a loader would fill with random"
)
TIED_WORDS = (
    "tie_word_embeddings true{}, so a loader takes model.embed_tokens.weight for the head, but lm_head.weight"
)
DEFAULT = ", the default of its model_type"
LLAMA_KIND = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
HEADS = {
    "untied, none": ({"tie_word_embeddings": False}, None, UNTIED_WORDS.format("")),
    "untied by default, none": (LLAMA_KIND, None, UNTIED_WORDS.format(DEFAULT)),
    "untied, there": ({"tie_word_embeddings": False}, 1, ""),
    "untied by default, there": (LLAMA_KIND, 1, ""),
    "tied, none": (LLAMA_KIND | {"tie_word_embeddings": True}, None, ""),
    "tied by default, none": ({"model_type": "gemma2"}, None, ""),
    "tied, equal": ({"tie_word_embeddings": True}, 0, ""),
    "tied, another": ({"tie_word_embeddings": True}, 1, TIED_WORDS.format("")),
    "tied, another at its end": ({"tie_word_embeddings": True}, -1, TIED_WORDS.format("")),
    "tied by default, another": ({"model_type": "gemma2"}, 1, TIED_WORDS.format(DEFAULT)),
    "tied in the part that is of text": (
        {"text_config": {"tie_word_embeddings": True}},
        1,
        TIED_WORDS.format(""),
    ),
    "a model without a head": ({"model_type": "llama", "architectures": ["LlamaModel"]}, None, ""),
    "of a kind that is not known": ({"model_type": "mine"}, None, ""),
}


def with_head(folder, config, head):
    """A model of 3,000 words whose head is the embedding (0), another (1), another in its last row (-1), or none."""
    tensors = filled(LLAMA) | {EMBEDDING: np.arange(12_000, dtype=np.float32).reshape(3000, 4)}
    tensors |= {HEAD: tensors[EMBEDDING] + (head == 1)}
    if head == -1:
        tensors[HEAD][-1, -1] += 1
    return hub(folder, {n: t for n, t in tensors.items() if n != HEAD or head is not None}, config)


@pytest.mark.parametrize(("config", "head", "words"), HEADS.values(), ids=HEADS.keys())
def test_a_head_that_is_not_what_the_config_says(tmp_path, config, head, words):
    """A note on opening, on the command line too; refused where it would be written beside such a config."""
    folder = with_head(tmp_path / "m", config | {"num_hidden_layers": 2}, head)
    with open_checkpoint(folder) as checkpoint:
        assert [words in note for note in checkpoint.notes] == ([True] if words else [])
        plan = checkpoint.plan()
        if words:
            with pytest.raises(ReshardError, match="its config.json has " + words):
                plan.write(tmp_path / "out", format="huggingface", like=folder)
        else:
            plan.write(tmp_path / "out", format="huggingface", like=folder)
    for command in (
        ["inspect"],
        ["plan"],
        ["reshard", str(tmp_path / "tp"), "--to", "tp=2", "--rules", "llama"],
    ):
        found = CliRunner().invoke(main, [command[0], str(folder), *command[1:]])
        assert (words in found.output) or not words
        assert ("tie_word_embeddings" in found.output) == bool(words)


def test_a_head_that_is_left_out(tmp_path):
    """As the note says; and what may be missing may be missing."""
    folder = with_head(tmp_path / "m", {"tie_word_embeddings": True}, 1)
    with open_checkpoint(folder) as checkpoint:
        assert "select=['!lm_head.weight']" in checkpoint.notes[0]
        checkpoint.plan(select=[f"!{HEAD}"]).write(tmp_path / "out", format="huggingface", like=folder)
    folder = with_head(tmp_path / "n", {"tie_word_embeddings": False}, None)
    with open_checkpoint(folder) as checkpoint:
        plan = checkpoint.plan(allow_missing=[HEAD])
        assert plan.write(tmp_path / "also", format="huggingface", like=folder).paths


@pytest.mark.parametrize("pattern", ["lm_hed.*", "mtp.*"])
def test_a_pattern_of_what_may_be_missing_fits_something(tmp_path, pattern):
    """A slip of the pen is refused by `plan`, a dry run and a run, as one of `--select` is."""
    source = hub(tmp_path / "src", filled(LLAMA), CONFIG)
    command = [str(source), "--allow-missing", "model.*", "--allow-missing", pattern]
    said = f"--allow-missing {shlex.quote(pattern)}: no tensor fits it; there is lm_head.weight, model"
    like = ["--format", "huggingface", "--like", str(source)]
    for words in (
        ["plan", *command],
        ["reshard", *command, str(tmp_path / "out"), "--dry-run"],
        ["reshard", *command, str(tmp_path / "out"), *like],
    ):
        found = CliRunner().invoke(main, words)
        assert (found.exit_code, said in found.output) == (1, True), found.output


def test_a_pattern_may_fit_a_layer_that_only_a_config_speaks_of(tmp_path):
    """What `like` has, or its config.json says, may be allowed though the source and the destination lack it."""
    like = hub(tmp_path / "like", filled(LLAMA), CONFIG | {"num_hidden_layers": 3})
    with open_checkpoint(hub(tmp_path / "src", filled(LLAMA), CONFIG)) as checkpoint:
        plan = checkpoint.plan(allow_missing=["model.layers.2.*"])
        assert plan.write(tmp_path / "out", format="huggingface", like=like).paths
        with pytest.raises(ReshardError, match=r"allow_missing=\['model\.layers\.2\.\*'\]: no tensor fits"):
            plan.write(tmp_path / "other")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vocab_size": 7}, "vocab_size 7, but model.embed_tokens.weight has 6 rows"),
        ({"num_hidden_layers": 3}, "3 layers, but there is no model.layers.2"),
        ({"num_hidden_layers": 1}, "1 layers, but there is model.layers.1"),
        (
            {"quantization_config": {"quant_method": "fp8"}},
            "a quantization_config, but no tensor is quantised",
        ),
        ({"text_config": {"vocab_size": 9}}, "vocab_size 9"),
    ],
)
def test_a_config_of_another_model(tmp_path, config, words):
    """Refused where it would be copied; a note where it lies next to what is opened."""
    like = hub(tmp_path / "like", filled(LLAMA), CONFIG | config)
    runner = CliRunner()
    command = ["reshard", str(like), str(tmp_path / "out"), "--format", "huggingface"]
    refused = runner.invoke(main, [*command, "--like", str(like)])
    assert (refused.exit_code, f"its config.json has {words}" in refused.output) == (1, True)
    told = runner.invoke(main, command)
    assert (told.exit_code, f"its config.json has {words}" in told.stderr) == (0, True)


def test_a_tied_head_may_be_left_out(tmp_path):
    """Where config.json says that it is the embedding."""
    like = hub(tmp_path / "like", filled(LLAMA), CONFIG | {"tie_word_embeddings": True})
    shapes = {name: shape for name, shape in LLAMA.items() if name != "lm_head.weight"}
    with open_checkpoint(hub(tmp_path / "src", filled(shapes))) as checkpoint:
        checkpoint.plan().write(tmp_path / "out", format="huggingface", like=like)


def test_a_text_may_have_another_name(tmp_path):
    """As a tensor may; and it may not take the name of one."""
    save_slice(tmp_path / "a.ckpt", {"w": np.ones(2), "note": "hello"}, sync=False)
    with open_checkpoint([tmp_path / "a.ckpt"]) as source:
        assert source.plan(None, rename={"note": "remark"}).texts == {"remark": "hello"}
        assert source.plan(None, rename={"*": "x.*"}).texts == {"x.note": "hello"}
        with pytest.raises(ReshardError, match="w and note would both be called 'w'"):
            source.plan(None, rename={"note": "w"})


def test_a_tensor_without_a_name_gets_one_by_rename(tmp_path):
    """A safetensors file may have a tensor called ""; the error blames the entry, not what would be written."""
    header = json.dumps({"": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with open_checkpoint([tmp_path / "a.safetensors"]) as source:
        with pytest.raises(ReshardError, match="would have no name") as info:
            source.plan(None)
        (option,) = info.value.options
        assert list(source.plan(None, **{option.name: option.value}).strategy) == ["name"]


@pytest.mark.parametrize("first", ["text", "tensor"])
def test_a_text_on_one_rank_and_a_tensor_on_another(tmp_path, first):
    """Both files are named, and what each holds; the error has the file of the tensor."""
    kinds = {"text": "hello", "tensor": np.ones(2)}
    for rank, kind in enumerate(sorted(kinds, reverse=first == "text")):
        held = {"w": np.ones(2), "x": kinds[kind]}
        (tmp_path / f"rank_{rank}").mkdir()
        save_slice(tmp_path / f"rank_{rank}" / "a.ckpt", held, sync=False)
    strategy = Strategy({"w": Layout.replicated(2, 1)}, {"w": (2,)})
    text, tensor = (tmp_path / f"rank_{int(first == kind)}" / "a.ckpt" for kind in ("tensor", "text"))
    with open_checkpoint(tmp_path, strategy) as source:
        with pytest.raises(ReshardError) as info:
            source.plan(None)
        assert f"it is a tensor in {tensor}, but a text in {text}" in str(info.value)
        assert info.value.file == str(tensor)
        assert list(source.plan(None, select=["!x"]).strategy) == ["w"]


def test_dtypes_that_ranks_disagree_on_name_their_file(tmp_path):
    """The first of the two."""
    for rank, dtype in enumerate([np.float32, np.float64]):
        (tmp_path / f"rank_{rank}").mkdir()
        save_slice(tmp_path / f"rank_{rank}" / "a.ckpt", {"w": np.ones(2, dtype)}, sync=False)
    strategy = Strategy({"w": Layout.replicated(2, 1)}, {"w": (2,)})
    with open_checkpoint(tmp_path, strategy) as source, pytest.raises(ReshardError, match="dtype") as info:
        source.plan(None)
    assert (info.value.file, info.value.parameter) == (str(tmp_path / "rank_0" / "a.ckpt"), "w")


def test_an_index_of_nothing_is_refused(tmp_path):
    """Whatever lies in its folder: a checkpoint of no tensors would be written as if all were well."""
    folder = hub(tmp_path / "m", filled({"a": (2,), "b": (2,)}), shards=2)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {}}))
    with pytest.raises(DistinferError, match="names no tensors") as info:
        open_checkpoint(folder)
    assert info.value.file == str(folder / INDEX)
