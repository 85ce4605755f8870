"""Cards that are killed while they generate: the caches are made again from the tokens so far."""

import os
import signal

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.cards import CardGroup, CardRestartedError
from distinfer_lab.flow import generating

from ..cards.clusters import pids_of
from ..transformers import expected, folder_of, net_of


@pytest.fixture(scope="module")
def cards():
    """Four process cards, which come back."""
    with CardGroup(4, processes=True) as group:
        yield group


def killing(monkeypatch, cards, steps):
    """Kill card 2 each time that one of these steps has chosen its token; gives the sizes of all runs."""
    choose, run = generating.Choice.of, generating.Generation._run
    sizes = []

    def then_kill(choice, logits, step):
        if step in steps:
            os.kill(pids_of(cards)[2], signal.SIGKILL)
        return choose(choice, logits, step)

    def counted(self, placed):
        before = self.caches
        sizes.append(self.ids.shape[1] if before is None else 1)
        return run(self, placed)

    monkeypatch.setattr(generating.Choice, "of", then_kill)
    monkeypatch.setattr(generating.Generation, "_run", counted)
    return sizes


def model_on(cards, **cut):
    dl.set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    net = net_of("llama_gqa_tiny").shard_by(**cut)
    model = dl.Model(net, cards=cards)
    ids = dl.Tensor(expected("llama_gqa_tiny")["input_ids"])
    dl.load_distributed_checkpoint(
        net, folder_of("llama_gqa_tiny"), model.infer_predict_layout(ids), cards=cards
    )
    return model


def test_all_tokens_so_far_are_run_again_once(cards, monkeypatch):
    """A lost card's heads are nowhere else: after 3 tokens the prompt and they are run once more; all are equal."""
    model, greedy = model_on(cards, tp=4), expected("llama_gqa_tiny")["greedy"]
    sizes = killing(monkeypatch, cards, [2])
    found = model.generate(greedy[:, :12], 8).asnumpy()
    np.testing.assert_array_equal(found, greedy)
    assert sizes == [12, 1, 1, 1, 15, 1, 1, 1, 1]


def test_losses_without_end_are_reported(monkeypatch):
    """After a limit; then the next call gives all tokens, and nothing is left of the caches."""
    greedy = expected("llama_gqa_tiny")["greedy"]
    with CardGroup(1) as one:
        model = model_on(one, tp=1)
        run, runs = generating.Generation._run, []

        def lost_often(self, placed):
            runs.append(self.ids.shape[1])
            if len(runs) > 1:
                raise CardRestartedError("card 0 was lost")
            return run(self, placed)

        with monkeypatch.context() as patch:
            patch.setattr(generating.Generation, "_run", lost_often)
            with pytest.raises(CardRestartedError, match="card 0 was lost"):
                model.generate(greedy[:, :12], 8)
        assert runs == [12, *[13] * (generating.MOST_LOSSES + 1)]
        held = one.memory().held_bytes.tolist()
        np.testing.assert_array_equal(model.generate(greedy[:, :12], 8).asnumpy(), greedy)
        assert one.memory().held_bytes.tolist() == held


def test_a_cache_that_another_card_holds_too_is_copied(cards, monkeypatch):
    """One text on two groups of two cards: the other group's card hands it over, and no token is run again."""
    model, greedy = model_on(cards, dp=2, tp=2), expected("llama_gqa_tiny")["greedy"]
    sizes = killing(monkeypatch, cards, [2])
    found = model.generate(greedy[:, :12], 8).asnumpy()
    np.testing.assert_array_equal(found, greedy)
    assert sizes == [12] + [1] * 7
