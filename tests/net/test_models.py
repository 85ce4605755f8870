"""Families of transformers: names as Hugging Face has them, configurations checked, frequencies by the formulas."""

import json

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.errors import ArgumentTypeError, GraphError, ShardingError
from distinfer_lab.net import AxisStrategy, Spec, trace
from distinfer_lab.net.models import GPT2, Llama, NextTokenLoss, from_pretrained_config
from distinfer_lab.net.operators import CachedAttention

from ..transformers import LLAMA, NAMES, folder_of, net_of, weights

GPT = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 16, "vocab_size": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_names_shapes_and_dtypes_of_the_files(name):
    """One to one, so that files and rules fit."""
    found = {n: (p.shape, p.dtype) for n, p in net_of(name).parameters_dict().items()}
    assert found == {n: (v.shape, v.dtype) for n, v in weights(name).items()}


def test_a_configuration_is_a_mapping_a_file_or_a_folder():
    """All three make the same net; anything else is refused."""
    folder = folder_of("gpt2_tiny")
    given = json.loads((folder / "config.json").read_text())
    shapes = [repr(from_pretrained_config(source)) for source in (given, folder, folder / "config.json")]
    assert len(set(shapes)) == 1
    assert repr(dl.models.GPT2(str(folder))) == shapes[0]
    with pytest.raises(ArgumentTypeError, match="a mapping, a config.json or its folder, not int"):
        from_pretrained_config(3)


def test_qwen2_has_biases_of_query_key_and_value_only():
    """And Llama those that its configuration says."""
    qwen = Llama({**LLAMA, "model_type": "qwen2"}).parameters_dict()
    biases = {name.split(".")[-2] for name in qwen if name.endswith("bias")}
    assert biases == {"q_proj", "k_proj", "v_proj"}
    both = Llama({**LLAMA, "attention_bias": True, "mlp_bias": True}).parameters_dict()
    assert sum(name.endswith("bias") for name in both) == 2 * 7
    assert not any(name.endswith("bias") for name in Llama(LLAMA).parameters_dict())


WRONG = [
    ({"model_type": "bert"}, "model_type='bert' is not one of those supported: gpt2, llama, mistral, qwen2"),
    ({}, "model_type=None is not one of those supported"),
    ({**GPT, "n_embd": "8"}, "configuration of gpt2: n_embd='8' must be a whole number from 1 to"),
    ({**GPT, "n_layer": 10**9}, "n_layer=1000000000 must be a whole number from 1 to 512"),
    ({**GPT, "n_head": True}, "n_head=True must be a whole number"),
    ({**GPT, "n_head": 3}, "n_embd=8 must be a multiple of n_head=3"),
    ({**GPT, "vocab_size": None}, "vocab_size is missing; take the config.json that belongs to the weights"),
    (
        {**GPT, "activation_function": "mish"},
        "activation_function='mish' is not one of those supported: gelu, gelu_new",
    ),
    ({**GPT, "layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=nan must be a number above 0"),
    ({**GPT, "add_cross_attention": True}, "add_cross_attention=True is not supported"),
    ({**GPT, "dtype": "int8"}, "dtype='int8' is not one of those supported: float32, float16, bfloat16"),
    ({**GPT, "tie_word_embeddings": 1}, "tie_word_embeddings=1 must be true or false"),
    (
        {**LLAMA, "num_key_value_heads": 3},
        "num_attention_heads=4 must be a multiple of num_key_value_heads=3",
    ),
    ({**LLAMA, "head_dim": 5}, "head_dim=5 must be even"),
    ({**LLAMA, "hidden_size": 26}, "hidden_size=26 must be a multiple of num_attention_heads=4"),
    (
        {**LLAMA, "rope_scaling": {"type": "yarn"}},
        "llama, rope_scaling: type='yarn' is not one of those supported: default",
    ),
    ({**LLAMA, "rope_scaling": {"type": "linear"}}, "llama, rope_scaling: factor is missing"),
    ({**LLAMA, "rope_parameters": 3}, "rope_parameters=3 must be an object"),
    ({**LLAMA, "rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor=1.0 must be above"),
    ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
    (
        {**LLAMA, "model_type": "mistral", "sliding_window": 16},
        "sliding_window=16 is not supported; use null, or at",
    ),
]


@pytest.mark.parametrize(("config", "text"), WRONG)
def test_a_wrong_field_is_named(config, text):
    """Configurations come from anywhere: the field, its value, the rule."""
    with pytest.raises(GraphError, match=text.replace("(", r"\(").replace(")", r"\)")):
        from_pretrained_config(config)


def test_files_that_are_no_configuration_are_named(tmp_path):
    """Missing, no JSON, no object."""
    with pytest.raises(GraphError, match=r"config\.json: No such file or directory; give the folder"):
        from_pretrained_config(tmp_path)
    for content, text in (
        (b"{", "it is not valid JSON"),
        (b"[1]", "a configuration is a JSON object, not list"),
    ):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(GraphError, match=text):
            from_pretrained_config(tmp_path)


def inverse_frequencies(**fields):
    return np.array(Llama({**LLAMA, "head_dim": 8, **fields}).inverse_frequencies)


def test_frequencies_are_scaled_as_configured():
    """Plain, linear, Llama 3's; in the old notation and in the new one."""
    plain = 10000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(inverse_frequencies(), plain)
    np.testing.assert_allclose(inverse_frequencies(rope_theta=500.0), 500.0 ** (-np.arange(0, 8, 2) / 8))
    np.testing.assert_allclose(inverse_frequencies(rope_scaling={"type": "linear", "factor": 4}), plain / 4)
    waves = 2 * np.pi / plain  # 6, 63, 628 ...: one of each kind
    blend = (64 / waves - 1) / (4 - 1)
    expected = np.where(
        waves < 64 / 4, plain, np.where(waves > 64 / 1, plain / 8, (1 - blend) * plain / 8 + blend * plain)
    )
    for field in ("rope_scaling", "rope_parameters"):
        np.testing.assert_allclose(inverse_frequencies(**{field: LLAMA3}), expected)
    new = {"rope_theta": 500.0, "rope_type": "default"}
    np.testing.assert_allclose(
        inverse_frequencies(rope_parameters=new), inverse_frequencies(rope_theta=500.0)
    )


@pytest.mark.parametrize("net", [GPT2(GPT), Llama(LLAMA)], ids=["gpt2", "llama"])
def test_every_operator_has_a_strategy(net):
    """Once `shard_by` was called; before, none is. Constants have nothing to cut."""
    ids = Spec((2, 3), np.dtype(np.int64))
    assert all(node.strategy is None for node in trace(net, ids).nodes)
    net.shard_by(tp=2, dp=2)
    assert all(isinstance(node.strategy, AxisStrategy) for node in trace(net, ids).nodes if node.inputs)


def test_what_a_net_cannot_take_is_said():
    """Ids of another shape, too many tokens, labels that do not fit, more stages than layers."""
    net = GPT2(GPT)
    with pytest.raises(ShardingError, match="pp=2: 1 layers make 1 to 1 pipeline stages"):
        net.shard_by(pp=2)
    for shape, dtype in (((3,), np.int64), ((2, 3), np.float32)):
        with pytest.raises(GraphError, match="GPT2 takes token ids of shape"):
            trace(net, Spec(shape, np.dtype(dtype)))
    with pytest.raises(GraphError, match="2 sequences of 17 tokens; it takes 1 or more, of 1 to 16 tokens"):
        trace(net, Spec((2, 17), np.dtype(np.int64)))
    with pytest.raises(GraphError, match=r"labels of shape \[2, 4\] for logits of \[2, 3, 32\]"):
        NextTokenLoss(net)(dl.Tensor(np.zeros((2, 3, 32))), dl.Tensor(np.zeros((2, 4), np.int64)))


def test_a_net_runs_on_arrays_too():
    """Outside of any cards: a call computes at once, and gives what the traced graph gives."""
    net, ids = GPT2(GPT), np.array([[3, 1, 4]])
    logits = net(dl.Tensor(ids)).asnumpy()
    assert logits.shape == (1, 3, 32)
    np.testing.assert_allclose(net(dl.Tensor(ids[:, :2])).asnumpy(), logits[:, :2], rtol=1e-4, atol=1e-6)


def test_a_cache_is_written_at_its_place_and_nowhere_else():
    """New keys and values at the position; what is behind it is not attended to; no room is an error."""
    random = np.random.default_rng(0)
    query, key, value = random.normal(size=(1, 4, 2, 6)), *random.normal(size=(2, 1, 2, 2, 6))
    keys, values = random.normal(size=(2, 1, 2, 5, 6))
    before = keys.copy(), values.copy()
    out = CachedAttention(scale=0.3).forward(query, key, value, keys, values, np.array(2))
    for cache, old, new in zip((keys, values), before, (key, value), strict=True):
        np.testing.assert_array_equal(cache[:, :, 2:4], new)
        np.testing.assert_array_equal(cache[:, :, [0, 1, 4]], old[:, :, [0, 1, 4]])
    for head, token in np.ndindex(4, 2):
        attended = slice(0, 3 + token)
        weights = np.exp(0.3 * keys[0, head // 2, attended] @ query[0, head, token])
        answer = weights @ values[0, head // 2, attended] / weights.sum()
        np.testing.assert_allclose(out[0, head, token], answer, rtol=1e-12)
    with pytest.raises(GraphError, match=r"tokens 4\.\.5 for a cache of length 5; make it longer"):
        CachedAttention().forward(query, key, value, keys, values, np.array(4))
