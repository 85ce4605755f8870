"""Transformers as programs: laid out as the rules of their files say; two sums a block, and nothing else, is sent."""

from collections import Counter

import numpy as np
import pytest

from distinfer_lab.errors import ShardingError
from distinfer_lab.net import Spec, nn, operators, trace, training_graph
from distinfer_lab.net.models import GPT2, Decoder, Llama, NextTokenLoss
from distinfer_lab.parallel import (
    AllReduce,
    partition,
    propagate,
    run_serial,
    same_layout,
    shard_inputs,
    unshard,
)

from ..transformers import LLAMA, NAMES, by_rules, expected, held_bytes, net_of, random_weights, weights

MESHES = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 2), (8, 1)]
IDS = Spec((8, 6), np.dtype(np.int64))


def program_of(net, ids, dp, tp):
    net.shard_by(dp=dp, tp=tp)
    return partition(graph := trace(net, ids), propagate(graph, dp * tp))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dp", "tp"), MESHES)
def test_logits_are_those_of_transformers(name, dp, tp):
    """Of the oracle's folders, whatever the cut; each card holds what the files' rules give it."""
    net, ids = net_of(name), expected(name)["input_ids"]
    program = program_of(net, ids, dp, tp)
    outputs, _ = run_serial(
        program, shard_inputs(program, weights(name)), shard_inputs(program, {"ids": ids})
    )
    found = unshard(program, program.outputs[0], outputs)
    np.testing.assert_allclose(found, expected(name)["logits"], atol=2e-4)
    dtypes = dict.fromkeys(program.params, np.float32)
    assert program.resident_bytes.tolist() == held_bytes(by_rules(net, dp, tp), dtypes)


def configs():
    gpt2 = {"n_embd": 24, "n_head": 4, "n_layer": 1, "n_positions": 16}
    yield GPT2({**gpt2, "vocab_size": 64})
    yield GPT2({**gpt2, "vocab_size": 61, "tie_word_embeddings": False})
    yield Llama({**LLAMA, "intermediate_size": 48})
    yield Llama(
        {**LLAMA, "num_attention_heads": 16, "head_dim": 4, "intermediate_size": 48, "mlp_bias": True}
    )
    yield Llama(
        {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 33}
    )


@pytest.mark.parametrize("net", list(configs()), ids=lambda net: type(net).__name__)
def test_parameters_are_laid_out_as_the_rules_of_files_say(net):
    """On 1 to 8 cards: fused weights, shared KV heads, a vocabulary that cannot be shared evenly, biases."""
    for dp, tp in [*MESHES, (1, 3), (1, 6), (2, 3)]:
        heads = {net.heads, net.kv_heads}
        if any(count % tp and tp % count for count in heads):
            with pytest.raises(
                ShardingError, match=rf"tp={tp}: \d+ (KV|query) heads cannot be shared evenly by {tp}"
            ):
                net.shard_by(dp=dp, tp=tp)
            continue
        net.shard_by(dp=dp, tp=tp)
        found = propagate(trace(net, IDS), dp * tp).strategy
        for param, layout in by_rules(net, dp, tp).items():
            assert same_layout(found[param], layout, found.shapes[param]), (param, found[param], layout)


def test_a_block_costs_two_sums():
    """One after attention, one after the feed-forward; the embedding costs one; nothing is redistributed."""
    for layers in (1, 3):
        net = Llama({**LLAMA, "num_hidden_layers": layers, "intermediate_size": 48})
        program = program_of(net, IDS, 2, 4)
        moves = [i for i in program.instructions if not hasattr(i, "op")]
        assert [type(move) for move in moves] == [AllReduce] * (1 + 2 * layers)
        # 8 / 2 texts of 6 tokens, 24 wide: what each of the cards adds up.
        for move in moves:
            held = program.values[move.output]
            assert np.prod(held.layout.shard_shape(held.spec.shape)) == 4 * 6 * 24


def test_the_decoder_costs_the_same_sums():
    """With caches too; a cache is sharded as the KV heads are, and is never redistributed."""
    net = Llama({**LLAMA, "num_hidden_layers": 2, "intermediate_size": 48}).shard_by(tp=4)
    decoder = Decoder(net, batch=2, cache_length=9)
    for tokens in (1, 5):
        graph = trace(decoder, Spec((2, tokens), np.dtype(np.int64)), Spec((), np.dtype(np.int64)))
        program = partition(graph, propagate(graph, 4))
        kinds = Counter(type(i).__name__ for i in program.instructions)
        assert (kinds["AllReduce"], kinds["Redistribute"]) == (5, 0)
        cache = program.values["cache.1.values"]
        assert cache.layout.shard_shape(cache.spec.shape) == (2, 1, 9, 6)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_one_by_one_give_the_logits_of_all(name):
    """The prompt at once, then token by token from the caches; a step that is repeated changes nothing."""
    net, ids = net_of(name).shard_by(tp=8), expected(name)["input_ids"]
    decoder, values = Decoder(net, 2, 12), weights(name)
    caches = {n: p.asnumpy() for n, p in decoder.parameters_dict().items()}
    shards = None
    for start, stop in [(0, 7), (7, 8), (8, 9), (8, 9), (9, 12)]:
        graph = trace(decoder, ids[:, start:stop], np.array(start))
        program = partition(graph, propagate(graph, 8))
        shards = shards or shard_inputs(program, {**values, **caches})
        given = shard_inputs(program, {"ids": ids[:, start:stop], "position": np.array(start)})
        outputs, _ = run_serial(program, shards, given)
        found = unshard(program, program.outputs[0], outputs)
        np.testing.assert_allclose(found, expected(name)["logits"][:, stop - 1], atol=2e-4)


def trained(name, dp, tp, steps, **options):
    """Losses, and all values after some steps; the bytes that each card holds."""
    net = net_of(name).shard_by(dp=dp, tp=tp)
    optimizer = nn.Momentum(net.trainable_params(), 0.05, 0.9)
    texts = np.random.default_rng(0).integers(0, 256, (4, 13))
    ids, labels = texts[:, :-1], texts[:, 1:]
    graph = training_graph(net, NextTokenLoss(net), optimizer, ids, labels)
    program = partition(graph, propagate(graph, dp * tp, **options))
    values = {**weights(name), **{n: s.asnumpy() for n, s in optimizer.states.items()}}
    shards, losses = shard_inputs(program, values), []
    for _ in range(steps):
        outputs, updates = run_serial(program, shards, shard_inputs(program, {"ids": ids, "label": labels}))
        losses.append(float(outputs[0][program.outputs[0]]))
        for rank, new in enumerate(updates):
            shards[rank] |= new
    return losses, {n: unshard(program, n, shards) for n in values}, program


@pytest.mark.parametrize("name", NAMES)
def test_training_is_the_same_however_it_is_cut(name):
    """Two groups of four cards, with whole optimizer states and with cut ones, and 8 in one group."""
    losses, values, _ = trained(name, 1, 1, 4)
    assert losses[-1] < losses[0]
    for dp, tp, zero in [(2, 4, False), (2, 4, True), (1, 8, False)]:
        found_losses, found, program = trained(name, dp, tp, 4, parallel_optimizer=zero)
        np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
        for param, value in values.items():
            np.testing.assert_allclose(found[param], value, rtol=1e-4, atol=1e-6, err_msg=param)
        for param in weights(name):
            assert program.strategy[f"moments.{param}"] == program.strategy[param]


def test_no_gradient_of_the_vocabulary_is_whole_on_a_card():
    """The table's gradient, from its rows and from the head, is made where the rows lie."""
    *_, program = trained("gpt2_tiny", 1, 4, 0)
    sizes = [np.prod(c.layout.shard_shape(c.spec.shape)) for c in program.values.values()]
    assert max(sizes) == max(256 * 64 // 4, 4 * 12 * 256 // 4)
    moves = Counter(type(i).__name__ for i in program.instructions)
    assert moves["Redistribute"] == 0


def test_random_weights_of_llama_are_computed_as_the_formulas_say():
    """Grouped heads, head_dim of its own, biases, tied embeddings: against plain numpy, token by token."""
    extra = {"head_dim": 10, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    net = Llama({**LLAMA, **extra, "rope_theta": 500.0})
    values = random_weights(net)
    ids = np.random.default_rng(1).integers(0, 50, (2, 7))
    for dp, tp in [(1, 1), (2, 2), (1, 4)]:
        program = program_of(net, ids, dp, tp)
        outputs, _ = run_serial(program, shard_inputs(program, values), shard_inputs(program, {"ids": ids}))
        found = unshard(program, program.outputs[0], outputs)
        np.testing.assert_allclose(found, plain_llama(net.config, values, ids), rtol=1e-4, atol=1e-4)


def plain_llama(config, values, ids):
    """Llama with biases and tied embeddings, in float64."""
    heads, keys, size = (config[n] for n in ("num_attention_heads", "num_key_value_heads", "head_dim"))

    def linear(x, name):
        return x @ values[f"{name}.weight"].T.astype(np.float64) + values[f"{name}.bias"]

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * values[f"{name}.weight"]

    def turned(x):
        position = np.arange(x.shape[2])[:, None]
        angle = np.exp(1j * position * config["rope_theta"] ** (-2 * np.arange(size // 2) / size))
        out = (x[..., : size // 2] + 1j * x[..., size // 2 :]) * angle
        return np.concatenate([out.real, out.imag], -1)

    def heads_of(x, count):
        return x.reshape(*ids.shape, count, size).swapaxes(1, 2)

    x = values["model.embed_tokens.weight"][ids].astype(np.float64)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        y = norm(x, f"{at}.input_layernorm")
        query = turned(heads_of(linear(y, f"{at}.self_attn.q_proj"), heads))
        key, value = (heads_of(linear(y, f"{at}.self_attn.{n}_proj"), keys) for n in "kv")
        key, value = (np.repeat(part, heads // keys, axis=1) for part in (turned(key), value))
        scores = query @ key.swapaxes(2, 3) / np.sqrt(size)
        scores[..., np.triu(np.ones(scores.shape[2:], bool), 1)] = -np.inf
        shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        x = x + linear((shares @ value).swapaxes(1, 2).reshape(*ids.shape, -1), f"{at}.self_attn.o_proj")
        y = norm(x, f"{at}.post_attention_layernorm")
        gate = linear(y, f"{at}.mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    return norm(x, "model.norm") @ values["model.embed_tokens.weight"].T


def test_a_token_outside_the_vocabulary_is_an_error_of_every_card():
    """An id, or a label, outside the vocabulary; zeros would go unnoticed."""
    net = Llama({**LLAMA, "intermediate_size": 48})
    program = program_of(net, IDS, 1, 2)
    values = random_weights(net)
    with pytest.raises(ValueError, match="id 50 is not one of the table's 50 rows"):
        run_serial(
            program, shard_inputs(program, values), shard_inputs(program, {"ids": np.full((8, 6), 50)})
        )
    with pytest.raises(ValueError, match="label -100 is not one of the 50 classes"):
        operators.PartialLogSumExp().forward(np.zeros((1, 50)), np.array([-100]))
