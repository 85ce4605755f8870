"""The predict panel as Python sees it: input, output, one card's, and what the cards sent."""

import numpy as np
import pytest

from distinfer_lab import models
from distinfer_lab.cards import CardGroup
from distinfer_lab.errors import ArgumentTypeError
from distinfer_lab.flow import Model, auto_parallel_context, compare_generated
from distinfer_lab.flow.sample import SampleNet
from distinfer_lab.net import Tensor, set_seed
from distinfer_lab.widgets import PredictPanel

SECONDS = 100
DATA = np.random.default_rng(3).normal(size=(128, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    """The sample's net, its contraction cut by two cards: an all-reduce."""
    with CardGroup(2) as cards:
        yield Model(SampleNet(((1, 2), (2, 1))), cards=cards)


@pytest.fixture
def model(trained):
    with auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True, device_num=None):
        yield trained


def test_a_prediction_is_shown_beside_one_cards(model):
    """The output is right, the difference told, and each collective has its bytes."""
    panel = PredictPanel(model, DATA)
    assert "Nothing is predicted yet" in panel.line.value
    panel.button.click()
    assert panel.wait(SECONDS).state == "done"
    np.testing.assert_allclose(
        panel.prediction.output.asnumpy(), -(DATA @ np.full((96, 16), 0.5)), rtol=1e-4, atol=1e-4
    )
    assert panel.prediction.comparison.ok
    assert "equal to one card; [128, 16] float32" in panel.line.value
    assert "[128, 16] float32\n" in panel.outcome.value
    assert "MatMul of &#x27;matmul_weight&#x27;" in panel.table.value
    assert sum(panel.prediction.report.communication.sent_bytes) > 0
    assert "What each card did" in panel.picture.svg
    assert "ReduceScatter of MatMul of &#x27;matmul_weight&#x27;" in panel.table.value


def test_another_input_of_the_same_kind(model):
    """Random, by its seed; as given again."""
    panel = PredictPanel(model, DATA, compared=False)
    panel.kind.value = "Random"
    panel.seed.value = 5
    np.testing.assert_array_equal(
        panel.inputs[0], np.random.default_rng(5).normal(size=DATA.shape).astype(np.float32)
    )
    panel.predict()
    panel.wait(SECONDS)
    assert panel.prediction.comparison is None
    panel.kind.value = "As given"
    np.testing.assert_array_equal(panel.inputs[0], DATA)


def test_what_goes_wrong_is_told_in_words(model):
    """An input of another shape; then the panel is usable again."""
    panel = PredictPanel(model, DATA[:, :7])
    panel.predict()
    assert panel.wait(SECONDS).state == "failed"
    assert 'role="alert"' in panel.line.value
    assert not panel.button.disabled


@pytest.fixture(scope="module")
def gpt2():
    set_seed(1)
    config = {
        "model_type": "gpt2",
        "vocab_size": 64,
        "n_positions": 32,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
    }
    with (
        CardGroup(2) as cards,
        auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True, device_num=None),
    ):
        yield Model(models.GPT2(config).shard_by(tp=2), cards=cards)


def test_a_text_is_gone_on_with(gpt2):
    """Token numbers are written; each one that is added is the one that one card would add."""
    panel = PredictPanel(gpt2, np.array([[3, 1, 4]]), max_new_tokens=4)
    assert panel.tokens.value == "3 1 4"
    panel.tokens.value = "5, 9 2 6"
    panel.count.value = 3
    panel.predict()
    assert panel.wait(SECONDS).state == "done", panel.line.value
    texts = panel.prediction.output.asnumpy()
    assert texts.shape == (1, 7)
    np.testing.assert_array_equal(texts[0, :4], [5, 9, 2, 6])
    assert panel.prediction.comparison.ok
    wrong = texts.copy()
    wrong[0, -1] = (wrong[0, -1] + 1) % 64
    assert not compare_generated(gpt2, Tensor(wrong), 3).ok


def test_a_text_is_stopped_between_its_tokens(gpt2, monkeypatch):
    """No further token is run, the cards keep nothing of it, and answer at once."""
    panel = PredictPanel(gpt2, np.array([[3, 1, 4]]), max_new_tokens=20)
    gpt2.predict(np.array([[3, 1, 4]]))
    held = gpt2.cards.memory().held_bytes.tolist()
    runs, original = [], gpt2.cards.run

    def run(*args, **more):
        runs.append(panel.state)
        if len(runs) == 3:
            panel.stop.click()
        return original(*args, **more)

    monkeypatch.setattr(gpt2.cards, "run", run)
    panel.button.click()
    assert panel.wait(SECONDS).state == panel.state == "cancelled"
    assert runs == ["running"] * 3
    assert panel.line.value == '<div role="status">Stopped. The cards are ready for another prediction.</div>'
    assert gpt2.cards.memory().held_bytes.tolist() == held
    assert panel.stop.disabled
    panel.button.click()
    assert panel.wait(SECONDS).state == "done"


def test_tokens_that_are_no_numbers_are_told(gpt2):
    """How to write them; nothing is started."""
    panel = PredictPanel(gpt2, np.array([[3, 1, 4]]), max_new_tokens=4)
    for words in ("three", ""):
        panel.tokens.value = words
        panel.button.click()
        assert "write token numbers" in panel.errors.value
        assert panel.state == "ready"
    for words, wrong in (("1 -2", "-2"), (f"1 {10**30}", str(10**30))):
        panel.tokens.value = words
        panel.button.click()
        assert f"{wrong} is not a token number" in panel.errors.value


def test_a_result_is_gone_when_another_is_asked_for(gpt2):
    """Else it would stand beside an error, as if it were that input's; all of a long text can be read."""
    panel = PredictPanel(gpt2, np.array([[3, 1, 4]]), max_new_tokens=29)
    panel.button.click()
    assert panel.wait(SECONDS).state == "done", panel.line.value
    assert "..." not in panel.outcome.value
    for number in panel.prediction.output.asnumpy().ravel():
        assert str(number) in panel.outcome.value
    panel.tokens.value = "three"
    panel.button.click()
    assert "write token numbers" in panel.errors.value
    assert (panel.line.value, panel.outcome.value, panel.table.value) == ("", "", "")
    assert "last token" not in panel.picture.svg


def test_words_are_stable_and_what_is_no_model_is_refused(model):
    """Text without an address; the text names the kind."""
    assert (
        repr(PredictPanel(model, DATA))
        == "PredictPanel(Model(SampleNet), input [128, 96]: nothing is predicted yet)"
    )
    with pytest.raises(ArgumentTypeError, match="model is a SampleNet, and should be a Model"):
        PredictPanel(SampleNet(), DATA)
    with pytest.raises(ArgumentTypeError, match="needs the inputs of one prediction"):
        PredictPanel(model)
