"""Errors in words: those of this package are shown, all others pass."""

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import distinfer_lab as dl


def test_an_error_of_ours_is_printed_and_the_program_goes_on(capsys):
    """Without a notebook; a block without an error says nothing."""
    with dl.in_words():
        raise dl.errors.CheckpointError("a.ckpt: it is cut; copy it again")
    assert capsys.readouterr().out == "CheckpointError: a.ckpt: it is cut; copy it again\n"
    with dl.in_words():
        pass
    assert capsys.readouterr().out == ""


def test_other_errors_pass():
    """They are mistakes of the program, and want their traceback."""
    with pytest.raises(ZeroDivisionError), dl.in_words():
        1 // 0  # noqa: B018


def test_in_a_notebook_it_is_an_output(monkeypatch):
    """Text and HTML, in which the words are no markup."""
    monkeypatch.setattr("IPython.core.getipython.get_ipython", InteractiveShell.instance)
    with capture_output() as captured, dl.in_words():
        raise dl.errors.ReshardError("w: <b>\na hole")
    InteractiveShell.clear_instance()
    (shown,) = captured.outputs
    assert shown.data["text/plain"] == "ReshardError: w: <b>\na hole"
    assert "w: &lt;b&gt;<br>a hole" in shown.data["text/html"]
    assert 'role="alert"' in shown.data["text/html"]
