"""Quantised weights: what a rank holds dequantises, with its own scales, to its slice of the whole; or a refusal."""

import ast
from math import ceil
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.cli import main
from distinfer_lab.dtypes import in_units
from distinfer_lab.errors import CheckpointError, GraphError, LayoutError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net.models.family import from_pretrained_config
from distinfer_lab.rules import Rule, Rules, quantised_weights, read_rules
from distinfer_lab.rules.quantised import Along
from distinfer_lab.rules.scales import check_together

from ..strategies import examples
from ..transformers import LLAMA
from .test_rule_kinds import cut

ROWS, COLUMNS = "tp -", "- tp"
F8, U8, I32, F32 = (np.dtype(d) for d in (ml_dtypes.float8_e4m3fn, np.uint8, np.int32, np.float32))


class Case(NamedTuple):
    """A quantised weight: its tensors, what they are read as, and in which steps it may be cut."""

    tensors: dict
    dtypes: dict
    config: dict
    dequantise: object
    units: tuple


def blocks(scales, shape, sizes):
    """A scale for each place."""
    return scales[np.ix_(*(np.arange(n) // b for n, b in zip(shape, sizes, strict=True)))]


def fp8_blocks(random, out, inner, size):
    codes, scales = (
        random.integers(1, 99, (out, inner)),
        random.integers(1, 99, (ceil(out / size), ceil(inner / size))),
    )

    def dequantise(t):
        return t["w.weight"] * blocks(t["w.weight_scale_inv"], t["w.weight"].shape, (size, size))

    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [size, size]}}
    units = tuple(1 if n <= size else size for n in (out, inner))
    return Case({"w.weight": codes, "w.weight_scale_inv": scales},
                {"w.weight": F8, "w.weight_scale_inv": F32}, config, dequantise, units)  # fmt: skip


def per_row(random, out, inner, size):
    codes, scales = (
        random.integers(1, 99, (out, inner)),
        random.integers(1, 99, (out, 1) if size % 2 else (out,)),
    )

    def dequantise(t):
        return t["w.weight"] * t["w.weight_scale"].reshape(-1, 1)

    tensors = {"w.weight": codes, "w.weight_scale": scales, "w.input_scale": random.integers(1, 9, (1,))}
    return Case(
        tensors,
        {"w.weight": F8, "w.weight_scale": F32, "w.input_scale": F32},
        {},
        dequantise,
        (1, 1),
    )


def unpacked(words, axis):
    """Two codes of 16 bits in each word, as 32 // 16 are; bits tell nothing about the way of a cut."""
    pair = np.stack([words % 100, words // 100], axis=axis + 1)
    return pair.reshape([n * 2 if i == axis else n for i, n in enumerate(words.shape)])


def packed_words(kind):
    """AWQ's and GPTQ's layouts, with 16 bits a code."""

    def make(random, out, inner, size):
        out, inner = 2 * ceil(out / 2), 2 * ceil(inner / 2)
        groups = ceil(inner / size)
        shape = (inner, out // 2) if kind == "awq" else (inner // 2, out)
        tensors = {
            "w.qweight": random.integers(1, 9999, shape),
            "w.qzeros": random.integers(1, 9999, (groups, out // 2)),
            "w.scales": random.integers(1, 99, (groups, out)),
        }
        if kind != "awq":
            order = np.arange(inner) // size
            tensors["w.g_idx"] = random.permutation(order) if kind == "act_order" else order
        said = {"quant_method": kind, "bits": 16, "group_size": size, "desc_act": kind == "act_order"}

        def dequantise(t):
            codes = unpacked(t["w.qweight"], 1 if kind == "awq" else 0)
            # Kernels look at g_idx only with act order; else the group is counted in the share.
            group = t["w.g_idx"] if kind == "act_order" else np.arange(len(codes)) // size
            return ((codes - unpacked(t["w.qzeros"], 1)[group]) * t["w.scales"][group]).T

        by_group = 1 if groups == 1 or kind == "act_order" else size
        step = by_group if kind == "awq" else np.lcm(2, by_group)
        dtypes = {n: F32 if n == "w.scales" else I32 for n in tensors}
        return Case(tensors, dtypes, {"quantization_config": said}, dequantise, (2, int(step)))

    return make


def nvfp4(random, out, inner, size):
    inner = 16 * ceil(inner / 16)
    tensors = {
        "w.weight": random.integers(1, 9999, (out, inner // 2)),
        "w.weight_scale": random.integers(1, 99, (out, inner // 16)),
        "w.weight_scale_2": random.integers(1, 9, (1,)),
    }

    def dequantise(t):
        codes = unpacked(t["w.weight"], 1)
        return codes * blocks(t["w.weight_scale"], codes.shape, (1, 16)) * t["w.weight_scale_2"]

    dtypes = {"w.weight": U8, "w.weight_scale": F8, "w.weight_scale_2": F32}
    return Case(tensors, dtypes, {}, dequantise, (1, 16 if inner > 16 else 2))


MAKERS = (fp8_blocks, per_row, packed_words("awq"), packed_words("gptq"), packed_words("act_order"), nvfp4)


@st.composite
def cases(draw):
    """Any kind, sizes that divide and that do not, blocks larger than the weight."""
    make = draw(st.sampled_from(MAKERS))
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    size = draw(st.sampled_from([1, 2, 3, 4, 8]))
    out, inner = (
        draw(st.integers(1, 4)) * draw(st.sampled_from([size, 1, 2, 8])) + draw(st.integers(0, 1))
        for _ in "oi"
    )
    return make(random, out, inner, size)


def dequantised(case, layouts, rank):
    """What a rank computes from its share alone."""
    return case.dequantise({name: cut(layouts[name], value, rank) for name, value in case.tensors.items()})


@settings(max_examples=examples(150))
@given(case=cases(), tp=st.integers(1, 4), dims=st.sampled_from([ROWS, COLUMNS]))
def test_each_rank_dequantises_to_its_slice(case, tp, dims):
    """Cut exactly where every piece is whole blocks of all tensors, to the slice of the dequantised whole."""
    whole = case.dequantise(case.tensors)
    axis = dims.split().index("tp")
    rules = Rules(Mesh.parse(f"tp={tp}"), (Rule("*.weight", dims),), case.config)
    shapes = {name: value.shape for name, value in case.tensors.items()}
    length = whole.shape[axis]
    if tp > 1 and (length % tp or length // tp % case.units[axis]):
        with pytest.raises(
            LayoutError, match=r"tp=\d (does not divide|would cut through blocks of \d+ in) dim"
        ):
            rules.strategy(shapes, case.dtypes)
        return
    strategy = rules.strategy(shapes, case.dtypes)
    for rank in range(tp):
        np.testing.assert_array_equal(dequantised(case, strategy, rank), np.split(whole, tp, axis)[rank])


@settings(max_examples=examples(150))
@given(data=st.data(), case=cases(), tp=st.integers(2, 4))
def test_cuts_that_are_accepted_dequantise(data, case, tp):
    """A strategy that cuts each tensor by itself is accepted only where codes and scales stay together."""
    layouts = {}
    for name, value in case.tensors.items():
        way = data.draw(st.sampled_from([(), (0,), (1,)]))
        dims = tuple(("tp",) if (i,) == way else () for i in range(value.ndim))
        layouts[name] = Layout(Mesh(tp=tp), dims, split="gspmd_ceil")
    (weight,) = quantised_weights({n: v.shape for n, v in case.tensors.items()}, case.dtypes, case.config)
    try:
        check_together([weight], layouts)
    except LayoutError:
        return
    whole, codes = case.dequantise(case.tensors), weight.codes
    for rank in range(tp):
        if any(0 in np.shape(cut(layouts[name], value, rank)) for name, value in case.tensors.items()):
            continue
        rows, columns = slice(None), slice(None)
        for bounds, one in zip(layouts[codes.name].boxes(codes.shape)[rank], codes.along, strict=True):
            place = slice(*(bounds * one.step))
            rows, columns = (place, columns) if one.dim == 0 else (rows, place)
        np.testing.assert_array_equal(dequantised(case, layouts, rank), whole[rows, columns])


def test_heads_and_fused_parts_are_cut_at_blocks():
    """Query, key and value in one, in blocks of rows: each part is cut at whole blocks, with its scales."""
    random = np.random.default_rng(0)
    config = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4, "hidden_size": 8}
    config["quantization_config"] = {"weight_block_size": [4, 4]}
    names = ("a.qkv_proj.weight", "a.qkv_proj.weight_scale_inv")
    codes, scales = random.integers(0, 99, (64, 8)), random.integers(0, 99, (16, 2))
    whole = codes * blocks(scales, codes.shape, (4, 4))

    def layouts(tp, block):
        config["quantization_config"]["weight_block_size"] = [block, 4]
        shapes = {names[0]: (64, 8), names[1]: (64 // block, 2)}
        return Rules(Mesh.parse(f"tp={tp}"), read_rules("llama"), config).strategy(shapes)

    strategy = layouts(4, 4)
    for rank in range(4):
        q, k, v = np.split(whole, [32, 48])
        wanted = np.vstack([np.split(part, 4)[rank] for part in (q, k, v)])
        mine = [cut(strategy[name], value, rank) for name, value in zip(names, (codes, scales), strict=True)]
        np.testing.assert_array_equal(mine[0] * blocks(mine[1], mine[0].shape, (4, 4)), wanted)
    said = r"tp=4 would cut through blocks of 8 in dim 0 \(32 \+ 16 \+ 16\) of 'a.qkv_proj.weight': use tp=2"
    with pytest.raises(LayoutError, match=said):
        layouts(4, 8)


def test_what_is_not_known_is_refused_when_it_is_cut():
    """Blocks of unknown size, flattened codes, scales of a shape of their own; whole on each rank they are taken."""
    two, half = Mesh.parse("tp=2"), (Rule("*.weight", ROWS), Rule("*", None))
    for shapes, said in [
        (
            {"w.weight": (24, 4), "w.weight_scale_inv": (5, 1)},
            "size of its blocks is not known; give the config.json",
        ),
        (
            {"w.weight": (24, 4), "w.weight.absmax": (3,)},
            "how its scales could be cut is not known; leave the weight whole",
        ),
        ({"w.W_q": (12, 4), "w.scale": (2, 6)}, "how its scales could be cut is not known"),
        ({"w.weight": (24, 4), "w.scale": (7,)}, "how its scales could be cut is not known"),
        (
            {"w.qweight": (4, 24), "w.scales": (5,)},
            r"w.qweight .*with dims null \(rules know it as w.weight\)",
        ),
    ]:
        with pytest.raises(LayoutError, match=said):
            Rules(two, half, None).strategy(shapes)
        whole = (Rule("*.weight", None),)
        assert {max(layout.parts) for layout in Rules(two, whole, None).strategy(shapes).values()} == {1}


def test_the_size_of_a_block_is_the_power_of_two_that_fits():
    """Without a configuration; a layer's own scale, a norm called scale and the like are no scales of codes."""
    (found,) = quantised_weights({"w.weight": (300, 256), "w.weight_scale_inv": (3, 2)})
    assert found.tensors[1].along == (Along(0, 128), Along(1, 128))
    assert not quantised_weights(
        {"norm.weight": (4,), "norm.scale": (4,)}, dict.fromkeys(("norm.weight", "norm.scale"), F32)
    )
    assert not quantised_weights({"logit_scale": (), "layers.0.ls1.scale": (4,), "k_proj.k_scale": (1,)})
    nvfp4 = {"w.weight": (8, 24), "w.weight_scale": (8, 3)}  # rules do not see the scalar weight_scale_2
    (half,) = quantised_weights(nvfp4, {"w.weight": U8, "w.weight_scale": F8})
    assert (half.shape, half.tensors[1].along[1]) == ((8, 48), Along(1, 16))
    odd = {"w.weight": F8, "w.my_scale": F32}
    assert len(quantised_weights({"w.weight": (4, 4), "w.my_scale": (4, 1)}, odd)) == 1
    stacked = {"mlp.experts.up_blocks": (3, 4, 2, 16), "mlp.experts.up_scales": (3, 4, 2)}
    (experts,) = quantised_weights(stacked)
    assert (experts.name, experts.shape) == ("mlp.experts.up", (3, 64, 4))


def test_words_of_mlx():
    """uint32 words of 8 codes, with scales and biases by groups of 64, as the configuration says."""
    shapes = {"w.weight": (8, 16), "w.scales": (8, 2), "w.biases": (8, 2)}
    dtypes = {"w.weight": np.dtype(np.uint32), "w.scales": F32, "w.biases": F32}
    (weight,) = quantised_weights(shapes, dtypes, {"quantization": {"group_size": 64, "bits": 4}})
    assert weight.shape == (8, 128)
    assert [tensor.along[1] for tensor in weight.tensors] == [Along(1, 8), Along(1, 64), Along(1, 64)]


def test_codes_smaller_than_a_byte_are_counted_in_elements():
    """Two F4 codes in a unit: 16 of them, which are 8 units, go with one scale."""
    unit = in_units("F4", (8, 64))
    shapes = {"w.weight": unit.shape, "w.weight_scale": (8, 4)}
    (weight,) = quantised_weights(shapes, {"w.weight": unit.dtype, "w.weight_scale": F8})
    assert weight.shape == (8, 64)
    assert [tensor.along for tensor in weight.tensors] == [
        (Along(0, 1), Along(1, 2)),
        (Along(0, 1), Along(1, 16)),
    ]


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face folder with one weight in 8 bits, one that is not quantised, and a norm."""
    random = np.random.default_rng(1)
    tensors = {
        "layers.0.up_proj.weight": random.standard_normal((8, 4)).astype(F8),
        "layers.0.gate_proj.weight": random.standard_normal((8, 4)).astype(np.float32),
        "norm.weight": np.ones(4, np.float32),
    }
    tensors["layers.0.up_proj.weight_scale_inv"] = np.ones((2, 1), np.float32)
    (tmp_path / "src").mkdir()
    save_slice(tmp_path / "src/model.safetensors", tensors, format="safetensors")
    (tmp_path / "src/config.json").write_text('{"quantization_config": {"weight_block_size": [4, 4]}}')
    return tmp_path / "src"


def test_codes_are_never_converted(folder, tmp_path):
    """dtype= is refused with the names; the way out converts the rest, and leaving the codes as they are works."""
    with open_checkpoint(folder) as checkpoint:
        with pytest.raises(
            ReshardError, match=r"cannot be converted by dtype=: layers.0.up_proj.weight \(float8"
        ) as told:
            checkpoint.plan(None, dtype="bf16")
        assert str(told.value).endswith("select=['!*.up_proj.*']")
        rest = checkpoint.plan(None, dtype="bf16", select=["!*.up_proj.*"])
        assert {str(dtype) for _, dtype in rest.targets.values()} == {"bfloat16"}
    (tmp_path / "partly").mkdir()
    tensors = {
        "layers.1.up_proj.weight": np.ones((8, 4), np.float32),
        "w_gate.weight": np.ones(4, np.float32),
    }
    for name in ("layers.0.up_proj", "w"):
        scale, end = np.ones((8, 1), np.float32), "" if name == "w" else ".weight"
        tensors |= {f"{name}{end}": np.ones((8, 4), np.int8), f"{name}{end}_scale": scale}
    save_slice(tmp_path / "partly/model.safetensors", tensors, format="safetensors")
    with open_checkpoint(tmp_path / "partly") as checkpoint:
        with pytest.raises(ReshardError) as told:
            checkpoint.plan(dtype="bf16")
        select = ast.literal_eval(str(told.value).partition("select=")[2])
        assert set(checkpoint.plan(dtype="bf16", select=select).targets) == {
            "layers.1.up_proj.weight",
            "w_gate.weight",
        }
    (tmp_path / "lone").mkdir()
    save_slice(tmp_path / "lone/model.safetensors", {"w": np.ones((4, 4), F8)}, format="safetensors")
    with open_checkpoint(tmp_path / "lone") as checkpoint:
        assert str(checkpoint.plan(dtype="fp32").targets["w"][1]) == "float32"
        (tmp_path / "lone/config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
        with pytest.raises(ReshardError, match="dtype=: w .float8_e4m3fn codes by quantization_config"):
            checkpoint.plan(dtype="fp32")
    run = ["reshard", str(folder), str(tmp_path / "out"), "--to", "tp=2", "--rules", "llama"]
    assert CliRunner().invoke(main, [*run, "--dtype", "bf16"]).exit_code == 1
    done = CliRunner().invoke(main, run)
    assert done.exit_code == 0, done.output
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.read(1, "layers.0.up_proj.weight_scale_inv").shape == (1, 1)


def test_a_strategy_may_not_part_codes_from_scales(folder):
    """Rows of the codes cut, all scales on each rank: named with the rank, and what to do."""
    tp = Mesh(tp=2)
    with open_checkpoint(folder) as checkpoint:
        layouts = {name: Layout(tp, ((),) * len(r.shape)) for name, r in checkpoint.tensors.items()}
        layouts["layers.0.up_proj.weight"] = Layout(tp, ROWS)
        said = (
            "scale_inv: on rank 0 the scales would be parted .* codes 0:4 and scales of 0:8; cut both alike"
        )
        with pytest.raises(LayoutError, match=said):
            checkpoint.plan(Strategy(layouts))
        layouts["layers.0.up_proj.weight_scale_inv"] = Layout(tp, ROWS)
        assert checkpoint.plan(Strategy(layouts)).plan.dst_count == 2


@pytest.mark.parametrize("field", ["quantization_config", "compression_config", "quantization"])
def test_a_quantised_model_is_not_made(field):
    """Its codes would be taken for weights."""
    with pytest.raises(
        GraphError, match=f"{field} says that the weights are quantised, which cannot be predicted"
    ):
        from_pretrained_config({**LLAMA, field: {"bits": 4}})
    assert from_pretrained_config({**LLAMA, field: None})


def test_codes_are_not_loaded_into_a_net(folder):
    """A net has no parameter for the scales: refused by the names of both."""
    from distinfer_lab.flow.matching import Matching
    from distinfer_lab.net import Parameter

    param = Parameter(np.zeros((8, 4), np.float32), "layers.0.up_proj.weight")
    with open_checkpoint(folder) as checkpoint:
        with pytest.raises(
            CheckpointError,
            match="holds codes of a quantised weight, .* without layers.0.up_proj.weight_scale",
        ):
            Matching({param.name: param}, checkpoint, False, {}, ())
        other = Parameter(np.zeros((8, 4), np.float32), "layers.0.gate_proj.weight")
        assert Matching({other.name: other}, checkpoint, False, {}, ()).entries
