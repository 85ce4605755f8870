"""Destinations by rules: Hugging Face's Llama and GPT-2, cut as tensor parallelism has them, and back."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import ArgumentTypeError, CheckpointError, CheckpointFileError, LayoutError
from distinfer_lab.layout import Mesh
from distinfer_lab.rules import RULES, Rule, Rules, read_rules

from ..resharding import plan_and_write

HF = Path(__file__).parents[1] / "data/oracle/hf"
LLAMA, GPT2 = HF / "llama_gqa_tiny", HF / "gpt2_tiny"


def config(folder):
    return json.loads((folder / "config.json").read_text())


def values(folder):
    """Every tensor of a Hugging Face folder, whole."""
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(0, name) for name in checkpoint.tensors}


def cut(folder, rules, mesh, out):
    """The shards of every rank, as files."""
    given = Rules(Mesh.parse(mesh), read_rules(rules), config(folder))
    with open_checkpoint(folder) as checkpoint:
        plan_and_write(checkpoint, given, out, format="safetensors")
    with open_checkpoint(out) as checkpoint:
        return [
            {name: checkpoint.read(rank, name) for name in checkpoint.files[rank].entries}
            for rank in range(checkpoint.ranks)
        ]


def test_llama_is_cut_by_heads_and_columns(tmp_path):
    """Four ranks: rows of q, k, v, gate, up and the embedding; columns of o and down; norms whole."""
    whole = values(LLAMA)
    for rank, shard in enumerate(cut(LLAMA, "llama", "tp=4", tmp_path / "out")):
        for name, full in whole.items():
            wanted = full
            if any(
                word in name for word in ("q_proj", "k_proj", "v_proj", "gate", "up_proj", "embed", "lm_head")
            ):
                wanted = np.split(full, 4, axis=0)[rank]
            elif "o_proj" in name or "down_proj" in name:
                wanted = np.split(full, 4, axis=1)[rank]
            np.testing.assert_array_equal(shard[name], wanted)


def test_key_heads_are_repeated_where_ranks_are_more(tmp_path):
    """Four key-value heads on eight ranks: ranks 2h and 2h + 1 hold head h; query heads are cut in eight."""
    whole = values(LLAMA)
    name = "model.layers.1.self_attn.{}_proj.weight"
    for rank, shard in enumerate(cut(LLAMA, "llama", "tp=8", tmp_path / "out")):
        for part in "kv":
            np.testing.assert_array_equal(
                shard[name.format(part)], np.split(whole[name.format(part)], 4)[rank // 2]
            )
        np.testing.assert_array_equal(shard[name.format("q")], np.split(whole[name.format("q")], 8)[rank])


def test_gpt2_cuts_each_of_query_key_and_value(tmp_path):
    """One fused matrix [64, 192]: a rank holds its columns of each third, one after another."""
    whole = values(GPT2)
    shards = cut(GPT2, "gpt2", "dp=2,tp=4", tmp_path / "out")
    assert len(shards) == 8
    for rank, shard in enumerate(shards):
        tp = rank % 4
        fused = np.split(whole["transformer.h.0.attn.c_attn.weight"], 3, axis=1)
        wanted = np.concatenate([part[:, 16 * tp : 16 * tp + 16] for part in fused], axis=1)
        np.testing.assert_array_equal(shard["transformer.h.0.attn.c_attn.weight"], wanted)
        bias = np.split(whole["transformer.h.0.attn.c_attn.bias"], 3)
        wanted = np.concatenate([part[16 * tp : 16 * tp + 16] for part in bias])
        np.testing.assert_array_equal(shard["transformer.h.0.attn.c_attn.bias"], wanted)
        np.testing.assert_array_equal(
            shard["transformer.h.1.mlp.c_proj.weight"],
            np.split(whole["transformer.h.1.mlp.c_proj.weight"], 4)[tp],
        )
        np.testing.assert_array_equal(shard["transformer.wpe.weight"], whole["transformer.wpe.weight"])


@pytest.mark.parametrize(("folder", "rules"), [(LLAMA, "llama"), (GPT2, "gpt2")])
def test_to_four_slices_and_back_byte_for_byte(folder, rules, tmp_path):
    """By the command line alone: the files, the index and the configurations are those of `save_pretrained`."""
    runs = [
        [folder, tmp_path / "tp4", "--to", "tp=4", "--rules", rules],
        [tmp_path / "tp4", tmp_path / "back", "--format", "huggingface", "--like", folder],
    ]
    for run in runs:
        done = CliRunner().invoke(main, ["reshard", *map(str, run)])
        assert done.exit_code == 0, done.output
    written = sorted(p.name for p in (tmp_path / "back").iterdir() if p.name != "distinfer.json")
    assert written == sorted(p.name for p in folder.iterdir() if p.name != "expected.npz")
    for name in written:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_no_rule_fits_is_an_error():
    """All tensors that cannot be cut are in one text, with a way out."""
    two = Mesh(tp=2)
    with pytest.raises(
        LayoutError, match=r"no rule for a, b; add one, or end the rules with \{\"match\": \"\*\""
    ):
        Rules(two, RULES["llama"]).strategy({"a": (4,), "b": (4, 4)})
    with pytest.raises(
        LayoutError,
        match="whole num_key_value_heads, which no configuration says; give the model's config.json as config=",
    ):
        Rules(two, RULES["llama"]).strategy({"a.k_proj.weight": (4, 4)})
    with pytest.raises(LayoutError, match="is for 2 dims, the tensor has 1"):
        Rules(two, (Rule("*", "tp -"),)).strategy({"a": (4,)})
    with pytest.raises(LayoutError, match="says 3 equal parts, but dim 0 has 4 elements"):
        Rules(two, (Rule("*", "tp", fused=(3,)),)).strategy({"a": (4,)})
    for parts in (0, -2, 1 << 40):
        with pytest.raises(LayoutError, match=f"says {parts} equal parts, but dim 0 has 4 elements"):
            Rules(two, (Rule("*", "tp", fused=(parts,)),)).strategy({"a": (4,)})


def refusal(folder, mesh, rules):
    """What is said of a mesh that does not do, line by line."""
    with open_checkpoint(folder) as checkpoint, pytest.raises(LayoutError) as told:
        checkpoint.plan(Rules(Mesh.parse(mesh), rules, config(folder)))
    return str(told.value).split("\n")


@pytest.mark.parametrize("mesh", ["tp=3", "dp=3,tp=3"])
def test_a_mesh_that_does_not_divide_is_told_once_a_cause(mesh):
    """Axis, dim and size of the first of many tensors, and the nearest sizes with which all can be cut."""
    attn, mlp, way = "'model.layers.0.self_attn", "'model.layers.0.mlp", "use tp=2 or tp=4"
    assert refusal(LLAMA, mesh, RULES["llama"]) == [
        f"tp=3 does not divide dim 0 (4 num_key_value_heads in 32) of {attn}.k_proj.weight' and 3 more: {way}",
        f"tp=3 does not divide dim 1 (8 num_attention_heads in 64) of {attn}.o_proj.weight' and 1 more: {way}",
        f"tp=3 does not divide dim 0 (8 num_attention_heads in 64) of {attn}.q_proj.weight' and 1 more: {way}",
        f"tp=3 does not divide dim 0 (160) of {mlp}.gate_proj.weight' and 3 more: {way}",
        f"tp=3 does not divide dim 1 (160) of {mlp}.down_proj.weight' and 1 more: {way}",
    ]


def test_the_way_out_of_a_mesh_is_one():
    """Each size of an axis that is named can be cut, and none nearer; where none is near, that is said."""
    for folder, rules, shown in ((LLAMA, "llama", 1000), (LLAMA, "llama", 7), (GPT2, "gpt2", 11)):
        said = refusal(folder, f"tp={shown}", RULES[rules])[0]
        named = [int(number) for number in re.findall(r"tp=(\d+)", said)[1:]]
        assert named
        with open_checkpoint(folder) as checkpoint:
            shapes = {name: record.shape for name, record in checkpoint.tensors.items()}
        for count in range(min(named), max(named) + 1):
            given = Rules(Mesh.parse(f"tp={count}"), RULES[rules], config(folder))
            if count in named:
                assert given.strategy(shapes).ranks == count
            else:
                with pytest.raises(LayoutError, match=f"tp={count} does not divide"):
                    given.strategy(shapes)
    assert refusal(LLAMA, "tp=5", RULES["llama"])[0].endswith("and 3 more: use tp=4 or tp=8")
    fused = Rules(Mesh.parse("dp=2,tp=3"), (Rule("*", "dp+tp", fused=((4, 2),)),))
    with pytest.raises(LayoutError, match=r"^dp=2,tp=3 does not divide dim 0 \(4 \+ 2\) of 'a': use tp=1$"):
        fused.strategy({"a": (6,)})
    with pytest.raises(LayoutError, match="of 'a' and 1 more: no size of tp near it does for all tensors"):
        Rules(Mesh.parse("tp=3000"), (Rule("*", "tp"),)).strategy({"a": (2,), "b": (2,)})


def test_an_odd_vocabulary_is_cut_as_torch_chunks_it():
    """50,257 rows in four: the last rank has fewer."""
    rules = Rules(Mesh(tp=4), RULES["gpt2"], {"n_head": 12})
    strategy = rules.strategy({"wte.weight": (50257, 8)})
    boxes = strategy["wte.weight"].boxes((50257, 8))
    assert boxes[:, 0].tolist() == [[0, 12565], [12565, 25130], [25130, 37695], [37695, 50257]]


def test_rules_of_a_file(tmp_path):
    """The same fields as JSON; what is wrong with a file is reported."""
    path = tmp_path / "rules.json"
    path.write_text('[{"match": "*qkv", "dims": "tp", "fused": [[4, 2, 2]]}, {"match": "*", "dims": null}]')
    rules = Rules(Mesh.parse("tp=2"), read_rules(path))
    strategy = rules.strategy({"a.qkv": (8,), "b": (3, 3)})
    assert strategy["a.qkv"].regions((8,)).boxes.tolist() == [
        [[0, 2]], [[4, 5]], [[6, 7]], [[2, 4]], [[5, 6]], [[7, 8]],
    ]  # fmt: skip
    assert strategy["b"].describe_cut() == "- -"
    path.write_text('[{"match": "*", "dims": [["dp", "tp"], [], ["ep"]]}]')  # as a strategy's JSON
    assert [rule.dims for rule in read_rules(path)] == ["dp+tp - ep"]
    for text, words in [
        ("{", "not valid JSON"),
        ("{}", "rules are a list"),
        ("[3]", r"rule 0 \(3\) is not an object with match and dims \(and fused, units"),
        ('[{"match": "*"}]', r"rule 0 \(.*\) lacks dims; a rule has at least match and dims"),
        ("[{}]", "lacks match and dims"),
        ('[{"match": "*", "dim": "tp"}]', "has an unknown field 'dim'; did you mean dims?"),
        (
            '[{"match": "*", "dims": [3]}]',
            r"rule 0 \('\*'\): dims=\[3\] is not text; write text such as \"- tp\"",
        ),
        ('[{"match": "*", "dims": ["tp", null]}]', r"dims=\['tp', None\] is not text; write \"tp -\""),
        (
            '[{"match": "*", "dims": "tp,-"}]',
            r"rule 0 \('\*'\): sharding 'tp,-': dim 0, position 2: ',' is not expected",
        ),
        ('[{"match": "*", "dims": "tp/2 -"}]', "only axes can be given here; write 'tp -'"),
        ('[{"match": "*", "dims": "tp", "fused": [[1.5]]}]', "has a field of another type"),
        ('[{"match": "*", "dims": "tp", "fused": [["x("]]}]', "'x\\(' is not a valid expression"),
        ('[{"match": "*", "dims": null, "units": "x.y"}]', "'x.y' is not a valid expression: use fields of"),
        ('[{"match": "*", "dims": null, "units": 0}]', "0 is not a whole number above 0"),
        ('[{"match": "*", "dims": null, "stage": "middle"}]', "stage one of first, last"),
        ('[{"match": "*", "dims": null, "color": 1}]', "unknown field 'color'; the fields are match, dims"),
    ]:
        path.write_text(text)
        with pytest.raises(CheckpointError, match=words):
            read_rules(path)
    with pytest.raises(CheckpointFileError, match="rules are a file, or one of gpt2, llama"):
        read_rules("gpt3")


def test_rules_say_which_axes_they_cut_by():
    """Others are named; a configuration that is no mapping is a wrong call."""
    rules = (Rule("a", "tp -"), Rule("*", None))
    assert Rules(Mesh.parse("dp=2,tp=2,ep=1"), rules).idle_axes == ("dp", "ep")
    with pytest.raises(ArgumentTypeError, match="config is what a config.json says, as a mapping, not str"):
        Rules(Mesh.parse("tp=2"), rules, "config.json")


@pytest.mark.parametrize("tp", [4, 8, 16])
def test_fused_keys_are_not_repeated_and_the_error_says_why(tp):
    """Phi-3 with 2 key heads for 8 query heads: the reason, the size that does, and an axis for the other ranks."""
    config = {"model_type": "phi3", "hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 2}
    shapes = {"model.layers.0.self_attn.qkv_proj.weight": (8 * 4 + 2 * 2 * 4, 32)}
    said = (
        rf"tp={tp} exceeds the units of the smallest fused part of dim 0 \(2 num_key_value_heads in 32 \+ 8 \+ 8\)"
        r" of 'model\S*qkv_proj.weight': use tp=2; the parts are one tensor: .* as in dp=2,tp=\.\.\.$"
    )
    with pytest.raises(LayoutError, match=said):
        Rules(Mesh(tp=tp), read_rules("llama"), config).strategy(shapes)
    strategy = Rules(Mesh(dp=tp // 2, tp=2), read_rules("llama"), config).strategy(shapes)
    (layout,), (shape,) = strategy.values(), shapes.values()
    rows = layout.regions(shape).boxes[:, 0].reshape(tp, 3, 2).tolist()
    # Queries, keys and values of one half of the heads, and of the other.
    halves = [[[0, 16], [32, 36], [40, 44]], [[16, 32], [36, 40], [44, 48]]]
    assert rows == halves * (tp // 2)
