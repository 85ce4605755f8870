"""Sessions of the four steps: what is ready, what was done, and the code that does the same."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.errors import CardError, CheckpointError, CheckpointFileError, ContextError, DistinferError
from distinfer_lab.flow.predictors import Coded
from distinfer_lab.flow.sample import create_predict_data
from distinfer_lab.flow.session import STEPS, Session
from distinfer_lab.formats import save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy
from tests.transformers import by_rules, expected, folder_of, net_of

ROWS = Layout(Mesh(tp=2), "tp -")
HUB = folder_of("llama_gqa_tiny")
WHOLE = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def folder(tmp_path):
    """Somebody's checkpoint: two slices of rows, and the strategy file."""
    for rank in range(2):
        save_slice(tmp_path / f"mine/rank_{rank}/a.ckpt", {"w": WHOLE[4 * rank :][:4].copy()}, sync=False)
    write_strategy(tmp_path / "strategy.ckpt", Strategy({"w": ROWS}, {"w": (8, 8)}))
    return tmp_path


def test_slices_are_not_taken_for_copies(folder):
    """Without a strategy each file would be taken to hold everything; copies may be."""
    session = Session()
    with pytest.raises(CheckpointError, match="w differs between .*If they are slices, give the strategy"):
        session.open(folder / "mine")
    assert not session.done("source")
    shutil.copy(folder / "mine/rank_0/a.ckpt", folder / "mine/rank_1/a.ckpt")
    assert session.open(folder / "mine").ranks == 2
    session.close()


def test_a_layout_that_is_stopped_changes_nothing(tmp_path):
    """The one before stays in force, and can be loaded."""
    session = Session()
    session.train(2, tmp_path / "trained")
    before = session.infer_layout(2)
    asked = iter([False, False, True])
    with pytest.raises(ContextError, match="it was stopped; the layout is unchanged"):
        session.infer_layout(4, lambda: next(asked))
    assert session.laid_out.layout is before
    session.load()
    session.close()


@pytest.mark.parametrize("given", [False, True], ids=["embedded", "given"])
def test_the_sample_goes_through_all_steps_and_its_code_does_too(tmp_path, given):
    """The prediction is right; the code, run by itself, predicts the same."""
    with CardGroup(4) as cards:
        session = Session(cards if given else None)
        for step in STEPS[1:]:
            assert session.blocked_reason(step).startswith("There is no checkpoint yet")
        checkpoint = session.train(4, tmp_path / "trained")
        assert not cards.memory().held_bytes.any()  # what was trained is in the files
        assert session.blocked_reason("reshard").startswith("The destination is not known yet")
        session.infer_layout(2)
        assert session.blocked_reason("predict").startswith("The weights are not on the cards yet")
        session.load()
        found = session.predict().asnumpy()
        weight = np.concatenate([checkpoint.read(r, "matmul_weight") for r in range(4)], axis=1)
        np.testing.assert_allclose(found, -(create_predict_data() @ weight), rtol=1e-4, atol=1e-4)
        assert all(session.done(step) for step in STEPS)
        code = session.code()
        session.close()
    save = f"import numpy\nnumpy.save({str(tmp_path / 'again.npy')!r}, prediction.asnumpy())\n"
    script = tmp_path / "again.py"
    script.write_text(code.replace(str(tmp_path / "trained"), str(tmp_path / "trained_again")) + save)
    subprocess.run([sys.executable, script], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), found)


def test_a_folder_is_brought_and_cut_anew_and_its_code_does_too(folder):
    """Files in, files out; predicting needs a net, and it says so."""
    session = Session()
    session.open(folder / "mine", folder / "strategy.ckpt")
    columns = Strategy({"w": Layout(Mesh(tp=2), "- tp")}, {"w": (8, 8)})
    session.set_layout(columns)
    assert session.plan().plan.dst_count == 2
    result = session.write(folder / "out")
    assert result.verify().ok
    assert "has no net" in session.blocked_reason("predict")
    exec(session.code().replace(str(folder / "out"), str(folder / "again")), {})
    assert verify_folder(folder / "again").ok
    for rank in range(2):
        name = f"rank_{rank}/checkpoint_{rank}.ckpt"
        assert (folder / "out" / name).read_bytes() == (folder / "again" / name).read_bytes()
    session.close()
    assert session.opened is None


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "sliced"])
def test_a_hugging_face_folder_is_its_net_and_its_code_predicts_the_same(tmp_path, cut):
    """A real one as it is, or in slices with the config.json beside them: transformers' own logits."""
    folder, strategy = HUB, None
    if cut:
        folder, strategy = tmp_path / "slices", tmp_path / "strategy.json"
        layouts = by_rules(net_of(HUB.name), 1, 2)
        with open_checkpoint(HUB) as whole:
            whole.plan(layouts).write(folder)
        write_strategy(strategy, layouts)
        shutil.copy(HUB / "config.json", folder)
    session = Session()
    session.open(folder, strategy)
    assert session.blocked_reason("predict").startswith("The destination is not known yet")
    session.infer_layout(4)
    session.load()
    known = expected(HUB.name)
    np.testing.assert_allclose(session.predict(known["input_ids"]).asnumpy(), known["logits"], atol=2e-4)
    found = session.predict().asnumpy()
    ran = {}
    exec(session.code(), ran)
    np.testing.assert_array_equal(ran["prediction"].asnumpy(), found)
    session.close()


def test_a_net_that_cannot_be_cut_for_so_many_cards_is_refused(tmp_path):
    """Before there are cards; the session can go on."""
    session = Session()
    session.open(HUB)
    with pytest.raises(DistinferError, match="tp=3"):
        session.infer_layout(3)
    assert session.laid_out is None
    session.infer_layout(2)
    session.close()


def test_files_of_a_known_net_are_written_too_and_then_there_is_nothing_to_predict_with(tmp_path):
    """Laid out by hand, the reshard writes files; the way to a prediction is said."""
    session = Session()
    checkpoint = session.open(HUB)
    session.set_layout(checkpoint.strategy)
    assert session.blocked_reason("predict") == (
        "What step 3 writes are files: to predict, lay the net out for cards in step 2."
    )
    assert session.write(tmp_path / "out").verify().ok
    session.close()


def test_a_config_that_does_not_help_says_why(folder):
    """It is there, but of no family that is known: the sentence names what it is of."""
    (folder / "mine/config.json").write_text('{"model_type": "bert"}')
    session = Session()
    session.open(folder / "mine", folder / "strategy.ckpt")
    session.set_layout(Strategy({"w": ROWS}))
    assert "model_type='bert' is not one of those supported" in session.blocked_reason("predict")
    session.close()


def test_going_back_forgets_what_came_after(folder):
    """Another source leaves no layout; a source that cannot be opened leaves all as it was."""
    session = Session()
    session.open(folder / "mine", folder / "strategy.ckpt")
    session.set_layout(Strategy({"w": ROWS}))
    with pytest.raises(CheckpointFileError, match="nowhere"):
        session.open(folder / "nowhere")
    assert session.done("layout")
    session.open(folder / "mine", folder / "strategy.ckpt")
    assert repr(session) == "Session(source, not layout, not reshard, not predict)"
    session.close()


def test_the_code_is_saved_as_a_notebook_or_a_script(tmp_path):
    """A file that exists is left alone."""
    session = Session()
    notebook = nbformat.read(session.save_code(tmp_path / "a.ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source == session.code().rstrip()
    assert session.save_code(tmp_path / "a.py").read_text() == session.code()
    with pytest.raises(CheckpointFileError, match=r"a\.py: File exists; choose the name of a new file"):
        session.save_code(tmp_path / "a.py")


def test_what_is_not_ready_is_refused_with_its_reason(folder):
    """The same sentences that `blocked_reason` gives."""
    session = Session()
    for call in (session.infer_layout, session.load, session.plan, session.predict):
        with pytest.raises(ContextError, match="There is no checkpoint yet"):
            call()
    with pytest.raises(ContextError, match="step='eat' is not one of source, layout"):
        session.blocked_reason("eat")
    session.open(folder / "mine", folder / "strategy.ckpt")
    with pytest.raises(ContextError, match="has no net; set the layout of its tensors by set_layout"):
        session.infer_layout()
    session.set_layout(Strategy({"w": ROWS}))
    with pytest.raises(ContextError, match="without a net nothing can be loaded"):
        session.load()
    assert "# nothing has been done yet" in Session().code()
    session.close()


def test_what_ends_late_changes_nothing(folder, monkeypatch):
    """Training that ends after a folder was opened is dropped, with a reason; its files go."""
    session, trains, goes_on = Session(), threading.Event(), threading.Event()
    kept = []

    def train(place, group):
        kept.append(Path(place))
        trains.set()
        assert goes_on.wait(60)

    monkeypatch.setattr("distinfer_lab.flow.session.train_sample", train)
    monkeypatch.setattr("distinfer_lab.flow.session.of_sample", lambda place, cards: of_sample_like(folder))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(session.train, 2)
        assert trains.wait(60)
        checkpoint = session.open(folder / "mine", folder / "strategy.ckpt")
        goes_on.set()
        with pytest.raises(ContextError, match="another step was completed in the meantime"):
            late.result()
    assert session.opened.checkpoint is checkpoint
    assert not session.opened.trained
    assert not kept[0].exists()


def of_sample_like(folder):
    """A predictor of somebody's files, of which only these matter here."""
    return SimpleNamespace(files=Coded(folder / "mine", ""), strategy=Coded(folder / "strategy.ckpt", ""))


def test_a_step_that_fails_changes_nothing(tmp_path):
    """What was there before it still is, for each step."""
    session = Session()
    session.train(4)
    session.infer_layout(2)
    session.load()
    session.predict()
    code, checkpoint = session.code(), session.opened.checkpoint
    with pytest.raises(DistinferError):
        session.train(100)
    with pytest.raises(DistinferError):
        session.open(tmp_path / "nothing")
    assert session.code() == code
    assert session.opened.checkpoint is checkpoint
    assert all(session.done(step) for step in STEPS)
    session.predict()
    session.close()
    assert not any(session.done(step) for step in STEPS)


def test_a_run_of_the_cards_can_be_stopped(tmp_path):
    """Training and loading give their run; when it was stopped, nothing has changed."""
    session = Session()
    with pytest.raises(CardError, match="cancelled"):
        session.train(4, on_start=lambda run: run.cancel())
    assert not session.done("source")
    session.train(4)
    session.infer_layout(2)
    with pytest.raises(CardError, match="cancelled"):
        session.load(lambda run: run.cancel())
    assert not session.done("reshard")
    session.load()
    session.close()


@pytest.mark.parametrize("given", [False, True], ids=["embedded", "given"])
def test_the_code_of_every_way_to_files_runs(folder, given):
    """A strategy that is an object, a sample that is written, a group that was given: no name is left undefined."""
    strategy = Strategy({"w": ROWS}, {"w": (8, 8)})
    with CardGroup(2) as cards:
        session = Session(cards if given else None)
        session.open(folder / "mine", strategy)
        session.set_layout(strategy)
        session.write(folder / "out")
        exec(session.code().replace(str(folder / "out"), str(folder / "again")), {})
        assert verify_folder(folder / "again").ok
        session.train(2, folder / "trained")
        session.set_layout(session.opened.checkpoint.strategy)
        session.write(folder / "sample_out")
        code = session.code()
        session.close()
    for name in ("trained", "sample_out"):
        code = code.replace(str(folder / name), str(folder / f"{name}_again"))
    exec(code, {})
    assert verify_folder(folder / "sample_out_again").ok


def test_watching_ends(folder):
    """Each step is reported, until that is not wanted any more."""
    session, told = Session(), []
    end = session.watch(lambda: told.append(session.version("source")))
    session.open(folder / "mine", folder / "strategy.ckpt")
    session.open(folder / "mine", folder / "strategy.ckpt")
    assert len(set(told)) == 2
    end()
    session.close()
    assert len(told) == 2
