"""Transformers on cards: from Hugging Face folders, predicted, generated, trained; each card holds its share only."""

import json

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import distinfer_lab as dl
from distinfer_lab.cards import CardGroup
from distinfer_lab.cli import main
from distinfer_lab.errors import ArgumentTypeError, ContextError, GraphError
from distinfer_lab.flow.placing import placed_net
from distinfer_lab.net.models import Llama, NextTokenLoss, from_pretrained_config
from distinfer_lab.parallel import same_layout

from ..transformers import (
    LLAMA,
    NAMES,
    by_rules,
    expected,
    folder_of,
    held_bytes,
    net_of,
    random_weights,
    weights,
    write_folder,
)


@pytest.fixture(autouse=True)
def _semi_auto():
    dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)


def loaded(name, cards, **cut):
    """A model of an oracle's folder, its weights on the cards."""
    net = net_of(name).shard_by(**cut or {"tp": len(cards)})
    model = dl.Model(net, cards=cards)
    layout = model.infer_predict_layout(dl.Tensor(expected(name)["input_ids"]))
    result = dl.load_distributed_checkpoint(net, folder_of(name), layout, cards=cards)
    return model, result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_cards_predict_and_generate_as_transformers_did(count, processes):
    """Logits within 2e-4, greedy tokens equal; a card holds its share of the weights, and of the caches meanwhile."""
    with CardGroup(count, processes=processes) as cards:
        for name in NAMES:
            model, result = loaded(name, cards)
            answers = expected(name)
            logits = model.predict(dl.Tensor(answers["input_ids"])).asnumpy()
            np.testing.assert_allclose(logits, answers["logits"], atol=2e-4)
            share = held_bytes(by_rules(model.network, 1, count), dict.fromkeys(weights(name), np.float32))
            assert [card.held_bytes for card in cards.memory().cards] == share == list(result.held_bytes)
            found = model.generate(answers["greedy"][:, :12], 8)
            np.testing.assert_array_equal(found.asnumpy(), answers["greedy"])
            assert [card.held_bytes for card in cards.memory().cards] == share
            # 2 layers of keys and values of length 19, 4 heads of 16 or 8; more cards than heads hold copies.
            size = {"gpt2_tiny": 16, "llama_gqa_tiny": 8}[name]
            caches = 2 * 2 * 19 * size * 4 // min(count, 4) * 4
            assert all(
                card.peak_bytes >= held + caches
                for card, held in zip(cards.memory().cards, share, strict=True)
            )
            drop(model)


def drop(model):
    placed = placed_net(model.network, model.cards)
    placed.group.drop(placed.placement)


def test_the_whole_road(tmp_path):
    """Hugging Face folder -> slices on 8 cards -> files -> layout for 4 -> reshard -> predict as transformers do."""
    for name in NAMES:
        ids = dl.Tensor(expected(name)["input_ids"])
        with CardGroup(8) as eight:
            model, result = loaded(name, eight, dp=2, tp=4)
            files = model.save(tmp_path / f"{name}8", "slices.ckpt", integrated=False)
            trained = result.strategy
        with CardGroup(4) as four:
            net = net_of(name).shard_by(tp=4)
            model = dl.Model(net, cards=four)
            layout = model.infer_predict_layout(ids)
            with dl.open_checkpoint(files, trained) as checkpoint:
                plan = checkpoint.plan(layout.strategy)
                assert plan.write(tmp_path / f"{name}4").verify().ok
            dl.load_distributed_checkpoint(net, tmp_path / f"{name}4", layout, cards=four)
            logits = model.predict(ids).asnumpy()
            share = held_bytes(by_rules(net, 1, 4), dict.fromkeys(weights(name), np.float32))
            assert [card.held_bytes for card in four.memory().cards] == share
        np.testing.assert_allclose(logits, expected(name)["logits"], atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_files_cut_by_the_command_line_lie_as_the_net_wants_them(name, tmp_path):
    """On 2 and 8 cards, fused weights and shared heads too: card r holds what rank r's file does."""
    for count in (2, 8):
        arguments = ["reshard", folder_of(name), tmp_path / str(count), "--to", f"tp={count}"]
        done = CliRunner().invoke(main, [str(a) for a in [*arguments, "--rules", net_of(name).rules]])
        assert done.exit_code == 0, done.output
        with CardGroup(count) as cards:
            net = net_of(name).shard_by(tp=count)
            model = dl.Model(net, cards=cards)
            ids = dl.Tensor(expected(name)["input_ids"])
            layout = model.infer_predict_layout(ids)
            with dl.open_checkpoint(tmp_path / str(count)) as checkpoint:
                for param, record in checkpoint.tensors.items():
                    assert same_layout(record.layout, layout.strategy[param], record.shape)
            dl.load_distributed_checkpoint(net, tmp_path / str(count), layout, cards=cards)
            np.testing.assert_allclose(model.predict(ids).asnumpy(), expected(name)["logits"], atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_layers_on_pipeline_stages_give_the_same(name):
    """Two stages of two cards, two texts in two micro-batches: logits and tokens; a stage holds its layers only."""
    dl.set_auto_parallel_context(pipeline_stages=2, pipeline_micro_batches=2)
    with CardGroup(4) as cards:
        model, result = loaded(name, cards, tp=2, pp=2)
        answers = expected(name)
        logits = model.predict(dl.Tensor(answers["input_ids"])).asnumpy()
        np.testing.assert_allclose(logits, answers["logits"], atol=2e-4)
        np.testing.assert_array_equal(
            model.generate(answers["greedy"][:, :12], 8).asnumpy(), answers["greedy"]
        )
        for param, layout in result.strategy.items():
            stages = {rank // 2 for rank in layout.ranks.tolist()}
            assert stages == {0} if ".0." in param else stages == {1} if ".1." in param else stages


def trained(count, steps=20, zero=False, **cut):
    """GPT-2 tiny, trained from the oracle's weights: the losses, the weights, what each card holds."""
    dl.set_auto_parallel_context(enable_parallel_optimizer=zero)
    texts = np.random.default_rng(0).integers(0, 256, (4, 13))
    losses = []

    class Losses(dl.Callback):
        def on_train_step_end(self, context):
            losses.append(context.loss)

    with CardGroup(count) as cards:
        net = net_of("gpt2_tiny").shard_by(**cut)
        for param, value in weights("gpt2_tiny").items():
            net.parameters_dict()[param].set_data(value)
        optimizer = dl.nn.Momentum(net.trainable_params(), 0.05, 0.9)
        model = dl.Model(net, NextTokenLoss(net), optimizer, cards)
        model.train(steps, [(texts[:, :-1], texts[:, 1:])], Losses())
        values = {param: value.asnumpy() for param, value in net.parameters_dict().items()}
        model.predict(
            dl.Tensor(texts[:, :-1])
        )  # a card takes over what the last step gave when it works again
        return losses, values, [card.held_bytes for card in cards.memory().cards], by_rules(net, 2, 4)


def test_training_on_two_groups_of_four_is_training_on_one_card():
    """20 steps: losses and weights within 1e-4; states lie as their parameters, cut over the groups if asked."""
    losses, values, whole, _ = trained(1, tp=1)
    assert losses[-1] < 0.8 * losses[0]
    scalars = 3 * 4
    for zero in (False, True):
        found_losses, found, held, strategy = trained(8, zero=zero, dp=2, tp=4)
        np.testing.assert_allclose(found_losses, losses, rtol=1e-4)
        for param, value in values.items():
            np.testing.assert_allclose(found[param], value, rtol=1e-4, atol=2e-6, err_msg=param)
        share = held_bytes(strategy, dict.fromkeys(strategy, np.float32))
        if not zero:
            assert held == [2 * n + scalars for n in share]
        else:
            # Rows of 2 groups, and what all 8 would hold alike in 8: every row count here can be shared.
            replicas = {param: layout.replicas for param, layout in strategy.items()}
            sizes = {param: value.nbytes for param, value in values.items()}
            each = sum(sizes[p] * layout.replicas // 8 // replicas[p] for p, layout in strategy.items())
            assert held == [2 * each + scalars] * 8
    assert whole == [2 * sum(value.nbytes for value in values.values()) + scalars]


def test_draws_are_the_same_on_any_number_of_cards():
    """By seed; batches too, and on groups that share the batch."""
    ids = expected("llama_gqa_tiny")["input_ids"][:, :5]
    found = {}
    for count, cut in [(1, {"tp": 1}), (4, {"dp": 2, "tp": 2}), (2, {"tp": 2})]:
        with CardGroup(count) as cards:
            model, _ = loaded("llama_gqa_tiny", cards, **cut)
            found[count] = [
                model.generate(ids, 6, temperature=0.8, seed=seed).asnumpy().tolist() for seed in (1, 1, 2)
            ]
    assert found[1] == found[2] == found[4]
    assert found[1][0] == found[1][1] != found[1][2]


def test_a_text_that_has_ended_waits_for_the_others():
    """It goes on with the token that ended it; once all have ended, nothing more is added."""
    with CardGroup(2) as cards:
        model, _ = loaded("gpt2_tiny", cards)
        ids = expected("gpt2_tiny")["input_ids"]
        free = model.generate(ids, 6).asnumpy()[:, 12:]
        end = int(free[0, 1])
        found = model.generate(ids, 6, eos=end).asnumpy()[:, 12:]
        for text, plain in zip(found, free, strict=True):
            stop = plain.tolist().index(end) + 1 if end in plain else len(text)
            assert text[:stop].tolist() == plain[:stop].tolist()
            assert set(text[stop:].tolist()) <= {end}
        alone = model.generate(ids[:1], 6, eos=end).asnumpy()
        assert alone.shape[1] == 12 + free[0].tolist().index(end) + 1


def test_many_lengths_of_prompts_leave_few_programs_on_the_cards(monkeypatch):
    """Cards keep those that the model keeps, and the latest; what was forgotten is made again, and says the same."""
    monkeypatch.setattr("distinfer_lab.flow.runner.MOST_PROGRAMS", 3)
    with CardGroup(2) as cards:
        model, _ = loaded("gpt2_tiny", cards)
        ids = expected("gpt2_tiny")["input_ids"]
        first = model.generate(ids[:, :2], 2).asnumpy()
        for length in range(3, 9):
            model.generate(ids[:, :length], 2)
        kept = cards.client.run(
            lambda name, dask_worker: len(dask_worker.plugins[name].programs), cards.runtime.terms.name
        )
        assert all(1 <= count <= 4 for count in kept.values())
        np.testing.assert_array_equal(model.generate(ids[:, :2], 2).asnumpy(), first)


def test_what_cannot_be_generated_is_refused():
    """Ragged texts, no room, numbers out of range, another net; the text says the way out."""
    with CardGroup(1) as cards:
        model = dl.Model(Llama({**LLAMA}).shard_by(tp=1), cards=cards)
        with pytest.raises(
            ArgumentTypeError, match="sequences of 2 to 3 tokens; generate takes sequences of one length"
        ):
            model.generate([[1, 2], [1, 2, 3]], 1)
        with pytest.raises(ArgumentTypeError, match=r"shape \(sequences, tokens\), not \[2\] of float32"):
            model.generate([1.0, 2.0], 1)
        with pytest.raises(ContextError, match="make 35, but the net has 32 positions; add at most 29"):
            model.generate([[1, 2, 3]], 32)
        with pytest.raises(ContextError, match="temperature=-1; use 0"):
            model.generate([[1]], 1, temperature=-1)
        with pytest.raises(ContextError, match="max_new_tokens=0; add 1"):
            model.generate([[1]], 0)
        with pytest.raises(GraphError, match="id 50 is not one of the table's 50 rows"):
            model.generate([[50]], 1)
        other = dl.Model(dl.nn.Dense(2, 2), cards=cards)
        with pytest.raises(ContextError, match="Dense is not a language model"):
            other.generate([[1]], 1)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("count", [1, 4])
def test_narrow_weights_stay_narrow_and_compute_in_float32(dtype, count, tmp_path):
    """Held in two bytes; logits are those of the same numbers in float32."""
    name = np.dtype(dtype).name
    for family in NAMES:
        config = json.loads((folder_of(family) / "config.json").read_text())
        narrow = {n: v.astype(dtype) for n, v in weights(family).items()}
        folder = write_folder(tmp_path / f"{family}-{name}", {**config, "dtype": name}, narrow)
        wide = write_folder(
            tmp_path / f"{family}-wide", config, {n: v.astype(np.float32) for n, v in narrow.items()}
        )
        ids = dl.Tensor(expected(family)["input_ids"])
        found = {}
        with CardGroup(count) as cards:
            for source in (folder, wide):
                net = from_pretrained_config(source).shard_by(tp=count)
                model = dl.Model(net, cards=cards)
                result = dl.load_distributed_checkpoint(
                    net, source, model.infer_predict_layout(ids), cards=cards
                )
                assert not result.converted
                found[source] = model.predict(ids).asnumpy()
                dtypes = {n: param.dtype for n, param in net.parameters_dict().items()}
                assert list(result.held_bytes) == held_bytes(by_rules(net, 1, count), dtypes)
                drop(model)
        assert found[folder].dtype == np.float32
        np.testing.assert_allclose(found[folder], found[wide], rtol=1e-6, atol=1e-6)


def test_files_without_the_prefix_and_with_a_tied_head_are_taken(tmp_path):
    """As GPT-2's first files were saved: names without `transformer.`, and what the net does not have is reported."""
    config = json.loads((folder_of("gpt2_tiny") / "config.json").read_text())
    tensors = {n.removeprefix("transformer."): v for n, v in weights("gpt2_tiny").items()}
    tensors["h.0.attn.masked_bias"] = np.array(-1e4, np.float32)
    tensors["lm_head.weight"] = tensors["wte.weight"]
    folder = write_folder(tmp_path, config, tensors)
    with CardGroup(2) as cards:
        net = from_pretrained_config(folder).shard_by(tp=2)
        model, ids = dl.Model(net, cards=cards), dl.Tensor(expected("gpt2_tiny")["input_ids"])
        result = dl.load_distributed_checkpoint(net, folder, model.infer_predict_layout(ids), cards=cards)
        np.testing.assert_allclose(model.predict(ids).asnumpy(), expected("gpt2_tiny")["logits"], atol=2e-4)
    assert result.renamed["transformer.h.1.ln_1.bias"] == "h.1.ln_1.bias"
    assert set(result.unused) == {"h.0.attn.masked_bias", "lm_head.weight"}


def test_random_initial_weights_are_made_where_they_lie():
    """Fused ones too: a net that was never loaded predicts the same on 1 and on 4 cards."""
    config = {"n_embd": 16, "n_head": 4, "n_layer": 1, "n_positions": 8, "vocab_size": 30}
    found = []
    for count in (1, 4):
        with CardGroup(count) as cards:
            model = dl.Model(dl.models.GPT2(config).shard_by(tp=count), cards=cards)
            found.append(model.predict(dl.Tensor(np.arange(6).reshape(1, 6))).asnumpy())
            whole = model.network.parameters_dict()["transformer.h.0.attn.c_attn.weight"]
            found.append(whole.asnumpy())
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[3], found[1])


def test_weights_given_as_arrays_are_cut():
    """Words that 4 cards cannot share evenly; groups that cannot share one text evenly hold it alike."""
    net = Llama({**LLAMA, "num_key_value_heads": 4})
    values = random_weights(net)
    ids = dl.Tensor(np.random.default_rng(3).integers(0, 50, (1, 9)))
    found = []
    for count, cut in [(1, {"tp": 1}), (8, {"dp": 2, "tp": 4})]:
        with CardGroup(count) as cards:
            net = Llama({**LLAMA, "num_key_value_heads": 4}).shard_by(**cut)
            for param, value in values.items():
                net.parameters_dict()[param].set_data(value)
            found.append(dl.Model(net, cards=cards).predict(ids).asnumpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)
