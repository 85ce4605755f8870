"""Rules fit what they cut: whole names, whole heads, by layer and part of a model, pipeline stages."""

import json
import shlex
import shutil
from itertools import product

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.rules import MODEL_TYPES, RULES, Rule, Rules, read_rules, rules_json
from distinfer_lab.rules.configuration import part_of
from distinfer_lab.rules.rule import fits

from ..strategies import examples

SHIPPED = sorted({rule.match for rules in RULES.values() for rule in rules})


def cut(layout, values, rank):
    """What a rank holds of a tensor, put together run by run in plain numpy."""
    found = layout.regions(values.shape)
    mine = np.flatnonzero(found.ranks == rank)
    if not len(mine):
        return None
    out = np.full(found.ends[mine].max(axis=0), -1, values.dtype)
    for row in mine:
        box, start, end = found.boxes[row], found.starts[row], found.ends[row]
        out[tuple(map(slice, start, end))] = values[tuple(slice(a, b) for a, b in box)]
    return out


def check_joins(layout, values):
    """All shards together are the tensor again, no element lacking."""
    out = np.full_like(values, -1)
    for box in layout.regions(values.shape).boxes:
        place = tuple(slice(a, b) for a, b in box)
        out[place] = values[place]
    np.testing.assert_array_equal(out, values)


def numbered(*shape):
    """A tensor whose elements all differ."""
    return np.arange(np.prod(shape)).reshape(shape)


def heads_of(values, heads, tp, rank, axis=0):
    """Whole heads of one rank: its run of them, or, of fewer heads than ranks, the one that it shares."""
    if heads % tp == 0:
        return np.split(values, tp, axis)[rank]
    return np.split(values, heads, axis)[rank // (tp // heads)]


@pytest.mark.parametrize("match", SHIPPED)
def test_no_shipped_rule_fits_a_name_that_only_ends_alike(match):
    """A part of a name is compared whole: qkv_proj is no v_proj."""
    rule = Rule(match, None)
    parts = match.removeprefix("*.").replace("*", "7").split(".")
    assert fits(rule, ".".join(parts))
    assert fits(rule, ".".join(["model.layers.0", *parts]))
    for i, before in product(range(len(parts)), ("x", "qk", "my_", "not_a_")):
        if parts[i] != "7":
            other = [*parts[:i], before + parts[i], *parts[i + 1 :]]
            assert not fits(rule, ".".join(other)), other
            assert not fits(rule, ".".join(["model.layers.0", *other])), other
            assert not fits(rule, ".".join([*parts[:i], f"{parts[i]}_{before}", *parts[i + 1 :]]))
    assert not fits(rule, ".".join(parts) + "_scale_inv") or match.endswith("*")


def test_names_near_to_known_ones_are_refused_by_name():
    """Nothing is cut by the rule of another tensor, and no tensor is left out."""
    names = [
        "layers.0.self_attn.my_o_proj.weight",
        "layers.0.self_attn.v_proj_norm.weight",
        "layers.0.self_attn.q_proj.lora_A.weight",
        "layers.0.self_attn.q_proj.base_layer.weight",
        "layers.0.crossattention.cross_attn.c_attn.weight",
    ]
    for table in RULES:
        with pytest.raises(
            LayoutError, match="no rule for layers.0.self_attn.my_o_proj.weight, .*cross_attn"
        ):
            Rules(Mesh.parse("tp=2"), RULES[table], {}).strategy(dict.fromkeys(names, (8, 8)))


@st.composite
def attentions(draw):
    """Heads, key-value heads, head size, and hidden size, that need not be heads x head size."""
    kv, group, size = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    hidden = draw(st.sampled_from([kv * group * size, 5]))
    config = {"num_attention_heads": kv * group, "num_key_value_heads": kv, "hidden_size": hidden}
    if hidden == 5 or draw(st.booleans()):
        config["head_dim"] = size
    return config, kv * group, kv, size


def qkv(heads, kv, size, hidden):
    """The three projections, [out, in]."""
    return [numbered(n * size, hidden) + 1000 * i for i, n in enumerate((heads, kv, kv))]


def can_share(count, tp):
    """Whether tp ranks take whole heads, all equally many."""
    return count % tp == 0 or tp % count == 0


@settings(max_examples=examples(60))
@given(attention=attentions(), tp=st.integers(1, 8), fused=st.booleans())
def test_every_rank_gets_whole_heads(attention, tp, fused):
    """q, k and v, apart or in one, and the columns of o, against plain numpy; else a refusal that names a size."""
    config, heads, kv, size = attention
    q, k, v = qkv(heads, kv, size, config["hidden_size"])
    tensors = {"o_proj.weight": np.ascontiguousarray(q.T)}
    tensors |= {"qkv_proj.weight": np.vstack([q, k, v])} if fused else {
        "q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "v_proj.bias": v[:, 0].copy(),
    }  # fmt: skip
    rules = Rules(Mesh.parse(f"tp={tp}"), RULES["llama"], config)
    shapes = {f"layers.3.self_attn.{name}": value.shape for name, value in tensors.items()}
    does = can_share(heads, tp) and can_share(kv, tp)
    if fused:  # keys cannot be repeated where queries are not
        does = does and (kv % tp == 0 or heads == kv)
    if not does:
        with pytest.raises(LayoutError, match=rf"tp={tp} .*use tp=\d+"):
            rules.strategy(shapes)
        return
    strategy = rules.strategy(shapes)
    for name, value in tensors.items():
        layout = strategy[f"layers.3.self_attn.{name}"]
        check_joins(layout, value)
        for rank in range(tp):
            if name == "qkv_proj.weight":
                each = [heads_of(w, n, tp, rank) for w, n in ((q, heads), (k, kv), (v, kv))]
                wanted = np.vstack(each)
            else:
                count = kv if name[0] in "kv" else heads
                wanted = heads_of(value, count, tp, rank, axis=1 if name[0] == "o" else 0)
            np.testing.assert_array_equal(cut(layout, value, rank), wanted)


@settings(max_examples=examples(40))
@given(
    kinds=st.lists(st.sampled_from(["full_attention", "sliding_attention"]), min_size=1, max_size=4),
    sliding=st.sampled_from([(8, 4), (4, 8), (2, 4)]),
    full=st.sampled_from([(4, 8), (2, 8), (8, 4), (1, 16)]),
    tp=st.sampled_from([2, 4, 8]),
    words=st.sampled_from([("num_global_key_value_heads", "global_head_dim", "full_attention"),
                           ("swa_num_key_value_heads", "swa_head_dim", "sliding_attention")]),
)  # fmt: skip
def test_heads_differ_by_layer(kinds, sliding, full, tp, words):
    """A layer's own heads are taken by its kind, though [8 heads of 4] and [4 heads of 8] have the same shape."""
    heads_field, size_field, special = words
    by_kind = {"sliding_attention": sliding, "full_attention": full}
    usual = by_kind[next(kind for kind in by_kind if kind != special)]
    config = {
        "num_attention_heads": 8, "num_key_value_heads": usual[0], "head_dim": usual[1], "hidden_size": 32,
        heads_field: by_kind[special][0], size_field: by_kind[special][1], "layer_types": kinds,
    }  # fmt: skip
    name = "model.layers.{}.self_attn.k_proj.weight".format
    tensors = {name(i): numbered(by_kind[k][0] * by_kind[k][1], 3) for i, k in enumerate(kinds)}
    shapes = {n: t.shape for n, t in tensors.items()}
    strategy = Rules(Mesh.parse(f"tp={tp}"), RULES["llama"], config).strategy(shapes)
    for i, kind in enumerate(kinds):
        for rank in range(tp):
            wanted = heads_of(tensors[name(i)], by_kind[kind][0], tp, rank)
            np.testing.assert_array_equal(cut(strategy[name(i)], tensors[name(i)], rank), wanted)
    if by_kind[special] != usual:
        del config["layer_types"]
        with pytest.raises(LayoutError, match="no layer_types that say which is for layer 0; add a rule"):
            Rules(Mesh.parse(f"tp={tp}"), RULES["llama"], config).strategy(shapes)


@pytest.mark.parametrize(
    "field",
    [{"num_key_value_heads": [4, 2]}, {"num_key_value_heads_per_layer": [4, 2], "num_key_value_heads": 4}],
)
def test_heads_in_a_list_by_layer(field):
    """A list has an entry for each layer; a shape that contradicts it is refused, with a way out that works."""
    config = {"num_attention_heads": 8, "head_dim": 4, "hidden_size": 32, **field}
    shapes = {"layers.0.k_proj.weight": (16, 32), "layers.1.k_proj.weight": (8, 32)}
    rules = Rules(Mesh.parse("tp=4"), RULES["llama"], config)
    strategy = rules.strategy(shapes)
    assert [strategy[name].shard_shape(shape) for name, shape in shapes.items()] == [(4, 32), (4, 32)]
    wrong = {"layers.0.k_proj.weight": (8, 32)}
    said = r"layers.0.k_proj.weight \[8, 32\]: the configuration says 4 num_key_value_heads of 4, 16 elements, but"
    with pytest.raises(LayoutError, match=said + " dim 0 has 8; .*put a rule for its name in front"):
        rules.strategy(wrong)
    for bad in ([4], "4", True, 1 << 99, -4):
        fields = {**config, "num_key_value_heads_per_layer": None, "num_key_value_heads": bad}
        other = Rules(rules.mesh, rules.rules, fields)
        with pytest.raises(
            LayoutError, match="has num_key_value_heads=.* gives no whole number above 0.*; correct"
        ):
            other.strategy({"layers.1.q_norm.weight": (4,), "layers.1.k_proj.weight": (8, 32)})
    twice = {"layers.1.k_proj.weight": (16, 32)}  # whole heads, but more of them than the queries' groups
    with pytest.raises(LayoutError, match="says 2 num_key_value_heads of 4, 8 elements, but dim 0 has 16"):
        rules.strategy(twice)
    own = Rule("layers.0.k_proj.weight", "tp -", units=2, unit_size=4)
    mended = Rules(rules.mesh, (own, *rules.rules), config).strategy(wrong)
    assert mended["layers.0.k_proj.weight"].mesh.axis_sizes == (2, 2)


@settings(max_examples=examples(40))
@given(text=attentions(), tower=attentions(), tp=st.sampled_from([1, 2, 3, 4]), flat=st.booleans())
def test_each_part_of_a_model_has_its_own_heads(text, tower, tp, flat):
    """The fields of vision_config for the tower, those of text_config (or at the top) for the language model."""
    (config, heads, kv, size), (other, *_) = text, tower
    its = other["num_attention_heads"]
    width = other.get("head_dim", other["hidden_size"] // its)
    nested = {**({} if flat else {"text_config": config}), **(config if flat else {}), "vision_config": other}
    nested["vision_config"].pop("num_key_value_heads")
    tensors = {
        "language_model.model.layers.0.self_attn.k_proj.weight": (numbered(kv * size, 2), kv),
        "model.layers.0.self_attn.q_proj.weight": (numbered(heads * size, 2), heads),
        "vision_tower.vision_model.encoder.layers.0.self_attn.k_proj.weight": (numbered(its * width, 2), its),
        "model.visual.blocks.0.self_attn.q_proj.weight": (numbered(its * width, 2), its),
    }
    rules = Rules(Mesh.parse(f"tp={tp}"), RULES["llama"], nested)
    if not all(can_share(count, tp) for _, count in tensors.values()):
        with pytest.raises(LayoutError, match=rf"tp={tp} does not divide"):
            rules.strategy({name: value.shape for name, (value, _) in tensors.items()})
        return
    strategy = rules.strategy({name: value.shape for name, (value, _) in tensors.items()})
    for name, (value, count) in tensors.items():
        for rank in range(tp):
            np.testing.assert_array_equal(cut(strategy[name], value, rank), heads_of(value, count, tp, rank))


def test_a_part_without_a_section_is_refused():
    """The heads of the language model are not those of a tower; a section that lacks a field is named."""
    config = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4, "hidden_size": 16}
    shapes = {"vision_tower.layers.0.q_proj.weight": (16, 16)}
    rules = Rules(Mesh.parse("tp=2"), RULES["llama"], config)
    with pytest.raises(
        LayoutError, match=r"the configuration \(vision_config\) has no num_attention_heads; add it"
    ):
        rules.strategy(shapes)
    config["vision_config"] = {"num_attention_heads": 4, "hidden_size": 16}
    assert Rules(rules.mesh, rules.rules, config).strategy(shapes)
    assert part_of("thinker.audio_tower.layers.0.k_proj", {"thinker_config": {"audio_config": {}, "text_config": {}}}
                   ).section == "thinker_config.audio_config"  # fmt: skip


@settings(max_examples=examples(30))
@given(heads=st.integers(1, 6), size=st.integers(1, 3), tp=st.integers(1, 6), bloom=st.booleans())
def test_query_key_value_of_each_head(heads, size, tp, bloom):
    """GPT-NeoX and BLOOM store [q, k, v] head by head: a rank has all three of its heads."""
    config = {"hidden_size": heads * size, "n_head" if bloom else "num_attention_heads": heads}
    value = numbered(heads * 3 * size, 2)
    name = (
        "h.0.self_attention.query_key_value.weight" if bloom else "layers.0.attention.query_key_value.weight"
    )
    rules = Rules(Mesh.parse(f"tp={tp}"), RULES["bloom" if bloom else "gpt_neox"], config)
    if not can_share(heads, tp):
        with pytest.raises(LayoutError, match=rf"tp={tp} does not divide"):
            rules.strategy({name: value.shape})
        return
    layout = rules.strategy({name: value.shape})[name]
    for rank in range(tp):
        np.testing.assert_array_equal(cut(layout, value, rank), heads_of(value, heads, tp, rank))


def test_stacked_experts_are_cut_in_their_hidden_units():
    """Gate and up one after the other, or by turns (gpt-oss); an expert's shape of another family is refused."""
    config = {"num_attention_heads": 4, "hidden_size": 6, "intermediate_size": 4, "model_type": "gpt_oss"}
    name, tp = "layers.0.mlp.experts.gate_up_proj", Mesh.parse("tp=2")
    stacked = numbered(3, 8, 6)
    layout = Rules(tp, RULES["llama"], config).strategy({name: stacked.shape})[name]
    gate, up = np.split(stacked, 2, axis=1)
    np.testing.assert_array_equal(cut(layout, stacked, 1), np.concatenate([gate[:, 2:], up[:, 2:]], axis=1))
    turns = numbered(3, 6, 8)
    layout = Rules(tp, RULES["gpt_oss"], config).strategy({name: turns.shape})[name]
    np.testing.assert_array_equal(cut(layout, turns, 1), turns[:, :, 4:])
    for table, value in (("llama", turns), ("gpt_oss", stacked)):
        with pytest.raises(LayoutError, match="but dim [12] has 6"):
            Rules(tp, RULES[table], config).strategy({name: value.shape})


@settings(max_examples=examples(40))
@given(layers=st.integers(1, 5), pp=st.integers(1, 4), tp=st.sampled_from([1, 2]), mesh=st.sampled_from(
    ["pp={pp},tp={tp}", "tp={tp},pp={pp}", "dp=2,pp={pp},tp={tp}"]), tied=st.booleans())  # fmt: skip
def test_pipeline_stages_hold_their_layers(layers, pp, tp, mesh, tied):
    """Layer i is on stage i * pp // layers, the embedding first, the head last; each stage's ranks cut by tp."""
    config = {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "hidden_size": 4,
        "num_hidden_layers": layers,
    }
    shapes = {f"model.layers.{i}.self_attn.q_proj.weight": (4, 4) for i in range(layers)}
    shapes |= {"model.embed_tokens.weight": (6, 4), "model.norm.weight": (4,)}
    shapes |= {} if tied else {"lm_head.weight": (6, 4)}
    rules = Rules(Mesh.parse(mesh.format(pp=pp, tp=tp)), RULES["llama"], config)
    if pp > layers:
        with pytest.raises(LayoutError, match=f"pp={pp} is more than the {layers} layers .*use pp={layers}"):
            rules.strategy(shapes)
        return
    strategy = rules.strategy(shapes)
    grid = rules.mesh.coordinates()
    stage_of = grid[:, rules.mesh.axis_index("pp")]
    tp_of = grid[:, rules.mesh.axis_index("tp")]
    for name, shape in shapes.items():
        value = numbered(*shape)
        stages = {int(name.split(".")[2]) * pp // layers} if "layers" in name else {pp - 1}
        if "embed" in name:
            stages = {0, pp - 1} if tied else {0}
        for rank in range(rules.mesh.size):
            held = cut(strategy[name], value, rank)
            if stage_of[rank] not in stages:
                assert held is None, (name, rank)
                continue
            wanted = value if "norm" in name else np.split(value, tp)[tp_of[rank]]
            np.testing.assert_array_equal(held, wanted)


def test_layers_that_are_no_number_are_refused():
    """The configuration's number of layers, where stages share them."""
    rules = Rules(Mesh.parse("pp=2"), RULES["llama"], {"num_hidden_layers": "two"})
    with pytest.raises(LayoutError, match="has num_hidden_layers='two', which gives no whole number above 0"):
        rules.strategy({"layers.0.up_proj.weight": (2, 2)})


def test_stages_may_be_cut_by_a_rule_instead():
    """A rule that cuts dims by pp has the axis for itself; no stages then."""
    rules = Rules(Mesh.parse("pp=2"), (Rule("*", "pp -"),))
    assert rules.strategy({"layers.0.w": (4, 2)})["layers.0.w"] == Layout(Mesh.parse("pp=2"), "pp -")


def test_tensors_of_one_table_or_attention_are_cut_alike():
    """Keys and values, embedding and tied head: one rule that leaves out the other is refused by both names."""
    two = Mesh.parse("tp=2")
    shapes = {
        "a.k_proj.weight": (4, 4),
        "a.v_proj.weight": (4, 4),
        "embed_tokens.weight": (6, 4),
        "lm_head.weight": (6, 4),
    }
    rows = "tp -"
    rules = (Rule("*.k_proj.weight", rows), Rule("*.lm_head.weight", rows), Rule("*", None))
    said = r"k_proj.weight \(tp -\) and a.v_proj.weight \(- -\) are keys and values of one .* the same rule$"
    with pytest.raises(LayoutError, match=said):
        Rules(two, rules).strategy(shapes)
    rules = (Rule("*.v_proj.weight", rows), *rules)
    assert Rules(two, rules, {"tie_word_embeddings": False}).strategy(shapes)
    with pytest.raises(LayoutError, match=r"embed_tokens.weight \(- -\) and lm_head.weight .* its tied head"):
        Rules(two, rules, {"text_config": {"tie_word_embeddings": True}}).strategy(shapes)
    config = {"tie_word_embeddings": True, "num_attention_heads": 2, "hidden_size": 4}
    for mesh in ("tp=2", "pp=2,tp=2"):
        shapes["layers.1.up_proj.weight"] = (4, 4)
        assert Rules(Mesh.parse(mesh), RULES["llama"], config).strategy(shapes)


def test_a_model_type_that_the_rules_do_not_know_is_reported():
    """By Rules, their repr and the command line; rules of one's own are for any model."""
    known = {kind: table for table, kinds in MODEL_TYPES.items() for kind in kinds}
    for kind, table in known.items():
        assert not Rules(Mesh.parse("tp=1"), RULES[table], {"model_type": kind}).unknown_model_types
    odd = {"model_type": "gemma9"}
    assert Rules(Mesh.parse("tp=1"), RULES["llama"], odd).unknown_model_types == ("gemma9",)
    extended = (*RULES["llama"], Rule("*.mixer.weight", None))
    assert not Rules(Mesh.parse("tp=1"), extended, odd).unknown_model_types
    assert "not written for model_type gemma9" in repr(Rules(Mesh.parse("tp=1"), RULES["llama"], odd))
    assert not Rules(Mesh.parse("tp=1"), (Rule("*", None),), odd).unknown_model_types
    text = {"model_type": "some_vlm", "text_config": {"model_type": "qwen3"}}
    assert not Rules(Mesh.parse("tp=1"), RULES["llama"], text).unknown_model_types


@pytest.mark.parametrize("table", RULES)
def test_printed_rules_are_a_file_of_rules(table, tmp_path):
    """`distinfer rules llama > mine.json` is read back as the same rules; own rules are tried first."""
    printed = CliRunner().invoke(main, ["rules", table])
    (tmp_path / "mine.json").write_text(printed.output)
    assert read_rules(tmp_path / "mine.json") == RULES[table]
    own = (Rule("*.q_proj.weight", None),)
    (tmp_path / "own.json").write_text(rules_json(own))
    for names in (
        f"{table},{tmp_path}/own.json",
        [table, tmp_path / "own.json"],
        f"{tmp_path}/own.json, {table}",
    ):
        assert read_rules(names) == (*own, *RULES[table])
    assert json.loads(rules_json(own)) == [{"match": "*.q_proj.weight", "dims": None}]


def test_wrong_calls_have_status_2(tmp_path):
    """A dtype, mesh or kind of rules that is not valid; short names of dtypes are accepted."""
    from safetensors.numpy import save_file

    save_file({"layers.0.up_proj.weight": np.ones((4, 2), np.float32)}, tmp_path / "model.safetensors")
    run = lambda *args: CliRunner().invoke(main, ["reshard", str(tmp_path), *map(str, args)])  # noqa: E731
    for options, word in [
        (["--dtype", "int3"], "--dtype int3 is not one of"),
        (["--to", "tp", "--rules", "llama"], "--to: 'tp' is not a mesh"),
        (["--to", "tp=2", "--rules", "lama"], "rules are a file, or one of gpt2, llama"),
    ]:
        done = run(tmp_path / "out", *options)
        assert done.exit_code == 2, done.output
        assert word in " ".join(done.output.split())
    assert CliRunner().invoke(main, ["rules", "lama"]).exit_code == 2
    assert "llama" in CliRunner().invoke(main, ["rules"]).output
    (tmp_path / "config.json").write_text('{"model_type": "strange"}')
    for i, (short, nbytes) in enumerate([("bf16", 2), ("half", 2), ("FP32", 4), ("torch.float16", 2)]):
        done = run(tmp_path / f"out{i}", "--dtype", short, "--to", "tp=2", "--rules", "llama")
        assert done.exit_code == 0, done.output
        assert "not written for model_type strange" in done.output
        (path,) = (tmp_path / f"out{i}").glob("rank_0/*.safetensors")
        assert path.read_bytes()[-4 * nbytes - 1 :][:1] in (b"}", b" ")


def test_calls_with_the_wrong_types_say_the_right_ones():
    """A text for a mesh, a name for rules."""
    with pytest.raises(ArgumentTypeError, match=r"mesh='tp=4' is not a Mesh; write Mesh.parse\('tp=4'\)"):
        Rules("tp=4", RULES["llama"])
    with pytest.raises(ArgumentTypeError, match=r"rules='llama' are not .* write read_rules\('llama'\)"):
        Rules(Mesh.parse("tp=4"), "llama")


def test_stages_that_count_their_own_layers_are_joined_as_the_refusal_says(tmp_path):
    """Two files with layers 0, 1 and 0: refused, for layer 0 differs; numbered on, they are one checkpoint."""
    tensors = [{"embed.weight": 0, "layers.0.w": 1, "layers.1.w": 2}, {"layers.0.w": 3, "head.weight": 4}]
    for rank, stage in enumerate(tensors):
        (tmp_path / f"local/rank_{rank}").mkdir(parents=True)
        values = {name: np.full((2, 2), value, np.float32) for name, value in stage.items()}
        save_slice(tmp_path / f"local/rank_{rank}/m.safetensors", values, format="safetensors")
    run = lambda *args: CliRunner().invoke(main, ["reshard", *map(str, args)])  # noqa: E731
    done = run(tmp_path / "local", tmp_path / "out")
    said = " ".join(done.output.split())
    assert done.exit_code == 1
    command = said.partition("as by distinfer ")[2].partition(" with a")[0]
    words = shlex.split(command)
    assert words[-1] == "layers.0.*=layers.2.*"
    assert run(words[1], tmp_path / "stage_1", *words[3:]).exit_code == 0
    (joined := tmp_path / "joined").mkdir()
    shutil.copytree(tmp_path / "local/rank_0", joined / "rank_0")
    shutil.copytree(tmp_path / "stage_1/rank_0", joined / "rank_1")
    assert run(joined, tmp_path / "whole").exit_code == 0
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        assert {name: checkpoint.read(0, name)[0, 0] for name in checkpoint.tensors} == {
            "embed.weight": 0, "layers.0.w": 1, "layers.1.w": 2, "layers.2.w": 3, "head.weight": 4,
        }  # fmt: skip
