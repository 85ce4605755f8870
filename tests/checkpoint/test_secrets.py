"""A key is nowhere to be read: in no file of a stage or an output, no repr, no log, no argument that Dask shows."""

import base64
import logging
import os
import pickle

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab.checkpoint import Output, open_checkpoint
from distinfer_lab.checkpoint.output_files import tasks_of
from distinfer_lab.errors import ReshardError
from distinfer_lab.formats import save_slice

KEY = b"SECRET-key-16byt"
FORMS = (
    KEY,
    KEY.hex().encode(),
    base64.b64encode(KEY),
    repr(list(KEY)).encode(),
    KEY[:8],
    KEY.hex()[:16].encode(),
)
TWO = dl.Strategy({f"w{i}": dl.Layout.replicated(2, 2) for i in range(6)})


def check_hidden(text, where):
    """No form of the key is part of a text."""
    data = text.encode() if isinstance(text, str) else text
    assert not [form for form in FORMS if form in data], where


@pytest.fixture
def source(tmp_path):
    values = {f"w{i}": np.full((64, 256), i, np.float32) for i in range(6)}
    save_slice(tmp_path / "src/rank_0/w.ckpt", values, sync=False, enc_key=KEY)
    return tmp_path / "src/rank_0/w.ckpt"


def stopped_after(count):
    """`cancelled` that stops a run at its `count`-th window."""
    left = [count]

    def cancelled():
        left[0] -= 1
        return left[0] < 0

    return cancelled


@pytest.mark.parametrize("windows", [1, 4, 10])
def test_a_stopped_run_leaves_no_key_and_nothing_that_others_may_read(source, tmp_path, windows, caplog):
    """Whatever the umask: the stage is 0700, its files 0600; the output gets what the umask leaves."""
    caplog.set_level(logging.DEBUG)
    old = os.umask(0o027)
    try:
        with open_checkpoint(source, dec_key=KEY) as checkpoint:
            plan = checkpoint.plan(TWO)
            for options in ({"enc_key": KEY}, {}):
                with pytest.raises(ReshardError, match="cancelled") as caught:
                    plan.write(tmp_path / "out", **options, cancelled=stopped_after(windows))
                check_hidden(repr(caught.value), "the error")
                stage = tmp_path / ".out.stage"
                if options and not stage.exists():
                    continue  # no file was complete, and an encrypted one leaves no part
                assert stage.stat().st_mode & 0o777 == 0o700
                for path in [path for path in stage.rglob("*") if path.is_file()]:
                    check_hidden(path.read_bytes(), path)
                    assert path.stat().st_mode & 0o777 == 0o600, path
            result = plan.write(tmp_path / "out", enc_key=KEY)
    finally:
        os.umask(old)
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
        check_hidden(path.read_bytes() if path.is_file() else b"", path)
    for record in (result, result.to_json(), caplog.text):
        check_hidden(repr(record), "what the run reports")


def test_no_record_shows_the_key(source, tmp_path):
    """Checkpoint, plan, output, tasks, settings, as text and HTML; a pickle carries it to where it is used."""
    output = Output(tmp_path / "out", file_options={"enc_key": KEY})
    config = dl.CheckpointConfig(enc_key=KEY, crc_check=False)
    with open_checkpoint(source, dec_key=KEY) as checkpoint:
        plan = checkpoint.plan(TWO)
        tasks = tasks_of([plan.share(rank) for rank in range(2)], plan.texts, output)
        records = [
            checkpoint,
            *checkpoint.sources,
            plan,
            output,
            *tasks,
            tasks[0].share,
            tasks[0].options,
            config,
            config.file_options,
        ]
        for record in [*records, [records], checkpoint.sources[0].dec_key]:
            check_hidden(f"{record!r} {record}", type(record))
            if hasattr(record, "_repr_mimebundle_"):
                check_hidden(repr(record._repr_mimebundle_()), type(record))
        again = pickle.loads(pickle.dumps(tasks[0]))
        check_hidden(repr(again), "a task that was sent")
        assert again.options["enc_key"] == again.share.sources[0].dec_key == KEY


def test_a_card_that_fails_logs_no_key(source, tmp_path, caplog, capfd):
    """Dask logs the arguments of a task that failed."""
    caplog.set_level(logging.DEBUG)
    with dl.CardGroup(2) as cards, open_checkpoint(source, dec_key=KEY) as checkpoint:
        plan = checkpoint.plan(TWO)
        source.write_bytes(source.read_bytes()[:1000])
        with pytest.raises(Exception) as caught:
            plan.write(tmp_path / "out", on=cards, enc_key=KEY)
    check_hidden(caplog.text + repr(caught.value) + "".join(capfd.readouterr()), "logs")
